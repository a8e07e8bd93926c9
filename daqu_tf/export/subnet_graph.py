"""The graph of a searched subnet, with its trained integers, and with real numbers where it has 32 bits."""

import math
from collections.abc import Iterable, Mapping

import numpy as np

from daqu_tf.errors import DaquError
from daqu_tf.spaces.architecture import image_size, walk
from daqu_tf.spaces.bits import FLOAT_BITS, activation_range
from daqu_tf.spaces.layer import RELUS, Layer
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.subnet import Subnet
from daqu_tf.supernet import weights
from daqu_tf.supernet.weights import EPSILON
from daqu_tf.targets.builder import GraphBuilder, Kernel
from daqu_tf.targets.storage import Storage
from daqu_tf.tflite.graph import FloatTensor, Graph, QuantizedTensor, Tensor, gate, hard_swish
from daqu_tf.tflite.operators import Add, GlobalAveragePool, Minimum, Multiply


class LayerBuilder:
    """Adds the layers of a subnet to a graph.

    Args:
        space: The space of the network that the arrays are from.
        subnet: The subnet, which has the bits of the layers.
        arrays: The weights by name of the layers that are added, as `StaticNetwork.arrays()` gives them.
        storage: The storage, which decides the containers.

    Attributes:
        offsets: The offset (output channels,) that the stored bias of each layer stands for, by the name of the layer.
    """

    def __init__(self, space: SearchSpace, subnet: Subnet, arrays: Mapping[str, np.ndarray], storage: Storage):
        self.space, self.subnet, self.arrays = space, subnet, arrays
        self.graph = GraphBuilder(storage)
        self.offsets: dict[str, np.ndarray] = {}

    def build(self) -> Graph:
        """The graph of the whole subnet, which reads images at its resolution."""
        self.check_steps()
        size = image_size(self.space.input_shape, self.subnet["resolution"])
        shape = (1, *size, self.space.input_shape[2])
        in_float = self.subnet.fixed_bits == FLOAT_BITS
        pixels = QuantizedTensor("image", shape, 1 / 255, self.space.input_zero_code - 128)
        image = self.graph.declare(FloatTensor("image", shape) if in_float else pixels)
        return self.chain(image, self.space.layers(self.subnet))

    def chain(self, source: Tensor, layers: Iterable[Layer]) -> Graph:
        """The graph of layers one behind another, the first of which reads `source`."""
        return self.graph.graph(source.name, walk(layers, source, self.add).name)

    def check_steps(self) -> None:
        """Raises `DaquError` if the subnet is quantized and no step was ever set."""
        steps = (array for name, array in self.arrays.items() if name.endswith("_log_step"))
        if self.subnet.fixed_bits != FLOAT_BITS and not any(array.any() for array in steps):
            raise DaquError("The network must have steps, but they were never set: call its `initialise_steps` first.")

    def add(self, layer: Layer, x: Tensor, other: Tensor) -> Tensor:
        """Adds a layer with all that belongs to it.

        Args:
            layer: The layer.
            x: The tensor that it reads.
            other: The second addend of a sum, or the tensor that is gated.

        Returns:
            The tensor that the layer leaves behind.
        """
        if layer.pools:
            pooled = self.tensor(layer, "pooled", (1, x.shape[-1]))
            x = self.graph.add(GlobalAveragePool(x.name, pooled.name), pooled)
        x = self.add_weighted(layer, x)
        if layer.activation == "hard_swish":
            x = self.add_hard_swish(layer, x)
        if layer.gates:
            product = self.tensor(layer, "product", other.shape)
            x = self.graph.add(Multiply(other.name, x.name, product.name), product)
        if layer.residual:
            total = self.tensor(layer, "sum", x.shape)
            x = self.graph.add(Add(other.name, x.name, total.name, relu=layer.residual == "relu"), total)
        return x

    def add_weighted(self, layer: Layer, x: Tensor) -> Tensor:
        """Adds the operator with the layer's kernel, batch normalization and ReLU, and gives its output."""
        shape = (1, layer.output_channels) if layer.kind == "dense" else (1, *layer.output_size, layer.output_channels)
        real = layer.gates and self.bits(layer, "product") == FLOAT_BITS
        kind = "output" if layer.kind == "dense" else "normalize"
        output = gate(layer.name, shape) if layer.gates else self.tensor(layer, kind, shape)
        factor, offset = self.normalization(layer)
        is_clipped = isinstance(output, FloatTensor) and math.isfinite(layer.ceiling)  # int8 clips by itself.
        written = FloatTensor(f"{output.name}.unclipped", shape) if is_clipped else output
        added = self.graph.add_weighted(self.kernel(layer), x, written, factor, offset, layer.activation in RELUS, real)
        written, self.offsets[layer.name] = added
        return self.graph.add(Minimum(written.name, output.name, layer.ceiling), output) if is_clipped else written

    def add_hard_swish(self, layer: Layer, x: Tensor) -> Tensor:
        """Adds the operators of a hard-swish, for a tensor `x` that holds its input over sqrt(6), and gives the output."""
        output = self.tensor(layer, "hard_swish", x.shape)
        clipped, shifted, product = hard_swish(x, output.name)
        self.graph.add(shifted, clipped, real=isinstance(output, FloatTensor))
        return self.graph.add(product, output)

    def tensor(self, layer: Layer, kind: str, shape: tuple[int, ...]) -> Tensor:
        """The layer's activation tensor of this kind; behind a ReLU, its zero point makes int8 saturate at 2^b - 1 steps."""
        learned, bits = f"{layer.name}.{kind}", self.bits(layer, kind)
        name = layer.name if kind in ("normalize", "output") else learned
        if bits == FLOAT_BITS:
            return FloatTensor(name, shape)
        step = float(weights.step(self.space, self.arrays, f"{learned}/activation_log_step", bits))
        if kind == "normalize":
            step = step / _shrink(layer)
        return QuantizedTensor(name, shape, step, 127 - activation_range(bits, layer.tensors[learned])[1])

    def bits(self, layer: Layer, kind: str) -> int:
        """The bits of the layer's activation tensor of this kind."""
        is_left, fixed = f"{layer.name}.{kind}" == layer.left_tensor, self.subnet.fixed_bits
        return self.subnet.values.get(f"{layer.name}.activation_bits", fixed) if is_left else fixed

    def kernel(self, layer: Layer) -> Kernel:
        """The trained weights of a layer."""
        bits = self.subnet.values.get(f"{layer.name}.weight_bits", self.subnet.fixed_bits)
        in_float, name = bits == FLOAT_BITS, f"{layer.name}/kernel_log_step"
        steps = None if in_float else weights.step(self.space, self.arrays, name, bits)
        return Kernel.of(layer.kind, self.arrays[f"{layer.name}/kernel"], steps, bits, stride=layer.stride)

    def normalization(self, layer: Layer) -> tuple[np.ndarray, np.ndarray]:
        """The factor and the offset (output channels,) of what follows the kernel; for a gate, with those of the hard sigmoid."""
        if layer.kind == "dense":
            factor, offset = np.ones(layer.output_channels), self.arrays[f"{layer.name}/bias"].astype(np.float64)
        else:
            factor, mean = _factor_and_mean(self.arrays, layer)
            offset = self.arrays[f"{layer.name}.normalize/beta"] - mean * factor
        if layer.gates:
            return factor / 6, offset / 6 + 0.5
        return factor / _shrink(layer), offset / _shrink(layer)


def _shrink(layer: Layer) -> float:
    """The number by which a layer's output is divided in the file, since the operators of a hard-swish read x / sqrt(6)."""
    return math.sqrt(6) if layer.activation == "hard_swish" else 1.0


def _factor_and_mean(arrays: Mapping[str, np.ndarray], layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    names = ("gamma", "moving_mean", "moving_variance")
    gamma, mean, variance = (arrays[f"{layer.name}.normalize/{name}"].astype(np.float64) for name in names)
    return gamma / np.sqrt(variance + EPSILON), mean


def to_graph(space: SearchSpace, subnet: Subnet, arrays: Mapping[str, np.ndarray], storage: Storage) -> Graph:
    """The graph of a subnet, which reads images in [0, 1] less the space's zero, or their integers, at the subnet's resolution.

    Args:
        space: The space of the network that the arrays are from.
        subnet: The subnet to export.
        arrays: The weights by name of the subnet's network, as `StaticNetwork.arrays()` gives them.
        storage: The storage, which decides the containers.
    """
    return LayerBuilder(space, subnet, arrays, storage).build()


def round_biases(space: SearchSpace, subnet: Subnet, arrays: Mapping[str, np.ndarray], storage: Storage) -> dict[str, np.ndarray]:
    """The offsets that a file's int32 biases hold exactly, with which the simulation computes what the file does.

    Args:
        space: The space of the network that the arrays are from.
        subnet: The subnet that will be exported.
        arrays: The weights by name of the subnet's network, as `StaticNetwork.arrays()` gives them.
        storage: How the file stores the network: biases are the coarser, the fewer bits its containers have to spare.

    Returns:
        The arrays that change, by their names.
    """
    builder, rounded = LayerBuilder(space, subnet, arrays, storage), {}
    builder.build()
    for layer in space.layers(subnet):
        offset = builder.offsets[layer.name] * _shrink(layer)
        if layer.kind == "dense":
            bias = (offset - 0.5) * 6 if layer.gates else offset
            rounded[f"{layer.name}/bias"] = bias.astype(np.float32)
        else:
            factor, mean = _factor_and_mean(arrays, layer)
            rounded[f"{layer.name}.normalize/beta"] = (offset + mean * factor).astype(np.float32)
    return rounded
