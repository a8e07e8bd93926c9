"""The operators of a `.tflite` file that have a kernel."""

import dataclasses

import numpy as np

from daqu_tf.tflite.base import Shape, WindowedOperator, check_window, require_input, strided
from daqu_tf.tflite.checks import check_integers, check_numbers, check_scales, require

# The file format keeps weights symmetric: -128 and -8 are not used.
CONTAINER_LIMITS = {"INT8": 127, "INT4": 7}
FLOAT_CONTAINERS = {"FLOAT32": np.float32, "FLOAT16": np.float16}


class Weighted(WindowedOperator):
    """An operator with a kernel; `channels_axis` is the axis of `weights` for output channels.

    Between INT8 tensors, weights and bias are integers. Between FLOAT32 tensors, the bias is real. Weights there are real in a
    FLOAT container, and have no scales, or integers, which the runtime turns into real numbers.
    """

    weights: np.ndarray
    weight_scales: np.ndarray
    bias: np.ndarray

    max_steps = 256  # Otherwise XNNPACK does not load the file.
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
        """Whether the operator computes between FLOAT32 tensors, so that its bias is real."""
        return np.issubdtype(np.asarray(self.bias).dtype, np.floating)

    @property
    def weight_bits(self) -> int:
        """The fewest bits, at least 2, whose symmetric range of integers holds every weight."""
        return _bits_of(np.abs(self.weights.astype(np.int64)))

    @property
    def trained_bits(self) -> int:
        """The fewest bits, at least 2, that hold every weight, but for the power of two that the weights of a channel share."""
        axes = tuple(axis for axis in range(self.weights.ndim) if axis != self.channels_axis)
        sizes = np.abs(self.weights.astype(np.int64))
        shared = np.bitwise_or.reduce(sizes, axis=axes, keepdims=True)
        shared = np.maximum(shared & -shared, 1)  # The lowest bit that any of them has.
        return _bits_of(sizes // shared)

    def step(self, *input_scales: float) -> float:
        """The largest real change of the output when one product of integers changes by 1."""
        return max(input_scales) * float(self.weight_scales.max())

    def check(self) -> None:
        """Raises `DaquError` if a constant of the operator cannot be stored."""
        known = sorted(CONTAINER_LIMITS | FLOAT_CONTAINERS)
        require(
            self.container in known, self.output, f"container must be one of {known}, but received {self.container!r}; choose one"
        )
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
        require(good, self.output, f"weights must have {self.weights_ndim} axes, but received shape {received}; reshape them")
        channels = (self.weights.shape[self.channels_axis],)
        require(
            self.bias.shape == channels and self.weight_scales.shape == (channels if has_scales else (0,)),
            self.output,
            f"bias and weight_scales must have shape {channels}, and weight_scales (0,) in a FLOAT container, "
            f"but received {self.bias.shape} and {self.weight_scales.shape}; reshape them",
        )
        check_scales(self.weight_scales, self.output, "weight_scales")

    def check_types(self, output: str, *inputs: str) -> None:
        """Raises `DaquError` if the operator does not compute with these types of its output and inputs."""
        super().check_types(output, *inputs)
        expected = "FLOAT32" if self.in_float or self.container in FLOAT_CONTAINERS else "INT8"
        kinds = f"weights are {self.container} and its bias is {self.bias.dtype}"
        require(output == expected, self.output, f"its {kinds}, so its tensors must be {expected}, but are {output}; change one")

    def bias_scales(self, input_scale: float) -> np.ndarray:
        """The real size (output channels,) of one step of the bias, float32.

        Args:
            input_scale: The scale of the tensor that the operator reads.
        """
        return np.float32(input_scale) * self.weight_scales

    def check_scales(self, output_scale: float, *input_scales: float) -> None:
        """Raises `DaquError` if kernels cannot compute with these scales of the output and the input."""
        super().check_scales(output_scale, *input_scales)
        check_scales(self.bias_scales(*input_scales), self.output, "weight_scales times the input's scale")


@dataclasses.dataclass(frozen=True, eq=False)
class Conv2D(Weighted):
    """A convolution.

    Args:
        input: The name of the tensor that is read.
        output: The name of the tensor that is written.
        weights: The kernel (output channels, kernel height, kernel width, input channels), integers or real numbers.
        weight_scales: The scales of integer weights (output channels,), float32; of shape (0,) for real weights.
        bias: The bias (output channels,), integers that fit int32 or real numbers.
        stride: The stride along height and width, at least 1.
        relu: Whether outputs below 0.0 become 0.0.
        padding: The padding, "SAME" or "VALID".
        container: How the weights are stored: "INT8" (in [-127, 127]), "INT4" (in [-7, 7], two in a byte), "FLOAT32" or "FLOAT16".
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
        """The shape of the output for an input of shape `shape`."""
        require_input(len(shape) == 4 and shape[3] == self.weights.shape[3], self, shape)
        return (1, *strided(self, shape, self.weights.shape[1:3]), self.weights.shape[0])


@dataclasses.dataclass(frozen=True, eq=False)
class DepthwiseConv2D(Weighted):
    """A depthwise convolution, which has kernels of their own for each channel, one or several.

    Args:
        input: The name of the tensor that is read.
        output: The name of the tensor that is written.
        weights: The kernels (1, kernel height, kernel width, output channels), integers or real numbers; those that read the same
            channel lie side by side.
        weight_scales: The scales of integer weights (output channels,), float32; of shape (0,) for real weights.
        bias: The bias (output channels,), integers that fit int32 or real numbers.
        stride: The stride along height and width, at least 1.
        relu: Whether outputs below 0.0 become 0.0.
        padding: The padding, "SAME" or "VALID".
        container: How the weights are stored: "INT8" (in [-127, 127]), "INT4" (in [-7, 7], two in a byte), "FLOAT32" or "FLOAT16".
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
        """The shape of the output for an input of shape `shape`."""
        one, _, _, channels = self.weights.shape
        require_input(len(shape) == 4 and one == 1 and channels % shape[3] == 0, self, shape)
        return (1, *strided(self, shape, self.weights.shape[1:3]), channels)


@dataclasses.dataclass(frozen=True, eq=False)
class FullyConnected(Weighted):
    """A dense layer over the last axis, which is a pointwise convolution if the input has four axes.

    XNNPACK takes INT4 weights only with an even number of input channels; otherwise the slower built-in kernel runs.

    Args:
        input: The name of the tensor that is read.
        output: The name of the tensor that is written.
        weights: The kernel (output channels, input channels), integers or real numbers.
        weight_scales: The scales of integer weights (output channels,), float32; of shape (0,) for real weights.
        bias: The bias (output channels,), integers that fit int32 or real numbers.
        container: How the weights are stored: "INT8" (in [-127, 127]), "INT4" (in [-7, 7], two in a byte), "FLOAT32" or "FLOAT16".
        relu: Whether outputs below 0.0 become 0.0.
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
        """The shape of the output for an input of shape `shape`."""
        require_input(shape[-1] == self.weights.shape[1], self, shape)
        return (*shape[:-1], self.weights.shape[0])


def _bits_of(sizes: np.ndarray) -> int:
    return max(2, int(sizes.max(initial=0)).bit_length() + 1)
