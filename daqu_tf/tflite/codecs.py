"""How each operator of a `Graph` is written to a `.tflite` file and read back, one encoder and one decoder each."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from daqu_tf.errors import DaquError
from daqu_tf.tflite.base import PADDINGS
from daqu_tf.tflite.operators import (
    Add,
    AddConstant,
    Concatenate,
    Dequantize,
    GlobalAveragePool,
    Logistic,
    MaxPool,
    Minimum,
    Multiply,
    Operator,
    Pad,
    Quantize,
    Reshape,
    Softmax,
)
from daqu_tf.tflite.schema import int32
from daqu_tf.tflite.weighted import FLOAT_CONTAINERS, Conv2D, DepthwiseConv2D, FullyConnected, Weighted

if TYPE_CHECKING:
    from daqu_tf.tflite.decoder import Decoder
    from daqu_tf.tflite.encoder import Encoder

_SPATIAL_AXES = np.array([1, 2], "<i4")

# The lowest version of each operator that has the types used, since old runtimes refuse higher ones (TensorFlow,
# lite/tools/versioning/op_version.cc).
_CONV_VERSIONS = {"INT8": 3, "INT4": 7, "FLOAT32": 1, "FLOAT16": 1, "INT8 in float": 5, "INT4 in float": 8}
_DEPTHWISE_VERSIONS = {"INT8": 3, "INT4": 7, "FLOAT32": 1, "FLOAT16": 1, "INT8 in float": 6, "INT4 in float": 7}
_DENSE_VERSIONS = {"INT8": 4, "INT4": 10, "FLOAT32": 1, "FLOAT16": 1, "INT8 in float": 12, "INT4 in float": 12}
_KEPT_DIMENSIONS_VERSION = 5


def _version(operator: Weighted, versions: dict[str, int]) -> int:
    in_float = operator.in_float and operator.container not in FLOAT_CONTAINERS
    return versions[f"{operator.container} in float" if in_float else operator.container]


def _encode_conv(operator: Conv2D, encoder: "Encoder") -> None:
    stride = operator.stride
    options = encoder.schema.Conv2DOptionsT(PADDINGS.index(operator.padding), stride, stride, int(operator.relu))
    encoder.node("CONV_2D", _version(operator, _CONV_VERSIONS), operator, options, encoder.kernel(operator))


def _decode_conv(node: Any, decoder: "Decoder") -> Conv2D:
    return Conv2D(*decoder.ends(node), **decoder.kernel(node) | _window(node), relu=_relu(node))


def _encode_depthwise(operator: DepthwiseConv2D, encoder: "Encoder") -> None:
    stride, multiplier = operator.stride, operator.weights.shape[3] // encoder.tensors_by_name[operator.input].shape[3]
    padding, relu = PADDINGS.index(operator.padding), int(operator.relu)
    options = encoder.schema.DepthwiseConv2DOptionsT(padding, stride, stride, multiplier, relu)
    encoder.node("DEPTHWISE_CONV_2D", _version(operator, _DEPTHWISE_VERSIONS), operator, options, encoder.kernel(operator))


def _decode_depthwise(node: Any, decoder: "Decoder") -> DepthwiseConv2D:
    return DepthwiseConv2D(*decoder.ends(node), **decoder.kernel(node) | _window(node), relu=_relu(node))


def _encode_fully_connected(operator: FullyConnected, encoder: "Encoder") -> None:
    keep_num_dims = len(encoder.tensors_by_name[operator.input].shape) == 4
    options = encoder.schema.FullyConnectedOptionsT(int(operator.relu), keepNumDims=keep_num_dims)
    version = max(_version(operator, _DENSE_VERSIONS), _KEPT_DIMENSIONS_VERSION if keep_num_dims else 1)
    encoder.node("FULLY_CONNECTED", version, operator, options, encoder.kernel(operator))


def _decode_fully_connected(node: Any, decoder: "Decoder") -> FullyConnected:
    return FullyConnected(*decoder.ends(node), **decoder.kernel(node), relu=_relu(node))


def _encode_add(operator: Add, encoder: "Encoder") -> None:
    encoder.node("ADD", 1 if encoder.in_float(operator) else 2, operator, encoder.schema.AddOptionsT(int(operator.relu)))


def _decode_add(node: Any, decoder: "Decoder") -> Add | AddConstant:
    if decoder.is_constant(node.inputs[1]):
        return _decode_add_constant(node, decoder)
    a, b, output = decoder.names(node)
    return Add(a, b, output, relu=_relu(node))


def _encode_add_constant(operator: AddConstant, encoder: "Encoder") -> None:
    in_float, options = encoder.in_float(operator), encoder.schema.AddOptionsT(int(operator.relu))
    sign = math.copysign(127, operator.constant)
    number = encoder.number(sign, operator.constant_scale, "FLOAT32" if in_float else "INT8")
    encoder.node("ADD", 1 if in_float else 2, operator, options, (number,))


def _decode_add_constant(node: Any, decoder: "Decoder") -> AddConstant:
    constant = node.inputs[1]
    _require_plain(node, decoder.container(constant) == "FLOAT32" or abs(decoder.values(constant).item()) == 127)
    return AddConstant(*decoder.ends(node), constant=decoder.number(constant), relu=_relu(node))


def _encode_multiply(operator: Multiply, encoder: "Encoder") -> None:
    encoder.node("MUL", 1 if encoder.in_float(operator) else 2, operator, encoder.schema.MulOptionsT())


def _decode_multiply(node: Any, decoder: "Decoder") -> Multiply:
    _require_plain(node, not _relu(node))
    return Multiply(*decoder.names(node))


def _encode_concatenate(operator: Concatenate, encoder: "Encoder") -> None:
    axis = len(encoder.tensors_by_name[operator.output].shape) - 1
    encoder.node("CONCATENATION", 1 if encoder.in_float(operator) else 2, operator, encoder.schema.ConcatenationOptionsT(axis))


def _decode_concatenate(node: Any, decoder: "Decoder") -> Concatenate:
    *parts, output = decoder.names(node)
    _require_plain(node, not _relu(node))
    return Concatenate(tuple(parts), output)


def _encode_pool(operator: GlobalAveragePool, encoder: "Encoder") -> None:
    axes = encoder.constant("INT32", _SPATIAL_AXES.shape, _SPATIAL_AXES)
    version = 1 if encoder.in_float(operator) else 2
    encoder.node("MEAN", version, operator, encoder.schema.ReducerOptionsT(operator.keepdims), (axes,))


def _decode_pool(node: Any, decoder: "Decoder") -> GlobalAveragePool:
    axes = decoder.values(node.inputs[1])
    _require_plain(node, np.array_equal(axes, _SPATIAL_AXES))
    return GlobalAveragePool(*decoder.ends(node), keepdims=bool(node.builtinOptions.keepDims))


def _encode_max_pool(operator: MaxPool, encoder: "Encoder") -> None:
    stride, (height, width) = operator.stride, operator.size
    options = encoder.schema.Pool2DOptionsT(PADDINGS.index(operator.padding), stride, stride, width, height)
    encoder.node("MAX_POOL_2D", 1 if encoder.in_float(operator) else 2, operator, options)


def _decode_max_pool(node: Any, decoder: "Decoder") -> MaxPool:
    options = node.builtinOptions
    _require_plain(node, not _relu(node))
    return MaxPool(*decoder.ends(node), size=(options.filterHeight, options.filterWidth), **_window(node))


def _encode_pad(operator: Pad, encoder: "Encoder") -> None:
    pads = np.array([(0, 0), *operator.pads, (0, 0)], "<i4")
    constant = encoder.constant("INT32", pads.shape, pads)
    encoder.node("PAD", 1 if encoder.in_float(operator) else 2, operator, encoder.schema.PadOptionsT(), (constant,))


def _decode_pad(node: Any, decoder: "Decoder") -> Pad:
    pads = decoder.values(node.inputs[1]).tolist()
    _require_plain(node, pads[:1] == pads[3:] == [[0, 0]])  # Of batch and channels.
    _, (above, below), (left, right), _ = pads
    return Pad(*decoder.ends(node), pads=((above, below), (left, right)))


def _encode_reshape(operator: Reshape, encoder: "Encoder") -> None:
    shape = int32(*operator.shape)
    constant = encoder.constant("INT32", shape.shape, shape)
    encoder.node("RESHAPE", 1, operator, encoder.schema.ReshapeOptionsT(shape), (constant,))


def _decode_reshape(node: Any, decoder: "Decoder") -> Reshape:
    return Reshape(*decoder.ends(node), shape=tuple(decoder.values(node.inputs[1]).tolist()))


def _encode_quantize(operator: Quantize, encoder: "Encoder") -> None:
    encoder.node("QUANTIZE", 1, operator, encoder.schema.QuantizeOptionsT())


def _decode_quantize(node: Any, decoder: "Decoder") -> Quantize:
    return Quantize(*decoder.ends(node))


def _encode_dequantize(operator: Dequantize, encoder: "Encoder") -> None:
    encoder.node("DEQUANTIZE", 2, operator, encoder.schema.DequantizeOptionsT())


def _decode_dequantize(node: Any, decoder: "Decoder") -> Dequantize:
    return Dequantize(*decoder.ends(node))


def _encode_minimum(operator: Minimum, encoder: "Encoder") -> None:
    limit = encoder.constant("FLOAT32", (1,), np.array([operator.limit], np.float32))
    encoder.node("MINIMUM", 1, operator, encoder.schema.MaximumMinimumOptionsT(), (limit,))


def _decode_minimum(node: Any, decoder: "Decoder") -> Minimum:
    return Minimum(*decoder.ends(node), limit=decoder.number(node.inputs[1]))


def _encode_softmax(operator: Softmax, encoder: "Encoder") -> None:
    encoder.node("SOFTMAX", 1 if encoder.in_float(operator) else 2, operator, encoder.schema.SoftmaxOptionsT(beta=1.0))


def _decode_softmax(node: Any, decoder: "Decoder") -> Softmax:
    _require_plain(node, getattr(node.builtinOptions, "beta", None) == 1, len(node.inputs) == 1)
    return Softmax(*decoder.ends(node))


def _encode_logistic(operator: Logistic, encoder: "Encoder") -> None:
    encoder.node("LOGISTIC", 1 if encoder.in_float(operator) else 2, operator, None)


def _decode_logistic(node: Any, decoder: "Decoder") -> Logistic:
    return Logistic(*decoder.ends(node))


ENCODERS: dict[type, "Callable[[Any, Encoder], None]"] = {
    Conv2D: _encode_conv,
    DepthwiseConv2D: _encode_depthwise,
    FullyConnected: _encode_fully_connected,
    Add: _encode_add,
    AddConstant: _encode_add_constant,
    Multiply: _encode_multiply,
    Concatenate: _encode_concatenate,
    GlobalAveragePool: _encode_pool,
    Quantize: _encode_quantize,
    Dequantize: _encode_dequantize,
    Minimum: _encode_minimum,
    Softmax: _encode_softmax,
    Logistic: _encode_logistic,
    MaxPool: _encode_max_pool,
    Pad: _encode_pad,
    Reshape: _encode_reshape,
}
DECODERS: dict[str, "Callable[[Any, Decoder], Operator]"] = {
    "CONV_2D": _decode_conv,
    "DEPTHWISE_CONV_2D": _decode_depthwise,
    "FULLY_CONNECTED": _decode_fully_connected,
    "ADD": _decode_add,
    "MUL": _decode_multiply,
    "CONCATENATION": _decode_concatenate,
    "MEAN": _decode_pool,
    "QUANTIZE": _decode_quantize,
    "DEQUANTIZE": _decode_dequantize,
    "MINIMUM": _decode_minimum,
    "SOFTMAX": _decode_softmax,
    "LOGISTIC": _decode_logistic,
    "MAX_POOL_2D": _decode_max_pool,
    "PAD": _decode_pad,
    "RESHAPE": _decode_reshape,
}


def _relu(node: Any) -> bool:
    activation = node.builtinOptions.fusedActivationFunction
    _require_plain(node, activation in (0, 1))
    return bool(activation)


def _window(node: Any) -> dict[str, Any]:
    options = node.builtinOptions
    dilations = {getattr(options, name, 1) for name in ("dilationHFactor", "dilationWFactor")}  # Pools have none.
    _require_plain(node, dilations == {1}, options.strideH == options.strideW)
    return {"stride": options.strideH, "padding": PADDINGS[options.padding]}


def _require_plain(node: Any, *conditions: bool) -> None:
    if not all(conditions):
        kind = type(node.builtinOptions).__name__
        came = f"{kind} with {vars(node.builtinOptions)}"
        raise DaquError(f"The file must hold operators of daqu_tf, but received {came}: read only files that daqu_tf wrote.")
