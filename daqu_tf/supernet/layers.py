"""Elastic layers: stock layers of which a smaller part may be active.

A layer takes the active sizes as arguments of its call, Python ints in a static network and scalar tensors in the supernet. Its
input channels are those of the tensor that comes in. The active part is always the first channels and the centre of the kernel.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import tensorflow as tf

from daqu_tf.keras import keras
from daqu_tf.supernet.quantizers import SwitchableQuantizer, clip_to_gate, normalize_over_replicas, rectified
from daqu_tf.supernet.replicas import replicas
from daqu_tf.supernet.weights import EPSILON

Size: TypeAlias = int | tf.Tensor
Codes: TypeAlias = tuple[tf.Tensor, tf.Tensor]  # And the step, by which they have to be multiplied.


def channels(x: tf.Tensor) -> Size:
    """The number of channels of `x`, of shape NHWC or NC: an int where it is known, else a scalar tensor."""
    return x.shape[-1] if x.shape[-1] is not None else tf.shape(x)[-1]


def first(x: tf.Tensor, *sizes: Size) -> tf.Tensor:
    """The first entries of `x` along its last axes; all of `x` where they are known to be all, since slicing copies.

    Args:
        x: The tensor.
        sizes: The number of entries along each of the last axes.
    """
    if all(isinstance(size, int) and size == all_of_it for size, all_of_it in zip(sizes, x.shape[-len(sizes) :])):
        return tf.convert_to_tensor(x)  # A variable of several devices is no argument that TensorFlow takes.
    return x[(..., *(slice(size) for size in sizes))]


def centre(kernel: tf.Tensor, size: Size | None) -> tf.Tensor:
    """The centre of a square kernel.

    Args:
        kernel: The kernel, whose first two axes are its sides.
        size: The side of the centre in pixels; None takes the whole kernel.
    """
    largest = kernel.shape[0]
    if size is None or (isinstance(size, int) and size == largest):
        return kernel
    start = (largest - size) // 2
    return kernel[start : start + size, start : start + size]


def product_in(
    half: str | None, product: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], x: tf.Tensor, kernel: tf.Tensor
) -> tf.Tensor:
    """The product of an activation and a kernel, both float32, computed in a type of 16 bits.

    Activations that come as codes of up to 8 bits are exact in both types of 16 bits.

    Args:
        half: The type: `float16`, `bfloat16`, or None for float32.
        product: The function that computes the product, a convolution or matrix product.
        x: The activation.
        kernel: The kernel.
    """
    if half is None:
        return product(x, kernel)
    return tf.cast(product(tf.cast(x, half), tf.cast(kernel, half)), tf.float32)


class ElasticConv2D(keras.layers.Layer):
    """A convolution without bias, of which the first output channels are computed; a 1x1 convolution is a matrix product.

    Args:
        filters: The largest number of output channels.
        kernel_size: The largest side of the kernel.
        stride: The stride along height and width.
        half: The type of convolutions and matrix products: `float16`, `bfloat16`, or None for float32.
    """

    def __init__(self, filters: int, kernel_size: int = 1, stride: int = 1, half: str | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.filters, self.kernel_size, self.stride, self.half = filters, kernel_size, stride, half

    def build(self, input_shape: tf.TensorShape) -> None:
        """Creates the kernel (size, size, input channels, filters)."""
        shape = [self.kernel_size, self.kernel_size, input_shape[-1], self.filters]
        self.kernel = self.add_weight("kernel", shape=shape, initializer="he_normal")
        super().build(input_shape)

    def call(
        self, x: tf.Tensor, filters: Size | None = None, kernel_size: Size | None = None, step: tf.Tensor | float = 1.0
    ) -> tf.Tensor:
        """Convolves with the active part of the kernel.

        Args:
            x: The input, of shape NHWC.
            filters: The number of output channels; None takes the largest.
            kernel_size: The side of the kernel; None takes the largest.
            step: The step of `x` if `x` is codes, by which the kernel is multiplied.

        Returns:
            The output, of shape NHWC with `filters` channels.
        """
        kernel = first(centre(self.kernel, kernel_size), channels(x), self.filters if filters is None else filters) * step
        if self.kernel_size > 1:
            return product_in(self.half, lambda x, kernel: tf.nn.conv2d(x, kernel, self.stride, "SAME"), x, kernel)
        if self.stride > 1:  # What slicing gives, and a third of its time, forward and backward (ours).
            x = tf.nn.avg_pool2d(x, 1, self.stride, "VALID")
        # oneDNN's matrix product is over twice as fast as its 1x1 convolution on a CPU.
        shape = tf.shape(x)
        flat = product_in(self.half, tf.matmul, tf.reshape(x, [-1, shape[-1]]), kernel[0, 0])
        y = tf.reshape(flat, tf.concat([shape[:-1], tf.shape(flat)[-1:]], 0))
        return tf.ensure_shape(y, [*x.shape[:-1], kernel.shape[-1]])


class ElasticDepthwiseConv2D(keras.layers.Layer):
    """A depthwise convolution without bias, with the centre of the kernel and as many channels as the input has.

    Args:
        kernel_size: The largest side of the kernel.
        stride: The stride along height and width.
        half: The type of convolutions and matrix products: `float16`, `bfloat16`, or None for float32.
    """

    def __init__(self, kernel_size: int, stride: int = 1, half: str | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.kernel_size, self.stride, self.half = kernel_size, stride, half

    def build(self, input_shape: tf.TensorShape) -> None:
        """Creates the kernel (size, size, channels, 1)."""
        shape = [self.kernel_size, self.kernel_size, input_shape[-1], 1]
        # The fan-in of a depthwise kernel is its area; Keras's initializers would count the channels too.
        initializer = keras.initializers.TruncatedNormal(stddev=(2.0 / self.kernel_size**2) ** 0.5)
        self.kernel = self.add_weight("kernel", shape=shape, initializer=initializer)
        super().build(input_shape)

    def call(self, x: tf.Tensor, kernel_size: Size | None = None, step: tf.Tensor | float = 1.0) -> tf.Tensor:
        """Convolves with the active part of the kernel.

        Args:
            x: The input, of shape NHWC.
            kernel_size: The side of the kernel; None takes the largest.
            step: The step of `x` if `x` is codes, by which the kernel is multiplied.

        Returns:
            The output, of shape NHWC with the channels of `x`.
        """
        kernel = first(centre(self.kernel, kernel_size), channels(x), 1) * step
        strides = [1, self.stride, self.stride, 1]
        return product_in(self.half, lambda x, kernel: tf.nn.depthwise_conv2d(x, kernel, strides, "SAME"), x, kernel)


class ElasticDense(keras.layers.Layer):
    """A dense layer over as many inputs as come in, of which the first outputs are computed.

    Args:
        units: The largest number of outputs.
        half: The type of convolutions and matrix products: `float16`, `bfloat16`, or None for float32.
    """

    def __init__(self, units: int, half: str | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.units, self.half = units, half

    def build(self, input_shape: tf.TensorShape) -> None:
        """Creates the kernel (inputs, units) and the bias (units,)."""
        self.kernel = self.add_weight("kernel", shape=[input_shape[-1], self.units], initializer="glorot_uniform")
        self.bias = self.add_weight("bias", shape=[self.units], initializer="zeros")
        super().build(input_shape)

    def call(self, x: tf.Tensor, units: Size | None = None) -> tf.Tensor:
        """The outputs (batch, units) for inputs (batch, inputs); `units` of None takes the largest number."""
        units = self.units if units is None else units
        return product_in(self.half, tf.matmul, x, first(self.kernel, channels(x), units)) + first(self.bias, units)


class ElasticBatchNormalization(keras.layers.Layer):
    """Batch normalization, activation and quantizer in one, over as many channels as come in.

    Training uses the statistics of the batch and leaves the stored ones as they are, since those of a supernet mean nothing until
    they are recalibrated for one subnet.

    Args:
        relu: Whether a ReLU follows the normalization.
        quantizer: The quantizer of the output.
    """

    def __init__(self, relu: bool, quantizer: SwitchableQuantizer, **kwargs: Any):
        super().__init__(**kwargs)
        self.relu, self.quantizer = relu, quantizer

    def build(self, input_shape: tf.TensorShape) -> None:
        """Creates the scale, the offset, the statistics and the steps."""
        size = [input_shape[-1]]
        self.gamma = self.add_weight("gamma", shape=size, initializer="ones")
        self.beta = self.add_weight("beta", shape=size, initializer="zeros")
        self.moving_mean = self.add_weight("moving_mean", shape=size, initializer="zeros", trainable=False)
        self.moving_variance = self.add_weight("moving_variance", shape=size, initializer="ones", trainable=False)
        self.steps = self.quantizer.build(input_shape, "activation", self)
        super().build(input_shape)

    def call(
        self,
        x: tf.Tensor,
        training: bool = False,
        statistics_rate: float | None = None,
        observe: tuple[int, ...] = (),
        as_codes: bool = False,
    ) -> tf.Tensor | Codes:
        """Normalizes, applies the ReLU if there is one, and quantizes.

        Args:
            x: The input, of shape NHWC.
            training: Whether to normalize by the statistics of the batch instead of the stored ones.
            statistics_rate: The share in (0, 1] by which the stored statistics move to those of the batch; None leaves them. It is
                not for several replicas, since each worker recalibrates by itself on the same images.
            observe: The bits whose steps are set from this batch, in eager mode only.
            as_codes: Whether to return codes, and their step as a second value. Scale and offset are then divided by the step, and
                the next layer multiplies its kernel by it, so that the gradient of the step comes from these few numbers and not
                from another four passes over the tensor (ours).

        Returns:
            The output, of shape NHWC; with `as_codes`, also the step.
        """
        count = channels(x)
        gamma, beta = first(self.gamma, count), first(self.beta, count)
        if observe:
            y = self._normalize(x, gamma, beta, training, None)
            self.quantizer.initialise(self.steps, rectified(y, self.relu, self.quantizer.ceiling).numpy(), observe)
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

    def _normalize(
        self, x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, training: bool, statistics_rate: float | None
    ) -> tf.Tensor:
        if not training:
            return self._by_stored(x, gamma, beta)
        if replicas() > 1:
            return normalize_over_replicas(x, gamma, beta, EPSILON, self.gamma.shape[0], self.name)
        y, mean, variance = tf.compat.v1.nn.fused_batch_norm(x, gamma, beta, epsilon=EPSILON)
        self._move(mean, variance, statistics_rate)
        return y

    def _by_stored(self, x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> tf.Tensor:
        count = channels(x)
        scale = gamma * tf.math.rsqrt(first(self.moving_variance, count) + EPSILON)
        return x * scale + (beta - first(self.moving_mean, count) * scale)

    def _move(self, mean: tf.Tensor, variance: tf.Tensor, rate: float | None) -> None:
        if rate is not None:
            for stored, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
                count = tf.shape(batch)[0]
                moved = stored[:count] + rate * (batch - stored[:count])
                # The whole variable is assigned, since a part of one that several devices have cannot be.
                stored.assign(tf.concat([moved, stored[count:]], 0))


class TensorQuantizer(keras.layers.Layer):
    """A layer that quantizes a tensor: a sum, pooled features or the output of a dense layer.

    Args:
        quantizer: The quantizer of the tensor.
        relu: Whether a ReLU comes before the quantizer.
    """

    def __init__(self, quantizer: SwitchableQuantizer, relu: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.quantizer, self.relu = quantizer, relu

    def build(self, input_shape: tf.TensorShape) -> None:
        """Creates the steps of the quantizer."""
        self.steps = self.quantizer.build(input_shape, "activation", self)
        super().build(input_shape)

    def call(self, x: tf.Tensor, observe: tuple[int, ...] = ()) -> tf.Tensor:
        """The quantized tensor, in the shape of `x`; `observe` holds the bits whose steps are set from it, in eager mode only."""
        if observe:
            self.quantizer.initialise(self.steps, rectified(x, self.relu, self.quantizer.ceiling).numpy(), observe)
        return self.quantizer.activate(x, self.steps, self.relu)


class QuantizedProduct(TensorQuantizer):
    """A layer that quantizes the product of a tensor and a gate: a hard-swish, or channels weighed by squeeze-excite."""

    # Keras calls each layer with what its own `call` takes.
    def call(  # type: ignore[override]
        self, x: tf.Tensor, gate: tf.Tensor, observe: tuple[int, ...] = (), as_codes: bool = False
    ) -> tf.Tensor | Codes:
        """The quantized product of `x` and `gate` / 6.

        Args:
            x: The tensor.
            gate: The gate, in [0, 6], whose shape broadcasts against that of `x`.
            observe: The bits whose steps are set from the product, in eager mode only.
            as_codes: Whether to return codes, and their step as a second value.
        """
        if observe:
            self.quantizer.initialise(self.steps, (x * (gate * (1.0 / 6.0))).numpy(), observe)
        if as_codes:
            step = self.quantizer.step(self.steps)
            return self.quantizer.codes(x * (gate * (1.0 / (6.0 * step))), self.relu), step
        return self.quantizer.activate(x * (gate * (1.0 / 6.0)), self.steps, self.relu)

    def gate(self, x: tf.Tensor) -> tf.Tensor:
        """The gate relu6(x + 3), on the grid of an int8 unless the product is in float."""
        return clip_to_gate(x, self.quantizer.bits())


def resize(images: tf.Tensor, size: tuple[Size, Size], antialias: bool = True) -> tf.Tensor:
    """The images, brought to a height and width with an antialiased triangle filter, as `data.photos` brings photos to a size.

    Without antialiasing pixels would be skipped, and an application, which reduces photos and skips none, would show the network
    images that it was not trained with.

    Args:
        images: The images (batch, height, width, channels).
        size: The height and width.
        antialias: Whether no pixel is skipped. Networks of before were trained without that.
    """
    if all(isinstance(side, int) for side in size) and tuple(images.shape[1:3]) == tuple(size):
        return images
    target = tf.stack(size)
    # The largest subnets, which every other step has, would pay for a filter that changes nothing.
    is_there = tf.reduce_all(tf.equal(target, tf.shape(images)[1:3]))
    filtered = _filtered if antialias else tf.image.resize
    return tf.cond(is_there, lambda: images, lambda: filtered(images, target))


def _filtered(images: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """What `tf.image.resize(images, target, antialias=True)` computes, with the same last bit in a traced function as outside."""
    # It divides in float32, which graphs turn into a product with the reciprocal: pixels halfway between two codes fall otherwise.
    scale = tf.cast(target, tf.float64) / tf.cast(tf.shape(images)[1:3], tf.float64)
    return tf.raw_ops.ScaleAndTranslate(
        images=images,
        size=target,
        scale=tf.cast(scale, tf.float32),
        translation=tf.zeros(2),
        kernel_type="triangle",
        antialias=True,
    )


def quantize_input(x: tf.Tensor, zero: float | tf.Tensor = 0.0) -> tf.Tensor:
    """The images in [0, 1], rounded to the 255 steps of the file's int8 input, which is exact for uint8 images, less their zero.

    They are divided by the file's scale instead of multiplied by 255, so that a value halfway between two codes is rounded as on
    the device.

    Args:
        x: The images.
        zero: The code, in [0, 255], that stands for 0.
    """
    step = tf.constant(1.0 / 255.0)
    return (tf.clip_by_value(tf.round(x / step), 0.0, 255.0) - zero) * step
