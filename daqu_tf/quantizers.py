"""Learned-step fake quantization whose bit-width is switched at run time.

Pure functions first, then the thin TFMOT classes. A tensor has one learned step per bit-width (LSQ, Esser et al., ICLR
2020), stored as its logarithm so that a step stays positive and moves in proportion (ours). 32 bits means float.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from daqu_tf.keras import QuantizeConfig, Quantizer, keras
from daqu_tf.space import FLOAT_BITS

Bits = int | tf.Tensor  # A Python int in a static network, a scalar tensor in the supernet.


def weight_range(bits: int) -> tuple[int, int]:
    """Symmetric codes of a weight: -(2^(b-1) - 1) .. 2^(b-1) - 1, so that every container can hold a sign change."""
    limit = 2 ** (bits - 1) - 1
    return -limit, limit


def activation_range(bits: int, signed: bool) -> tuple[int, int]:
    """Codes of an activation: 0 .. 2^b - 1 after a ReLU, -2^(b-1) .. 2^(b-1) - 1 of a linear output."""
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


@tf.custom_gradient
def fake_quantize(x: tf.Tensor, log_step: tf.Tensor, lower: tf.Tensor, upper: tf.Tensor):
    """Rounds `x` to multiples of exp(log_step) with codes in [lower, upper].

    Gradients are LSQ's (Esser et al., ICLR 2020, equations 3 and 5), without its gradient scale, which cancels out
    under Adam.

    Args:
        x: Any shape.
        log_step: Broadcasts against `x`.
        lower: Scalar, the lowest code.
        upper: Scalar, the highest code.

    Returns:
        A tensor of the shape of `x`.
    """
    step = tf.exp(log_step)
    scaled = x / step
    codes = tf.clip_by_value(tf.round(scaled), lower, upper)

    def gradient(upstream):
        inside = tf.logical_and(scaled >= lower, scaled <= upper)
        d_step = upstream * tf.where(inside, codes - scaled, codes) * step
        return tf.where(inside, upstream, 0.0), _sum_to(d_step, log_step), None, None

    return codes * step, gradient


def _sum_to(x: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Sums `x` over the axes in which `like` was broadcast."""
    axes, _ = tf.raw_ops.BroadcastGradientArgs(s0=tf.shape(like), s1=tf.shape(x))
    return tf.reshape(tf.reduce_sum(x, axes), tf.shape(like))


def best_steps(values: np.ndarray, lower: int, upper: int) -> np.ndarray:
    """The step with the least squared error for each column of `values`, of 40 that clip more and more.

    Args:
        values: Shape (count, columns).
        lower: The lowest code.
        upper: The highest code.

    Returns:
        Shape (columns,), positive.
    """
    full = np.maximum(np.abs(values).max(axis=0), 1e-8) / max(upper, -lower)
    best, least = full, np.full(full.shape, np.inf)
    for ratio in np.linspace(1.0, 0.1, 40):
        step = full * ratio
        error = np.square(np.clip(np.round(values / step), lower, upper) * step - values).sum(axis=0)
        best, least = np.where(error < least, step, best), np.minimum(error, least)
    return best


class SwitchableQuantizer(Quantizer):
    """A TFMOT quantizer with one learned step per bit-width, and per channel where there is a channel axis.

    Args:
        alphabet: The bit-widths that have steps.
        bits: Returns the active width: one of `alphabet`, or 32 for float. By default the highest width, always.
        signed: Whether an activation may be negative.
        channel_axis: The axis of output channels of a weight; None for activations (one step a tensor).
    """

    def __init__(
        self,
        alphabet: Sequence[int],
        bits: Callable[[], Bits] | None = None,
        signed: bool = False,
        channel_axis: int | None = None,
    ):
        self.alphabet = tuple(alphabet)
        self.bits = bits or (lambda: self.alphabet[-1])
        self.signed = signed
        self.channel_axis = channel_axis

    def code_range(self, bits: int) -> tuple[int, int]:
        """The lowest and highest code at `bits`."""
        return activation_range(bits, self.signed) if self.channel_axis is None else weight_range(bits)

    def build(self, tensor_shape, name: str, layer: keras.layers.Layer) -> dict[str, tf.Variable]:
        """Adds the steps, shape (widths,) or (widths, channels), to `layer`."""
        channels = [] if self.channel_axis is None else [tensor_shape[self.channel_axis]]
        shape = [len(self.alphabet), *channels]
        return {"log_step": layer.add_weight(name=f"{name}_log_step", shape=shape, initializer="zeros", trainable=True)}

    def quantize(self, inputs: tf.Tensor, weights: dict[str, tf.Variable]) -> tf.Tensor:
        """Fake-quantizes `inputs` at the active width, which must not be 32."""
        bits = self.bits()
        ranges = np.array([self.code_range(width) for width in self.alphabet], np.float32)
        row = self.alphabet.index(bits) if isinstance(bits, int) else tf.argmax(tf.equal(bits, self.alphabet))
        log_step = weights["log_step"][row]
        if self.channel_axis is not None:
            trailing = inputs.shape.rank - 1 - self.channel_axis
            log_step = tf.reshape(log_step, [-1, *[1] * trailing])
        return fake_quantize(inputs, log_step, tf.gather(ranges[:, 0], row), tf.gather(ranges[:, 1], row))

    def switch(self, quantized: Callable[[], tf.Tensor], otherwise: Callable[[], tf.Tensor]) -> tf.Tensor:
        """`quantized()`, or `otherwise()` where the active width is 32; only one of them is computed."""
        bits = self.bits()
        if isinstance(bits, int):
            return otherwise() if bits == FLOAT_BITS else quantized()
        return tf.cond(bits == FLOAT_BITS, otherwise, quantized)

    def __call__(self, inputs, training, weights, **kwargs):
        """Fake-quantizes `inputs` at the active width; at 32 bits returns them unchanged."""
        return self.switch(lambda: self.quantize(inputs, weights), lambda: tf.identity(inputs))

    def initialise(self, weights: dict[str, tf.Variable], values: np.ndarray, widths: Sequence[int]) -> None:
        """Sets the steps of `widths` to those with the least squared error on `values`, shaped as the tensor."""
        axis = self.channel_axis
        columns = values.reshape(-1, 1) if axis is None else np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis])
        steps = weights["log_step"].numpy()
        for row, width in enumerate(self.alphabet):
            if width in widths:
                steps[row] = np.log(best_steps(columns, *self.code_range(width))).reshape(steps[row].shape)
        weights["log_step"].assign(steps)

    def get_config(self) -> dict[str, Any]:
        """The serializable arguments; `bits` is given again by whoever owns the choice."""
        return {"alphabet": list(self.alphabet), "signed": self.signed, "channel_axis": self.channel_axis}


class SwitchableQuantizeConfig(QuantizeConfig):
    """The TFMOT configuration of one elastic layer: its kernel is quantized.

    Activations are not TFMOT's affair here: batch normalization, ReLU and quantizer are one fused layer of ours.

    Args:
        kernel: Quantizer of the attribute `kernel`.
    """

    def __init__(self, kernel: SwitchableQuantizer):
        self.kernel = kernel

    def get_weights_and_quantizers(self, layer):
        """The kernel and its quantizer."""
        return [(layer.kernel, self.kernel)]

    def get_activations_and_quantizers(self, layer):
        """None."""
        return []

    def set_quantize_weights(self, layer, quantize_weights):
        """Puts the fake-quantized kernel into the layer for one call."""
        layer.kernel = quantize_weights[0]

    def set_quantize_activations(self, layer, quantize_activations):
        """Nothing to set."""

    def get_output_quantizers(self, layer):
        """None."""
        return []

    def get_config(self):
        """The quantizer's arguments."""
        return {"kernel": self.kernel.get_config()}

    @classmethod
    def from_config(cls, config):
        """The inverse of `get_config`."""
        return cls(SwitchableQuantizer(**config["kernel"]))
