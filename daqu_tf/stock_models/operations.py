"""What a functional model applies that is no single layer with a rule, as the stock layers that do the same.

These are operations without a layer, such as `x + 3.0`, and separable convolutions.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from tf_keras.src.engine.keras_tensor import KerasTensor  # Keras gives neither a public name.
from tf_keras.src.layers import TFOpLambda

from daqu_tf.keras import keras

layers = keras.layers
Operation = TFOpLambda
COMPOSED = (keras.Model, Operation, layers.SeparableConv2D)  # What other layers can stand for.
_SUMS, _PRODUCTS = ("__operators__.add", "math.add"), ("math.multiply",)
_DIFFERENCES, _QUOTIENTS = ("math.subtract",), ("math.truediv", "math.divide", "realdiv")
_FUNCTIONS: dict[str, Callable[[], keras.layers.Layer]] = {
    "nn.relu": layers.ReLU,
    "nn.relu6": lambda: layers.ReLU(6.0),
    "nn.softmax": layers.Softmax,
    "math.negative": lambda: layers.Rescaling(-1.0),
}
KNOWN = frozenset((*_SUMS, *_PRODUCTS, *_DIFFERENCES, *_QUOTIENTS, *_FUNCTIONS, "concat"))  # The operations that layers stand for.


def as_layer(operation: keras.layers.Layer, args: tuple, kwargs: dict[str, Any]) -> tuple[keras.layers.Layer, Any] | None:
    """The stock layer that does what an operation does, and what it is called with; None where there is none.

    Args:
        operation: The layer that Keras made of the operation.
        args: What the operation is called with: tensors of the model, and numbers.
        kwargs: What the operation is called with by name.
    """
    symbol, given = operation.symbol, [value for value in kwargs.values() if value is not None]
    if given:
        return None
    if symbol in _FUNCTIONS and len(args) == 1:
        return _FUNCTIONS[symbol](), args[0]
    if symbol == "concat" and len(args) == 2:
        return layers.Concatenate(args[1]), list(args[0])
    if len(args) != 2:
        return None
    first, second = args
    of_model = [isinstance(value, KerasTensor) for value in args]
    if all(of_model):
        combined = {**dict.fromkeys(_SUMS, layers.Add), **dict.fromkeys(_PRODUCTS, layers.Multiply)}
        return (combined[symbol](), [first, second]) if symbol in combined else None
    tensor, number = (first, second) if of_model[0] else (second, first)
    change = _change(symbol, np.asarray(number, np.float64), number is second)
    return (layers.Rescaling(*(value.tolist() for value in change)), tensor) if change else None


def _change(symbol: str, number: np.ndarray, is_second: bool) -> tuple[np.ndarray, np.ndarray] | None:
    """The scale and the offset that an operation on a tensor and a number stands for."""
    one, zero = np.ones(()), np.zeros(())
    if symbol in _SUMS:
        return one, number
    if symbol in _PRODUCTS:
        return number, zero
    if symbol in _DIFFERENCES:
        return (one, -number) if is_second else (-one, number)
    if symbol in _QUOTIENTS and is_second and np.all(number != 0):
        return one / number, zero
    return None


def separated(layer: keras.layers.Layer, name: str, x: Any) -> Any:
    """The output of the depthwise and the pointwise convolution that a separable one is made of, with its weights.

    Args:
        layer: The separable convolution.
        name: The name of the pointwise convolution.
        x: The tensor that is read.
    """
    settings = {key: getattr(layer, key) for key in ("strides", "padding", "data_format", "dilation_rate", "depth_multiplier")}
    depthwise = layers.DepthwiseConv2D(
        layer.kernel_size,
        use_bias=False,
        depthwise_regularizer=layer.depthwise_regularizer,
        name=f"{name}_depthwise",
        **settings,
    )
    pointwise = layers.Conv2D(
        layer.filters,
        1,
        data_format=layer.data_format,
        use_bias=layer.use_bias,
        activation=layer.activation,
        kernel_regularizer=layer.pointwise_regularizer,
        bias_regularizer=layer.bias_regularizer,
        name=name,
    )
    y = pointwise(depthwise(x))
    first, *others = layer.get_weights()
    depthwise.set_weights([first])
    pointwise.set_weights(others)
    return y
