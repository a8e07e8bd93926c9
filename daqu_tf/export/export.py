"""The export of a trained network, a searched subnet or a switchable model of your own, to a `.tflite` file.

    round_biases(network)  # After this, the network computes what its file will.
    export_tflite(network, "model.tflite")

The file is written directly (see `tflite.file`), so the integers that were trained are the integers that ship, at any bits. It is
read back, run on images and compared with the network before it gets its name.
"""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from daqu_tf.errors import DaquError
from daqu_tf.export import subnet_graph
from daqu_tf.export.encoding import encode, write
from daqu_tf.export.ends import Ends, ExportedFile, resolve, state
from daqu_tf.export.proof import checked, input_zero, most_deviation, prove, sample_images
from daqu_tf.keras import keras
from daqu_tf.stock_models import graphs
from daqu_tf.supernet.supernet import StaticNetwork
from daqu_tf.targets.storage import Storage
from daqu_tf.tflite.graph import FloatTensor, Graph
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
    input_range: tuple[float, float] | None = None,
    output_activation: str | None = None,
    labels: Sequence[str] | None = None,
) -> ExportedFile:
    """Writes a network to a `.tflite` file, which is read back, run and compared with the network before.

    The file puts out what the network does: logits of a searched subnet, and of a model of your own that ends in a softmax or
    sigmoid, probabilities. Layers at 32 bits are real numbers in an otherwise integer file.

    Args:
        network: A recalibrated `StaticNetwork`, as `Supernet.extract` gives it, or a model from `stock_models.make_switchable`
            whose steps `initialise_steps` has set. For a float file it may be a functional tf_keras model without quantizers.
        path: The path of the file, which is written whole or not at all.
        container: How weights are stored: `auto`, `int8`, `int4`, `float32`, `float16` or `dynamic` (see `targets.Storage`).
        runtime: The oldest runtime that has to run the file, `litert` or `tflite_runtime`.
        input_type: The type of the images: `int8`, `uint8`, `float32`, or None for the network's own.
        output_type: The type of the outputs: `int8`, `uint8`, `float32`, or None for the network's own: float32 of probabilities.
        metadata: What the file tells an application; None without `labels` leaves it out, which saves about a kilobyte.
        images: At least two images to compare on, as the network takes them; None makes random ones.
        input_range: The numbers that the network takes for pixels of 0 and of 255, as (-1, 1). With them a file of type uint8 takes
            pixels as they are, and one of type int8 pixels less 128. Those of a searched subnet are known.
        output_activation: The function behind the logits: `none`, `softmax`, `sigmoid`, or None for the network's own.
        labels: The name of each class, for the metadata; of a sigmoid with one output, those of no and of yes.

    Returns:
        What was written, and what its two ends mean.

    Raises:
        DaquError: A layer cannot be written or has no steps, an argument has an unknown value or does not fit, or the file does not
            hold or compute what was trained, or cannot be written.
    """
    check_path(path)
    storage = Storage(container, runtime, input_type, output_type)
    graph, is_subnet = to_graph(network, storage), isinstance(network, StaticNetwork)
    zero = input_zero(network)
    ending, own_range = ("none", (0.0 - zero, 1.0 - zero)) if is_subnet else (graphs.ending(network), None)
    ends = resolve(graph, storage, ending, own_range, input_range, output_activation, metadata)
    if isinstance(network, StaticNetwork):
        ends = dataclasses.replace(ends, source_size=network.space.input_shape[:2])
    stated = state("subnet" if is_subnet else network.name, ends, metadata, labels)
    data = encode(graph, storage, None if metadata is None and labels is None else stated, ends)
    prove(data, network, _images(images, graph, is_subnet, ends, zero), os.fspath(path), most_deviation(network, storage), ends)
    write(data, path)
    return ExportedFile.of(path, data, ends, stated)


def _images(given: np.ndarray | None, graph: Graph, is_subnet: bool, ends: Ends, zero: float) -> np.ndarray:
    """The images to compare on, as the network takes them, which are those of pixels where the file takes pixels."""
    if given is None:
        is_narrow = ends.in_pixels or isinstance(graph.tensor(graph.input), FloatTensor)
        return ends.nearest(sample_images(graph, input_range=ends.input_range if is_narrow else None)) + np.float32(zero)
    return ends.nearest(checked(given, graph, is_subnet) - np.float32(zero)) + np.float32(zero)


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
    return graphs.to_graph(network, storage)


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
        graphs.round_biases(network, storage)
