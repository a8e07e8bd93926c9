"""What a .tflite file holds, as plain values: int8 tensors, and the operators (`tflite_operators.py`) that compute with them.

A real number r is stored as the integer q = round(r / scale) + zero_point. Weights are symmetric (zero point 0) with
one scale per output channel, and a bias counts in steps of input scale * weight scale. Padding is SAME, or VALID, which is none.
"""

import dataclasses
import math

import numpy as np

from daqu_tf.tflite_checks import check_scales, require
from daqu_tf.tflite_operators import AddConstant, Moving, Multiply, Operator, Shape, Weighted

ACTIVATION_LIMITS = {"INT8": (-128, 127), "UINT8": (0, 255)}
_WIDEST_BIAS = 2**30  # Leaves room in int32 for the sum of products.


@dataclasses.dataclass(frozen=True)
class QuantizedTensor:
    """An activation tensor.

    Args:
        name: Unique in its graph.
        shape: (1, height, width, channels) or (1, channels).
        scale: Real size of one integer step; rounded to the float32 that the file stores.
        zero_point: The integer that stands for 0.0: of int8 in [-128, 127].
        type: "INT8", or "UINT8" for what `Quantize` reads.
    """

    name: str
    shape: Shape
    scale: float
    zero_point: int
    type: str = "INT8"

    def __post_init__(self):
        with np.errstate(over="ignore"):
            object.__setattr__(self, "scale", float(np.float32(self.scale)))
        object.__setattr__(self, "shape", tuple(map(int, self.shape)))
        object.__setattr__(self, "zero_point", int(self.zero_point))

    def check(self) -> None:
        """Raises `DaquError` if the tensor cannot be stored."""
        good = len(self.shape) in (2, 4) and self.shape[0] == 1 and min(self.shape) > 0
        require(good, self.name, f"shape must be (1, height, width, channels) or (1, channels), but received {self.shape}")
        check_scales(np.float32(self.scale), self.name, "scale")
        require(self.type in ACTIVATION_LIMITS, self.name, f"type must be INT8 or UINT8, but received {self.type!r}")
        low, high = ACTIVATION_LIMITS[self.type]
        good, received = low <= self.zero_point <= high, f"but received {self.zero_point}"
        require(good, self.name, f"zero_point must be in [{low}, {high}], {received}")


@dataclasses.dataclass(frozen=True)
class Graph:
    """A network: its activation tensors, its operators in the order they run, and the names of its two ends."""

    tensors: tuple[QuantizedTensor, ...]
    operators: tuple[Operator, ...]
    input: str
    output: str

    def check(self) -> None:
        """Raises `DaquError` naming the first tensor that the file could not hold or the operators disagree on."""
        tensors = {tensor.name: tensor for tensor in self.tensors}
        require(len(tensors) == len(self.tensors), self.input, "tensor names must be unique; rename the repeated ones")
        for tensor in self.tensors:
            tensor.check()
        computed = {self.input} & tensors.keys()
        for operator in self.operators:
            _check_operator(operator, tensors, computed)
            computed.add(operator.output)
        missing = sorted((tensors.keys() | {self.output}) - computed)
        require(not missing, ", ".join(missing), "no operator computes it; add the operator or drop the tensor")


def gate(name: str, shape: Shape, largest: float = 1.0) -> QuantizedTensor:
    """Returns the tensor whose int8 saturation clips to [0, largest]: a hard sigmoid, if what is written is x / 6 + 1 / 2."""
    return QuantizedTensor(name, shape, largest / 255, -128)


# Two in an inverted bottleneck of 28x28x64: this form 37 us (ReLU 26), within 1 step of float64 if the output's scale is at
# least 1.5 / 255; a depthwise convolution as the gate 70; HARD_SWISH, within 1 step but not taken by XNNPACK, 350.
def hard_swish(source: QuantizedTensor, output: str) -> tuple[QuantizedTensor, AddConstant, Multiply]:
    """Returns the gate and the operators that make `output` = x * clip(x / 6 + 1 / 2, 0, 1) of `source` = x / sqrt(6).

    The layer before takes the sqrt(6) into its scales: x / sqrt(6) * clip(x + 3, 0, 6) / sqrt(6) is the hard swish of x.
    """
    clipped = gate(f"{output}.gate", source.shape, math.sqrt(6))
    return clipped, AddConstant(source.name, clipped.name, 3 / math.sqrt(6)), Multiply(source.name, clipped.name, output)


# On tflite-runtime 2.14 so many outputs of a convolution are a step off: 25% where a product is 0.31 output steps, 12% at 0.16,
# 4% at 0.04, 0.3% at 0.005, on x86 and ARM alike; none from 0.5 to 1. From 1 on, ARM's depthwise kernel rounds to even steps.
def widened(graph: Graph) -> Graph:
    """Returns the graph with INT8 weights of few bits times powers of two and scales divided by them: the same real numbers.

    That is for kernels without a delegate, and tflite-runtime has none for int8. Where the product of two integers is less than
    half an output step, they round their sum twice: first to multiples of a step / 2^n that is hardly finer than a product. So
    products should be small, or else half a step to a step, where all kernels round once.
    """
    scales = {tensor.name: tensor.scale for tensor in graph.tensors}
    operators = (_widened(operator, scales) if isinstance(operator, Weighted) else operator for operator in graph.operators)
    return dataclasses.replace(graph, operators=tuple(operators))


def _widened(operator: Weighted, scales: dict[str, float]) -> Weighted:
    if operator.container != "INT8":
        return operator
    spare_bits = 8 - operator.weight_bits
    product_steps = operator.bias_scales(scales[operator.input]) / scales[operator.output]
    _, exponents = np.frexp(product_steps)  # 0 from half a step to a step, 1 from there to two, and so on.
    factors = 2 ** np.where(exponents < 0, spare_bits, np.minimum(exponents, spare_bits))
    factors = np.where(np.abs(operator.bias.astype(np.int64)) * factors <= _WIDEST_BIAS, factors, 1)
    shape = [-1 if axis == operator.channels_axis else 1 for axis in range(operator.weights_ndim)]
    weights, bias = operator.weights * factors.reshape(shape), operator.bias * factors
    narrower = operator.weight_scales / factors.astype(np.float32)
    return dataclasses.replace(operator, weights=weights.astype(np.int8), weight_scales=narrower, bias=bias.astype(np.int32))


def _check_operator(operator: Operator, tensors: dict[str, QuantizedTensor], computed: set[str]) -> None:
    """Checks one operator, given all tensors by name and the names of those computed before it."""
    operator.check()
    for name in operator.inputs:
        require(name in computed, name, f"it is read to compute {operator.output!r} before it is computed")
    require(operator.output in tensors, operator.output, "it is computed but not among the graph's tensors")
    require(operator.output not in computed, operator.output, "it is computed twice; give each its own name")
    inputs, output = [tensors[name] for name in operator.inputs], tensors[operator.output]
    for tensor, types in [*((tensor, operator.reads) for tensor in inputs), (output, ("INT8",))]:
        expected = " or ".join(types)
        require(tensor.type in types, tensor.name, f"{type(operator).__name__} needs {expected} there, but it is {tensor.type}")
    expected = operator.output_shape(*(tensor.shape for tensor in inputs))
    require(output.shape == expected, output.name, f"shape must be {expected}, but received {output.shape}")
    operator.check_scales(output.scale, *(tensor.scale for tensor in inputs))
    if isinstance(operator, Moving):
        (source,) = inputs
        same = (output.scale, output.zero_point) == (source.scale, source.zero_point)
        require(same, output.name, f"scale and zero_point must be those of {source.name!r}, which {type(operator).__name__} reads")
