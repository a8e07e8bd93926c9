"""The operators of a .tflite file: each carries the integers that it computes with, and knows what can be stored.

To add one, write its dataclass here and its two codec functions in `daqu_tf.tflite_codecs`.
"""

import dataclasses
import math

import numpy as np

from daqu_tf.tflite_checks import check_integers, check_numbers, check_scales, require

Shape = tuple[int, ...]

# The file format keeps weights symmetric: -128 and -8 are not used.
CONTAINER_LIMITS = {"INT8": 127, "INT4": 7}
FLOAT_CONTAINERS = {"FLOAT32": np.float32, "FLOAT16": np.float16}
PADDINGS = ("SAME", "VALID")


class _Operator:
    """An operator is named by its output; two are equal if all their fields are, element by element."""

    output: str
    # A file in which one `step` is this many output scales or more does not run, or runs wrongly, on some kernels.
    max_steps = math.inf

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(np.array_equal(value, vars(other)[name]) for name, value in vars(self).items())

    __hash__ = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the activation tensors it reads."""
        return (self.input,)

    def reading(self, *names: str) -> "_Operator":
        """The same operator of other tensors."""
        return dataclasses.replace(self, input=names[0])

    def check(self) -> None:
        """Raises `DaquError` if its constants cannot be stored."""

    def check_types(self, output: str, *inputs: str) -> None:
        """Raises `DaquError` if it does not compute with these types of its tensors."""
        good = output in ("INT8", "FLOAT32") and set(inputs) == {output}
        message = f"{type(self).__name__} needs INT8 throughout, or FLOAT32, but reads {', '.join(inputs)} and writes {output}"
        require(good, self.output, message)

    def step(self, *input_scales: float) -> float:
        """Largest real change of the output when one integer that goes into it changes by 1."""
        return max(input_scales)

    def check_scales(self, output_scale: float, *input_scales: float) -> None:
        """Raises `DaquError` if kernels could not compute with these scales of its tensors."""
        steps = self.step(*input_scales) / output_scale
        message = f"one step of its operands must be less than {self.max_steps} output scales, but is {steps:.4g}"
        require(steps < self.max_steps, self.output, f"{message}; raise its scale")


class Weighted(_Operator):
    """An operator with a kernel; `channels_axis` is the axis of `weights` that counts output channels.

    Between INT8 tensors, weights and bias are integers. Between FLOAT32 tensors the bias is real, and so are the weights in a
    FLOAT container, which have no scales; integers there are weights of which runtimes make real ones.
    """

    max_steps = 256  # else XNNPACK does not load the file
    channels_axis = 0
    weights_ndim = 4
    container = "INT8"
    stride = 1
    padding = "SAME"

    def __post_init__(self):
        with np.errstate(over="ignore"):
            object.__setattr__(self, "weight_scales", np.asarray(self.weight_scales, np.float32))
            if self.in_float:
                object.__setattr__(self, "bias", np.asarray(self.bias, np.float32))
            if stored := FLOAT_CONTAINERS.get(self.container):
                object.__setattr__(self, "weights", np.asarray(self.weights, stored).astype(np.float32))

    @property
    def in_float(self) -> bool:
        """Whether its tensors are FLOAT32: its bias is real."""
        return np.issubdtype(np.asarray(self.bias).dtype, np.floating)

    @property
    def weight_bits(self) -> int:
        """Bits of the narrowest symmetric width that holds every weight, at least 2."""
        return max(2, int(np.abs(self.weights.astype(np.int64)).max(initial=0)).bit_length() + 1)

    def step(self, input_scale: float) -> float:
        """Largest real change of the output when one integer product changes by 1."""
        return input_scale * float(self.weight_scales.max())

    def check(self) -> None:
        """Raises `DaquError` if its constants cannot be stored."""
        known = sorted(CONTAINER_LIMITS | FLOAT_CONTAINERS)
        require(self.container in known, self.output, f"container must be one of {known}, but received {self.container!r}")
        _check_window(self)
        if has_scales := self.container in CONTAINER_LIMITS:
            check_integers(self.weights, CONTAINER_LIMITS[self.container], self.output, "weights")
        else:
            check_numbers(self.weights, self.output, "weights")
        if self.in_float or not has_scales:
            check_numbers(self.bias, self.output, "bias")
        else:
            check_integers(self.bias, np.iinfo(np.int32).max, self.output, "bias")
        good, received = self.weights.ndim == self.weights_ndim and self.weights.size > 0, self.weights.shape
        require(good, self.output, f"weights must have {self.weights_ndim} axes, but received shape {received}")
        channels = (self.weights.shape[self.channels_axis],)
        require(
            self.bias.shape == channels and self.weight_scales.shape == (channels if has_scales else (0,)),
            self.output,
            f"bias and weight_scales must have shape {channels}, and weight_scales (0,) in a FLOAT container, "
            f"but received {self.bias.shape} and {self.weight_scales.shape}",
        )
        check_scales(self.weight_scales, self.output, "weight_scales")

    def check_types(self, output: str, *inputs: str) -> None:
        """Raises `DaquError` if it does not compute with these types of its tensors."""
        super().check_types(output, *inputs)
        expected = "FLOAT32" if self.in_float or self.container in FLOAT_CONTAINERS else "INT8"
        kinds = f"weights are {self.container} and its bias is {self.bias.dtype}"
        require(output == expected, self.output, f"its {kinds}, so its tensors must be {expected}, but are {output}")

    def bias_scales(self, input_scale: float) -> np.ndarray:
        """Returns the (out channels,) float32 real sizes of one step of the bias."""
        return np.float32(input_scale) * self.weight_scales

    def check_scales(self, output_scale: float, input_scale: float) -> None:
        """Raises `DaquError` if kernels could not compute with these scales of its tensors."""
        super().check_scales(output_scale, input_scale)
        check_scales(self.bias_scales(input_scale), self.output, "weight_scales times the input's scale")


@dataclasses.dataclass(frozen=True, eq=False)
class Conv2D(Weighted):
    """A convolution; `input` and `output` are tensor names.

    Args:
        weights: (out channels, kernel height, kernel width, in channels): integers in [-127, 127], or real numbers.
        weight_scales: (out channels,) float32; (0,) for real weights.
        bias: (out channels,) integers that fit int32, or real numbers.
        stride: At least 1, the same along height and width.
        relu: Whether outputs below 0.0 become 0.0.
        padding: "SAME" or "VALID".
        container: How the weights are stored: "INT8", "INT4" (in [-7, 7], two a byte), "FLOAT32" or "FLOAT16".
    """

    input: str
    output: str
    weights: np.ndarray
    weight_scales: np.ndarray
    bias: np.ndarray
    stride: int = 1
    relu: bool = False
    padding: str = "SAME"
    container: str = "INT8"

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of the output for an input of this shape."""
        _require_input(len(shape) == 4 and shape[3] == self.weights.shape[3], self, shape)
        return (1, *_strided(self, shape, self.weights.shape[1:3]), self.weights.shape[0])


@dataclasses.dataclass(frozen=True, eq=False)
class DepthwiseConv2D(Weighted):
    """As `Conv2D`, one kernel per channel.

    Args:
        weights: (1, kernel height, kernel width, channels).
    """

    input: str
    output: str
    weights: np.ndarray
    weight_scales: np.ndarray
    bias: np.ndarray
    stride: int = 1
    relu: bool = False
    padding: str = "SAME"
    container: str = "INT8"

    channels_axis = 3

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of the output for an input of this shape."""
        _require_input(len(shape) == 4 and self.weights.shape[::3] == (1, shape[3]), self, shape)
        return (1, *_strided(self, shape, self.weights.shape[1:3]), shape[3])


@dataclasses.dataclass(frozen=True, eq=False)
class FullyConnected(Weighted):
    """A dense layer over the last axis; on a 4-D input this is a pointwise convolution.

    XNNPACK takes INT4 weights only with an even number of input channels; else the slower built-in kernel runs.

    Args:
        weights: (out channels, in channels).
        container: As of `Conv2D`.
    """

    input: str
    output: str
    weights: np.ndarray
    weight_scales: np.ndarray
    bias: np.ndarray
    container: str = "INT8"
    relu: bool = False

    weights_ndim = 2

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of the output for an input of this shape."""
        _require_input(shape[-1] == self.weights.shape[1], self, shape)
        return (*shape[:-1], self.weights.shape[0])


class _Pairwise(_Operator):
    """An operator on two tensors."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the activation tensors it reads."""
        return (self.a, self.b)

    def reading(self, *names: str) -> "_Pairwise":
        """The same operator of other tensors."""
        return dataclasses.replace(self, a=names[0], b=names[1])


@dataclasses.dataclass(frozen=True, eq=False)
class Add(_Pairwise):
    """The sum of two tensors of one shape."""

    a: str
    b: str
    output: str
    relu: bool = False

    max_steps = 64  # else the 16-bit sums of the built-in kernel overflow

    def output_shape(self, a: Shape, b: Shape) -> Shape:
        """Shape of the output for inputs of these shapes."""
        _require_input(a == b, self, a, b)
        return a


@dataclasses.dataclass(frozen=True, eq=False)
class AddConstant(_Operator):
    """The sum of a tensor and one real number.

    Args:
        constant: Not 0; rounded to 127 steps of a float32 scale, as a file of integers stores it.
        relu: Whether outputs below 0.0 become 0.0.
    """

    input: str
    output: str
    constant: float
    relu: bool = False

    max_steps = 64  # as of `Add`

    def __post_init__(self):
        object.__setattr__(self, "constant", math.copysign(127 * self.constant_scale, self.constant))

    @property
    def constant_scale(self) -> float:
        """Real size of one integer step of the constant."""
        with np.errstate(over="ignore"):
            return float(np.float32(abs(self.constant) / 127))

    def check(self) -> None:
        """Raises `DaquError` if its constant cannot be stored."""
        check_scales(np.float32(self.constant_scale), self.output, "absolute constant / 127")

    def step(self, input_scale: float) -> float:
        """Largest real change of the output when one integer that goes into it changes by 1."""
        return max(input_scale, self.constant_scale)

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of the output for an input of this shape."""
        return shape


@dataclasses.dataclass(frozen=True, eq=False)
class Multiply(_Pairwise):
    """The product of `a` with `b`, which is of the same shape or holds one factor per channel: (1, channels)."""

    a: str
    b: str
    output: str

    max_steps = 1  # the built-in kernel is wrong from 2 on, and old ones from 1

    def step(self, a_scale: float, b_scale: float) -> float:
        """Largest real change of the output when the product of two integers changes by 1."""
        return a_scale * b_scale

    def output_shape(self, a: Shape, b: Shape) -> Shape:
        """Shape of the output for inputs of these shapes."""
        _require_input(b in (a, (1, a[-1])), self, a, b)
        return a


@dataclasses.dataclass(frozen=True, eq=False)
class GlobalAveragePool(_Operator):
    """The mean over height and width: (1, height, width, channels) to (1, channels).

    Args:
        keepdims: Whether the output is (1, 1, 1, channels) instead.
    """

    input: str
    output: str
    keepdims: bool = False

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of the output for an input of this shape."""
        _require_input(len(shape) == 4, self, shape)
        return (1, 1, 1, shape[3]) if self.keepdims else (1, shape[3])


@dataclasses.dataclass(frozen=True, eq=False)
class Quantize(_Operator):
    """Real numbers as integers of the output's type, scale and zero point: exact between uint8 and int8 of one scale."""

    input: str
    output: str

    def check_types(self, output: str, *inputs: str) -> None:
        """Raises `DaquError` if it does not compute with these types of its tensors."""
        require(output != "FLOAT32", self.output, "Quantize needs INT8 or UINT8 there, but it is FLOAT32")

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of the output for an input of this shape."""
        return shape


@dataclasses.dataclass(frozen=True, eq=False)
class Dequantize(_Operator):
    """Integers as the real numbers that they stand for."""

    input: str
    output: str

    def check_types(self, output: str, *inputs: str) -> None:
        """Raises `DaquError` if it does not compute with these types of its tensors."""
        good = output == "FLOAT32" and inputs != ("FLOAT32",)
        require(good, self.output, f"Dequantize makes FLOAT32 of INT8 or UINT8, but reads {inputs[0]} and writes {output}")

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of the output for an input of this shape."""
        return shape


@dataclasses.dataclass(frozen=True, eq=False)
class Minimum(_Operator):
    """The lesser of each real number and a limit, at which int8 saturates by itself.

    Args:
        limit: Rounded to float32.
    """

    input: str
    output: str
    limit: float

    def __post_init__(self):
        object.__setattr__(self, "limit", float(np.float32(self.limit)))

    def check(self) -> None:
        """Raises `DaquError` if its constant cannot be stored."""
        check_numbers(np.float32(self.limit), self.output, "limit")

    def check_types(self, output: str, *inputs: str) -> None:
        """Raises `DaquError` if it does not compute with these types of its tensors."""
        good = {output, *inputs} == {"FLOAT32"}
        require(good, self.output, f"Minimum needs FLOAT32 throughout, but reads {inputs[0]} and writes {output}")

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of the output for an input of this shape."""
        return shape


class Moving(_Operator):
    """An operator that takes integers as they are, so its output has the scale and the zero point of its input."""


@dataclasses.dataclass(frozen=True, eq=False)
class MaxPool(Moving):
    """The largest of each window of a (1, height, width, channels) tensor.

    Args:
        size: Height and width of a window.
        stride: At least 1, the same along height and width.
        padding: "SAME" or "VALID".
    """

    input: str
    output: str
    size: tuple[int, int]
    stride: int
    padding: str = "VALID"

    def check(self) -> None:
        """Raises `DaquError` if its constants cannot be stored."""
        _check_window(self)

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of the output for an input of this shape."""
        _require_input(len(shape) == 4, self, shape)
        return (1, *_strided(self, shape, self.size), shape[3])


@dataclasses.dataclass(frozen=True, eq=False)
class Pad(Moving):
    """Rows and columns of 0.0 around a (1, height, width, channels) tensor.

    Args:
        pads: How many: ((above, below), (left, right)).
    """

    input: str
    output: str
    pads: tuple[tuple[int, int], tuple[int, int]]

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of the output for an input of this shape."""
        _require_input(len(shape) == 4 and min(map(min, self.pads)) >= 0, self, shape)
        return (1, shape[1] + sum(self.pads[0]), shape[2] + sum(self.pads[1]), shape[3])


@dataclasses.dataclass(frozen=True, eq=False)
class Reshape(Moving):
    """The same integers in another shape, in their order.

    Args:
        shape: Of the output.
    """

    input: str
    output: str
    shape: Shape

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of the output for an input of this shape."""
        _require_input(math.prod(shape) == math.prod(self.shape), self, shape)
        return self.shape


Operator = (
    Conv2D
    | DepthwiseConv2D
    | FullyConnected
    | Add
    | AddConstant
    | Multiply
    | GlobalAveragePool
    | Quantize
    | Dequantize
    | Minimum
    | MaxPool
    | Pad
    | Reshape
)


def same_pads(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after the values of one axis under SAME padding."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _strided(operator: Operator, shape: Shape, window: tuple[int, ...]) -> tuple[int, ...]:
    """Height and width after a window has passed over `shape`."""
    same, stride = operator.padding == "SAME", operator.stride
    _require_input(same or (shape[1] >= window[0] and shape[2] >= window[1]), operator, shape)
    return tuple(-(-(size if same else size - kernel + 1) // stride) for size, kernel in zip(shape[1:3], window))


def _check_window(operator: Operator) -> None:
    require(operator.stride >= 1, operator.output, f"stride must be at least 1, but received {operator.stride}")
    good = operator.padding in PADDINGS
    require(good, operator.output, f"padding must be one of {list(PADDINGS)}, but received {operator.padding!r}")


def _require_input(condition: bool, operator: Operator, *shapes: Shape) -> None:
    given = " and ".join(map(str, shapes))
    require(condition, operator.output, f"{type(operator).__name__} cannot take input of shape {given}; change one of them")
