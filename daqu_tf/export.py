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
from daqu_tf.space import SearchSpace
from daqu_tf.spaces_bits import FIXED_BITS, FLOAT_BITS
from daqu_tf.spaces_subnet import Subnet
from daqu_tf.supernet import StaticNetwork
from daqu_tf.targets_storage import Storage
from daqu_tf.tflite_graph import ACTIVATION_LIMITS, FloatTensor, Graph, Tensor
from daqu_tf.tflite_metadata import Metadata
from daqu_tf.tflite_operators import Dequantize, Quantize
from daqu_tf.tflite_weighted import Weighted

PROOF_IMAGES = 16
# Of outputs, over their own between images. Random networks came to 0.12 at most, a wrong kernel to 1 or more.
MOST_DEVIATION = 0.5
# Of files that compute something else: activations that are not rounded, or, in INT4 convolutions, rounded twice. Random networks
# of 8-bit activations came to 1.07; of fewer bits to anything, so of those it is only asked that they run.
MOST_DEVIATION_OF_OTHERS = 1.5


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


def round_biases(network: StaticNetwork | keras.Model) -> None:
    """Moves offsets to what a file's int32 biases hold exactly, so that the network computes what its file does.

    A bias counts in input scale x weight scale, which at 2 or 3 weight bits is a good part of an output step.

    Args:
        network: As for `export_tflite`. Offsets of batch normalization change, or where there are none biases, or else means.
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
    data = tflite_file.write(graph) if metadata is None else tflite_metadata.write_with_metadata(graph, metadata)
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
    """Runs a file in a process of its own, and compares its outputs with the network's.

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
    if not np.isfinite(simulated).all():
        raise DaquError(
            f"{name} was not written: the network's outputs are not finite. Train it anew, or from an earlier checkpoint."
        )
    with tempfile.TemporaryDirectory(prefix="daqu_") as folder:
        path = os.path.join(folder, "model.tflite")
        write(data, path)
        computed = HostDevice().predict(path, at_size(network, images))
    if not isinstance(network, StaticNetwork):
        computed = stock_graph.after_logits(network, computed)
    between = np.sqrt(np.mean((simulated - simulated.mean(0)) ** 2))
    deviation = np.sqrt(np.mean((computed - simulated) ** 2)) / max(between, np.finfo(np.float32).tiny)
    if not deviation <= limit:
        raise DaquError(
            f"{name} was not written: its outputs are {deviation:.2g} times as far from the network's as those of two images from "
            "each other. Call `round_biases` first, recalibrate the network, or report it."
        )


def most_deviation(network: StaticNetwork | keras.Model, storage: Storage) -> float:
    """What `prove` allows."""
    if storage.container in ("auto", "int8"):
        return MOST_DEVIATION
    if isinstance(network, StaticNetwork):
        widths = [bits for name, bits in network.subnet.choices if name.endswith(".activation_bits")]
    else:
        widths = stock_graph.activation_bits(network)
    return MOST_DEVIATION_OF_OTHERS if min(widths, default=FIXED_BITS) >= FIXED_BITS else math.inf


def checked(images: np.ndarray, graph: Graph, any_size: bool) -> np.ndarray:
    """The images as float32, if the graph can read them, or what brings them to its size."""
    shape = graph.tensor(graph.input).shape[1:]
    try:
        images = np.asarray(images, np.float32)
    except (TypeError, ValueError):
        images = np.zeros(0)
    fits = images.shape[1:] == shape or (any_size and images.ndim == 4 and images.shape[-1] == shape[-1])
    if not fits or len(images) < 2:
        raise DaquError(f"`images` must be two or more of shape {shape}, but received shape {images.shape}: leave them out.")
    return images


def sample_images(graph: Graph, count: int = PROOF_IMAGES) -> np.ndarray:
    """Random images (count, height, width, channels), neighbours alike, over the whole range that a graph reads; [0, 1] if real."""
    source = graph.tensor(graph.input)
    shape = source.shape[1:]
    noise = np.random.default_rng(0).random((count, *(side + 2 for side in shape[:-1]), shape[-1]), np.float32)
    smooth = (noise[:, :-2, :-2] + noise[:, 1:-1, 1:-1] + noise[:, 2:, 2:]) / 3 if len(shape) == 3 else noise
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
    """A graph that ends with a change of type; what is written keeps the name of the output."""
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
    """The same numbers in another type."""
    if isinstance(tensor, FloatTensor):
        raise DaquError(f"`{end}_type` must be float32 where the network is in float, but received {wanted!r}: leave it out.")
    if wanted == "float32":
        return FloatTensor(tensor.name, tensor.shape)
    shift = ACTIVATION_LIMITS[wanted.upper()][0] - ACTIVATION_LIMITS[tensor.type][0]
    return dataclasses.replace(tensor, zero_point=tensor.zero_point + shift, type=wanted.upper())


def layer_table(space: SearchSpace, subnet: Subnet, graph: Graph) -> list[dict[str, object]]:
    """Bits and container of each layer as stored in a graph, for the manifest."""
    kernels = {operator.output: operator for operator in graph.operators if isinstance(operator, Weighted)}
    stored = {output.removesuffix(".unrounded").removesuffix(".unclipped"): kernel for output, kernel in kernels.items()}
    fixed = subnet.fixed_bits
    return [
        {
            "name": layer.name,
            "kind": layer.kind,
            "weight_bits": subnet.values.get(f"{layer.name}.weight_bits", fixed),
            "container": stored[layer.name].container,
            "input_activation_bits": FLOAT_BITS if stored[layer.name].in_float else layer.input_bits,
            "weights": layer.weights,
        }
        for layer in space.layers(subnet)
    ]
