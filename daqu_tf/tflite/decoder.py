"""The decoder, which turns the tables of a `.tflite` file back into a graph."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from daqu_tf.errors import DaquError
from daqu_tf.tflite.graph import ACTIVATION_LIMITS, FloatTensor, Graph, QuantizedTensor, Tensor
from daqu_tf.tflite.operators import Operator
from daqu_tf.tflite.schema import schema, unpack_int4

_STORED = {"INT8": "i1", "INT32": "<i4", "FLOAT32": "<f4", "FLOAT16": "<f2"}


def _names_by_number(enumeration: type) -> dict[int, str]:
    return {number: name for name, number in vars(enumeration).items() if name[0] != "_"}


class Decoder:
    """Turns the tables of one `.tflite` file back into a graph.

    Args:
        model: The root table of the file, a `ModelT` of the generated classes.
    """

    def __init__(self, model: Any):
        self._model = model
        self._subgraph = model.subgraphs[0]
        self._code_names = _names_by_number(schema().BuiltinOperator)
        self._type_names = _names_by_number(schema().TensorType)
        # By the index of a tensor of real weights, the index of the FLOAT16 tensor that it is unpacked from.
        unpacking = [node for node in self._subgraph.operators if self._unpacks(node)]
        self._packed = {node.outputs[0]: node.inputs[0] for node in unpacking}

    def nodes(self) -> Iterator[Any]:
        """The tables of all operators, without those that only turn stored FLOAT16 into FLOAT32."""
        return (node for node in self._subgraph.operators if not self._unpacks(node))

    def graph(self, operators: tuple[Operator, ...]) -> Graph:
        """The graph of the file.

        Args:
            operators: The decoded operators of the file, in its order.
        """
        indices = (index for index in range(len(self._subgraph.tensors)) if not self.is_constant(index))
        tensors = tuple(self._activation(self._subgraph.tensors[index]) for index in indices)
        return Graph(tensors, operators, self.name(self._subgraph.inputs[0]), self.name(self._subgraph.outputs[0]))

    def outermost(self) -> tuple[Tensor, Tensor, str]:
        """The tensor that the file reads, the one that it puts out, and the function that it ends with, which may be `none`.

        Raises:
            DaquError: There are several of them, or one has a type that a graph cannot hold.
        """
        counts = len(self._subgraph.inputs), len(self._subgraph.outputs)
        if counts != (1, 1):
            raise DaquError(
                f"The file must have one input and one output, but it has {counts[0]} and {counts[1]}: take that of a classifier."
            )
        source, sink = (self._subgraph.tensors[indices[0]] for indices in (self._subgraph.inputs, self._subgraph.outputs))
        return self._activation(source), self._activation(sink), self._last_function()

    def _last_function(self) -> str:
        """The function of the last operator that does more than change types."""
        made_by = {node.outputs[0]: node for node in self._subgraph.operators}
        index = self._subgraph.outputs[0]
        while index in made_by and self.code(made_by[index]) in ("QUANTIZE", "DEQUANTIZE"):
            index = made_by[index].inputs[0]
        return {"SOFTMAX": "softmax", "LOGISTIC": "sigmoid"}.get(self.code(made_by[index]) if index in made_by else "", "none")

    def name(self, index: int) -> str:
        """The name of the activation tensor with this index."""
        return self._subgraph.tensors[index].name.decode()

    def names(self, node: Any) -> list[str]:
        """The names of the inputs and then of the output of an operator that reads activation tensors alone."""
        return [self.name(index) for index in (*node.inputs, *node.outputs)]

    def ends(self, node: Any) -> tuple[str, str]:
        """The names of the `input` and the `output` of an operator that reads one activation tensor."""
        return self.name(node.inputs[0]), self.name(node.outputs[0])

    def is_constant(self, index: int) -> bool:
        """Whether the tensor with this index is stored rather than computed."""
        return index in self._packed or self._model.buffers[self._subgraph.tensors[index].buffer].data is not None

    def _unpacks(self, node: Any) -> bool:
        """Whether a node only turns stored FLOAT16 into FLOAT32."""
        is_stored = self._model.buffers[self._subgraph.tensors[node.inputs[0]].buffer].data is not None
        return self.code(node) == "DEQUANTIZE" and is_stored

    def container(self, index: int) -> str:
        """The name of the type in which the tensor with this index is stored, such as INT8."""
        return self._type_names[self._subgraph.tensors[self._packed.get(index, index)].type]

    def values(self, index: int) -> np.ndarray:
        """The stored numbers of the constant tensor with this index, in its shape."""
        tensor = self._subgraph.tensors[self._packed.get(index, index)]
        data = self._model.buffers[tensor.buffer].data
        if (kind := self.container(index)) == "INT4":
            return unpack_int4(data, int(np.prod(tensor.shape))).reshape(tensor.shape)
        return np.frombuffer(data.tobytes(), _STORED[kind]).reshape(tensor.shape)

    def scales(self, index: int) -> np.ndarray:
        """The scales (n,) of the tensor with this index, float32; n is 0 for a tensor of real numbers."""
        quantization = self._subgraph.tensors[index].quantization
        return np.zeros(0, np.float32) if quantization is None or quantization.scale is None else quantization.scale

    def kernel(self, node: Any) -> dict[str, Any]:
        """The weights, scales, bias and container of an operator with weights, by the names of its fields."""
        _, weights, bias = node.inputs
        constants = {"weights": self.values(weights), "weight_scales": self.scales(weights), "bias": self.values(bias)}
        return constants | {"container": self.container(weights)}

    def number(self, index: int) -> float:
        """The only element of the constant tensor with this index, as a real number."""
        value, scales = self.values(index).item(), self.scales(index)
        return value * scales.item() if scales.size else value

    def _activation(self, tensor: Any) -> Tensor:
        kind = self._type_names[tensor.type]
        if kind == "FLOAT32":
            return FloatTensor(tensor.name.decode(), tuple(tensor.shape.tolist()))
        if kind not in ACTIVATION_LIMITS:
            message = f"its type must be INT8, UINT8 or FLOAT32, but received {kind}; read only files that daqu_tf wrote"
            raise DaquError(f"Tensor {tensor.name.decode()!r}: {message}.")
        scale, zero_point = tensor.quantization.scale.item(), tensor.quantization.zeroPoint.item()
        return QuantizedTensor(tensor.name.decode(), tuple(tensor.shape.tolist()), scale, zero_point, kind)

    def code(self, node: Any) -> str:
        """The name of what an operator computes, such as ADD."""
        code = self._model.operatorCodes[node.opcodeIndex]
        return self._code_names[max(code.builtinCode, code.deprecatedBuiltinCode)]  # Old files have the second number alone.
