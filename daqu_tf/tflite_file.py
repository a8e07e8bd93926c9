"""Writes a `Graph` to .tflite bytes and reads it back: the integers given are the file's integers.

The bytes are kept few without asking anything unusual of a runtime: equal vectors are stored once, and only activation
tensors have names. Runtimes insist on a zero point for every scale, and XNNPACK on a scale per channel for biases too:
not stored once, the zero points alone, all of them 0, would take 16 bytes a channel.
"""

import functools
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import flatbuffers
import numpy as np

from daqu_tf.errors import DaquError
from daqu_tf.tflite_graph import ACTIVATION_LIMITS, Graph, QuantizedTensor
from daqu_tf.tflite_operators import (
    PADDINGS,
    Add,
    AddConstant,
    Conv2D,
    DepthwiseConv2D,
    FullyConnected,
    GlobalAveragePool,
    MaxPool,
    Multiply,
    Operator,
    Pad,
    Quantize,
    Reshape,
    Weighted,
)

SIGNATURE = "serving_default"

_SCHEMA_VERSION = 3
_BUFFER_ALIGNMENT = 16  # what the schema promises to kernels that read weights in place
_SPATIAL_AXES = np.array([1, 2], np.int32)


def write(graph: Graph, metadata: Mapping[str, bytes] | None = None) -> bytes:
    """Returns the .tflite file of `graph`, with the signature `SIGNATURE` over its input and output names.

    Args:
        graph: What the file computes.
        metadata: Buffers to go with it, by name; runtimes ignore them, and `read_metadata` finds them.

    Raises:
        DaquError: If the tensors and operators disagree or do not fit the file; the message names the tensor.
    """
    graph.check()
    builder = _SharingBuilder()
    builder.Finish(_Encoder(graph).model(metadata or {}).Pack(builder), b"TFL3")
    return bytes(builder.Output())


def read(data: bytes) -> Graph:
    """Returns the graph for which `write` gives `data`, whatever metadata go with it.

    Raises:
        DaquError: If the file holds anything that a `Graph` cannot say.
    """
    return _Decoder(_model(data)).graph()


def read_metadata(data: bytes) -> dict[str, bytes]:
    """Returns the buffers that go with the graph of any .tflite file, by name.

    Raises:
        DaquError: If it is no such file.
    """
    model = _model(data)
    return {entry.name.decode(): model.buffers[entry.buffer].data.tobytes() for entry in model.metadata or ()}


def _model(data: bytes) -> Any:
    if data[4:8] != b"TFL3":
        raise DaquError("the data must be a .tflite file, but received other bytes; read it again from its source")
    return _schema().ModelT.InitFromPackedBuf(data)


@functools.cache
def _schema() -> ModuleType:
    """The generated classes of the file format, imported late because they load the runtime."""
    from ai_edge_litert import schema_py_generated

    return schema_py_generated


class _SharingBuilder(flatbuffers.Builder):
    """Refers to a vector or string that was written before instead of writing it again."""

    def __init__(self):
        super().__init__(1 << 20)
        self._written = {}

    def CreateNumpyVector(self, x: np.ndarray) -> int:
        """Returns the offset of the vector `x`; byte vectors, which are the buffers, are aligned."""
        key = x.dtype.str, x.tobytes()
        if key not in self._written:
            if x.dtype == np.uint8:
                self.Prep(_BUFFER_ALIGNMENT, x.size)
            self._written[key] = super().CreateNumpyVector(x)
        return self._written[key]

    def CreateString(self, s: str, *args: Any) -> int:
        """Returns the offset of the string `s`."""
        if s not in self._written:
            self._written[s] = super().CreateString(s, *args)
        return self._written[s]


class _Encoder:
    """Gathers the tables of one file; the methods that add something return its index."""

    def __init__(self, graph: Graph):
        self.schema = _schema()
        self.tensors_by_name = {tensor.name: tensor for tensor in graph.tensors}
        self._graph = graph
        self._buffers = [self.schema.BufferT()]  # buffer 0 is by convention empty
        self._tensors = [self._activation(tensor) for tensor in graph.tensors]
        self._indices = {tensor.name: index for index, tensor in enumerate(graph.tensors)}
        self._codes = {}

    def model(self, metadata: Mapping[str, bytes]) -> Any:
        """Returns the root table, with named buffers beside the graph."""
        operators = [_ENCODERS[type(operator)](operator, self) for operator in self._graph.operators]
        names = self._graph.input, self._graph.output
        ends = [self._indices[name] for name in names]
        subgraph = self.schema.SubGraphT(self._tensors, *map(_int32, ends), operators)
        maps = ([self.schema.TensorMapT(name, end)] for name, end in zip(names, ends))
        signature = self.schema.SignatureDefT(*maps, SIGNATURE)
        codes = [self._operator_code(*code) for code in self._codes]
        named = [self.schema.MetadataT(name, self._buffer(data)) for name, data in metadata.items()] or None
        return self.schema.ModelT(_SCHEMA_VERSION, codes, [subgraph], None, self._buffers, None, named, [signature])

    def node(self, code: str, version: int, operator: Operator, options: Any, constants: tuple[int, ...] = ()) -> Any:
        """Returns the table of one operator that reads its activations and then `constants`."""
        return self.schema.OperatorT(
            opcodeIndex=self._codes.setdefault((code, version), len(self._codes)),
            inputs=_int32(*(self._indices[name] for name in operator.inputs), *constants),
            outputs=_int32(self._indices[operator.output]),
            builtinOptionsType=getattr(self.schema.BuiltinOptions, type(options).__name__.removesuffix("T")),
            builtinOptions=options,
        )

    def kernel(self, operator: Weighted) -> tuple[int, int]:
        """Adds weights and bias; XNNPACK insists on a scale and a zero point per output channel for both."""
        weights, scales = operator.weights, operator.weight_scales
        quantization = self._quantization(scales, np.zeros(len(scales), np.int64), operator.channels_axis)
        data = pack_int4(weights) if operator.container == "INT4" else weights.astype(np.int8)
        bias_scales = operator.bias_scales(self.tensors_by_name[operator.input].scale)
        bias_quantization = self._quantization(bias_scales, np.zeros(len(scales), np.int64))
        return (
            self.constant(operator.container, weights.shape, data, quantization),
            self.constant("INT32", operator.bias.shape, operator.bias.astype("<i4"), bias_quantization),
        )

    def number(self, value: int, scale: float) -> int:
        """Adds one int8 number that every element of another tensor meets."""
        quantization = self._quantization(np.array([scale], np.float32), np.zeros(1, np.int64))
        return self.constant("INT8", (1,), np.array([value], np.int8), quantization)

    def constant(self, type_name: str, shape: tuple[int, ...], data: np.ndarray, quantization: Any = None) -> int:
        """Adds a nameless tensor that holds `data`."""
        kind, buffer = getattr(self.schema.TensorType, type_name), self._buffer(data.tobytes())
        self._tensors.append(self.schema.TensorT(_int32(*shape), kind, buffer, quantization=quantization))
        return len(self._tensors) - 1

    def _buffer(self, data: bytes) -> int:
        self._buffers.append(self.schema.BufferT(np.frombuffer(data, np.uint8)))
        return len(self._buffers) - 1

    def _activation(self, tensor: QuantizedTensor) -> Any:
        quantization = self._quantization(np.array([tensor.scale], np.float32), np.array([tensor.zero_point], np.int64))
        kind = getattr(self.schema.TensorType, tensor.type)
        return self.schema.TensorT(_int32(*tensor.shape), kind, 0, tensor.name, quantization)

    def _quantization(self, scales: np.ndarray, zero_points: np.ndarray, axis: int = 0) -> Any:
        return self.schema.QuantizationParametersT(scale=scales, zeroPoint=zero_points, quantizedDimension=axis)

    def _operator_code(self, code: str, version: int) -> Any:
        # Every operator here predates the 32-bit code field, so old readers find it in the 8-bit one.
        number = getattr(self.schema.BuiltinOperator, code)
        return self.schema.OperatorCodeT(number, None, version, number)


class _Decoder:
    """Turns the tables of one file back into a graph."""

    def __init__(self, model: Any):
        self._model = model
        self._subgraph = model.subgraphs[0]
        schema = _schema()
        self._code_names = {number: name for name, number in vars(schema.BuiltinOperator).items() if name[0] != "_"}
        self._type_names = {number: name for name, number in vars(schema.TensorType).items() if name[0] != "_"}

    def graph(self) -> Graph:
        """Returns the graph."""
        tensors = tuple(
            self._activation(tensor) for index, tensor in enumerate(self._subgraph.tensors) if not self.is_constant(index)
        )
        operators = tuple(self._operator(node) for node in self._subgraph.operators)
        return Graph(tensors, operators, self.name(self._subgraph.inputs[0]), self.name(self._subgraph.outputs[0]))

    def name(self, index: int) -> str:
        """Name of the activation tensor with this index."""
        return self._subgraph.tensors[index].name.decode()

    def names(self, node: Any) -> list[str]:
        """Names of the inputs, then of the output, of an operator that reads activation tensors only."""
        return [self.name(index) for index in (*node.inputs, *node.outputs)]

    def ends(self, node: Any) -> dict[str, str]:
        """The `input` and `output` of an operator that reads one activation tensor."""
        return {"input": self.name(node.inputs[0]), "output": self.name(node.outputs[0])}

    def is_constant(self, index: int) -> bool:
        """Whether the tensor with this index is stored rather than computed."""
        return self._model.buffers[self._subgraph.tensors[index].buffer].data is not None

    def container(self, index: int) -> str:
        """Name of the type in which the tensor with this index is stored."""
        return self._type_names[self._subgraph.tensors[index].type]

    def values(self, index: int) -> np.ndarray:
        """The integers of a constant tensor, in its shape."""
        tensor = self._subgraph.tensors[index]
        data = self._model.buffers[tensor.buffer].data
        match self.container(index):
            case "INT4":
                flat = unpack_int4(data, int(np.prod(tensor.shape)))
            case "INT8":
                flat = data.view(np.int8)
            case _:
                flat = np.frombuffer(data.tobytes(), "<i4")
        return flat.reshape(tensor.shape)

    def scales(self, index: int) -> np.ndarray:
        """The scales of the tensor with this index."""
        return self._subgraph.tensors[index].quantization.scale

    def kernel(self, node: Any) -> dict[str, np.ndarray]:
        """The constants of an operator with weights."""
        _, weights, bias = node.inputs
        return {"weights": self.values(weights), "weight_scales": self.scales(weights), "bias": self.values(bias)}

    def _activation(self, tensor: Any) -> QuantizedTensor:
        kind = self._type_names[tensor.type]
        if kind not in ACTIVATION_LIMITS:
            raise DaquError(f"tensor {tensor.name!r}: its type must be INT8 or UINT8, but is {kind}")
        scale, zero_point = tensor.quantization.scale.item(), tensor.quantization.zeroPoint.item()
        return QuantizedTensor(tensor.name.decode(), tuple(tensor.shape.tolist()), scale, zero_point, kind)

    def _operator(self, node: Any) -> Operator:
        code = self._code_names[self._model.operatorCodes[node.opcodeIndex].builtinCode]
        if code not in _DECODERS:
            raise DaquError(f"tensor {self.name(node.outputs[0])!r}: operator {code} is not one of {sorted(_DECODERS)}")
        return _DECODERS[code](node, self)


def pack_int4(values: np.ndarray) -> np.ndarray:
    """Packs integers in [-8, 7] two a byte, the earlier one in the low half; returns (ceil(size / 2),) uint8."""
    nibbles = values.astype(np.int8).ravel().view(np.uint8) & 0xF
    nibbles = np.append(nibbles, np.zeros(nibbles.size % 2, np.uint8))
    return nibbles[0::2] | nibbles[1::2] << 4


def unpack_int4(packed: np.ndarray, size: int) -> np.ndarray:
    """Inverse of `pack_int4` for `size` integers; returns (size,) int8."""
    nibbles = np.stack([packed & 0xF, packed >> 4], axis=1).ravel()[:size]
    return ((nibbles ^ 8).astype(np.int8) - 8).astype(np.int8)


# One encoder and one decoder per operator. The version is the lowest that stands for the types used, as old runtimes
# refuse higher ones.


def _encode_conv(operator: Conv2D, encoder: _Encoder) -> Any:
    stride = operator.stride
    options = encoder.schema.Conv2DOptionsT(PADDINGS.index(operator.padding), stride, stride, int(operator.relu))
    return encoder.node("CONV_2D", 3, operator, options, encoder.kernel(operator))


def _decode_conv(node: Any, decoder: _Decoder) -> Conv2D:
    return Conv2D(**decoder.ends(node), **decoder.kernel(node), **_window(node), relu=_relu(node))


def _encode_depthwise(operator: DepthwiseConv2D, encoder: _Encoder) -> Any:
    stride = operator.stride
    options = encoder.schema.DepthwiseConv2DOptionsT(PADDINGS.index(operator.padding), stride, stride, 1, int(operator.relu))
    return encoder.node("DEPTHWISE_CONV_2D", 3, operator, options, encoder.kernel(operator))


def _decode_depthwise(node: Any, decoder: _Decoder) -> DepthwiseConv2D:
    return DepthwiseConv2D(**decoder.ends(node), **decoder.kernel(node), **_window(node), relu=_relu(node))


def _encode_fully_connected(operator: FullyConnected, encoder: _Encoder) -> Any:
    keep_num_dims = len(encoder.tensors_by_name[operator.input].shape) == 4
    options = encoder.schema.FullyConnectedOptionsT(int(operator.relu), keepNumDims=keep_num_dims)
    version = 10 if operator.container == "INT4" else 5 if keep_num_dims else 4
    return encoder.node("FULLY_CONNECTED", version, operator, options, encoder.kernel(operator))


def _decode_fully_connected(node: Any, decoder: _Decoder) -> FullyConnected:
    container = decoder.container(node.inputs[1])
    return FullyConnected(**decoder.ends(node), **decoder.kernel(node), container=container, relu=_relu(node))


def _encode_add(operator: Add, encoder: _Encoder) -> Any:
    return encoder.node("ADD", 2, operator, encoder.schema.AddOptionsT(int(operator.relu)))


def _decode_add(node: Any, decoder: _Decoder) -> Add | AddConstant:
    if decoder.is_constant(node.inputs[1]):
        return _decode_add_constant(node, decoder)
    return Add(*decoder.names(node), relu=_relu(node))


def _encode_add_constant(operator: AddConstant, encoder: _Encoder) -> Any:
    number = encoder.number(127 if operator.constant > 0 else -127, operator.constant_scale)
    return encoder.node("ADD", 2, operator, encoder.schema.AddOptionsT(), (number,))


def _decode_add_constant(node: Any, decoder: _Decoder) -> AddConstant:
    value = decoder.values(node.inputs[1]).item()
    _require_plain(node, not _relu(node), abs(value) == 127)
    return AddConstant(**decoder.ends(node), constant=value * decoder.scales(node.inputs[1]).item())


def _encode_multiply(operator: Multiply, encoder: _Encoder) -> Any:
    return encoder.node("MUL", 2, operator, encoder.schema.MulOptionsT())


def _decode_multiply(node: Any, decoder: _Decoder) -> Multiply:
    _require_plain(node, not _relu(node))
    return Multiply(*decoder.names(node))


def _encode_pool(operator: GlobalAveragePool, encoder: _Encoder) -> Any:
    axes = encoder.constant("INT32", _SPATIAL_AXES.shape, _SPATIAL_AXES.astype("<i4"))
    return encoder.node("MEAN", 2, operator, encoder.schema.ReducerOptionsT(operator.keepdims), (axes,))


def _decode_pool(node: Any, decoder: _Decoder) -> GlobalAveragePool:
    axes = decoder.values(node.inputs[1])
    _require_plain(node, np.array_equal(axes, _SPATIAL_AXES))
    return GlobalAveragePool(**decoder.ends(node), keepdims=bool(node.builtinOptions.keepDims))


def _encode_max_pool(operator: MaxPool, encoder: _Encoder) -> Any:
    stride, (height, width) = operator.stride, operator.size
    options = encoder.schema.Pool2DOptionsT(PADDINGS.index(operator.padding), stride, stride, width, height)
    return encoder.node("MAX_POOL_2D", 2, operator, options)


def _decode_max_pool(node: Any, decoder: _Decoder) -> MaxPool:
    options = node.builtinOptions
    _require_plain(node, not _relu(node))
    return MaxPool(**decoder.ends(node), size=(options.filterHeight, options.filterWidth), **_window(node))


def _encode_pad(operator: Pad, encoder: _Encoder) -> Any:
    pads = np.array([(0, 0), *operator.pads, (0, 0)], "<i4")
    return encoder.node("PAD", 2, operator, encoder.schema.PadOptionsT(), (encoder.constant("INT32", pads.shape, pads),))


def _decode_pad(node: Any, decoder: _Decoder) -> Pad:
    batch, *pads, channels = (tuple(pair) for pair in decoder.values(node.inputs[1]).tolist())
    _require_plain(node, batch == channels == (0, 0))
    return Pad(**decoder.ends(node), pads=tuple(pads))


def _encode_reshape(operator: Reshape, encoder: _Encoder) -> Any:
    shape = _int32(*operator.shape)
    return encoder.node(
        "RESHAPE", 1, operator, encoder.schema.ReshapeOptionsT(shape), (encoder.constant("INT32", shape.shape, shape),)
    )


def _decode_reshape(node: Any, decoder: _Decoder) -> Reshape:
    return Reshape(**decoder.ends(node), shape=tuple(decoder.values(node.inputs[1]).tolist()))


def _encode_quantize(operator: Quantize, encoder: _Encoder) -> Any:
    return encoder.node("QUANTIZE", 1, operator, encoder.schema.QuantizeOptionsT())


def _decode_quantize(node: Any, decoder: _Decoder) -> Quantize:
    return Quantize(**decoder.ends(node))


_ENCODERS = {
    Conv2D: _encode_conv,
    DepthwiseConv2D: _encode_depthwise,
    FullyConnected: _encode_fully_connected,
    Add: _encode_add,
    AddConstant: _encode_add_constant,
    Multiply: _encode_multiply,
    GlobalAveragePool: _encode_pool,
    Quantize: _encode_quantize,
    MaxPool: _encode_max_pool,
    Pad: _encode_pad,
    Reshape: _encode_reshape,
}
_DECODERS = {
    "CONV_2D": _decode_conv,
    "DEPTHWISE_CONV_2D": _decode_depthwise,
    "FULLY_CONNECTED": _decode_fully_connected,
    "ADD": _decode_add,
    "MUL": _decode_multiply,
    "MEAN": _decode_pool,
    "QUANTIZE": _decode_quantize,
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
        raise DaquError(f"the file must hold operators of daqu_tf, but {kind} is {vars(node.builtinOptions)}")


def _int32(*values: int) -> np.ndarray:
    return np.array(values, "<i4")
