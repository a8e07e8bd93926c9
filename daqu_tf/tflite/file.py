"""Writes a `Graph` to .tflite bytes and reads it back: the numbers given are the file's numbers.

The bytes are kept few without asking anything unusual of a runtime: equal vectors are stored once, and only activation
tensors have names. Runtimes insist on a zero point for every scale, and XNNPACK on a scale per channel for biases too:
not stored once, the zero points alone, all of them 0, would take 16 bytes a channel.
"""

from collections.abc import Mapping
from typing import Any

from daqu_tf.errors import DaquError
from daqu_tf.tflite.codecs import DECODERS, ENCODERS
from daqu_tf.tflite.decoder import Decoder
from daqu_tf.tflite.encoder import Encoder
from daqu_tf.tflite.graph import Graph
from daqu_tf.tflite.operators import Operator
from daqu_tf.tflite.schema import IDENTIFIER, schema


def write(graph: Graph, metadata: Mapping[str, bytes] | None = None) -> bytes:
    """Returns the .tflite file of `graph`, with the signature `SIGNATURE` over its input and output names.

    Args:
        graph: What the file computes.
        metadata: Buffers to go with it, by name; runtimes ignore them, and `read_buffers` finds them.

    Raises:
        DaquError: If the tensors and operators disagree or do not fit the file; the message names the tensor.
    """
    graph.check()
    encoder = Encoder(graph)
    for operator in graph.operators:
        ENCODERS[type(operator)](operator, encoder)
    return encoder.file(metadata or {})


def read(data: bytes) -> Graph:
    """Returns the graph for which `write` gives `data`, whatever metadata go with it.

    Raises:
        DaquError: If the file holds anything that a `Graph` cannot say.
    """
    decoder = Decoder(_model(data))
    graph = decoder.graph(tuple(_decoded(node, decoder) for node in decoder.nodes()))
    graph.check()
    return graph


def _decoded(node: Any, decoder: Decoder) -> Operator:
    code = decoder.code(node)
    if code not in DECODERS:
        raise DaquError(f"tensor {decoder.name(node.outputs[0])!r}: operator {code} is not one of {sorted(DECODERS)}")
    return DECODERS[code](node, decoder)


def read_buffers(data: bytes) -> dict[str, bytes]:
    """Returns the buffers that go with the graph of any .tflite file, by name.

    Raises:
        DaquError: If it is no such file.
    """
    model = _model(data)
    return {entry.name.decode(): model.buffers[entry.buffer].data.tobytes() for entry in model.metadata or ()}


def _model(data: bytes) -> Any:
    if data[4:8] != IDENTIFIER:
        raise DaquError("the data must be a .tflite file, but received other bytes; read it again from its source")
    return schema().ModelT.InitFromPackedBuf(data)
