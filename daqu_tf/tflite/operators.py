"""The operators of a `.tflite` file; each holds the numbers that it computes with, and knows what can be stored.

To add one, write its dataclass here and its two codec functions in `daqu_tf.tflite.codecs`.
"""

import dataclasses
import math

import numpy as np

from daqu_tf.tflite.base import (
    BaseOperator,
    SameOperator,
    Shape,
    UnaryOperator,
    WindowedOperator,
    check_window,
    require_input,
    strided,
)
from daqu_tf.tflite.checks import check_numbers, check_scales, require
from daqu_tf.tflite.weighted import Conv2D, DepthwiseConv2D, FullyConnected

PROBABILITY_SCALE, PROBABILITY_ZERO_POINT = 1 / 256, -128  # In int8; 1.0 itself is out of reach.


class Moving(BaseOperator):
    """An operator that moves integers without changing them; its output has the scale and the zero point of all its inputs."""


class _Pairwise(BaseOperator):
    """An operator on two tensors."""

    a: str
    b: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the activation tensors that the operator reads."""
        return (self.a, self.b)

    def reading(self: SameOperator, *names: str) -> SameOperator:
        """This operator with other inputs, given by their names."""
        return dataclasses.replace(self, a=names[0], b=names[1])


@dataclasses.dataclass(frozen=True, eq=False)
class Add(_Pairwise):
    """The sum of the tensors named `a` and `b`, which have one shape.

    Args:
        relu: Whether outputs below 0.0 become 0.0.
    """

    a: str
    b: str
    output: str
    relu: bool = False

    max_steps = 64  # Otherwise the 16-bit sums of the built-in kernel overflow.

    def output_shape(self, a: Shape, b: Shape) -> Shape:
        """The shape of the output for inputs of shapes `a` and `b`."""
        require_input(a == b, self, a, b)
        return a


@dataclasses.dataclass(frozen=True, eq=False)
class AddConstant(UnaryOperator):
    """The sum of a tensor and one real number.

    Args:
        constant: The number, which is not 0. It is rounded to 127 steps of a float32 scale, as a file of integers stores it.
        relu: Whether outputs below 0.0 become 0.0.
    """

    input: str
    output: str
    constant: float
    relu: bool = False

    max_steps = 64  # Otherwise the 16-bit sums of the built-in kernel overflow.

    def __post_init__(self) -> None:
        object.__setattr__(self, "constant", math.copysign(127 * self.constant_scale, self.constant))

    @property
    def constant_scale(self) -> float:
        """The real size of one integer step of the constant."""
        with np.errstate(over="ignore"):
            return float(np.float32(abs(self.constant) / 127))

    def check(self) -> None:
        """Raises `DaquError` if the constant of the operator cannot be stored."""
        check_scales(np.float32(self.constant_scale), self.output, "absolute constant / 127")

    def step(self, *input_scales: float) -> float:
        """The largest real change of the output when one integer that goes into it changes by 1."""
        return max(*input_scales, self.constant_scale)

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of the output for an input of shape `shape`."""
        return shape


@dataclasses.dataclass(frozen=True, eq=False)
class Multiply(_Pairwise):
    """The product of the tensors named `a` and `b`; `b` has the shape of `a`, or is one factor for each channel.

    These factors have the shape (1, channels) or (1, 1, 1, channels).
    """

    a: str
    b: str
    output: str

    max_steps = 1  # The built-in kernel is wrong from 2 on, and old ones are from 1 on.

    def step(self, *input_scales: float) -> float:
        """The largest real change of the output when the product of two integers changes by 1."""
        return math.prod(input_scales)

    def output_shape(self, a: Shape, b: Shape) -> Shape:
        """The shape of the output for inputs of shapes `a` and `b`."""
        require_input(b in (a, (1, a[-1]), (1, 1, 1, a[-1])), self, a, b)
        return a


@dataclasses.dataclass(frozen=True, eq=False)
class Concatenate(Moving):
    """The channels of several tensors behind each other.

    Args:
        parts: The names of the tensors, two at least.
    """

    parts: tuple[str, ...]
    output: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the activation tensors that the operator reads."""
        return self.parts

    def reading(self, *names: str) -> "Concatenate":
        """This operator with other inputs, given by their names."""
        return dataclasses.replace(self, parts=names)

    def output_shape(self, *shapes: Shape) -> Shape:
        """The shape of the output for inputs of these shapes, which differ in their last axis alone."""
        require_input(len(shapes) > 1 and len({shape[:-1] for shape in shapes}) == 1, self, *shapes)
        return (*shapes[0][:-1], sum(shape[-1] for shape in shapes))


@dataclasses.dataclass(frozen=True, eq=False)
class GlobalAveragePool(UnaryOperator):
    """The mean over height and width: (1, height, width, channels) to (1, channels).

    Args:
        keepdims: Whether the output is (1, 1, 1, channels) instead.
    """

    input: str
    output: str
    keepdims: bool = False

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of the output for an input of shape `shape`."""
        require_input(len(shape) == 4, self, shape)
        return (1, 1, 1, shape[3]) if self.keepdims else (1, shape[3])


@dataclasses.dataclass(frozen=True, eq=False)
class Quantize(UnaryOperator):
    """Real numbers as integers of the output's type, scale and zero point: exact between uint8 and int8 of one scale."""

    input: str
    output: str

    def check_types(self, output: str, *inputs: str) -> None:
        """Raises `DaquError` if the operator does not compute with these types of its output and inputs."""
        require(
            output != "FLOAT32", self.output, "Quantize needs INT8 or UINT8 there, but it is FLOAT32; change the type of the output"
        )

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of the output for an input of shape `shape`."""
        return shape


@dataclasses.dataclass(frozen=True, eq=False)
class Dequantize(UnaryOperator):
    """The real numbers that integers stand for."""

    input: str
    output: str

    def check_types(self, output: str, *inputs: str) -> None:
        """Raises `DaquError` if the operator does not compute with these types of its output and inputs."""
        good = output == "FLOAT32" and inputs != ("FLOAT32",)
        message = f"Dequantize makes FLOAT32 of INT8 or UINT8, but reads {inputs[0]} and writes {output}; change these types"
        require(good, self.output, message)

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of the output for an input of shape `shape`."""
        return shape


@dataclasses.dataclass(frozen=True, eq=False)
class Minimum(UnaryOperator):
    """The lesser of each real number and a limit, which real tensors need where int8 tensors saturate by themselves.

    Args:
        limit: The limit, which is rounded to float32.
    """

    input: str
    output: str
    limit: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "limit", float(np.float32(self.limit)))

    def check(self) -> None:
        """Raises `DaquError` if the constant of the operator cannot be stored."""
        check_numbers(np.float32(self.limit), self.output, "limit")

    def check_types(self, output: str, *inputs: str) -> None:
        """Raises `DaquError` if the operator does not compute with these types of its output and inputs."""
        good = {output, *inputs} == {"FLOAT32"}
        message = f"Minimum needs FLOAT32 throughout, but reads {inputs[0]} and writes {output}; change these types"
        require(good, self.output, message)

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of the output for an input of shape `shape`."""
        return shape


class Probability(UnaryOperator):
    """An operator whose outputs lie in [0, 1]; kernels insist on `PROBABILITY_SCALE` and `PROBABILITY_ZERO_POINT` for int8."""

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of the output for an input of shape `shape`."""
        return shape


@dataclasses.dataclass(frozen=True, eq=False)
class Softmax(Probability):
    """The softmax over the last axis of a tensor."""

    input: str
    output: str


@dataclasses.dataclass(frozen=True, eq=False)
class Logistic(Probability):
    """The sigmoid 1 / (1 + exp(-x)) of each number of a tensor."""

    input: str
    output: str


@dataclasses.dataclass(frozen=True, eq=False)
class MaxPool(Moving, WindowedOperator):
    """The largest value in each window of a (1, height, width, channels) tensor.

    Args:
        size: The height and width of a window.
        stride: The stride along height and width, at least 1.
        padding: The padding, "SAME" or "VALID".
    """

    input: str
    output: str
    size: tuple[int, int]
    stride: int
    padding: str = "VALID"

    def check(self) -> None:
        """Raises `DaquError` if a constant of the operator cannot be stored."""
        check_window(self)

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of the output for an input of shape `shape`."""
        require_input(len(shape) == 4, self, shape)
        return (1, *strided(self, shape, self.size), shape[3])


@dataclasses.dataclass(frozen=True, eq=False)
class Pad(Moving, UnaryOperator):
    """Rows and columns of 0.0 around a (1, height, width, channels) tensor.

    Args:
        pads: The number of rows and columns, ((above, below), (left, right)).
    """

    input: str
    output: str
    pads: tuple[tuple[int, int], tuple[int, int]]

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of the output for an input of shape `shape`."""
        require_input(len(shape) == 4 and min(map(min, self.pads)) >= 0, self, shape)
        return (1, shape[1] + sum(self.pads[0]), shape[2] + sum(self.pads[1]), shape[3])


@dataclasses.dataclass(frozen=True, eq=False)
class Reshape(Moving, UnaryOperator):
    """The values of a tensor in another shape and in their order.

    Args:
        shape: The shape of the output.
    """

    input: str
    output: str
    shape: Shape

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of the output for an input of shape `shape`."""
        require_input(math.prod(shape) == math.prod(self.shape), self, shape)
        return self.shape


Operator = (
    Conv2D
    | DepthwiseConv2D
    | FullyConnected
    | Add
    | AddConstant
    | Multiply
    | Concatenate
    | GlobalAveragePool
    | Quantize
    | Dequantize
    | Minimum
    | Softmax
    | Logistic
    | MaxPool
    | Pad
    | Reshape
)
