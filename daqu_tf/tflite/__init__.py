"""The `.tflite` file format, and nothing else: a `Graph` of operators is written to bytes, read back, and the two are equal.

`graph` is a network as a file holds it, and `base`, `weighted` and `operators` are the operators in it. `checks` has what every
tensor must keep to, and `widening` the form of few-bit weights that some kernels round better. `file` writes and reads files
through `codecs`, which know each operator, `encoder`, `decoder` and `schema`. `metadata` is what a file tells applications beside
the graph.
"""

from daqu_tf.tflite.file import read, read_ends, write
from daqu_tf.tflite.graph import Graph
from daqu_tf.tflite.metadata import Metadata, read_labels, read_metadata, read_preprocessing, write_with_metadata

__all__ = [
    "Graph",
    "read",
    "read_ends",
    "write",
    "Metadata",
    "write_with_metadata",
    "read_metadata",
    "read_labels",
    "read_preprocessing",
]
