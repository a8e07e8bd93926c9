"""The export of a trained network, a searched subnet or a switchable model of your own, to a `.tflite` file.

    round_biases(network)  # After this, the network computes what its file will.
    export_tflite(network, "model.tflite")

The file is written directly (see `tflite.file`), so the integers that were trained are the integers that ship, at any bits. It is
read back, run on images and compared with the network before it gets its name.
"""

import os

import numpy as np

from daqu_tf.errors import DaquError
from daqu_tf.export import stock_graph, subnet_graph
from daqu_tf.export.encoding import encode, write
from daqu_tf.export.proof import checked, most_deviation, prove, sample_images
from daqu_tf.keras import keras
from daqu_tf.supernet.supernet import StaticNetwork
from daqu_tf.targets.storage import Storage
from daqu_tf.tflite.graph import Graph
from daqu_tf.tflite.metadata import Metadata


def export_tflite(
    network: StaticNetwork | keras.Model,
    path: str | os.PathLike,
    container: str = "auto",
    runtime: str = "litert",
    *,
    input_type: str | None = None,
    output_type: str | None = None,
    metadata: Metadata | None = None,
    images: np.ndarray | None = None,
) -> None:
    """Writes a network to a `.tflite` file, which is read back, run and compared with the network before.

    The file gives logits: a softmax or sigmoid at the end of a model of your own is left out. Layers at 32 bits are real numbers in
    an otherwise integer file.

    Args:
        network: A recalibrated `StaticNetwork`, as `Supernet.extract` gives it, or a model from `stock_models.make_switchable`
            whose steps `initialise_steps` has set. For a float file it may be a functional tf_keras model without quantizers.
        path: The path of the file, which is written whole or not at all.
        container: How weights are stored: `auto`, `int8`, `int4`, `float32`, `float16` or `dynamic` (see `targets.Storage`).
        runtime: The oldest runtime that has to run the file, `litert` or `tflite_runtime`.
        input_type: The type of the images: `int8`, `uint8`, `float32`, or None for the network's own.
        output_type: The type of the logits: `int8`, `uint8`, `float32`, or None for the network's own.
        metadata: What the file tells an application; None leaves it out, labels too, which saves about a kilobyte.
        images: At least two images to compare on, as the network takes them; None makes random ones.

    Raises:
        DaquError: A layer cannot be written or has no steps, an argument has an unknown value or does not fit, or the file does not
            hold or compute what was trained, or cannot be written.
    """
    check_path(path)
    storage = Storage(container, runtime, input_type, output_type)
    graph = to_graph(network, storage)
    data = encode(graph, storage, metadata)
    images = sample_images(graph) if images is None else checked(images, graph, isinstance(network, StaticNetwork))
    prove(data, network, images, os.fspath(path), most_deviation(network, storage))
    write(data, path)


def check_path(path: str | os.PathLike) -> None:
    """Refuses a path that is none of a `.tflite` file.

    Raises:
        DaquError: The path has another ending.
    """
    if not os.fspath(path).endswith(".tflite"):
        raise DaquError(f"The file must be a .tflite file, but received {os.fspath(path)!r}: give a path that ends so.")


def to_graph(network: StaticNetwork | keras.Model, storage: Storage) -> Graph:
    """The graph of the file of a network.

    Args:
        network: The network, as `export_tflite` takes it.
        storage: How the file stores weights and activations.

    Raises:
        DaquError: A layer cannot be written, or has no steps.
    """
    if isinstance(network, StaticNetwork):
        return subnet_graph.to_graph(network.space, network.subnet, network.arrays(), storage)
    return stock_graph.to_graph(network, storage)


def round_biases(network: StaticNetwork | keras.Model, storage: Storage | None = None) -> None:
    """Rounds offsets to what a file's int32 biases hold exactly, so that the network computes what its file does.

    One unit of a bias is input scale x weight scale. Weights of few bits are stored times a power of two, so that their biases are
    nearly as fine as those of 8 bits: what changes is a small part of an output step.

    Args:
        network: The network, as `export_tflite` takes it. The offsets of batch normalization change, or where there are none,
            biases, or else means.
        storage: How the file will store the network; by default as `export_tflite` stores it.
    """
    storage = storage or Storage()
    if isinstance(network, StaticNetwork):
        arrays = network.arrays()
        network.load_arrays(arrays | subnet_graph.round_biases(network.space, network.subnet, arrays, storage))
    else:
        stock_graph.round_biases(network, storage)
