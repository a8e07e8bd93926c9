"""The operators of a `.tflite` file that have a kernel."""

import dataclasses

import numpy as np

from daqu_tf.tflite.base import Shape, WindowedOperator, check_window, require_input, strided
from daqu_tf.tflite.checks import check_integers, check_numbers, check_scales, require

# The file format keeps weights symmetric: -128 and -8 are not used.
CONTAINER_LIMITS = {"INT8": 127, "INT4": 7}
FLOAT_CONTAINERS = {"FLOAT32": np.float32, "FLOAT16": np.float16}


class Weighted(WindowedOperator):
    """An operator with a kernel; `channels_axis` is the axis of `weights` that counts output channels.

    Between INT8 tensors, weights and bias are integers. Between FLOAT32 tensors the bias is real, and so are the weights in a
    FLOAT container, which have no scales; integers there are weights of which runtimes make real ones.
    """

    weights: np.ndarray
    weight_scales: np.ndarray
    bias: np.ndarray

    max_steps = 256  # else XNNPACK does not load the file
    channels_axis = 0
    weights_ndim = 4
    container = "INT8"
    stride = 1
    padding = "SAME"

    def __post_init__(self) -> None:
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
        """The fewest bits, at least 2, that hold every weight, but for the power of two that each channel's weights share."""
        axes = tuple(axis for axis in range(self.weights.ndim) if axis != self.channels_axis)
        sizes = np.abs(self.weights.astype(np.int64))
        shared = np.bitwise_or.reduce(sizes, axis=axes, keepdims=True)
        shared = np.maximum(shared & -shared, 1)  # The lowest bit that any of them has.
        return max(2, int((sizes // shared).max(initial=0)).bit_length() + 1)

    def step(self, *input_scales: float) -> float:
        """Largest real change of the output when one integer product changes by 1."""
        return max(input_scales) * float(self.weight_scales.max())

    def check(self) -> None:
        """Raises `DaquError` if its constants cannot be stored."""
        known = sorted(CONTAINER_LIMITS | FLOAT_CONTAINERS)
        require(self.container in known, self.output, f"container must be one of {known}, but received {self.container!r}")
        check_window(self)
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

    def check_scales(self, output_scale: float, *input_scales: float) -> None:
        """Raises `DaquError` if kernels could not compute with these scales of its tensors."""
        super().check_scales(output_scale, *input_scales)
        check_scales(self.bias_scales(*input_scales), self.output, "weight_scales times the input's scale")


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
        require_input(len(shape) == 4 and shape[3] == self.weights.shape[3], self, shape)
        return (1, *strided(self, shape, self.weights.shape[1:3]), self.weights.shape[0])


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
        require_input(len(shape) == 4 and self.weights.shape[::3] == (1, shape[3]), self, shape)
        return (1, *strided(self, shape, self.weights.shape[1:3]), shape[3])


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
        require_input(shape[-1] == self.weights.shape[1], self, shape)
        return (*shape[:-1], self.weights.shape[0])
