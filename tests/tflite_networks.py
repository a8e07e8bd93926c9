"""Random networks as `Graph`s, with output scales that fill the int8 range."""

import dataclasses

import integer_reference
import numpy as np

from daqu_tf.tflite_graph import (
    Add,
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    GlobalAveragePool,
    Graph,
    Operator,
    QuantizedTensor,
)


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

    def conv(self, source: str, channels: int, kernel: int = 3, stride: int = 1, relu: bool = True) -> str:
        constants = self._kernel((channels, kernel, kernel, self._channels(source)), channels, self.weight_bits)
        return self._add(Conv2D(source, self._name("conv"), *constants, stride, relu))

    def depthwise(self, source: str, kernel: int = 3, stride: int = 1, relu: bool = True) -> str:
        channels = self._channels(source)
        constants = self._kernel((1, kernel, kernel, channels), channels, 8)
        return self._add(DepthwiseConv2D(source, self._name("depthwise"), *constants, stride, relu))

    def dense(self, source: str, channels: int, relu: bool = False) -> str:
        constants = self._kernel((channels, self._channels(source)), channels, self.weight_bits)
        container = "INT4" if self.weight_bits <= 4 else "INT8"
        return self._add(FullyConnected(source, self._name("dense"), *constants, container, relu))

    def pointwise(self, source: str, channels: int, relu: bool = False) -> str:
        dense = self.weight_bits <= 4
        return self.dense(source, channels, relu) if dense else self.conv(source, channels, 1, 1, relu)

    def add(self, a: str, b: str, relu: bool = False) -> str:
        return self._add(Add(a, b, self._name("add"), relu))

    def pool(self, source: str) -> str:
        return self._add(GlobalAveragePool(source, self._name("pool")))

    def _channels(self, name: str) -> int:
        return self.tensors[name].shape[-1]

    def _name(self, kind: str) -> str:
        return f"{kind}_{len(self.operators)}"

    def _kernel(self, shape: tuple[int, ...], channels: int, bits: int) -> tuple[np.ndarray, ...]:
        limit = 2 ** (bits - 1) - 1
        weights = self.rng.integers(-limit, limit + 1, shape).astype(np.int8)
        size = limit * np.sqrt(np.prod(shape) / channels)
        scales = (self.rng.uniform(0.5, 1.5, channels) / size).astype(np.float32)
        return weights, scales, self.rng.integers(-200, 200, channels).astype(np.int32)

    def _add(self, operator: Operator) -> str:
        self.operators.append(operator)
        shape = operator.output_shape(*(self.tensors[name].shape for name in operator.inputs))
        self.tensors[operator.output] = self._output(operator, shape)
        inputs = (self.values[name] for name in operator.inputs)
        self.values[operator.output] = integer_reference.compute(self.graph(""), operator, *inputs)
        return operator.output

    def _output(self, operator: Operator, shape: tuple[int, ...]) -> QuantizedTensor:
        """Gives the output the scale at which its values just fit."""
        name = operator.output
        self.tensors[name] = QuantizedTensor(name, shape, 1.0, 0)
        inputs = (self.values[name] for name in operator.inputs)
        peak = np.abs(integer_reference.reals(self.graph(""), operator, *inputs)).max()
        if not getattr(operator, "relu", False):
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


def single_operator(graph: Graph, operator: Operator) -> Graph:
    """The network that is only this operator of `graph`, on its first input (an addition gets it twice)."""
    tensors = {tensor.name: tensor for tensor in graph.tensors}
    if isinstance(operator, Add):
        operator = dataclasses.replace(operator, b=operator.a)
    return Graph((tensors[operator.inputs[0]], tensors[operator.output]), (operator,), operator.inputs[0], operator.output)
