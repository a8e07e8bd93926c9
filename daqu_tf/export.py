"""A subnet's trained integers as a `.tflite` file.

The file is written directly (`tflite_file.py`), so the integers that were trained are the integers that ship, at any width. Batch
normalization only changes the per-channel scale of the weights, and the sign of channels whose gamma is negative; a file for
tflite-runtime holds them times powers of two.
"""

import dataclasses
import math
import os
from collections.abc import Mapping

import numpy as np

from daqu_tf import atomic, tflite_file, tflite_metadata, weights
from daqu_tf.architecture import image_size, walk
from daqu_tf.errors import DaquError
from daqu_tf.quantizers import activation_range, weight_range
from daqu_tf.space import FIXED_BITS, Layer, SearchSpace, Subnet, check_integer
from daqu_tf.targets import Target
from daqu_tf.tflite_graph import Graph, QuantizedTensor, gate, hard_swish, widened
from daqu_tf.tflite_metadata import Metadata
from daqu_tf.tflite_operators import Add, Conv2D, DepthwiseConv2D, FullyConnected, GlobalAveragePool, Multiply, Quantize, Weighted

EPSILON = 1e-3  # Of batch normalization, as in `layers.py`.
# A channel whose weights cannot move its output by this share of a step is a constant: its tiny scale would be illegal.
DEAD_STEPS = 1e-2
INPUT_TYPES = ("int8", "uint8")
MOST_STEPS = 255.5  # Of the output in one unit of the accumulator: more saturates all the same, and 256 is more than kernels take.


@dataclasses.dataclass
class _Builder:
    """Collects tensors and operators in order."""

    space: SearchSpace
    target: Target
    arrays: Mapping[str, np.ndarray]
    tensors: list[QuantizedTensor]
    operators: list
    offsets: dict[str, np.ndarray]  # By layer: what its int32 biases stand for.

    def add(self, layer: Layer, x: QuantizedTensor, other: QuantizedTensor) -> QuantizedTensor:
        """A layer with all that belongs to it; returns the tensor that it leaves."""
        if layer.pools:
            pooled = self.tensor(layer, "pooled", (1, x.shape[-1]))
            self.operators.append(GlobalAveragePool(x.name, pooled.name))
            x = pooled
        x = self.add_weighted(layer, x)
        if layer.activation == "hard_swish":
            output = self.tensor(layer, "hard_swish", x.shape)
            clipped, *operators = hard_swish(x, output.name)
            self.tensors.append(clipped)
            self.operators += operators
            x = output
        if layer.gates:
            product = self.tensor(layer, "product", other.shape)
            self.operators.append(Multiply(other.name, x.name, product.name))
            x = product
        if layer.residual:
            total = self.tensor(layer, "sum", x.shape)
            self.operators.append(Add(other.name, x.name, total.name, relu=layer.residual == "relu"))
            x = total
        return x

    def add_weighted(self, layer: Layer, x: QuantizedTensor) -> QuantizedTensor:
        """The operator with the layer's kernel, batch normalization and ReLU."""
        shape = (1, layer.output_channels) if layer.kind == "dense" else (1, *layer.output_size, layer.output_channels)
        if layer.gates:
            output = gate(layer.name, shape)
            self.tensors.append(output)
        else:
            output = self.tensor(layer, "output" if layer.kind == "dense" else "normalize", shape)
        factor, offset = self.normalization(layer)
        codes, scales, bias, self.offsets[layer.name] = fold(*self.integers(layer), factor, offset, x.scale, output.scale)
        arguments = {"weight_scales": scales, "bias": bias, "relu": layer.activation == "relu"}
        size, ends, container = (layer.kernel, layer.kernel), (x.name, output.name), self.target.container(layer)
        self.operators.append(weighted(layer.kind, container, ends, codes, size, {"stride": layer.stride}, **arguments))
        return output

    def tensor(self, layer: Layer, kind: str, shape: tuple[int, ...]) -> QuantizedTensor:
        """Declares an activation tensor; after a ReLU the zero point makes int8's own saturation clip at 2^b - 1 steps."""
        learned = f"{layer.name}.{kind}"
        bits = layer.output_bits if learned == layer.left_tensor else FIXED_BITS
        signed = layer.tensors[learned]
        step = float(weights.step(self.space, self.arrays, f"{learned}/activation_log_step", bits))
        if kind == "normalize":
            step = step / _shrink(layer)
        name = layer.name if kind in ("normalize", "output") else learned
        tensor = QuantizedTensor(name, shape, step, 127 - activation_range(bits, signed)[1])
        self.tensors.append(tensor)
        return tensor

    def integers(self, layer: Layer) -> tuple[np.ndarray, np.ndarray]:
        """The trained codes (output channels, rest) and their steps (output channels,)."""
        kernel = self.arrays[f"{layer.name}/kernel"]
        step = weights.step(self.space, self.arrays, f"{layer.name}/kernel_log_step", layer.weight_bits)
        return trained_codes(layer.kind, kernel, step, layer.weight_bits), step

    def normalization(self, layer: Layer) -> tuple[np.ndarray, np.ndarray]:
        """Factor and offset per output channel of what follows the kernel; of a gate, that of the hard sigmoid too."""
        if layer.kind == "dense":
            factor, offset = np.ones(layer.output_channels), self.arrays[f"{layer.name}/bias"].astype(np.float64)
        else:
            factor, mean = _factor_and_mean(self.arrays, layer)
            offset = self.arrays[f"{layer.name}.normalize/beta"] - mean * factor
        if layer.gates:
            return factor / 6, offset / 6 + 0.5
        return factor / _shrink(layer), offset / _shrink(layer)


def _shrink(layer: Layer) -> float:
    """What a layer's output is divided by in the file: the operators of a hard-swish read x / sqrt(6)."""
    return math.sqrt(6) if layer.activation == "hard_swish" else 1.0


def trained_codes(kind: str, kernel: np.ndarray, step: np.ndarray, bits: int) -> np.ndarray:
    """The trained codes of a kernel, shape (output channels, rest).

    Args:
        kind: `depthwise`, or one of those with the output channels last.
        kernel: As Keras has it.
        step: One for each output channel.
        bits: 2 to 8.
    """
    rows = kernel[..., 0] if kind == "depthwise" else kernel
    rows = np.moveaxis(rows, -1, 0).reshape(rows.shape[-1], -1)
    return np.clip(np.round(rows / step[:, None]), *weight_range(bits)).astype(np.int32)


def weighted(
    kind: str,
    container: str,
    ends: tuple[str, str],
    codes: np.ndarray,
    size: tuple[int, int],
    window: Mapping[str, int | str],
    **arguments: object,
) -> Weighted:
    """The operator with a kernel; the pointwise convolution that is stored as INT4 is a FULLY_CONNECTED.

    Args:
        kind: `dense`, `pointwise`, `depthwise` or another convolution.
        container: `INT8`, or `INT4` for a dense or a pointwise kernel.
        ends: Names of the tensors that it reads and writes.
        codes: Integers (output channels, rest).
        size: Height and width of the kernel, if it is a convolution's.
        window: The `stride` of a convolution, and its `padding` where that is not SAME.
        **arguments: `weight_scales`, `bias` and `relu`.
    """
    if container == "INT4" or kind == "dense":
        return FullyConnected(*ends, codes, container=container, **arguments)
    if kind == "depthwise":
        return DepthwiseConv2D(*ends, codes.T.reshape(1, *size, -1), **window, **arguments)
    return Conv2D(*ends, codes.reshape(len(codes), *size, -1), **window, **arguments)


def fold(
    codes: np.ndarray, step: np.ndarray, factor: np.ndarray, offset: np.ndarray, input_scale: float, output_scale: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Folds batch normalization into scale and sign of the weights, and makes constants of dead channels.

    Where one unit of the accumulator already is more than the output's whole range, a smaller scale, which runtimes can
    hold, saturates just the same.

    Args:
        codes: Trained integers (channels, rest).
        step: Their steps (channels,).
        factor: gamma / sigma (channels,).
        offset: beta - mean * gamma / sigma (channels,).
        input_scale: Step of the tensor that is read.
        output_scale: Step of the tensor that is written.

    Returns:
        Weights int8 (channels, rest), their scales float32 (channels,), int32 bias (channels,), and the offset that the
        bias stands for (channels,).
    """
    scale = np.abs(factor) * step
    reach = np.abs(codes).sum(axis=1) * 255.0 * input_scale * scale
    limit = 2**30  # Leaves room in int32 for the accumulator.
    # A bias beyond it belongs to a channel that its weights move by less than a step, too.
    dead = (reach < DEAD_STEPS * output_scale) | (np.abs(offset) > limit * input_scale * scale)
    codes = np.where(dead[:, None], 0, codes * np.where(factor < 0, -1, 1)[:, None])
    # A constant needs only a scale at which its bias is exact to a small part of an output step.
    scale = np.where(dead, output_scale / input_scale * 2.0**-12, scale).astype(np.float32)
    unit = np.float64(input_scale) * scale
    bias = np.clip(np.round(offset / unit), -limit, limit)
    scale = np.minimum(scale, np.float32(MOST_STEPS * output_scale / input_scale))
    return codes.astype(np.int8), scale, bias.astype(np.int32), bias * unit


def _factor_and_mean(arrays: Mapping[str, np.ndarray], layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    names = ("gamma", "moving_mean", "moving_variance")
    gamma, mean, variance = (arrays[f"{layer.name}.normalize/{name}"].astype(np.float64) for name in names)
    return gamma / np.sqrt(variance + EPSILON), mean


def round_biases(space: SearchSpace, subnet: Subnet, target: Target, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays with offsets that the file's int32 biases hold exactly, so that the simulation computes what the file does.

    A bias counts in input scale x weight scale, which at 2 or 3 weight bits is a good part of an output step.

    Args:
        space: The space of the network that the arrays are from.
        subnet: What will be exported.
        target: Decides the containers.
        arrays: `StaticNetwork.arrays()` of that subnet.
    """
    offsets, rounded = _build(space, subnet, target, arrays).offsets, dict(arrays)
    for layer in space.layers(subnet):
        offset = offsets[layer.name] * _shrink(layer)
        if layer.kind == "dense":
            bias = (offset - 0.5) * 6 if layer.gates else offset
            rounded[f"{layer.name}/bias"] = bias.astype(np.float32)
        else:
            factor, mean = _factor_and_mean(arrays, layer)
            rounded[f"{layer.name}.normalize/beta"] = (offset + mean * factor).astype(np.float32)
    return rounded


def to_graph(space: SearchSpace, subnet: Subnet, target: Target, arrays: Mapping[str, np.ndarray]) -> Graph:
    """The integer graph of a subnet, which reads images at the subnet's resolution.

    Args:
        space: The space of the network that the arrays are from.
        subnet: What is exported.
        target: Decides the containers, and for which runtime the graph is.
        arrays: `StaticNetwork.arrays()` of that subnet.
    """
    builder = _build(space, subnet, target, arrays)
    graph = Graph(tuple(builder.tensors), tuple(builder.operators), "image", "classifier")
    return widened(graph) if target.runtime == "tflite_runtime" else graph


def _build(space: SearchSpace, subnet: Subnet, target: Target, arrays: Mapping[str, np.ndarray]) -> _Builder:
    check_integer(subnet)
    size = image_size(space.input_shape, subnet["resolution"])
    images = QuantizedTensor("image", (1, *size, space.input_shape[2]), 1.0 / 255.0, -128)
    builder = _Builder(space, target, arrays, [images], [], {})
    walk(space.layers(subnet), images, builder.add)
    return builder


def export_tflite(
    space: SearchSpace,
    subnet: Subnet,
    target: Target,
    arrays: Mapping[str, np.ndarray],
    path: str | os.PathLike,
    metadata: Metadata | None = None,
    input_type: str = "int8",
) -> None:
    """Writes a subnet to `path`, after reading the bytes back and comparing every integer and scale.

    Args:
        space: The space of the network that the arrays are from.
        subnet: What is exported.
        target: Decides the containers.
        arrays: `StaticNetwork.arrays()` of that subnet.
        path: Of the `.tflite` file; it is there whole or not at all.
        metadata: As of `save`.
        input_type: As of `save`.

    Raises:
        DaquError: The file does not hold what was trained, or cannot be written; or there is no such input type.
    """
    save(to_graph(space, subnet, target, arrays), path, metadata, input_type)


def save(graph: Graph, path: str | os.PathLike, metadata: Metadata | None = None, input_type: str = "int8") -> None:
    """Writes a graph to `path`, after reading the bytes back and comparing every integer and scale.

    Args:
        graph: One that reads int8.
        path: Of the `.tflite` file; it is there whole or not at all.
        metadata: What the file tells an application; None leaves the labels and the rest out, which saves about a kilobyte.
        input_type: One of `INPUT_TYPES`: `uint8` takes pixels as they are, `int8` those less 128.

    Raises:
        DaquError: The file does not hold the graph, or cannot be written; or there is no such input type.
    """
    if input_type not in INPUT_TYPES:
        raise DaquError(f"`input_type` must be one of {', '.join(INPUT_TYPES)}, but received {input_type!r}.")
    if input_type == "uint8":
        graph = _with_uint8_input(graph)
    data = tflite_file.write(graph) if metadata is None else tflite_metadata.write(graph, metadata)
    if tflite_file.read(data) != graph:
        raise DaquError(f"The file for {path} does not hold the trained integers: please report the network.")
    try:
        atomic.write_bytes(path, data)
    except OSError as error:
        raise DaquError(f"{path} cannot be written ({error.strerror}): choose another output path.") from error


def _with_uint8_input(graph: Graph) -> Graph:
    """A graph that begins with the change of type; it takes the name of the input, so that applications find it alike."""
    images, first = graph.tensors[0], graph.operators[0]
    pixels = dataclasses.replace(images, zero_point=images.zero_point + 128, type="UINT8")
    shifted = dataclasses.replace(images, name=f"{images.name}.int8")
    operators = (Quantize(pixels.name, shifted.name), dataclasses.replace(first, input=shifted.name), *graph.operators[1:])
    return dataclasses.replace(graph, tensors=(pixels, shifted, *graph.tensors[1:]), operators=operators)


def layer_table(space: SearchSpace, subnet: Subnet, target: Target) -> list[dict[str, object]]:
    """Bits and container of each layer, for the manifest."""
    return [
        {
            "name": layer.name,
            "kind": layer.kind,
            "weight_bits": layer.weight_bits,
            "container": target.container(layer),
            "input_activation_bits": layer.input_bits,
            "weights": layer.weights,
        }
        for layer in space.layers(subnet)
    ]
