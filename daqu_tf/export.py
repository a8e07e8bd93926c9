"""A trained network as a `.tflite` file: a searched subnet, or a switchable model of the user's own.

    round_biases(network)  # To what int32 holds exactly: what the network scores from now on is what the file does.
    export_tflite(network, "model.tflite")

The file is written directly (`tflite_file.py`), so the integers that were trained are the integers that ship, at any width. It is
read back, run on images and compared with the network before it gets its name.
"""

import dataclasses
import math
import os
import tempfile

import numpy as np
import tensorflow as tf

from daqu_tf import atomic, stock_graph, subnet_graph, tflite_file, tflite_metadata
from daqu_tf.architecture import image_size
from daqu_tf.devices import HostDevice
from daqu_tf.errors import DaquError
from daqu_tf.keras import keras
from daqu_tf.layers import resize
from daqu_tf.space import FLOAT_BITS, SearchSpace, Subnet
from daqu_tf.supernet import StaticNetwork
from daqu_tf.targets import Storage
from daqu_tf.tflite_graph import ACTIVATION_LIMITS, FloatTensor, Graph, Tensor
from daqu_tf.tflite_metadata import Metadata
from daqu_tf.tflite_operators import Dequantize, Quantize

PROOF_IMAGES = 16
# Of logits, over their own between images. Random networks of 2 to 8 bits came to 0.12 at most; a wrong kernel comes to 1 or more.
MOST_DEVIATION = 0.5
# Others compute something else than the network: activations that are not rounded, or, in INT4 convolutions, rounded twice.
COMPARED = ("auto", "int8")


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
            calibrated by `initialise_steps`. For a float file it may be any functional tf_keras model.
        path: Of the `.tflite` file; it is there whole or not at all.
        container: As of `targets.Storage`.
        runtime: As of `targets.Storage`.
        input_type: As of `targets.Storage`.
        output_type: As of `targets.Storage`.
        metadata: What the file tells an application; None leaves labels and the rest out, which saves about a kilobyte.
        images: A few, as the network takes them, to compare on; by default some are made up.

    Raises:
        DaquError: A layer cannot be written, or has no steps; a choice does not exist or does not fit; the file does not hold or
            compute what was trained, or cannot be written.
    """
    storage = Storage(container, runtime, input_type, output_type)
    graph = to_graph(network, storage)
    data = encode(graph, storage, metadata)
    images = sample_images(graph) if images is None else np.asarray(images, np.float32)
    prove(data, network, images, os.fspath(path), MOST_DEVIATION if container in COMPARED else math.inf)
    write(data, path)


def to_graph(network: StaticNetwork | keras.Model, storage: Storage) -> Graph:
    """The operators, integers and scales of the file; arguments and errors as for `export_tflite`."""
    if isinstance(network, StaticNetwork):
        return subnet_graph.to_graph(network.space, network.subnet, network.arrays(), storage)
    return stock_graph.to_graph(network, storage)


def round_biases(network: StaticNetwork | keras.Model) -> None:
    """Moves offsets to what a file's int32 biases hold exactly, so that the network computes what its file does.

    A bias counts in input scale x weight scale, which at 2 or 3 weight bits is a good part of an output step.

    Args:
        network: As for `export_tflite`. Offsets of batch normalization change, or biases where there are none.
    """
    if isinstance(network, StaticNetwork):
        network.load_arrays(subnet_graph.round_biases(network.space, network.subnet, network.arrays()))
    else:
        stock_graph.round_biases(network)


def encode(graph: Graph, storage: Storage, metadata: Metadata | None = None) -> bytes:
    """The bytes of a file, read back and compared.

    Args:
        graph: What it computes.
        storage: Has the types of its ends.
        metadata: As for `export_tflite`.

    Raises:
        DaquError: The file does not hold the graph, or the graph cannot have such ends.
    """
    graph = _with_output(_with_input(graph, storage.input_type), storage.output_type)
    data = tflite_file.write(graph) if metadata is None else tflite_metadata.write(graph, metadata)
    if tflite_file.read(data) != graph:
        raise DaquError("The file does not hold the trained numbers: please report the network.")
    return data


def write(data: bytes, path: str | os.PathLike) -> None:
    """Puts a file in its place, whole or not at all.

    Raises:
        DaquError: It cannot be written.
    """
    try:
        atomic.write_bytes(path, data)
    except OSError as error:
        raise DaquError(f"{path} cannot be written ({error.strerror}): choose another output path.") from error


def prove(data: bytes, network: StaticNetwork | keras.Model, images: np.ndarray, name: str, limit: float) -> None:
    """Runs a file in a process of its own, and compares its logits with the network's.

    Args:
        data: The file.
        network: What it should compute.
        images: As the network takes them.
        name: Of the file, for messages.
        limit: Of the deviation, as of `MOST_DEVIATION`.

    Raises:
        DaquError: The runtime does not run it, or it computes something else.
    """
    simulated = np.asarray(network(images, training=False))
    with tempfile.TemporaryDirectory(prefix="daqu_") as folder:
        path = os.path.join(folder, "model.tflite")
        write(data, path)
        computed = HostDevice().predict(path, at_size(network, images))
    if not isinstance(network, StaticNetwork):
        computed = stock_graph.after_logits(network, computed)
    between = np.sqrt(np.mean((simulated - simulated.mean(0)) ** 2))
    deviation = np.sqrt(np.mean((computed - simulated) ** 2)) / max(between, np.finfo(np.float32).tiny)
    if not np.isfinite(deviation) or deviation > limit:
        raise DaquError(
            f"{name} was not written: its logits are {deviation:.2g} times as far from the network's as those of two images from "
            "each other. Recalibrate the network, or report it."
        )


def sample_images(graph: Graph, count: int = PROOF_IMAGES) -> np.ndarray:
    """Random images (count, height, width, channels), neighbours alike, over the whole range that a graph reads; [0, 1] if real."""
    source = _tensor(graph, graph.input)
    shape = source.shape[1:]
    noise = np.random.default_rng(0).random((count, *(side + 2 for side in shape[:-1]), shape[-1]), np.float32)
    smooth = (noise[:, :-2, :-2] + noise[:, 1:-1, 1:-1] + noise[:, 2:, 2:]) / 3 if len(shape) == 3 else noise[:, 1:-1]
    if isinstance(source, FloatTensor):
        return smooth
    low, high = ACTIVATION_LIMITS[source.type]
    return (np.round(low + smooth * (high - low)) - source.zero_point) * np.float32(source.scale)


def at_size(network: StaticNetwork | keras.Model, images: np.ndarray) -> np.ndarray:
    """The images as the file reads them: a subnet's own network brings them to its resolution."""
    if not isinstance(network, StaticNetwork):
        return images
    return resize(tf.constant(images), image_size(network.space.input_shape, network.subnet["resolution"])).numpy()


def _with_input(graph: Graph, wanted: str | None) -> Graph:
    """A graph that begins with a change of type; what is read keeps the name of the input, so that applications find it alike."""
    source = _tensor(graph, graph.input)
    if wanted in (None, source.type.lower()):
        return graph
    inner = dataclasses.replace(source, name=f"{source.name}.{source.type.lower()}")
    outer = _of_type(source, wanted, "input")
    names = {source.name: inner.name}
    operators = (operator.reading(*(names.get(name, name) for name in operator.inputs)) for operator in graph.operators)
    tensors = tuple(tensor for tensor in graph.tensors if tensor is not source)
    return dataclasses.replace(graph, tensors=(outer, inner, *tensors), operators=(Quantize(outer.name, inner.name), *operators))


def _with_output(graph: Graph, wanted: str | None) -> Graph:
    """A graph that ends with a change of type; what is written keeps the name of the output."""
    sink = _tensor(graph, graph.output)
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
    """The same numbers in another type."""
    if isinstance(tensor, FloatTensor):
        raise DaquError(f"`{end}_type` must be float32 where the network is in float, but received {wanted!r}: leave it out.")
    if wanted == "float32":
        return FloatTensor(tensor.name, tensor.shape)
    shift = ACTIVATION_LIMITS[wanted.upper()][0] - ACTIVATION_LIMITS[tensor.type][0]
    return dataclasses.replace(tensor, zero_point=tensor.zero_point + shift, type=wanted.upper())


def _tensor(graph: Graph, name: str) -> Tensor:
    return next(tensor for tensor in graph.tensors if tensor.name == name)


def layer_table(space: SearchSpace, subnet: Subnet, storage: Storage) -> list[dict[str, object]]:
    """Bits and container of each layer, for the manifest."""
    table, fixed = [], subnet.fixed_bits
    for layer in space.layers(subnet):
        layer = dataclasses.replace(layer, weight_bits=subnet.values.get(f"{layer.name}.weight_bits", fixed))
        table.append(
            {
                "name": layer.name,
                "kind": layer.kind,
                "weight_bits": layer.weight_bits,
                "container": storage.of(layer),
                "input_activation_bits": layer.input_bits if fixed != FLOAT_BITS else fixed,
                "weights": layer.weights,
            }
        )
    return table
