"""Learned-step fake quantization whose bits are switched at run time.

The pure functions come first, then the thin TFMOT classes. A tensor has one learned step for each entry of its bit alphabet (LSQ,
Esser et al., ICLR 2020), stored as its logarithm so that a step stays positive and moves in proportion (ours). 32 bits means float.
Codes are the integers that a quantized tensor consists of.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from daqu_tf.keras import QuantizeConfig, Quantizer, keras
from daqu_tf.spaces.bits import FIXED_BITS, FLOAT_BITS, activation_range, weight_range
from daqu_tf.supernet.initial_steps import best_steps
from daqu_tf.supernet.replicas import replicas, sum_over_replicas

Bits: TypeAlias = int | tf.Tensor  # A Python int in a static network, a scalar tensor in the supernet.
OBSERVED_VALUES = 2**22  # The most values of an activation that its steps are set from.
_Gradient = Callable[..., Any]  # From the gradients of what a function returns to those of its arguments.


@tf.custom_gradient
def fake_quantize(x: tf.Tensor, log_step: tf.Tensor, lower: tf.Tensor, upper: tf.Tensor) -> tuple[tf.Tensor, _Gradient]:
    """The tensor `x`, rounded to multiples of exp(log_step) with codes in [lower, upper]; an infinite range leaves it as it is.

    Gradients are LSQ's (Esser et al., ICLR 2020, equations 3 and 5), without its gradient scale, which cancels out
    under Adam.

    Args:
        x: The tensor, of any shape.
        log_step: The logarithm of the step, whose shape broadcasts against that of `x`.
        lower: The lowest code, a scalar.
        upper: The highest code, a scalar.

    Returns:
        The rounded tensor, in the shape of `x`.
    """
    step = tf.exp(log_step)
    scaled = x / step
    clipped = tf.raw_ops.ClipByValue(t=scaled, clip_value_min=lower, clip_value_max=upper)
    is_float = tf.math.is_inf(upper)
    y = tf.cond(is_float, lambda: tf.identity(x), lambda: tf.round(clipped) * step)

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, None, None]:
        d_x = tf.where(tf.equal(clipped, scaled), upstream, 0.0)
        # The gradient of the step is upstream * (y - x) / step where nothing is clipped, and upstream * y / step elsewhere.
        d_log_step = _sum_to(upstream * y - d_x * x, log_step)
        return d_x, tf.where(is_float, 0.0, d_log_step), None, None

    return y, gradient


def _sum_to(x: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """The sum of `x` over the axes along which `like` was broadcast."""
    axes, _ = tf.raw_ops.BroadcastGradientArgs(s0=tf.shape(like), s1=tf.shape(x))
    return tf.reshape(tf.reduce_sum(x, axes), tf.shape(like))


def quantize_activation(
    x: tf.Tensor, log_step: tf.Tensor, bits: Bits, signed: bool, relu: bool = False, ceiling: float = np.inf
) -> tf.Tensor:
    """An activation behind a ReLU, if there is one, and fake quantization with one step for the whole tensor.

    It gives the numbers of a ReLU and `fake_quantize` in far fewer passes over memory, which take most of a training step (ours).
    The ReLU is the quantizer's own clipping, and TensorFlow has a fused kernel for rounding and clipping and one for their
    gradient. LSQ's gradient of log(step), a sum of upstream * (y - x) where nothing is clipped and of upstream * y elsewhere, is a
    sum of upstream * y - d_x * x.

    Args:
        x: The activation, of any shape.
        log_step: The logarithm of the step, a scalar.
        bits: The bits, 2 to 8, or 32 for no quantization.
        signed: Whether codes may be negative.
        relu: Whether a ReLU comes first, at 32 bits too.
        ceiling: The number at which the ReLU clips at 32 bits; with fewer, the step decides where the quantizer does.
    """

    @tf.custom_gradient
    def quantize(x: tf.Tensor, log_step: tf.Tensor) -> tuple[tf.Tensor, _Gradient]:
        y, d_x_of = _rounded(x, tf.exp(log_step), bits, signed, relu, ceiling)

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            d_x = d_x_of(upstream)
            return d_x, unless_float(bits, lambda: tf.reduce_sum(upstream * y - d_x * x), lambda: tf.constant(0.0))

        return y, gradient

    return quantize(x, log_step)


def normalize_activation(
    x: tf.Tensor,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    log_step: tf.Tensor,
    epsilon: float,
    bits: Bits,
    signed: bool,
    relu: bool,
    ceiling: float = np.inf,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Batch normalization by the statistics of the batch, then `quantize_activation`, with two passes over memory less (ours).

    With y = gamma * normalized x + beta, the sum of d_y * y is the sum of gamma * d_gamma + beta * d_beta, which are small.

    Args:
        x: The tensor, of shape NHWC.
        gamma: The scale (channels,).
        beta: The offset (channels,).
        log_step: The logarithm of the step, a scalar.
        epsilon: The epsilon of the normalization.
        bits: The bits, 2 to 8, or 32 for no quantization.
        signed: Whether codes may be negative.
        relu: Whether a ReLU follows the normalization.
        ceiling: The number at which the ReLU clips at 32 bits.

    Returns:
        The activation, of shape NHWC, and the mean (channels,) and the unbiased variance (channels,) of the batch.
    """

    @tf.custom_gradient
    def normalize(
        x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, log_step: tf.Tensor
    ) -> tuple[tuple[tf.Tensor, tf.Tensor, tf.Tensor], _Gradient]:
        options = {"epsilon": epsilon, "is_training": True}
        statistics = {"mean": tf.zeros([0]), "variance": tf.zeros([0])}
        normalized = tf.raw_ops.FusedBatchNormV3(x=x, scale=gamma, offset=beta, **statistics, **options)
        y, d_normalized_of = _rounded(normalized.y, tf.exp(log_step), bits, signed, relu, ceiling)

        def gradient(upstream: tf.Tensor, *_: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
            reserved = {f"reserve_space_{number}": getattr(normalized, f"reserve_space_{number}") for number in (1, 2, 3)}
            d_normalized = d_normalized_of(upstream)
            d_x, d_gamma, d_beta, *_ = tf.raw_ops.FusedBatchNormGradV3(
                y_backprop=d_normalized, x=x, scale=gamma, **reserved, **options
            )
            lower = tf.reduce_sum(gamma * d_gamma + beta * d_beta)
            return d_x, d_gamma, d_beta, unless_float(bits, lambda: tf.reduce_sum(upstream * y) - lower, lambda: tf.constant(0.0))

        return (y, normalized.batch_mean, normalized.batch_variance), gradient

    return normalize(x, gamma, beta, log_step)


def normalize_over_replicas(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float, largest: int, name: str) -> tf.Tensor:
    """Batch normalization by the statistics over all replicas' batches, which have one size, forward and backward.

    Args:
        x: The tensor of this replica, of shape NHWC.
        gamma: The scale (channels,).
        beta: The offset (channels,).
        epsilon: The epsilon of the normalization.
        largest: The largest number of channels that the layer can have.
        name: The name of the layer.
    """
    count = tf.shape(gamma)[0]
    own = tf.stack([tf.reduce_mean(x, [0, 1, 2]), tf.reduce_mean(tf.square(x), [0, 1, 2])])
    # They are padded, since what is exchanged must have one shape for all subnets: (2, largest).
    padded = tf.ensure_shape(tf.pad(own, [[0, 0], [0, largest - count]]), [2, largest])
    mean, mean_square = tf.unstack(sum_over_replicas(padded, name)[:, :count] / replicas())
    variance = tf.maximum(mean_square - tf.square(mean), 0.0)
    scale = gamma * tf.math.rsqrt(variance + epsilon)
    return x * scale + (beta - mean * scale)


def clip_to_gate(x: tf.Tensor, bits: Bits) -> tf.Tensor:
    """The gate relu6(x + 3), a sixth of which is the hard sigmoid (Howard et al., ICCV 2019).

    Unless `bits` is 32, it is rounded to the 255 steps of an int8, whose saturation clips it, so that the file needs no operator
    for the clipping.

    Args:
        x: The tensor, of any shape.
        bits: 32 for float; any other number means the 8 bits that a gate always has.
    """

    @tf.custom_gradient
    def clip(x: tf.Tensor) -> tuple[tf.Tensor, _Gradient]:
        shifted = x + 3.0
        limits = {"input_min": tf.constant(0.0), "input_max": tf.constant(6.0)}

        def fused() -> tf.Tensor:
            options = {"num_bits": FIXED_BITS, "signed_input": False, "range_given": True}
            return tf.raw_ops.QuantizeAndDequantizeV3(input=shifted, **limits, **options)

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            return tf.raw_ops.QuantizeAndDequantizeV4Grad(gradients=upstream, input=shifted, **limits)[0]

        return unless_float(bits, fused, lambda: tf.nn.relu6(shifted)), gradient

    return clip(x)


def _rounded(
    x: tf.Tensor, step: tf.Tensor, bits: Bits, signed: bool, relu: bool, ceiling: float
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """The quantized activation, and the function that turns its gradient into that of `x`."""
    if isinstance(bits, int) and bits == FLOAT_BITS:  # TensorFlow fuses its own ReLU with the normalization before it.
        y, gradient = rectified(x, relu, ceiling), tf.raw_ops.ReluGrad if ceiling == np.inf else tf.raw_ops.Relu6Grad
        return y, lambda upstream: gradient(gradients=upstream, features=y) if relu else upstream
    low, high = _limits(bits, signed, relu, step, ceiling)

    def fused() -> tf.Tensor:
        options = {"num_bits": bits, "signed_input": signed, "range_given": True}
        return tf.raw_ops.QuantizeAndDequantizeV3(input=x, input_min=low, input_max=high, **options)

    def d_x_of(upstream: tf.Tensor) -> tf.Tensor:
        return tf.raw_ops.QuantizeAndDequantizeV4Grad(gradients=upstream, input=x, input_min=low, input_max=high)[0]

    return unless_float(bits, fused, lambda: rectified(x, relu, ceiling)), d_x_of


def rectified(x: tf.Tensor, relu: bool, ceiling: float = np.inf) -> tf.Tensor:
    """The tensor `x` behind a ReLU if `relu`, which clips at `ceiling`, 6 or infinite."""
    if not relu:
        return tf.identity(x)
    return tf.nn.relu(x) if ceiling == np.inf else tf.nn.relu6(x)


def _limits(bits: Bits, signed: bool, relu: bool, step: tf.Tensor, ceiling: float) -> tuple[tf.Tensor, tf.Tensor]:
    """The values between which an activation is not clipped; a float ReLU passes no gradient at 0 itself."""
    lowest, highest = _code_limits(bits, signed)
    step = tf.where(tf.math.is_finite(step), step, 1.0)  # The kernel refuses others.
    if isinstance(bits, int):
        return lowest * step, highest * step
    tiny = tf.constant(np.finfo(np.float32).tiny if relu else -np.inf)
    is_float = tf.equal(bits, FLOAT_BITS)
    return tf.where(is_float, tiny, lowest * step), tf.where(is_float, ceiling, highest * step)


def _code_limits(bits: Bits, signed: bool) -> tuple[tf.Tensor, tf.Tensor]:
    """The lowest and highest code as float tensors, also where `bits` is a tensor; at 32 bits they mean nothing."""
    table = np.zeros((2, FLOAT_BITS + 1), np.float32)
    table[:, 2:9] = np.transpose([activation_range(each, signed) for each in range(2, 9)])
    return tf.gather(table[0], bits), tf.gather(table[1], bits)


def unless_float(bits: Bits, quantized: Callable[[], tf.Tensor], otherwise: Callable[[], tf.Tensor]) -> tf.Tensor:
    """The result of `quantized`, or of `otherwise` where `bits` is 32; only one of them is computed."""
    if isinstance(bits, int):
        return otherwise() if bits == FLOAT_BITS else quantized()
    return tf.cond(bits == FLOAT_BITS, otherwise, quantized)


class SwitchableQuantizer(Quantizer):
    """A TFMOT quantizer with one learned step for each entry of a bit alphabet, and for each channel of a weight.

    Args:
        alphabet: The bits that have steps, ascending.
        bits: A function that gives the active bits, one of `alphabet`, or 32 for float; None always takes the highest.
        signed: Whether an activation may be negative.
        channel_axis: The axis of a weight's output channels; None for an activation, which has one step for the whole tensor.
        ceiling: The number at which the ReLU before an activation clips in float, 6 or infinite.
    """

    def __init__(
        self,
        alphabet: Sequence[int],
        bits: Callable[[], Bits] | None = None,
        signed: bool = False,
        channel_axis: int | None = None,
        ceiling: float = np.inf,
    ):
        self.alphabet = tuple(alphabet)
        self.bits = bits or (lambda: self.alphabet[-1])
        self.signed = signed
        self.channel_axis = channel_axis
        self.ceiling = ceiling

    def code_range(self, bits: int) -> tuple[int, int]:
        """The lowest and the highest code at `bits`."""
        return activation_range(bits, self.signed) if self.channel_axis is None else weight_range(bits)

    def build(self, tensor_shape: tf.TensorShape, name: str, layer: keras.layers.Layer) -> dict[str, tf.Variable]:
        """Adds the logarithms of the steps to a layer.

        Args:
            tensor_shape: The shape of the tensor that is quantized.
            name: The name of the tensor, with which that of the variable begins.
            layer: The layer that gets the variable.

        Returns:
            The variable as `log_step`, of shape (entries of the alphabet,) or (entries of the alphabet, channels).
        """
        channels = [] if self.channel_axis is None else [tensor_shape[self.channel_axis]]
        shape = [len(self.alphabet), *channels]
        return {"log_step": layer.add_weight(name=f"{name}_log_step", shape=shape, initializer="zeros", trainable=True)}

    def log_step(self, weights: Mapping[str, tf.Variable], bits: Bits) -> tf.Tensor:
        """The logarithm of the step at `bits`, of shape () or (channels,); at 32 bits it means nothing."""
        if len(self.alphabet) == 1:
            return tf.convert_to_tensor(weights["log_step"])[0]
        if isinstance(bits, int):
            return weights["log_step"][self.alphabet.index(bits) if bits in self.alphabet else 0]
        rows = np.zeros(FLOAT_BITS + 1, np.int32)
        rows[list(self.alphabet)] = range(len(self.alphabet))
        return tf.gather(weights["log_step"], tf.gather(rows, bits))

    def step(self, weights: Mapping[str, tf.Variable]) -> tf.Tensor | float:
        """The step at the active bits; 1 at 32 bits."""
        bits = self.bits()
        if isinstance(bits, int):
            return 1.0 if bits == FLOAT_BITS else tf.exp(self.log_step(weights, bits))
        return tf.where(bits == FLOAT_BITS, 1.0, tf.exp(self.log_step(weights, bits)))

    def codes(self, x: tf.Tensor, relu: bool) -> tf.Tensor:
        """The codes of an activation that was divided by its step, behind a ReLU if `relu`; in float, the activation itself."""
        return quantize_activation(x, tf.constant(0.0), self.bits(), self.signed, relu, self.ceiling)

    def normalize(
        self, x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, weights: Mapping[str, tf.Variable], epsilon: float, relu: bool
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Batch normalization and quantization of an activation at the active bits, as `normalize_activation` computes them."""
        bits = self.bits()
        return normalize_activation(x, gamma, beta, self.log_step(weights, bits), epsilon, bits, self.signed, relu, self.ceiling)

    def activate(self, x: tf.Tensor, weights: Mapping[str, tf.Variable], relu: bool) -> tf.Tensor:
        """The activation `x`, behind a ReLU if `relu`, quantized at the active bits."""
        bits = self.bits()
        return quantize_activation(x, self.log_step(weights, bits), bits, self.signed, relu, self.ceiling)

    def __call__(self, inputs: tf.Tensor, training: Any, weights: Mapping[str, tf.Variable], **kwargs: Any) -> tf.Tensor:
        """The tensor `inputs`, fake-quantized at the active bits; at 32 bits it is unchanged."""
        if self.channel_axis is None:
            return self.activate(inputs, weights, relu=False)
        bits = self.bits()
        if isinstance(bits, int) and bits == FLOAT_BITS:
            return tf.identity(inputs)
        trailing = inputs.shape.rank - 1 - self.channel_axis
        log_step = tf.reshape(self.log_step(weights, bits), [-1, *[1] * trailing])
        limit = tf.where(tf.equal(bits, FLOAT_BITS), np.inf, _code_limits(bits, signed=True)[1])
        # A variable of several devices is no argument that TensorFlow takes.
        return fake_quantize(tf.convert_to_tensor(inputs), log_step, -limit, limit)

    def initialise(self, weights: Mapping[str, tf.Variable], values: np.ndarray, chosen: Sequence[int]) -> None:
        """Sets steps to those with the least squared error on some values.

        Args:
            weights: The variables of the quantizer, as `build` returns them.
            values: The values, in the shape of the tensor.
            chosen: The bits whose steps are set.
        """
        axis = self.channel_axis
        columns = values.reshape(-1, 1) if axis is None else np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis])
        if axis is None:  # Of the activations of large images, all would take minutes.
            columns = columns[:: len(columns) // OBSERVED_VALUES + 1]
        steps = weights["log_step"].numpy()
        for row, bits in enumerate(self.alphabet):
            if bits in chosen:
                steps[row] = np.log(best_steps(columns, *self.code_range(bits))).reshape(steps[row].shape)
        weights["log_step"].assign(steps)

    def get_config(self) -> dict[str, Any]:
        """The arguments as JSON values, without `bits`, which belongs to the owner of the choice."""
        return {"alphabet": list(self.alphabet), "signed": self.signed, "channel_axis": self.channel_axis}


class SwitchableQuantizeConfig(QuantizeConfig):
    """The TFMOT configuration of an elastic layer, of which the kernel is quantized.

    TFMOT does not quantize activations here, since batch normalization, ReLU and quantizer are one fused layer of ours.

    Args:
        kernel: The quantizer of the kernel.
    """

    def __init__(self, kernel: SwitchableQuantizer):
        self.kernel = kernel

    def get_weights_and_quantizers(self, layer: keras.layers.Layer) -> list[tuple[tf.Variable, SwitchableQuantizer]]:
        """The kernel of the layer and its quantizer."""
        return [(layer.kernel, self.kernel)]

    def get_activations_and_quantizers(self, layer: keras.layers.Layer) -> list[Any]:
        """No activations, since TFMOT does not quantize them here."""
        return []

    def set_quantize_weights(self, layer: keras.layers.Layer, quantize_weights: Sequence[tf.Tensor]) -> None:
        """Puts the fake-quantized kernel into the layer for one call."""
        layer.kernel = quantize_weights[0]

    def set_quantize_activations(self, layer: keras.layers.Layer, quantize_activations: Sequence[Any]) -> None:
        """Does nothing, since TFMOT does not quantize activations here."""

    def get_output_quantizers(self, layer: keras.layers.Layer) -> list[Any]:
        """No quantizers, since TFMOT does not quantize outputs here."""
        return []

    def get_config(self) -> dict[str, Any]:
        """The arguments of the quantizer."""
        return {"kernel": self.kernel.get_config()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "SwitchableQuantizeConfig":
        """The configuration with the arguments that `get_config` gave."""
        return cls(SwitchableQuantizer(**config["kernel"]))
