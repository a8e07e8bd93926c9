"""The encoder, which gathers the tables of a `.tflite` file and writes its bytes."""

from collections.abc import Mapping
from typing import Any

import flatbuffers
import numpy as np

from daqu_tf.tflite.graph import FloatTensor, Graph, QuantizedTensor, Tensor
from daqu_tf.tflite.operators import Operator
from daqu_tf.tflite.schema import IDENTIFIER, int32, pack_int4, schema
from daqu_tf.tflite.weighted import FLOAT_CONTAINERS, Weighted

SIGNATURE = "serving_default"
_SCHEMA_VERSION = 3
_BUFFER_ALIGNMENT = 16  # The schema promises it to kernels that read weights in place.


class _SharingBuilder(flatbuffers.Builder):
    """A flatbuffers builder that refers to an equal vector or string instead of writing it again."""

    def __init__(self) -> None:
        super().__init__(1 << 20)
        self._written: dict[str | tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: np.ndarray) -> int:
        """Writes the vector `x`, if it is new, and gives its offset; byte vectors, which are the buffers, are aligned."""
        key = x.dtype.str, x.tobytes()
        if key not in self._written:
            if x.dtype == np.uint8:
                self.Prep(_BUFFER_ALIGNMENT, x.size)
            self._written[key] = super().CreateNumpyVector(x)
        return self._written[key]

    def CreateString(self, s: str, *args: Any) -> int:
        """Writes the string `s`, if it is new, and gives its offset."""
        if s not in self._written:
            self._written[s] = super().CreateString(s, *args)
        return self._written[s]


class Encoder:
    """Gathers the tables of one `.tflite` file; methods that add a tensor return its index.

    Args:
        graph: The graph to write, whose operators are then added one by one.
    """

    def __init__(self, graph: Graph):
        self.schema = schema()
        self.tensors_by_name = {tensor.name: tensor for tensor in graph.tensors}
        self._scales = {tensor.name: tensor.scale for tensor in graph.tensors if isinstance(tensor, QuantizedTensor)}
        self._graph = graph
        self._buffers = [self.schema.BufferT()]  # By convention, buffer 0 is empty.
        self._tensors = [self._activation(tensor) for tensor in graph.tensors]
        self._indices = {tensor.name: index for index, tensor in enumerate(graph.tensors)}
        self._codes: dict[tuple[str, int], int] = {}
        self._nodes: list[Any] = []

    def file(self, metadata: Mapping[str, bytes]) -> bytes:
        """The bytes of the file, with all that was added.

        Args:
            metadata: Further buffers by name, which the file holds beside the graph.
        """
        builder = _SharingBuilder()
        builder.Finish(self._model(metadata).Pack(builder), IDENTIFIER)
        return bytes(builder.Output())

    def _model(self, metadata: Mapping[str, bytes]) -> Any:
        """The root table of the file."""
        names = self._graph.input, self._graph.output
        ends = [self._indices[name] for name in names]
        subgraph = self.schema.SubGraphT(self._tensors, *map(int32, ends), self._nodes)
        maps = ([self.schema.TensorMapT(name, end)] for name, end in zip(names, ends))
        signature = self.schema.SignatureDefT(*maps, SIGNATURE)
        codes = [self._operator_code(*code) for code in self._codes]
        named = [self.schema.MetadataT(name, self._buffer(data)) for name, data in metadata.items()] or None
        return self.schema.ModelT(_SCHEMA_VERSION, codes, [subgraph], None, self._buffers, None, named, [signature])

    def node(self, code: str, version: int, operator: Operator, options: Any, constants: tuple[int, ...] = ()) -> None:
        """Adds an operator.

        Args:
            code: The name of what it computes, such as ADD.
            version: The version of the operator in the file format.
            operator: The operator, whose inputs and output are named.
            options: The table of its options; None if it has none.
            constants: The indices of the constant tensors that it reads after its inputs.
        """
        inputs = (*(self._indices[name] for name in operator.inputs), *constants)
        self._add_node(code, version, inputs, self._indices[operator.output], options)

    def _add_node(self, code: str, version: int, inputs: tuple[int, ...], output: int, options: Any) -> None:
        union = self.schema.BuiltinOptions
        kind = union.NONE if options is None else getattr(union, type(options).__name__.removesuffix("T"))
        node = self.schema.OperatorT(
            opcodeIndex=self._codes.setdefault((code, version), len(self._codes)),
            inputs=int32(*inputs),
            outputs=int32(output),
            builtinOptionsType=kind,
            builtinOptions=options,
        )
        self._nodes.append(node)

    def kernel(self, operator: Weighted) -> tuple[int, int]:
        """Adds the weights and the bias of an operator and gives their indices.

        For integers, XNNPACK insists on a scale and a zero point per output channel in both.
        """
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
        """Adds the operator that turns a FLOAT16 constant into FLOAT32, which runtimes do once; no kernel reads FLOAT16."""
        self._tensors.append(self.schema.TensorT(int32(*shape), self.schema.TensorType.FLOAT32, 0, self._new_name()))
        output = len(self._tensors) - 1
        self._add_node("DEQUANTIZE", 3, (index,), output, self.schema.DequantizeOptionsT())
        return output

    def _bias(self, operator: Weighted) -> int:
        if operator.in_float:
            return self.constant("FLOAT32", operator.bias.shape, operator.bias)
        bias_scales = operator.bias_scales(self._scales[operator.input])
        quantization = self._quantization(bias_scales, np.zeros(len(bias_scales), np.int64))
        return self.constant("INT32", operator.bias.shape, operator.bias.astype("<i4"), quantization)

    def number(self, value: float, scale: float, kind: str) -> int:
        """Adds a constant tensor of one number, `value * scale`, and gives its index.

        Args:
            value: The integer.
            scale: The real size of one step.
            kind: The type of the tensor, INT8 or FLOAT32.
        """
        if kind == "FLOAT32":
            return self.constant(kind, (1,), np.array([value * scale], np.float32))
        quantization = self._quantization(np.array([scale], np.float32), np.zeros(1, np.int64))
        return self.constant("INT8", (1,), np.array([value], np.int8), quantization)

    def in_float(self, operator: Operator) -> bool:
        """Whether the operator writes a FLOAT32 tensor."""
        return self.tensors_by_name[operator.output].type == "FLOAT32"

    def constant(self, type_name: str, shape: tuple[int, ...], data: np.ndarray, quantization: Any = None) -> int:
        """Adds a constant tensor and gives its index.

        Args:
            type_name: The type of the tensor, such as INT8.
            shape: The shape of the tensor.
            data: The elements as the file stores them.
            quantization: The table of scales and zero points; None for real numbers.
        """
        kind, buffer = getattr(self.schema.TensorType, type_name), self._buffer(data.tobytes())
        self._tensors.append(self.schema.TensorT(int32(*shape), kind, buffer, self._new_name(), quantization))
        return len(self._tensors) - 1

    def _new_name(self) -> str:
        """A short name for the next tensor, which runtimes do not need, but converters and viewers do."""
        name = f"c{len(self._tensors)}"
        while name in self.tensors_by_name:
            name += "_"
        return name

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
