"""Elastic layers: the stock layer, of which a smaller part may be active.

A layer takes the active sizes as arguments of its call: Python ints in a static network, scalar tensors in the
supernet. Input channels are those that come in; the active part is always the first channels and the centre of the
kernel.
"""

from collections.abc import Callable

import tensorflow as tf

from daqu_tf.keras import keras
from daqu_tf.supernet.quantizers import SwitchableQuantizer, clip_to_gate, normalize_over_replicas
from daqu_tf.supernet.replicas import replicas
from daqu_tf.supernet.weights import EPSILON

Size = int | tf.Tensor


def channels(x: tf.Tensor) -> Size:
    """The number of channels of NHWC or NC `x`, static where known."""
    return x.shape[-1] if x.shape[-1] is not None else tf.shape(x)[-1]


def centre(kernel: tf.Tensor, size: Size | None) -> tf.Tensor:
    """The middle `size` x `size` of a square kernel, whose first two axes are its sides; all of it if `size` is None."""
    largest = kernel.shape[0]
    if size is None or (isinstance(size, int) and size == largest):
        return kernel
    start = (largest - size) // 2
    return kernel[start : start + size, start : start + size]


def product_in(
    half: str | None, product: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], x: tf.Tensor, kernel: tf.Tensor
) -> tf.Tensor:
    """`product(x, kernel)`, computed in a type of half the width; float32 in and out.

    Activations that come as codes of up to 8 bits are exact in both.

    Args:
        half: `float16`, `bfloat16`, or None for float32.
        product: A convolution or matrix product.
        x: Its first argument.
        kernel: Its second.
    """
    if half is None:
        return product(x, kernel)
    return tf.cast(product(tf.cast(x, half), tf.cast(kernel, half)), tf.float32)


class ElasticConv2D(keras.layers.Layer):
    """A convolution without bias of which the first `filters` outputs are computed; 1x1 ones are matrix products.

    Args:
        filters: The most output channels.
        kernel_size: The largest side of the kernel.
        stride: In both directions.
        half: As for `product_in`.
    """

    def __init__(self, filters: int, kernel_size: int = 1, stride: int = 1, half: str | None = None, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.kernel_size, self.stride, self.half = filters, kernel_size, stride, half

    def build(self, input_shape):
        """Creates the kernel, shape (size, size, input channels, filters)."""
        shape = [self.kernel_size, self.kernel_size, input_shape[-1], self.filters]
        self.kernel = self.add_weight("kernel", shape=shape, initializer="he_normal")
        super().build(input_shape)

    def call(self, x, filters: Size | None = None, kernel_size: Size | None = None, step=1.0):
        """NHWC in, NHWC with `filters` channels out; codes of a tensor are given with their step."""
        kernel = centre(self.kernel, kernel_size)[:, :, : channels(x), : self.filters if filters is None else filters] * step
        if self.kernel_size > 1:
            return product_in(self.half, lambda x, kernel: tf.nn.conv2d(x, kernel, self.stride, "SAME"), x, kernel)
        if self.stride > 1:
            x = x[:, :: self.stride, :: self.stride]
        # oneDNN's matrix product is over twice as fast as its 1x1 convolution on a CPU.
        shape = tf.shape(x)
        flat = product_in(self.half, tf.matmul, tf.reshape(x, [-1, shape[-1]]), kernel[0, 0])
        y = tf.reshape(flat, tf.concat([shape[:-1], tf.shape(flat)[-1:]], 0))
        return tf.ensure_shape(y, [*x.shape[:-1], kernel.shape[-1]])


class ElasticDepthwiseConv2D(keras.layers.Layer):
    """A depthwise convolution without bias of which the centre of the kernel is used, for as many channels as come in.

    Args:
        kernel_size: The largest side of the kernel.
        stride: In both directions.
        half: As for `product_in`.
    """

    def __init__(self, kernel_size: int, stride: int = 1, half: str | None = None, **kwargs):
        super().__init__(**kwargs)
        self.kernel_size, self.stride, self.half = kernel_size, stride, half

    def build(self, input_shape):
        """Creates the kernel, shape (size, size, channels, 1)."""
        shape = [self.kernel_size, self.kernel_size, input_shape[-1], 1]
        # Fan in of a depthwise kernel is its area; Keras's initializers would count the channels too.
        initializer = keras.initializers.TruncatedNormal(stddev=(2.0 / self.kernel_size**2) ** 0.5)
        self.kernel = self.add_weight("kernel", shape=shape, initializer=initializer)
        super().build(input_shape)

    def call(self, x, kernel_size: Size | None = None, step=1.0):
        """NHWC in, NHWC with the same channels out; codes of a tensor are given with their step."""
        kernel = centre(self.kernel, kernel_size)[:, :, : channels(x)] * step
        strides = [1, self.stride, self.stride, 1]
        return product_in(self.half, lambda x, kernel: tf.nn.depthwise_conv2d(x, kernel, strides, "SAME"), x, kernel)


class ElasticDense(keras.layers.Layer):
    """A dense layer over as many inputs as come in, of which the first `units` outputs are computed.

    Args:
        units: The most outputs.
        half: As for `product_in`.
    """

    def __init__(self, units: int, half: str | None = None, **kwargs):
        super().__init__(**kwargs)
        self.units, self.half = units, half

    def build(self, input_shape):
        """Creates the kernel, shape (inputs, units), and the bias."""
        self.kernel = self.add_weight("kernel", shape=[input_shape[-1], self.units], initializer="glorot_uniform")
        self.bias = self.add_weight("bias", shape=[self.units], initializer="zeros")
        super().build(input_shape)

    def call(self, x, units: Size | None = None):
        """(batch, inputs) in, (batch, units) out."""
        units = self.units if units is None else units
        return product_in(self.half, tf.matmul, x, self.kernel[: channels(x), :units]) + self.bias[:units]


class ElasticBatchNormalization(keras.layers.Layer):
    """Batch normalization, activation and quantizer in one, over as many channels as come in.

    In training the batch's own statistics are used, and the stored ones stay as they are: those of a supernet mean
    nothing until they are recalibrated for one subnet.

    Args:
        relu: Whether a ReLU follows.
        quantizer: Of the output.
    """

    def __init__(self, relu: bool, quantizer: SwitchableQuantizer, **kwargs):
        super().__init__(**kwargs)
        self.relu, self.quantizer = relu, quantizer

    def build(self, input_shape):
        """Creates scale, offset, statistics and steps."""
        size = [input_shape[-1]]
        self.gamma = self.add_weight("gamma", shape=size, initializer="ones")
        self.beta = self.add_weight("beta", shape=size, initializer="zeros")
        self.moving_mean = self.add_weight("moving_mean", shape=size, initializer="zeros", trainable=False)
        self.moving_variance = self.add_weight("moving_variance", shape=size, initializer="ones", trainable=False)
        self.steps = self.quantizer.build(input_shape, "activation", self)
        super().build(input_shape)

    def call(self, x, training: bool = False, statistics_rate=None, observe: tuple[int, ...] = (), as_codes: bool = False):
        """NHWC in, NHWC out.

        Args:
            x: The input.
            training: Whether to normalize by the batch's statistics.
            statistics_rate: In (0, 1]: the stored statistics move this far to the batch's. None leaves them. Not with several
                replicas: each worker recalibrates by itself, on the same images.
            observe: Bit-widths whose steps are set from this batch; eager mode only.
            as_codes: Whether to return codes, and the step as a second value. Scale and offset are divided by the step, and the
                next layer multiplies its kernel by it, so that the step's gradient comes from these few numbers and not from
                another four passes over the tensor (ours).
        """
        count = channels(x)
        gamma, beta = self.gamma[:count], self.beta[:count]
        if observe:
            y = self._normalize(x, gamma, beta, training, None)
            self.quantizer.initialise(self.steps, (tf.nn.relu(y) if self.relu else y).numpy(), observe)
        if as_codes:
            step = self.quantizer.step(self.steps)
            y = self._normalize(x, gamma / step, beta / step, training, statistics_rate)
            return self.quantizer.codes(y, self.relu), step
        if not training or replicas() > 1:
            y = self._normalize(x, gamma, beta, training, statistics_rate)
            return self.quantizer.activate(y, self.steps, self.relu)
        y, mean, variance = self.quantizer.normalize(x, gamma, beta, self.steps, EPSILON, self.relu)
        self._move(mean, variance, statistics_rate)
        return y

    def _normalize(self, x, gamma, beta, training: bool, statistics_rate):
        if not training:
            return self._by_stored(x, gamma, beta)
        if replicas() > 1:
            return normalize_over_replicas(x, gamma, beta, EPSILON, self.gamma.shape[0], self.name)
        y, mean, variance = tf.compat.v1.nn.fused_batch_norm(x, gamma, beta, epsilon=EPSILON)
        self._move(mean, variance, statistics_rate)
        return y

    def _by_stored(self, x, gamma, beta):
        count = channels(x)
        scale = gamma * tf.math.rsqrt(self.moving_variance[:count] + EPSILON)
        return x * scale + (beta - self.moving_mean[:count] * scale)

    def _move(self, mean, variance, rate) -> None:
        if rate is not None:
            for stored, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
                count = tf.shape(batch)[0]
                moved = stored[:count] + rate * (batch - stored[:count])
                # Whole: a part of a variable that several devices have cannot be assigned.
                stored.assign(tf.concat([moved, stored[count:]], 0))


class TensorQuantizer(keras.layers.Layer):
    """A quantizer, behind a ReLU or not: for sums, pooled features and outputs of dense layers.

    Args:
        quantizer: Of the tensor that passes.
        relu: Whether a ReLU comes first.
    """

    def __init__(self, quantizer: SwitchableQuantizer, relu: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.quantizer, self.relu = quantizer, relu

    def build(self, input_shape):
        """Creates the steps."""
        self.steps = self.quantizer.build(input_shape, "activation", self)
        super().build(input_shape)

    def call(self, x, observe: tuple[int, ...] = ()):
        """Any shape in, the same out."""
        if observe:
            self.quantizer.initialise(self.steps, (tf.nn.relu(x) if self.relu else x).numpy(), observe)
        return self.quantizer.activate(x, self.steps, self.relu)


class QuantizedProduct(TensorQuantizer):
    """The quantized product of a tensor and a gate: a hard-swish, or channels weighed by squeeze-excite."""

    def call(self, x, gate, observe: tuple[int, ...] = (), as_codes: bool = False):
        """`x` times `gate` / 6, with all that `gate` says in [0, 6]; `as_codes` as in `ElasticBatchNormalization`."""
        if observe:
            self.quantizer.initialise(self.steps, (x * (gate * (1.0 / 6.0))).numpy(), observe)
        if as_codes:
            step = self.quantizer.step(self.steps)
            return self.quantizer.codes(x * (gate * (1.0 / (6.0 * step))), self.relu), step
        return self.quantizer.activate(x * (gate * (1.0 / 6.0)), self.steps, self.relu)

    def gate(self, x):
        """`clip_to_gate`, in float where the product is."""
        return clip_to_gate(x, self.quantizer.bits())


def resize(images: tf.Tensor, size: tuple[Size, Size]) -> tf.Tensor:
    """Images brought to height and width, bilinearly, as an app brings a camera's to what a network reads.

    Not antialiased: resolutions of a space lie within a factor of two, and this is the form that phones have at speed.
    """
    if all(isinstance(side, int) for side in size) and tuple(images.shape[1:3]) == tuple(size):
        return images
    return tf.image.resize(images, tf.stack(size))


def quantize_input(x: tf.Tensor) -> tf.Tensor:
    """Images in [0, 1] on the grid of 255 steps that the file's int8 input has; exact for uint8 images.

    Divided by the file's scale, not multiplied by 255: a value halfway between two codes must fall as it does on the device.
    """
    step = tf.constant(1.0 / 255.0)
    return tf.clip_by_value(tf.round(x / step), 0.0, 255.0) * step
