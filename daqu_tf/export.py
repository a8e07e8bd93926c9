"""A subnet's trained integers as a `.tflite` file.

The file is written directly (`tflite_file.py`), so the integers that were trained are the integers that ship, at any width. Batch
normalization only changes the per-channel scale of the weights, and the sign of channels whose gamma is negative.
"""

import dataclasses
import os
from collections.abc import Mapping

import numpy as np

from daqu_tf import atomic, tflite_file
from daqu_tf.errors import DaquError
from daqu_tf.quantizers import activation_range, weight_range
from daqu_tf.space import FIXED_BITS, Layer, SearchSpace, Subnet
from daqu_tf.targets import Target
from daqu_tf.tflite_graph import (
    Add,
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    GlobalAveragePool,
    Graph,
    QuantizedTensor,
)

EPSILON = 1e-3  # Of batch normalization, as in `layers.py`.
# A channel whose weights cannot move its output by this share of a step is a constant: its tiny scale would be illegal.
DEAD_STEPS = 1e-2
MOST_STEPS = 255.5  # Of the output in one unit of the accumulator: more saturates all the same, and 256 is more than kernels take.


@dataclasses.dataclass
class _Builder:
    """Collects tensors and operators in order; `x` is the tensor that the next layer reads."""

    space: SearchSpace
    subnet: Subnet
    target: Target
    arrays: Mapping[str, np.ndarray]
    tensors: list[QuantizedTensor]
    operators: list
    offsets: dict[str, np.ndarray]  # By layer: what its int32 biases stand for.

    @property
    def x(self) -> QuantizedTensor:
        return self.tensors[-1]

    def add_layer(self, layer: Layer, x: QuantizedTensor) -> None:
        signed = not layer.relu
        tensor = "logits" if layer.kind == "dense" else f"{layer.name}.normalize"
        shape = (1, *layer.output_size, layer.output_channels) if layer.kind != "dense" else (1, layer.output_channels)
        output = self.tensor(tensor, layer.name, shape, layer.output_bits, signed)
        folded = fold(*self.integers(layer), *self.normalization(layer), x.scale, output.scale)
        weights, scales, bias, self.offsets[layer.name] = folded
        arguments = (x.name, output.name, weights, scales, bias)
        relu = layer.relu
        if self.target.container(layer) == "INT4" or layer.kind == "dense":
            self.operators.append(FullyConnected(*arguments, container=self.target.container(layer), relu=relu))
        elif layer.kind == "depthwise":
            depthwise = (x.name, output.name, weights.T.reshape(1, layer.kernel, layer.kernel, -1), scales, bias)
            self.operators.append(DepthwiseConv2D(*depthwise, stride=layer.stride, relu=relu))
        else:
            size = layer.kernel
            convolution = (x.name, output.name, weights.reshape(-1, size, size, layer.input_channels), scales, bias)
            self.operators.append(Conv2D(*convolution, stride=layer.stride, relu=relu))

    def tensor(self, steps: str, name: str, shape: tuple[int, ...], bits: int, signed: bool) -> QuantizedTensor:
        """Declares an activation tensor; after a ReLU the zero point makes int8's own saturation clip at 2^b - 1 steps."""
        step = self.step(f"{steps}/activation_log_step", bits)
        zero_point = 0 if signed else 127 - activation_range(bits, signed)[1]
        self.tensors.append(QuantizedTensor(name, shape, step, zero_point))
        return self.x

    def step(self, name: str, bits: int) -> np.ndarray:
        """The learned step of a width: a number, or one per channel; float32 as in training."""
        steps = np.exp(self.arrays[name].astype(np.float32))
        searched = self.space.activation_bits if "activation" in name else self.space.weight_bits
        alphabet = searched if len(steps) == len(searched) and bits in searched else (FIXED_BITS,)
        step = steps[alphabet.index(bits)]
        return float(step) if step.ndim == 0 else step

    def integers(self, layer: Layer) -> tuple[np.ndarray, np.ndarray]:
        """The trained codes (output channels, rest) and their steps (output channels,)."""
        kernel = self.arrays[f"{layer.name}/kernel"]
        step = self.step(f"{layer.name}/kernel_log_step", layer.weight_bits)
        rows = kernel[..., 0] if layer.kind == "depthwise" else kernel
        rows = np.moveaxis(rows, -1, 0).reshape(rows.shape[-1], -1)
        return np.clip(np.round(rows / step[:, None]), *weight_range(layer.weight_bits)).astype(np.int32), step

    def normalization(self, layer: Layer) -> tuple[np.ndarray, np.ndarray]:
        """Factor and offset per output channel of what follows the convolution."""
        if layer.kind == "dense":
            return np.ones(layer.output_channels), self.arrays["classifier/bias"]
        factor, mean = _factor_and_mean(self.arrays, layer)
        return factor, self.arrays[f"{layer.name}.normalize/beta"] - mean * factor

    def add_residual(self, layer: Layer, shortcut: QuantizedTensor) -> None:
        block = layer.name.rpartition(".")[0]
        projected = self.x
        total = self.tensor(f"{block}.sum", f"{block}.sum", projected.shape, FIXED_BITS, signed=True)
        self.operators.append(Add(shortcut.name, projected.name, total.name))


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
        offset = offsets[layer.name]
        if layer.kind == "dense":
            rounded["classifier/bias"] = offset.astype(np.float32)
        else:
            factor, mean = _factor_and_mean(arrays, layer)
            rounded[f"{layer.name}.normalize/beta"] = (offset + mean * factor).astype(np.float32)
    return rounded


def to_graph(space: SearchSpace, subnet: Subnet, target: Target, arrays: Mapping[str, np.ndarray]) -> Graph:
    """The integer graph of a subnet.

    Args:
        space: The space of the network that the arrays are from.
        subnet: What is exported.
        target: Decides the containers.
        arrays: `StaticNetwork.arrays()` of that subnet.
    """
    builder = _build(space, subnet, target, arrays)
    return Graph(tuple(builder.tensors), tuple(builder.operators), "image", "classifier")


def _build(space: SearchSpace, subnet: Subnet, target: Target, arrays: Mapping[str, np.ndarray]) -> _Builder:
    images = QuantizedTensor("image", (1, *space.input_shape), 1.0 / 255.0, -128)
    builder = _Builder(space, subnet, target, arrays, [images], [], {})
    stream = images
    for layer in space.layers(subnet):
        if layer.kind == "dense":
            size = layer.input_channels
            features = builder.x
            pooled = builder.tensor("pooled", "pooled", (1, size), FIXED_BITS, signed=False)
            builder.operators.append(GlobalAveragePool(features.name, pooled.name))
        builder.add_layer(layer, builder.x)
        if layer.residual:
            builder.add_residual(layer, stream)
        if not layer.relu:
            stream = builder.x
    return builder


def export_tflite(
    space: SearchSpace, subnet: Subnet, target: Target, arrays: Mapping[str, np.ndarray], path: str | os.PathLike
) -> None:
    """Writes a subnet to `path`, after reading the bytes back and comparing every integer and scale.

    Args:
        space: The space of the network that the arrays are from.
        subnet: What is exported.
        target: Decides the containers.
        arrays: `StaticNetwork.arrays()` of that subnet.
        path: Of the `.tflite` file; it is there whole or not at all.

    Raises:
        DaquError: The file does not hold what was trained, or cannot be written.
    """
    graph = to_graph(space, subnet, target, arrays)
    data = tflite_file.write(graph)
    if tflite_file.read(data) != graph:
        raise DaquError(f"The file for {path} does not hold the trained integers: please report this subnet: {subnet}.")
    try:
        atomic.write_bytes(path, data)
    except OSError as error:
        raise DaquError(f"{path} cannot be written ({error.strerror}): choose another output path.") from error


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
