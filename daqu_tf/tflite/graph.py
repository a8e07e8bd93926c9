"""What a .tflite file holds, as plain values: tensors, and the operators (`tflite_operators.py`) that compute with them.

A real number r is stored as the integer q = round(r / scale) + zero_point. Weights are symmetric (zero point 0) with
one scale per output channel, and a bias counts in steps of input scale * weight scale. Padding is SAME, or VALID, which is none.
"""

import dataclasses
import math

import numpy as np

from daqu_tf.tflite.base import Shape
from daqu_tf.tflite.checks import check_scales, require
from daqu_tf.tflite.operators import AddConstant, Moving, Multiply, Operator

ACTIVATION_LIMITS = {"INT8": (-128, 127), "UINT8": (0, 255)}  # Of the integers that an activation tensor may hold.


@dataclasses.dataclass(frozen=True)
class QuantizedTensor:
    """An activation tensor.

    Args:
        name: Unique in its graph.
        shape: (1, height, width, channels) or (1, channels).
        scale: Real size of one integer step; rounded to the float32 that the file stores.
        zero_point: The integer that stands for 0.0: of int8 in [-128, 127].
        type: "INT8", or "UINT8" at the ends of a graph.
    """

    name: str
    shape: Shape
    scale: float
    zero_point: int
    type: str = "INT8"

    def __post_init__(self) -> None:
        with np.errstate(over="ignore"):
            object.__setattr__(self, "scale", float(np.float32(self.scale)))
        object.__setattr__(self, "shape", tuple(map(int, self.shape)))
        object.__setattr__(self, "zero_point", int(self.zero_point))

    def check(self) -> None:
        """Raises `DaquError` if the tensor cannot be stored."""
        _check_shape(self)
        check_scales(np.float32(self.scale), self.name, "scale")
        require(self.type in ACTIVATION_LIMITS, self.name, f"type must be INT8 or UINT8, but received {self.type!r}")
        low, high = ACTIVATION_LIMITS[self.type]
        good, received = low <= self.zero_point <= high, f"but received {self.zero_point}"
        require(good, self.name, f"zero_point must be in [{low}, {high}], {received}")


@dataclasses.dataclass(frozen=True)
class FloatTensor:
    """An activation tensor of real numbers.

    Args:
        name: Unique in its graph.
        shape: As of `QuantizedTensor`.
    """

    name: str
    shape: Shape
    type = "FLOAT32"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(map(int, self.shape)))

    def check(self) -> None:
        """Raises `DaquError` if the tensor cannot be stored."""
        _check_shape(self)


Tensor = QuantizedTensor | FloatTensor


def _check_shape(tensor: Tensor) -> None:
    good = len(tensor.shape) in (2, 4) and tensor.shape[0] == 1 and min(tensor.shape) > 0
    require(good, tensor.name, f"shape must be (1, height, width, channels) or (1, channels), but received {tensor.shape}")


@dataclasses.dataclass(frozen=True)
class Graph:
    """A network: its activation tensors, its operators in the order they run, and the names of its two ends."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    input: str
    output: str

    def tensor(self, name: str) -> Tensor:
        """The activation tensor of this name."""
        return next(tensor for tensor in self.tensors if tensor.name == name)

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
def hard_swish(source: Tensor, output: str) -> tuple[QuantizedTensor, AddConstant, Multiply]:
    """Returns the gate and the operators that make `output` = x * clip(x / 6 + 1 / 2, 0, 1) of `source` = x / sqrt(6).

    The layer before takes the sqrt(6) into its scales: x / sqrt(6) * clip(x + 3, 0, 6) / sqrt(6) is the hard swish of x.
    """
    clipped = gate(f"{output}.gate", source.shape, math.sqrt(6))
    return clipped, AddConstant(source.name, clipped.name, 3 / math.sqrt(6)), Multiply(source.name, clipped.name, output)


def _check_operator(operator: Operator, tensors: dict[str, Tensor], computed: set[str]) -> None:
    """Checks one operator, given all tensors by name and the names of those computed before it."""
    operator.check()
    for name in operator.inputs:
        require(name in computed, name, f"it is read to compute {operator.output!r} before it is computed")
    require(operator.output in tensors, operator.output, "it is computed but not among the graph's tensors")
    require(operator.output not in computed, operator.output, "it is computed twice; give each its own name")
    inputs, output = [tensors[name] for name in operator.inputs], tensors[operator.output]
    operator.check_types(output.type, *(tensor.type for tensor in inputs))
    expected = operator.output_shape(*(tensor.shape for tensor in inputs))
    require(output.shape == expected, output.name, f"shape must be {expected}, but received {output.shape}")
    in_integers = [tensor for tensor in inputs if isinstance(tensor, QuantizedTensor)]
    if isinstance(output, FloatTensor) or len(in_integers) < len(inputs):
        return
    operator.check_scales(output.scale, *(tensor.scale for tensor in in_integers))
    if isinstance(operator, Moving):
        (source,) = in_integers
        same = (output.scale, output.zero_point) == (source.scale, source.zero_point)
        require(same, output.name, f"scale and zero_point must be those of {source.name!r}, which {type(operator).__name__} reads")
