"""What a .tflite file holds, as plain values: int8 tensors, and operators that carry the integers they compute with.

A real number r is stored as the integer q = round(r / scale) + zero_point. Weights are symmetric (zero point 0) with
one scale per output channel, and a bias counts in steps of input scale * weight scale. Padding is SAME, or VALID, which is none.

To add an operator, write its dataclass here and its two codec functions in `daqu_tf.tflite_file`.
"""

import dataclasses
import math

import numpy as np

from daqu_tf.tflite_checks import check_integers, check_scales, require

Shape = tuple[int, ...]

# The file format keeps weights symmetric: -128 and -8 are not used.
CONTAINER_LIMITS = {"INT8": 127, "INT4": 7}
ACTIVATION_LIMITS = {"INT8": (-128, 127), "UINT8": (0, 255)}
PADDINGS = ("SAME", "VALID")


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


class _Operator:
    """An operator is named by its output; two are equal if all their fields are, element by element."""

    output: str
    reads = ("INT8",)
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

    def check(self) -> None:
        """Raises `DaquError` if its constants cannot be stored."""

    def step(self, *input_scales: float) -> float:
        """Largest real change of the output when one integer that goes into it changes by 1."""
        return max(input_scales)

    def check_scales(self, output_scale: float, *input_scales: float) -> None:
        """Raises `DaquError` if kernels could not compute with these scales of its tensors."""
        steps = self.step(*input_scales) / output_scale
        message = f"one step of its operands must be less than {self.max_steps} output scales, but is {steps:.4g}"
        require(steps < self.max_steps, self.output, f"{message}; raise its scale")


class Weighted(_Operator):
    """An operator with a kernel; `channels_axis` is the axis of `weights` that counts output channels."""

    max_steps = 256  # else XNNPACK does not load the file
    channels_axis = 0
    weights_ndim = 4
    container = "INT8"
    stride = 1
    padding = "SAME"

    def __post_init__(self):
        with np.errstate(over="ignore"):
            object.__setattr__(self, "weight_scales", np.asarray(self.weight_scales, np.float32))

    @property
    def weight_bits(self) -> int:
        """Bits of the narrowest symmetric width that holds every weight, at least 2."""
        return max(2, int(np.abs(self.weights.astype(np.int64)).max(initial=0)).bit_length() + 1)

    def step(self, input_scale: float) -> float:
        """Largest real change of the output when one integer product changes by 1."""
        return input_scale * float(self.weight_scales.max())

    def check(self) -> None:
        """Raises `DaquError` if its constants cannot be stored."""
        require(
            self.container in CONTAINER_LIMITS,
            self.output,
            f"container must be one of {sorted(CONTAINER_LIMITS)}, but received {self.container!r}",
        )
        _check_window(self)
        check_integers(self.weights, CONTAINER_LIMITS[self.container], self.output, "weights")
        check_integers(self.bias, np.iinfo(np.int32).max, self.output, "bias")
        require(
            self.weights.ndim == self.weights_ndim and self.weights.size > 0,
            self.output,
            f"weights must have {self.weights_ndim} axes, but received shape {self.weights.shape}",
        )
        channels = (self.weights.shape[self.channels_axis],)
        require(
            self.bias.shape == self.weight_scales.shape == channels,
            self.output,
            f"bias and weight_scales must have shape {channels}, but received {self.bias.shape} and {self.weight_scales.shape}",
        )
        check_scales(self.weight_scales, self.output, "weight_scales")

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
        weights: (out channels, kernel height, kernel width, in channels) integers in [-127, 127].
        weight_scales: (out channels,) float32.
        bias: (out channels,) integers that fit int32.
        stride: At least 1, the same along height and width.
        relu: Whether outputs below 0.0 become 0.0.
        padding: "SAME" or "VALID".
    """

    input: str
    output: str
    weights: np.ndarray
    weight_scales: np.ndarray
    bias: np.ndarray
    stride: int = 1
    relu: bool = False
    padding: str = "SAME"

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of the output for an input of this shape."""
        _require_input(len(shape) == 4 and shape[3] == self.weights.shape[3], self, shape)
        return (1, *_strided(self, shape, self.weights.shape[1:3]), self.weights.shape[0])


@dataclasses.dataclass(frozen=True, eq=False)
class DepthwiseConv2D(Weighted):
    """As `Conv2D`, one kernel per channel.

    Args:
        weights: (1, kernel height, kernel width, channels) integers in [-127, 127].
    """

    input: str
    output: str
    weights: np.ndarray
    weight_scales: np.ndarray
    bias: np.ndarray
    stride: int = 1
    relu: bool = False
    padding: str = "SAME"

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
        weights: (out channels, in channels) integers in [-127, 127], or [-7, 7] in the INT4 container.
        container: "INT8", or "INT4" for two weights a byte.
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
        constant: Not 0; rounded to 127 steps of a float32 scale, as the file stores it.
    """

    input: str
    output: str
    constant: float

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
    """The same real numbers with the type, scale and zero point of the output: exact from uint8 to int8 of one scale."""

    input: str
    output: str

    reads = ("INT8", "UINT8")

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of the output for an input of this shape."""
        return shape


class _Moving(_Operator):
    """An operator that takes integers as they are, so its output has the scale and the zero point of its input."""


@dataclasses.dataclass(frozen=True, eq=False)
class MaxPool(_Moving):
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
class Pad(_Moving):
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
class Reshape(_Moving):
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
    | MaxPool
    | Pad
    | Reshape
)


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
    if isinstance(operator, _Moving):
        (source,) = inputs
        same = (output.scale, output.zero_point) == (source.scale, source.zero_point)
        require(same, output.name, f"scale and zero_point must be those of {source.name!r}, which {type(operator).__name__} reads")


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
