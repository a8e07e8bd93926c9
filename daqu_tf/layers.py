"""Elastic layers: the stock layer, of which a smaller part may be active.

A layer takes the active sizes as arguments of its call: Python ints in a static network, scalar tensors in the
supernet. Input channels are those that come in; the active part is always the first channels and the centre of the
kernel.
"""

import tensorflow as tf

from daqu_tf.keras import keras
from daqu_tf.quantizers import SwitchableQuantizer

Size = int | tf.Tensor
EPSILON = 1e-3  # Of batch normalization, as in Keras.


def channels(x: tf.Tensor) -> Size:
    """The number of channels of NHWC or NC `x`, static where known."""
    return x.shape[-1] if x.shape[-1] is not None else tf.shape(x)[-1]


class ElasticConv2D(keras.layers.Layer):
    """A convolution without bias of which the first `filters` outputs are computed; 1x1 ones are matrix products.

    Args:
        filters: The most output channels.
        kernel_size: Side of the kernel.
        stride: In both directions.
    """

    def __init__(self, filters: int, kernel_size: int = 1, stride: int = 1, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.kernel_size, self.stride = filters, kernel_size, stride

    def build(self, input_shape):
        """Creates the kernel, shape (size, size, input channels, filters)."""
        shape = [self.kernel_size, self.kernel_size, input_shape[-1], self.filters]
        self.kernel = self.add_weight("kernel", shape=shape, initializer="he_normal")
        super().build(input_shape)

    def call(self, x, filters: Size | None = None):
        """NHWC in, NHWC with `filters` channels out."""
        kernel = self.kernel[:, :, : channels(x), : self.filters if filters is None else filters]
        if self.kernel_size > 1 or self.stride > 1:
            return tf.nn.conv2d(x, kernel, self.stride, "SAME")
        # oneDNN's matrix product is over twice as fast as its 1x1 convolution on a CPU.
        return tf.tensordot(x, kernel[0, 0], 1)


class ElasticDepthwiseConv2D(keras.layers.Layer):
    """A depthwise convolution without bias of which the centre of the kernel is used.

    Args:
        kernel_size: The largest side of the kernel.
        stride: In both directions.
    """

    def __init__(self, kernel_size: int, stride: int = 1, **kwargs):
        super().__init__(**kwargs)
        self.kernel_size, self.stride = kernel_size, stride

    def build(self, input_shape):
        """Creates the kernel, shape (size, size, channels, 1)."""
        shape = [self.kernel_size, self.kernel_size, input_shape[-1], 1]
        # Fan in of a depthwise kernel is its area; Keras's initializers would count the channels too.
        initializer = keras.initializers.TruncatedNormal(stddev=(2.0 / self.kernel_size**2) ** 0.5)
        self.kernel = self.add_weight("kernel", shape=shape, initializer=initializer)
        super().build(input_shape)

    def call(self, x, kernel_size: Size | None = None):
        """NHWC in, NHWC with the same channels out."""
        size = self.kernel_size if kernel_size is None else kernel_size
        start = (self.kernel_size - size) // 2
        kernel = self.kernel[start : start + size, start : start + size, : channels(x)]
        return tf.nn.depthwise_conv2d(x, kernel, [1, self.stride, self.stride, 1], "SAME")


class ElasticDense(keras.layers.Layer):
    """A dense layer over as many inputs as come in.

    Args:
        units: Outputs, all of which are computed.
    """

    def __init__(self, units: int, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        """Creates the kernel, shape (inputs, units), and the bias."""
        self.kernel = self.add_weight("kernel", shape=[input_shape[-1], self.units], initializer="glorot_uniform")
        self.bias = self.add_weight("bias", shape=[self.units], initializer="zeros")
        super().build(input_shape)

    def call(self, x):
        """(batch, inputs) in, (batch, units) out."""
        return tf.matmul(x, self.kernel[: channels(x)]) + self.bias


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

    def call(self, x, training: bool = False, statistics_rate=None, observe: tuple[int, ...] = ()):
        """NHWC in, NHWC out.

        Args:
            x: The input.
            training: Whether to normalize by the batch's statistics.
            statistics_rate: In (0, 1]: the stored statistics move this far to the batch's. None leaves them.
            observe: Bit-widths whose steps are set from this batch; eager mode only.
        """
        y = self._by_batch(x, statistics_rate) if training else self._by_stored(x)
        activation = tf.nn.relu if self.relu else tf.identity
        if observe:
            self.quantizer.initialise(self.steps, activation(y).numpy(), observe)
        # The lowest code after a ReLU is 0: the quantizer's own clipping is the ReLU, one pass over memory less.
        return self.quantizer.switch(lambda: self.quantizer.quantize(y, self.steps), lambda: activation(y))

    def _by_batch(self, x, statistics_rate):
        count = channels(x)
        y, mean, variance = tf.compat.v1.nn.fused_batch_norm(x, self.gamma[:count], self.beta[:count], epsilon=EPSILON)
        if statistics_rate is not None:
            for stored, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
                stored[:count].assign(stored[:count] + statistics_rate * (batch - stored[:count]))
        return y

    def _by_stored(self, x):
        count = channels(x)
        scale = self.gamma[:count] * tf.math.rsqrt(self.moving_variance[:count] + EPSILON)
        return x * scale + (self.beta[:count] - self.moving_mean[:count] * scale)


class QuantizedTensor(keras.layers.Layer):
    """Only a quantizer: for a residual sum, the pooled features and the logits.

    Args:
        quantizer: Of the tensor that passes.
    """

    def __init__(self, quantizer: SwitchableQuantizer, **kwargs):
        super().__init__(**kwargs)
        self.quantizer = quantizer

    def build(self, input_shape):
        """Creates the steps."""
        self.steps = self.quantizer.build(input_shape, "activation", self)
        super().build(input_shape)

    def call(self, x, observe: tuple[int, ...] = ()):
        """Any shape in, the same out."""
        if observe:
            self.quantizer.initialise(self.steps, x.numpy(), observe)
        return self.quantizer(x, False, self.steps)


def quantize_input(x: tf.Tensor) -> tf.Tensor:
    """Images in [0, 1] on the grid of 255 steps that the file's int8 input has; exact for uint8 images.

    Divided by the file's scale, not multiplied by 255: a value halfway between two codes must fall as it does on the device.
    """
    step = tf.constant(1.0 / 255.0)
    return tf.clip_by_value(tf.round(x / step), 0.0, 255.0) * step
