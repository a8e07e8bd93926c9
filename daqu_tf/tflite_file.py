"""Writes a `Graph` to .tflite bytes and reads it back: the numbers given are the file's numbers.

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
from daqu_tf.tflite_codecs import DECODERS, ENCODERS, int32
from daqu_tf.tflite_graph import ACTIVATION_LIMITS, FloatTensor, Graph, QuantizedTensor, Tensor
from daqu_tf.tflite_kernels import FLOAT_CONTAINERS, Weighted
from daqu_tf.tflite_operators import Operator

SIGNATURE = "serving_default"

_SCHEMA_VERSION = 3
_BUFFER_ALIGNMENT = 16  # what the schema promises to kernels that read weights in place
_STORED = {"INT8": np.int8, "INT32": "<i4", "FLOAT32": "<f4", "FLOAT16": "<f2"}


def write(graph: Graph, metadata: Mapping[str, bytes] | None = None) -> bytes:
    """Returns the .tflite file of `graph`, with the signature `SIGNATURE` over its input and output names.

    Args:
        graph: What the file computes.
        metadata: Buffers to go with it, by name; runtimes ignore them, and `read_buffers` finds them.

    Raises:
        DaquError: If the tensors and operators disagree or do not fit the file; the message names the tensor.
    """
    graph.check()
    builder = _SharingBuilder()
    builder.Finish(Encoder(graph).model(metadata or {}).Pack(builder), b"TFL3")
    return bytes(builder.Output())


def read(data: bytes) -> Graph:
    """Returns the graph for which `write` gives `data`, whatever metadata go with it.

    Raises:
        DaquError: If the file holds anything that a `Graph` cannot say.
    """
    graph = Decoder(_model(data)).graph()
    graph.check()
    return graph


def read_buffers(data: bytes) -> dict[str, bytes]:
    """Returns the buffers that go with the graph of any .tflite file, by name.

    Raises:
        DaquError: If it is no such file.
    """
    model = _model(data)
    return {entry.name.decode(): model.buffers[entry.buffer].data.tobytes() for entry in model.metadata or ()}


def _model(data: bytes) -> Any:
    if data[4:8] != b"TFL3":
        raise DaquError("the data must be a .tflite file, but received other bytes; read it again from its source")
    return schema().ModelT.InitFromPackedBuf(data)


@functools.cache
def schema() -> ModuleType:
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


class Encoder:
    """Gathers the tables of one file; the methods that add something return its index."""

    def __init__(self, graph: Graph):
        self.schema = schema()
        self.tensors_by_name = {tensor.name: tensor for tensor in graph.tensors}
        self._graph = graph
        self._buffers = [self.schema.BufferT()]  # buffer 0 is by convention empty
        self._tensors = [self._activation(tensor) for tensor in graph.tensors]
        self._indices = {tensor.name: index for index, tensor in enumerate(graph.tensors)}
        self._codes = {}
        self._nodes = []

    def model(self, metadata: Mapping[str, bytes]) -> Any:
        """Returns the root table, with named buffers beside the graph."""
        for operator in self._graph.operators:
            ENCODERS[type(operator)](operator, self)
        names = self._graph.input, self._graph.output
        ends = [self._indices[name] for name in names]
        subgraph = self.schema.SubGraphT(self._tensors, *map(int32, ends), self._nodes)
        maps = ([self.schema.TensorMapT(name, end)] for name, end in zip(names, ends))
        signature = self.schema.SignatureDefT(*maps, SIGNATURE)
        codes = [self._operator_code(*code) for code in self._codes]
        named = [self.schema.MetadataT(name, self._buffer(data)) for name, data in metadata.items()] or None
        return self.schema.ModelT(_SCHEMA_VERSION, codes, [subgraph], None, self._buffers, None, named, [signature])

    def node(self, code: str, version: int, operator: Operator, options: Any, constants: tuple[int, ...] = ()) -> None:
        """Adds one operator that reads its activations and then `constants`."""
        inputs = (*(self._indices[name] for name in operator.inputs), *constants)
        self._add_node(code, version, inputs, self._indices[operator.output], options)

    def _add_node(self, code: str, version: int, inputs: tuple[int, ...], output: int, options: Any) -> None:
        node = self.schema.OperatorT(
            opcodeIndex=self._codes.setdefault((code, version), len(self._codes)),
            inputs=int32(*inputs),
            outputs=int32(output),
            builtinOptionsType=getattr(self.schema.BuiltinOptions, type(options).__name__.removesuffix("T")),
            builtinOptions=options,
        )
        self._nodes.append(node)

    def kernel(self, operator: Weighted) -> tuple[int, int]:
        """Adds weights and bias; XNNPACK insists on a scale and a zero point per output channel for integers of both."""
        return self._weights(operator), self._bias(operator)

    def _weights(self, operator: Weighted) -> int:
        weights, scales, container = operator.weights, operator.weight_scales, operator.container
        if container in FLOAT_CONTAINERS:
            index = self.constant(container, weights.shape, weights.astype(FLOAT_CONTAINERS[container]))
            return index if container == "FLOAT32" else self._unpacked(index, weights.shape)
        quantization = self._quantization(scales, np.zeros(len(scales), np.int64), operator.channels_axis)
        data = pack_int4(weights) if container == "INT4" else weights.astype(np.int8)
        return self.constant(container, weights.shape, data, quantization)

    def _unpacked(self, index: int, shape: tuple[int, ...]) -> int:
        """Adds the operator that makes FLOAT32 of a constant, which runtimes do once; no kernel reads FLOAT16 itself."""
        self._tensors.append(self.schema.TensorT(int32(*shape), self.schema.TensorType.FLOAT32, 0))
        output = len(self._tensors) - 1
        self._add_node("DEQUANTIZE", 3, (index,), output, self.schema.DequantizeOptionsT())
        return output

    def _bias(self, operator: Weighted) -> int:
        if operator.in_float:
            return self.constant("FLOAT32", operator.bias.shape, operator.bias)
        bias_scales = operator.bias_scales(self.tensors_by_name[operator.input].scale)
        quantization = self._quantization(bias_scales, np.zeros(len(bias_scales), np.int64))
        return self.constant("INT32", operator.bias.shape, operator.bias.astype("<i4"), quantization)

    def number(self, value: int, scale: float, kind: str) -> int:
        """Adds one number, `value` * `scale`, that every element of another tensor of that type meets."""
        if kind == "FLOAT32":
            return self.constant(kind, (1,), np.array([value * scale], np.float32))
        quantization = self._quantization(np.array([scale], np.float32), np.zeros(1, np.int64))
        return self.constant("INT8", (1,), np.array([value], np.int8), quantization)

    def in_float(self, operator: Operator) -> bool:
        """Whether the operator writes real numbers."""
        return self.tensors_by_name[operator.output].type == "FLOAT32"

    def constant(self, type_name: str, shape: tuple[int, ...], data: np.ndarray, quantization: Any = None) -> int:
        """Adds a nameless tensor that holds `data`."""
        kind, buffer = getattr(self.schema.TensorType, type_name), self._buffer(data.tobytes())
        self._tensors.append(self.schema.TensorT(int32(*shape), kind, buffer, quantization=quantization))
        return len(self._tensors) - 1

    def _buffer(self, data: bytes) -> int:
        self._buffers.append(self.schema.BufferT(np.frombuffer(data, np.uint8)))
        return len(self._buffers) - 1

    def _activation(self, tensor: Tensor) -> Any:
        if isinstance(tensor, FloatTensor):
            return self.schema.TensorT(int32(*tensor.shape), self.schema.TensorType.FLOAT32, 0, tensor.name)
        quantization = self._quantization(np.array([tensor.scale], np.float32), np.array([tensor.zero_point], np.int64))
        kind = getattr(self.schema.TensorType, tensor.type)
        return self.schema.TensorT(int32(*tensor.shape), kind, 0, tensor.name, quantization)

    def _quantization(self, scales: np.ndarray, zero_points: np.ndarray, axis: int = 0) -> Any:
        return self.schema.QuantizationParametersT(scale=scales, zeroPoint=zero_points, quantizedDimension=axis)

    def _operator_code(self, code: str, version: int) -> Any:
        # Every operator here predates the 32-bit code field, so old readers find it in the 8-bit one.
        number = getattr(self.schema.BuiltinOperator, code)
        return self.schema.OperatorCodeT(number, None, version, number)


class Decoder:
    """Turns the tables of one file back into a graph."""

    def __init__(self, model: Any):
        self._model = model
        self._subgraph = model.subgraphs[0]
        schema = schema()
        self._code_names = {number: name for name, number in vars(schema.BuiltinOperator).items() if name[0] != "_"}
        self._type_names = {number: name for name, number in vars(schema.TensorType).items() if name[0] != "_"}
        # Where real weights come from that are stored as FLOAT16.
        unpacking = [node for node in self._subgraph.operators if self._unpacks(node)]
        self._packed = {node.outputs[0]: node.inputs[0] for node in unpacking}

    def graph(self) -> Graph:
        """Returns the graph."""
        indices = (index for index in range(len(self._subgraph.tensors)) if not self.is_constant(index))
        tensors = tuple(self._activation(self._subgraph.tensors[index]) for index in indices)
        operators = tuple(self._operator(node) for node in self._subgraph.operators if not self._unpacks(node))
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
        return index in self._packed or self._model.buffers[self._subgraph.tensors[index].buffer].data is not None

    def _unpacks(self, node: Any) -> bool:
        """Whether a node only makes FLOAT32 of stored FLOAT16."""
        is_stored = self._model.buffers[self._subgraph.tensors[node.inputs[0]].buffer].data is not None
        return self._code(node) == "DEQUANTIZE" and is_stored

    def container(self, index: int) -> str:
        """Name of the type in which the tensor with this index is stored."""
        return self._type_names[self._subgraph.tensors[self._packed.get(index, index)].type]

    def values(self, index: int) -> np.ndarray:
        """The numbers of a constant tensor, in its shape."""
        tensor = self._subgraph.tensors[self._packed.get(index, index)]
        data = self._model.buffers[tensor.buffer].data
        if (kind := self.container(index)) == "INT4":
            return unpack_int4(data, int(np.prod(tensor.shape))).reshape(tensor.shape)
        return np.frombuffer(data.tobytes(), _STORED[kind]).reshape(tensor.shape)

    def scales(self, index: int) -> np.ndarray:
        """The scales of the tensor with this index; none of real numbers."""
        quantization = self._subgraph.tensors[index].quantization
        return np.zeros(0, np.float32) if quantization is None or quantization.scale is None else quantization.scale

    def kernel(self, node: Any) -> dict[str, Any]:
        """The constants of an operator with weights, and how these are stored."""
        _, weights, bias = node.inputs
        constants = {"weights": self.values(weights), "weight_scales": self.scales(weights), "bias": self.values(bias)}
        return constants | {"container": self.container(weights)}

    def number(self, index: int) -> float:
        """The only element of a constant, as a real number."""
        value, scales = self.values(index).item(), self.scales(index)
        return value * scales.item() if scales.size else value

    def _activation(self, tensor: Any) -> Tensor:
        kind = self._type_names[tensor.type]
        if kind == "FLOAT32":
            return FloatTensor(tensor.name.decode(), tuple(tensor.shape.tolist()))
        if kind not in ACTIVATION_LIMITS:
            raise DaquError(f"tensor {tensor.name!r}: its type must be INT8, UINT8 or FLOAT32, but is {kind}")
        scale, zero_point = tensor.quantization.scale.item(), tensor.quantization.zeroPoint.item()
        return QuantizedTensor(tensor.name.decode(), tuple(tensor.shape.tolist()), scale, zero_point, kind)

    def _code(self, node: Any) -> str:
        return self._code_names[self._model.operatorCodes[node.opcodeIndex].builtinCode]

    def _operator(self, node: Any) -> Operator:
        code = self._code(node)
        if code not in DECODERS:
            raise DaquError(f"tensor {self.name(node.outputs[0])!r}: operator {code} is not one of {sorted(DECODERS)}")
        return DECODERS[code](node, self)


def pack_int4(values: np.ndarray) -> np.ndarray:
    """Packs integers in [-8, 7] two a byte, the earlier one in the low half; returns (ceil(size / 2),) uint8."""
    nibbles = values.astype(np.int8).ravel().view(np.uint8) & 0xF
    nibbles = np.append(nibbles, np.zeros(nibbles.size % 2, np.uint8))
    return nibbles[0::2] | nibbles[1::2] << 4


def unpack_int4(packed: np.ndarray, size: int) -> np.ndarray:
    """Inverse of `pack_int4` for `size` integers; returns (size,) int8."""
    nibbles = np.stack([packed & 0xF, packed >> 4], axis=1).ravel()[:size]
    return ((nibbles ^ 8).astype(np.int8) - 8).astype(np.int8)
