"""What a `.tflite` file holds, as plain values: tensors, and the operators that compute with them (see `operators`).

A real number r is stored as the integer q = round(r / scale) + zero_point. Weights are symmetric, with zero point 0 and one scale
per output channel, and a bias counts in steps of input scale * weight scale. Padding is SAME, or VALID, which means none.
"""

import dataclasses
import math

import numpy as np

from daqu_tf.tflite.base import Shape
from daqu_tf.tflite.checks import check_scales, require
from daqu_tf.tflite.operators import (
    PROBABILITY_SCALE,
    PROBABILITY_ZERO_POINT,
    AddConstant,
    Moving,
    Multiply,
    Operator,
    Probability,
)

ACTIVATION_LIMITS = {"INT8": (-128, 127), "UINT8": (0, 255)}  # The range of integers in an activation tensor.


@dataclasses.dataclass(frozen=True)
class QuantizedTensor:
    """An activation tensor of integers.

    Args:
        name: The name of the tensor, unique in its graph.
        shape: The shape, (1, height, width, channels) or (1, channels).
        scale: The real size of one integer step, which is rounded to float32, as the file stores it.
        zero_point: The integer that stands for 0.0, in [-128, 127] for INT8 and in [0, 255] for UINT8.
        type: The type, "INT8", or "UINT8" at the ends of a graph.
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
        require(self.type in ACTIVATION_LIMITS, self.name, f"type must be INT8 or UINT8, but received {self.type!r}; choose one")
        low, high = ACTIVATION_LIMITS[self.type]
        good, received = low <= self.zero_point <= high, f"but received {self.zero_point}"
        require(good, self.name, f"zero_point must be in [{low}, {high}], {received}; move it there")


@dataclasses.dataclass(frozen=True)
class FloatTensor:
    """An activation tensor of real numbers, stored as FLOAT32.

    Args:
        name: The name of the tensor, unique in its graph.
        shape: The shape, (1, height, width, channels) or (1, channels).
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
    message = f"shape must be (1, height, width, channels) or (1, channels), but received {tensor.shape}; reshape it"
    require(good, tensor.name, message)


@dataclasses.dataclass(frozen=True)
class Graph:
    """A network as a file holds it.

    Args:
        tensors: All activation tensors.
        operators: The operators, in the order in which they run.
        input: The name of the tensor that the network reads.
        output: The name of the tensor that the network writes.
    """

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    input: str
    output: str

    def tensor(self, name: str) -> Tensor:
        """The activation tensor with this name."""
        return next(tensor for tensor in self.tensors if tensor.name == name)

    def check(self) -> None:
        """Raises `DaquError` that names the first tensor that the file cannot hold or on which the operators disagree."""
        tensors = {tensor.name: tensor for tensor in self.tensors}
        require(len(tensors) == len(self.tensors), self.input, "tensor names must be unique; rename the repeated ones")
        for tensor in self.tensors:
            tensor.check()
        computed = {self.input} & tensors.keys()
        for operator in self.operators:
            _check_operator(operator, tensors, computed)
            computed.add(operator.output)
        missing = sorted((tensors.keys() | {self.output}) - computed)
        require(not missing, ", ".join(missing), "no operator computes it; add the operator, or leave the tensor out")


def gate(name: str, shape: Shape, largest: float = 1.0) -> QuantizedTensor:
    """The tensor whose int8 saturation clips to [0, largest], so that x / 6 + 1 / 2 becomes a hard sigmoid when written to it.

    Args:
        name: The name of the tensor.
        shape: The shape of the tensor.
        largest: The real number at which the tensor saturates.
    """
    return QuantizedTensor(name, shape, largest / 255, -128)


# Two hard-swishes in an inverted bottleneck of 28x28x64 take 37 us in this form (ReLUs take 26), and are within 1 step of float64
# if the output's scale is at least 1.5 / 255. With a depthwise convolution as the gate they take 70 us; as HARD_SWISH, which
# XNNPACK does not take, they are within 1 step but take 350 us.
def hard_swish(source: Tensor, output: str) -> tuple[QuantizedTensor, AddConstant, Multiply]:
    """The gate tensor and the two operators that compute a hard-swish, x * clip(x / 6 + 1 / 2, 0, 1), from `source` = x / sqrt(6).

    The layer before has 1 / sqrt(6) in its scales, since x / sqrt(6) * clip(x + 3, 0, 6) / sqrt(6) is the hard-swish of x.

    Args:
        source: The tensor that holds x / sqrt(6).
        output: The name of the tensor that gets the hard-swish.
    """
    clipped = gate(f"{output}.gate", source.shape, math.sqrt(6))
    return clipped, AddConstant(source.name, clipped.name, 3 / math.sqrt(6)), Multiply(source.name, clipped.name, output)


def _check_operator(operator: Operator, tensors: dict[str, Tensor], computed: set[str]) -> None:
    """Checks one operator, given all tensors by name and the names of those computed before it."""
    operator.check()
    for name in operator.inputs:
        require(name in computed, name, f"it is read to compute {operator.output!r} before it is computed; reorder them")
    require(operator.output in tensors, operator.output, "it is computed but not among the graph's tensors; add it")
    require(operator.output not in computed, operator.output, "it is computed twice; give each its own name")
    inputs, output = [tensors[name] for name in operator.inputs], tensors[operator.output]
    operator.check_types(output.type, *(tensor.type for tensor in inputs))
    expected = operator.output_shape(*(tensor.shape for tensor in inputs))
    require(output.shape == expected, output.name, f"shape must be {expected}, but received {output.shape}; reshape it")
    in_integers = [tensor for tensor in inputs if isinstance(tensor, QuantizedTensor)]
    if isinstance(output, FloatTensor) or len(in_integers) < len(inputs):
        return
    operator.check_scales(output.scale, *(tensor.scale for tensor in in_integers))
    if isinstance(operator, Probability):
        fixed = (PROBABILITY_SCALE, PROBABILITY_ZERO_POINT)
        received = f"but received {output.scale:.9g} and {output.zero_point}"
        message = f"scale and zero_point must be 1/256 and -128 where {type(operator).__name__} writes, {received}; take these"
        require((output.scale, output.zero_point) == fixed, output.name, message)
    for source in in_integers if isinstance(operator, Moving) else ():
        same = (output.scale, output.zero_point) == (source.scale, source.zero_point)
        message = f"scale and zero_point must be those of {source.name!r}, which {type(operator).__name__} reads; copy them"
        require(same, output.name, message)
