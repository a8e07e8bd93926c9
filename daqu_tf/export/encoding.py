"""The encoding of a graph as the bytes of a `.tflite` file, with the wanted types and meanings of input and output."""

import dataclasses
import os

from daqu_tf import files, tflite
from daqu_tf.errors import DaquError, WriteError
from daqu_tf.export.ends import Ends
from daqu_tf.targets.storage import Storage
from daqu_tf.tflite.graph import ACTIVATION_LIMITS, FloatTensor, Graph, QuantizedTensor, Tensor
from daqu_tf.tflite.metadata import Metadata
from daqu_tf.tflite.operators import (
    PROBABILITY_SCALE,
    PROBABILITY_ZERO_POINT,
    AddConstant,
    Dequantize,
    Logistic,
    Operator,
    Quantize,
    Softmax,
)

_AS_THEY_ARE = Ends()  # The ends of a graph, which mean what the network means.
_FUNCTIONS: dict[str, type[Softmax | Logistic]] = {"softmax": Softmax, "sigmoid": Logistic}


def encode(graph: Graph, storage: Storage, metadata: Metadata | None = None, ends: Ends = _AS_THEY_ARE) -> bytes:
    """The bytes of a `.tflite` file, which are read back and compared with the graph.

    Args:
        graph: The graph that the file computes.
        storage: The storage, which has the types of input and output.
        metadata: What the file tells an application; None leaves it out.
        ends: What input and output of the file mean; by default they are those of the graph.

    Raises:
        DaquError: The file does not hold the graph, or the graph cannot have these types.
    """
    graph = _reading_pixels(graph, storage.input_type, ends) if ends.in_pixels else _with_input(graph, storage.input_type)
    wanted = storage.output_type
    graph = _with_output(graph, wanted) if ends.output_activation == "none" else _with_function(graph, wanted, ends)
    if metadata is not None and (way := ends.preprocessing(graph.tensor(graph.input))) is not None:
        metadata = dataclasses.replace(metadata, preprocessing=way.to_json())
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
    return _behind(graph, (outer, inner), (Quantize(outer.name, inner.name),))


def _behind(graph: Graph, before: tuple[Tensor, ...], operators: tuple[Operator, ...]) -> Graph:
    """The graph behind other tensors and operators, the first of which has the name of its input and the last takes its place."""
    source = graph.tensor(graph.input)
    names = {source.name: before[-1].name}
    behind = (operator.reading(*(names.get(name, name) for name in operator.inputs)) for operator in graph.operators)
    tensors = tuple(tensor for tensor in graph.tensors if tensor is not source)
    return dataclasses.replace(graph, tensors=(*before, *tensors), operators=(*operators, *behind))


def _reading_pixels(graph: Graph, wanted: str | None, ends: Ends) -> Graph:
    """The graph behind operators that make what the network takes of pixels, whatever integers it was trained on."""
    source = graph.tensor(graph.input)
    outer, offset = ends.pixels(source.name, source.shape, (wanted or source.type).upper())
    inner = dataclasses.replace(source, name=f"{source.name}.{source.type.lower()}")
    change = Dequantize if isinstance(inner, FloatTensor) else Quantize
    if not offset:
        return _behind(graph, (outer, inner), (change(outer.name, inner.name),))
    # The 0 of the network lies between two pixels, so that no zero point is exact.
    if isinstance(inner, QuantizedTensor) and outer.type == "INT8":
        return _behind(graph, (outer, inner), (AddConstant(outer.name, inner.name, offset),))
    name = f"{source.name}.pixels"
    is_real = isinstance(inner, FloatTensor)
    pixels = FloatTensor(name, source.shape) if is_real else ends.pixels(name, source.shape, "INT8")[0]
    added = AddConstant(name, inner.name, offset)
    return _behind(graph, (outer, pixels, inner), (change(outer.name, name), added))


def _with_output(graph: Graph, wanted: str | None) -> Graph:
    """The graph with a change of type behind it; the new output has the name of the old one."""
    sink = graph.tensor(graph.output)
    if wanted in (None, sink.type.lower()):
        return graph
    inner = dataclasses.replace(sink, name=f"{sink.name}.{sink.type.lower()}")
    outer = _of_type(sink, wanted, "output")
    change = Dequantize if isinstance(outer, FloatTensor) else Quantize
    return _before(graph, inner.name, (outer,), (change(inner.name, outer.name),))


def _before(graph: Graph, name: str, behind: tuple[Tensor, ...], operators: tuple[Operator, ...]) -> Graph:
    """The graph with another name for its output, and tensors and operators behind it, the last of which has the old name."""
    sink = graph.tensor(graph.output)
    *before, last = graph.operators
    tensors = tuple(dataclasses.replace(sink, name=name) if tensor is sink else tensor for tensor in graph.tensors)
    renamed = dataclasses.replace(last, output=name)
    return dataclasses.replace(graph, tensors=(*tensors, *behind), operators=(*before, renamed, *operators))


def _with_function(graph: Graph, wanted: str | None, ends: Ends) -> Graph:
    """The graph with a softmax or sigmoid behind it, in float unless another type is wanted: 8 bits hold no small probabilities."""
    sink, function = graph.tensor(graph.output), _FUNCTIONS[ends.output_activation]
    logits, real = f"{sink.name}.logits", FloatTensor(sink.name, sink.shape)
    if isinstance(sink, FloatTensor):
        _of_type(sink, wanted or "float32", "output")
        return _before(graph, logits, (real,), (function(logits, sink.name),))
    if wanted in (None, "float32"):
        unrounded = FloatTensor(f"{logits}.real", sink.shape)
        operators = (Dequantize(logits, unrounded.name), function(unrounded.name, sink.name))
        return _before(graph, logits, (unrounded, real), operators)
    rounded = QuantizedTensor(sink.name, sink.shape, PROBABILITY_SCALE, PROBABILITY_ZERO_POINT)
    return _with_output(_before(graph, logits, (rounded,), (function(logits, sink.name),)), wanted)


def _of_type(tensor: Tensor, wanted: str, end: str) -> Tensor:
    """A tensor of the same real numbers in another type."""
    if isinstance(tensor, FloatTensor):
        if wanted == "float32":
            return tensor
        raise DaquError(f"`{end}_type` must be float32 where the network is in float, but received {wanted!r}: leave it out.")
    if wanted == "float32":
        return FloatTensor(tensor.name, tensor.shape)
    shift = ACTIVATION_LIMITS[wanted.upper()][0] - ACTIVATION_LIMITS[tensor.type][0]
    return dataclasses.replace(tensor, zero_point=tensor.zero_point + shift, type=wanted.upper())
