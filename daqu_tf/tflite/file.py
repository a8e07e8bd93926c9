"""Writes a `Graph` as a `.tflite` file and reads it back; the numbers of the graph are the numbers in the file.

Files are small without asking anything unusual of a runtime: equal vectors are stored once, and only activation tensors have
names. Runtimes insist on a zero point for every scale, and XNNPACK on a scale per channel for biases too. If they were not stored
once, the zero points alone, all of them 0, would take 16 bytes for each channel.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from daqu_tf.errors import DaquError
from daqu_tf.tflite.codecs import DECODERS, ENCODERS
from daqu_tf.tflite.decoder import Decoder
from daqu_tf.tflite.encoder import Encoder
from daqu_tf.tflite.graph import Graph, Tensor
from daqu_tf.tflite.operators import Operator
from daqu_tf.tflite.schema import IDENTIFIER, schema

_LFS = b"version https://git-lfs"


def write(graph: Graph, metadata: Mapping[str, bytes] | None = None) -> bytes:
    """The bytes of the `.tflite` file of a graph, with a signature over the names of its input and output.

    Args:
        graph: The graph that the file computes.
        metadata: Buffers that the file holds beside the graph, by name. Runtimes ignore them; `read_buffers` reads them.

    Raises:
        DaquError: The tensors and operators disagree or do not fit the file (the tensor is named).
    """
    graph.check()
    encoder = Encoder(graph)
    for operator in graph.operators:
        ENCODERS[type(operator)](operator, encoder)
    return encoder.file(metadata or {})


def read(data: bytes) -> Graph:
    """The graph in the bytes of a `.tflite` file, the inverse of `write`; metadata are ignored.

    Raises:
        DaquError: The file holds anything that a `Graph` cannot hold.
    """
    with _in_sentences():
        decoder = Decoder(_model(data))
        graph = decoder.graph(tuple(_decoded(node, decoder) for node in decoder.nodes()))
        graph.check()
        return graph


def read_ends(data: bytes) -> tuple[Tensor, Tensor, str]:
    """What goes into a `.tflite` file and what comes out, whatever operators are between.

    Args:
        data: The bytes of the file, of this library or of any other.

    Returns:
        The tensor that the file reads, the one that it puts out, and the function at its end: `none`, `softmax` or `sigmoid`.

    Raises:
        DaquError: The file reads or puts out several tensors, or one of a type that a `Graph` cannot hold.
    """
    with _in_sentences():
        return Decoder(_model(data)).outermost()


def _decoded(node: Any, decoder: Decoder) -> Operator:
    code = decoder.code(node)
    if code not in DECODERS:
        tensor, known = decoder.name(node.outputs[0]), ", ".join(sorted(DECODERS))
        raise DaquError(f"Tensor {tensor!r}: its operator must be one of {known}, but received {code}; leave that operator out.")
    return DECODERS[code](node, decoder)


def read_buffers(data: bytes) -> dict[str, bytes]:
    """The buffers beside the graph in the bytes of any `.tflite` file, by name.

    Raises:
        DaquError: The bytes are no `.tflite` file.
    """
    with _in_sentences():
        model = _model(data)
        return {entry.name.decode(): model.buffers[entry.buffer].data.tobytes() for entry in model.metadata or ()}


@contextlib.contextmanager
def _in_sentences() -> Iterator[None]:
    """Says of strangers' files, which may have anything, what they are not."""
    try:
        yield
    except DaquError:
        raise
    except Exception as error:  # Bytes that only begin like such a file can raise anything in its reader.
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise DaquError(
            f"`data` must be a whole .tflite file of one classifier, but something in it is otherwise ({what}): read it again "
            "from its source, or take another."
        ) from error


def _model(data: bytes) -> Any:
    if data.startswith(_LFS):
        raise DaquError("`data` is a pointer of Git LFS to a file, not the file itself: fetch that with `git lfs pull`.")
    if data[4:8] != IDENTIFIER:
        raise DaquError("`data` must be a .tflite file, but received other bytes: read it again from its source.")
    model = schema().ModelT.InitFromPackedBuf(data)
    if (count := len(model.subgraphs or ())) != 1:
        names = ", ".join(each.signatureKey.decode() for each in model.signatureDefs or () if each.signatureKey)
        raise DaquError(
            f"The file must have one subgraph, but it has {count}"
            + (f" (signatures {names})" if names else "")
            + ": take one that "
            "holds a classifier alone."
        )
    return model
