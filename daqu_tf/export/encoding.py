"""The encoding of a graph as the bytes of a `.tflite` file, with the wanted types of input and output."""

import dataclasses
import os

from daqu_tf import files, tflite
from daqu_tf.errors import DaquError, WriteError
from daqu_tf.targets.storage import Storage
from daqu_tf.tflite.graph import ACTIVATION_LIMITS, FloatTensor, Graph, Tensor
from daqu_tf.tflite.metadata import Metadata
from daqu_tf.tflite.operators import Dequantize, Quantize


def encode(graph: Graph, storage: Storage, metadata: Metadata | None = None) -> bytes:
    """The bytes of a `.tflite` file, which are read back and compared with the graph.

    Args:
        graph: The graph that the file computes.
        storage: The storage, which has the types of input and output.
        metadata: What the file tells an application; None leaves it out.

    Raises:
        DaquError: The file does not hold the graph, or the graph cannot have these types.
    """
    graph = _with_output(_with_input(graph, storage.input_type), storage.output_type)
    data = tflite.write(graph) if metadata is None else tflite.write_with_metadata(graph, metadata)
    if tflite.read(data) != graph:
        raise DaquError("The file does not hold the trained numbers: please report the network.")
    return data


def write(data: bytes, path: str | os.PathLike) -> None:
    """Writes the bytes of a file, whole or not at all.

    Raises:
        DaquError: The file cannot be written.
    """
    try:
        files.write_bytes(path, data)
    except WriteError:
        raise
    except OSError as error:
        raise DaquError(f"{path} cannot be written ({error.strerror}): choose another output path.") from error


def _with_input(graph: Graph, wanted: str | None) -> Graph:
    """The graph with a change of type before it; the new input has the name of the old one, so that applications find it."""
    source = graph.tensor(graph.input)
    if wanted in (None, source.type.lower()):
        return graph
    inner = dataclasses.replace(source, name=f"{source.name}.{source.type.lower()}")
    outer = _of_type(source, wanted, "input")
    names = {source.name: inner.name}
    operators = (operator.reading(*(names.get(name, name) for name in operator.inputs)) for operator in graph.operators)
    tensors = tuple(tensor for tensor in graph.tensors if tensor is not source)
    return dataclasses.replace(graph, tensors=(outer, inner, *tensors), operators=(Quantize(outer.name, inner.name), *operators))


def _with_output(graph: Graph, wanted: str | None) -> Graph:
    """The graph with a change of type behind it; the new output has the name of the old one."""
    sink = graph.tensor(graph.output)
    if wanted in (None, sink.type.lower()):
        return graph
    inner = dataclasses.replace(sink, name=f"{sink.name}.{sink.type.lower()}")
    outer = _of_type(sink, wanted, "output")
    change = Dequantize if isinstance(outer, FloatTensor) else Quantize
    *before, last = graph.operators
    operators = (*before, dataclasses.replace(last, output=inner.name))
    tensors = tuple(inner if tensor is sink else tensor for tensor in graph.tensors)
    return dataclasses.replace(graph, tensors=(*tensors, outer), operators=(*operators, change(inner.name, outer.name)))


def _of_type(tensor: Tensor, wanted: str, end: str) -> Tensor:
    """A tensor of the same real numbers in another type."""
    if isinstance(tensor, FloatTensor):
        raise DaquError(f"`{end}_type` must be float32 where the network is in float, but received {wanted!r}: leave it out.")
    if wanted == "float32":
        return FloatTensor(tensor.name, tensor.shape)
    shift = ACTIVATION_LIMITS[wanted.upper()][0] - ACTIVATION_LIMITS[tensor.type][0]
    return dataclasses.replace(tensor, zero_point=tensor.zero_point + shift, type=wanted.upper())
