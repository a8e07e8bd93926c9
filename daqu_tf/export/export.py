"""A trained network as a `.tflite` file: a searched subnet, or a switchable model of the user's own.

    round_biases(network)  # To what int32 holds exactly: what the network scores from now on is what the file does.
    export_tflite(network, "model.tflite")

The file is written directly (`tflite_file.py`), so the integers that were trained are the integers that ship, at any width. It is
read back, run on images and compared with the network before it gets its name.
"""

import os

import numpy as np

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
    """Writes a network to `path`, after reading the file back, running it, and comparing it with the network.

    The file puts out logits: a softmax or sigmoid at the end of a model of your own is left out. Layers at 32 bits are real
    numbers in an otherwise integer file.

    Args:
        network: A `StaticNetwork`, as `Supernet.extract` gives, recalibrated; or a model from `stock_models.make_switchable`,
            calibrated by `initialise_steps`. For a float file it may be a functional tf_keras model without quantizers.
        path: Of the `.tflite` file; it is there whole or not at all.
        container: As of `targets.Storage`.
        runtime: As of `targets.Storage`.
        input_type: As of `targets.Storage`.
        output_type: As of `targets.Storage`.
        metadata: What the file tells an application; None leaves labels and the rest out, which saves about a kilobyte.
        images: At least two, as the network takes them, to compare on; by default some are made up.

    Raises:
        DaquError: A layer cannot be written, or has no steps; a choice does not exist or does not fit; the file does not hold or
            compute what was trained, or cannot be written.
    """
    storage = Storage(container, runtime, input_type, output_type)
    graph = to_graph(network, storage)
    data = encode(graph, storage, metadata)
    images = sample_images(graph) if images is None else checked(images, graph, isinstance(network, StaticNetwork))
    prove(data, network, images, os.fspath(path), most_deviation(network, storage))
    write(data, path)


def to_graph(network: StaticNetwork | keras.Model, storage: Storage) -> Graph:
    """The operators, integers and scales of the file; arguments and errors as for `export_tflite`."""
    if isinstance(network, StaticNetwork):
        return subnet_graph.to_graph(network.space, network.subnet, network.arrays(), storage)
    return stock_graph.to_graph(network, storage)


def round_biases(network: StaticNetwork | keras.Model, storage: Storage | None = None) -> None:
    """Moves offsets to what a file's int32 biases hold exactly, so that the network computes what its file does.

    A bias counts in input scale x weight scale. Weights of few bits are stored times a power of two, and so their biases are nearly as
    fine as those of 8 bits: what moves is a small part of an output step.

    Args:
        network: What `export_tflite` takes. Offsets of batch normalization change, or where there are none biases, or else means.
        storage: How the file will store the network; by default as `export_tflite` does.
    """
    storage = storage or Storage()
    if isinstance(network, StaticNetwork):
        arrays = network.arrays()
        network.load_arrays(arrays | subnet_graph.round_biases(network.space, network.subnet, arrays, storage))
    else:
        stock_graph.round_biases(network, storage)
