"""What layers leave behind while a graph is built: tensors, tensors with zeros around them, and what is not rounded yet."""

import dataclasses

import numpy as np
import tensorflow as tf

from daqu_tf.keras import keras
from daqu_tf.tflite.graph import Tensor


@dataclasses.dataclass(frozen=True)
class Padded:
    """A tensor with zeros around it, which most convolutions add by themselves."""

    name: str
    tensor: Tensor
    pads: tuple[tuple[int, int], tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Unrounded:
    """The output of an operator before it is rounded, which batch normalization, factors and a ReLU may still join.

    Attributes:
        name: The name of the last layer that belongs to it.
        layer: The first layer that belongs to it.
        inputs: The tensors that this layer reads.
        stride: The stride of a convolution.
        padding: The padding of a convolution, `SAME` or `VALID`.
        norm: The batch normalization; None if there is none.
        relu_limit: The number at which the ReLU clips, infinite for a plain one; None if there is no ReLU.
        factor: What the values, after normalization, are multiplied by, a number or one for each channel.
        shift: What is added to them then, in the form of `factor`.
    """

    name: str
    layer: keras.layers.Layer
    inputs: tuple[Tensor, ...]
    stride: int = 1
    padding: str = "VALID"
    norm: keras.layers.Layer | None = None
    relu_limit: float | None = None
    factor: float | np.ndarray = 1.0
    shift: float | np.ndarray = 0.0

    @property
    def is_plain(self) -> bool:
        """Whether nothing has joined the operator yet."""
        return self.norm is None and self.relu_limit is None and bool(np.all(self.factor == 1.0) and np.all(self.shift == 0.0))

    def scaled(self, factor: float | np.ndarray, shift: float | np.ndarray) -> "Unrounded":
        """The values times a factor, plus a shift; behind a ReLU, only a positive factor and no shift make sense."""
        limit = None if self.relu_limit is None else self.relu_limit * float(factor)
        return dataclasses.replace(self, factor=self.factor * factor, shift=self.shift * factor + shift, relu_limit=limit)


Value = Tensor | Padded | Unrounded


def factor_and_offset(value: Unrounded, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """The factor and the offset (output channels,) of what follows the kernel."""
    layer, norm = value.layer, value.norm
    factor, offset = np.ones(channels), _float64(layer.bias) if has_bias(layer) else np.zeros(channels)
    if norm is not None:
        gamma = _float64(norm.gamma) if norm.scale else np.ones(channels)
        beta = _float64(norm.beta) if norm.center else np.zeros(channels)
        factor = gamma / np.sqrt(_float64(norm.moving_variance) + norm.epsilon)
        offset = beta + (offset - _float64(norm.moving_mean)) * factor
    return factor * value.factor, offset * value.factor + value.shift


def has_bias(layer: keras.layers.Layer) -> bool:
    """Whether a layer adds a bias of its own."""
    return bool(getattr(layer, "use_bias", False))


def _float64(variable: tf.Variable) -> np.ndarray:
    return variable.numpy().astype(np.float64)
