"""Random networks as `Graph`s, with output scales that fill the int8 range."""

import dataclasses

import integer_reference
import numpy as np

from daqu_tf.tflite.graph import Graph, QuantizedTensor, gate, hard_swish
from daqu_tf.tflite.operators import Add, AddConstant, Concatenate, GlobalAveragePool, MaxPool, Multiply, Operator, Pad, Reshape
from daqu_tf.tflite.weighted import Conv2D, DepthwiseConv2D, FullyConnected, Weighted
from daqu_tf.tflite.widening import for_double_rounding


class RandomNetwork:
    """Grows a graph operator by operator; every method takes and returns tensor names.

    Args:
        shape: Of the input.
        weight_bits: Bits of all weights but depthwise ones; up to 4, dense ones go into INT4.
        activation_bits: Bits of tensors after a ReLU.
    """

    def __init__(self, seed: int, shape: tuple[int, ...], weight_bits: int = 8, activation_bits: int = 8):
        self.rng = np.random.default_rng(seed)
        self.weight_bits = weight_bits
        self.activation_bits = activation_bits
        self.tensors = {"input": QuantizedTensor("input", shape, 1 / 64, -3)}
        self.values = {"input": self.rng.integers(-128, 128, shape).astype(np.int8)}
        self.operators = []

    def graph(self, output: str) -> Graph:
        return Graph(tuple(self.tensors.values()), tuple(self.operators), "input", output)

    def conv(self, source: str, channels: int, kernel: int = 3, stride: int = 1, relu: bool = True, padding: str = "SAME") -> str:
        constants = self._kernel(source, (channels, kernel, kernel, self._channels(source)), channels, self.weight_bits)
        return self._add(Conv2D(source, self._name("conv"), *constants, stride, relu, padding))

    def depthwise(self, source: str, kernel: int = 3, stride: int = 1, relu: bool = True, padding: str = "SAME") -> str:
        channels = self._channels(source)
        constants = self._kernel(source, (1, kernel, kernel, channels), channels, 8)
        return self._add(DepthwiseConv2D(source, self._name("depthwise"), *constants, stride, relu, padding))

    def dense(self, source: str, channels: int, relu: bool = False) -> str:
        constants = self._kernel(source, (channels, self._channels(source)), channels, self.weight_bits)
        container = "INT4" if self.weight_bits <= 4 else "INT8"
        return self._add(FullyConnected(source, self._name("dense"), *constants, container, relu))

    def pointwise(self, source: str, channels: int, relu: bool = False) -> str:
        dense = self.weight_bits <= 4
        return self.dense(source, channels, relu) if dense else self.conv(source, channels, 1, 1, relu)

    def add(self, a: str, b: str, relu: bool = False) -> str:
        return self._add(Add(a, b, self._name("add"), relu))

    def add_constant(self, source: str, constant: float) -> str:
        return self._add(AddConstant(source, self._name("shift"), constant))

    def multiply(self, a: str, b: str) -> str:
        return self._add(Multiply(a, b, self._name("multiply")))

    def pool(self, source: str, keepdims: bool = False) -> str:
        return self._add(GlobalAveragePool(source, self._name("pool"), keepdims))

    def max_pool(self, source: str, size: tuple[int, int] = (2, 2), stride: int = 2, padding: str = "VALID") -> str:
        return self._move(MaxPool(source, self._name("max_pool"), size, stride, padding))

    def concatenate(self, a: str, b: str) -> str:
        return self._move(Concatenate((a, b), self._name("concatenate")))

    def pad(self, source: str, pads: tuple[tuple[int, int], tuple[int, int]]) -> str:
        return self._move(Pad(source, self._name("pad"), pads))

    def reshape(self, source: str, *shape: int) -> str:
        return self._move(Reshape(source, self._name("reshape"), shape))

    def flatten(self, source: str) -> str:
        return self.reshape(source, 1, int(np.prod(self.tensors[source].shape)))

    def squeeze_excite(self, source: str) -> str:
        squeezed = self.dense(self.pool(source), max(1, self._channels(source) // 4), relu=True)
        return self.multiply(source, self._hard_sigmoid(squeezed, self._channels(source)))

    def hard_swish(self, source: str) -> str:
        """Takes what `source` holds as x / sqrt(6)."""
        clipped, add_constant, multiply = hard_swish(self.tensors[source], self._name("swish"))
        self._add(add_constant, clipped)
        return self._add(multiply)

    def _hard_sigmoid(self, source: str, channels: int) -> str:
        name, container = self._name("gate"), "INT4" if self.weight_bits <= 4 else "INT8"
        weights, scales, _ = self._kernel(source, (channels, self._channels(source)), channels, self.weight_bits)
        half = np.rint(0.5 / (self.tensors[source].scale * scales)).astype(np.int32)
        return self._add(FullyConnected(source, name, weights, scales, half, container), gate(name, (1, channels)))

    def _channels(self, name: str) -> int:
        return self.tensors[name].shape[-1]

    def _name(self, kind: str) -> str:
        return f"{kind}_{len(self.operators)}"

    def _kernel(self, source: str, shape: tuple[int, ...], channels: int, bits: int) -> tuple[np.ndarray, ...]:
        """Scales at which the output is about as large as hard swishes and gates need it, whatever the input."""
        limit = 2 ** (bits - 1) - 1
        weights = self.rng.integers(-limit, limit + 1, shape).astype(np.int8)
        size = limit * np.sqrt(np.prod(shape) / channels) * 32 * self.tensors[source].scale
        scales = (self.rng.uniform(0.5, 1.5, channels) / size).astype(np.float32)
        return weights, scales, self.rng.integers(-200, 200, channels).astype(np.int32)

    def _add(self, operator: Operator, output: QuantizedTensor | None = None) -> str:
        self.operators.append(operator)
        shape = operator.output_shape(*(self.tensors[name].shape for name in operator.inputs))
        self.tensors[operator.output] = output or self._output(operator, shape)
        inputs = (self.values[name] for name in operator.inputs)
        self.values[operator.output] = integer_reference.compute(self.graph(""), operator, *inputs)
        return operator.output

    def _move(self, operator: Concatenate | MaxPool | Pad | Reshape) -> str:
        sources = [self.tensors[name] for name in operator.inputs]
        shape = operator.output_shape(*(source.shape for source in sources))
        return self._add(operator, dataclasses.replace(sources[0], name=operator.output, shape=shape))

    def _output(self, operator: Operator, shape: tuple[int, ...]) -> QuantizedTensor:
        """Gives the output the scale at which its values just fit."""
        name = operator.output
        self.tensors[name] = QuantizedTensor(name, shape, 1.0, 0)
        inputs = (self.values[name] for name in operator.inputs)
        reals = integer_reference.reals(self.graph(""), operator, *inputs)
        peak = np.abs(reals).max()
        is_unsigned = getattr(operator, "relu", False) or (isinstance(operator, Multiply) and reals.min() >= 0)
        if not is_unsigned:
            return QuantizedTensor(name, shape, peak / 127, 3)
        steps = 2**self.activation_bits - 1
        # The zero point so high that saturation at 127 is the highest of the few steps.
        return QuantizedTensor(name, shape, 0.7 * peak / steps, 127 - steps)


def mobile_network(seed: int = 0, size: int = 32, width: int = 16, **bits: int) -> Graph:
    """Stem, inverted bottlenecks with residual sums, pool, classifier."""
    network = RandomNetwork(seed, (1, size, size, 3), **bits)
    source = network.conv(network.conv("input", width, 3, 2), width, 1, 1, relu=False)
    for channels, kernel, stride in ((width, 3, 1), (2 * width, 5, 2), (2 * width, 3, 1), (3 * width, 3, 2)):
        expanded = network.pointwise(source, 4 * network.tensors[source].shape[-1], relu=True)
        projected = network.pointwise(network.depthwise(expanded, kernel, stride), channels)
        is_residual = network.tensors[source].shape == network.tensors[projected].shape
        source = network.add(source, projected) if is_residual else projected
    return network.graph(network.dense(network.pool(source), 10))


def mobile_network_v3(seed: int = 0, size: int = 32, width: int = 16, **bits: int) -> Graph:
    """As `mobile_network`, with squeeze-excite, hard swishes and a second dense layer."""
    network = RandomNetwork(seed, (1, size, size, 3), **bits)
    source = network.hard_swish(network.conv("input", width, 3, 2, relu=False))
    blocks = (
        (width, 3, 2, True, False),
        (2 * width, 3, 1, False, False),
        (2 * width, 5, 1, True, True),
        (3 * width, 5, 2, True, True),
    )
    for channels, kernel, stride, squeezes, swishes in blocks:
        activate = network.hard_swish if swishes else lambda name: name
        expanded = activate(network.pointwise(source, 2 * network.tensors[source].shape[-1], relu=not swishes))
        filtered = activate(network.depthwise(expanded, kernel, stride, relu=not swishes))
        projected = network.pointwise(network.squeeze_excite(filtered) if squeezes else filtered, channels)
        is_residual = network.tensors[source].shape == network.tensors[projected].shape
        source = network.add(source, projected) if is_residual else projected
    pooled = network.pool(network.hard_swish(network.pointwise(source, 4 * width)))
    return network.graph(network.dense(network.hard_swish(network.dense(pooled, 4 * width)), 10))


def residual_network(seed: int = 0, size: int = 32, width: int = 16, **bits: int) -> Graph:
    """Stem, blocks of two convolutions with rectified sums and strided 1x1 shortcuts, pool, a convolution as classifier."""
    network = RandomNetwork(seed, (1, size, size, 3), **bits)
    source = network.conv("input", width, 3, 2)
    for channels, stride in ((width, 1), (2 * width, 2), (3 * width, 2)):
        filtered = network.conv(network.conv(source, channels, 3, stride), channels, 3, 1, relu=False)
        shortcut = source if stride == 1 else network.conv(source, channels, 1, stride, relu=False)
        source = network.add(shortcut, filtered, relu=True)
    logits = network.conv(network.pool(source, keepdims=True), 10, 1, relu=False)
    return network.graph(network.flatten(logits))


def classic_network(seed: int = 0, size: int = 31, width: int = 16, **bits: int) -> Graph:
    """Zeros and convolutions without padding, the largest of each window, and dense layers on all that is left."""
    network = RandomNetwork(seed, (1, size, size, 3), **bits)
    source = network.conv(network.pad("input", ((3, 2), (0, 1))), width, 5, 2, padding="VALID")
    source = network.max_pool(network.conv(source, 2 * width, padding="VALID"), (3, 2), 2, "SAME")
    source = network.concatenate(source, network.max_pool(source, (3, 3), 1, "SAME"))
    source = network.max_pool(network.depthwise(source, padding="VALID"), (2, 2), 1)
    source = network.dense(network.dense(network.flatten(source), 4 * width, relu=True), 4 * width, relu=True)
    return network.graph(network.dense(source, 10))


def widened(graph: Graph) -> Graph:
    """The graph with INT8 weights as they are written for kernels that round twice."""
    scales = {tensor.name: tensor.scale for tensor in graph.tensors if isinstance(tensor, QuantizedTensor)}
    return dataclasses.replace(graph, operators=tuple(_widened(operator, scales) for operator in graph.operators))


def _widened(operator: Operator, scales: dict[str, float]) -> Operator:
    if not isinstance(operator, Weighted) or operator.container != "INT8" or operator.in_float:
        return operator
    codes = np.moveaxis(operator.weights, operator.channels_axis, 0).reshape(len(operator.bias), -1)
    powers = for_double_rounding(codes, operator.bias_scales(scales[operator.input]) / scales[operator.output], 127)
    powers = np.where(np.abs(operator.bias.astype(np.int64)) * powers <= 2**30, powers, 1)
    shape = [-1 if axis == operator.channels_axis else 1 for axis in range(operator.weights_ndim)]
    weights, bias = operator.weights * powers.reshape(shape), operator.bias * powers
    scales = operator.weight_scales / powers.astype(np.float32)
    return dataclasses.replace(operator, weights=weights.astype(np.int8), weight_scales=scales, bias=bias.astype(np.int32))
