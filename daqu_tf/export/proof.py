"""The proof that a file computes what its network does: it is run and compared before it gets its name."""

import math
import os
import tempfile

import numpy as np
import tensorflow as tf

from daqu_tf import tflite
from daqu_tf.devices import HostDevice
from daqu_tf.errors import DaquError
from daqu_tf.export.encoding import write
from daqu_tf.export.ends import Ends
from daqu_tf.keras import keras
from daqu_tf.spaces.architecture import image_size
from daqu_tf.spaces.bits import FIXED_BITS
from daqu_tf.stock_models import graphs
from daqu_tf.supernet.layers import resize
from daqu_tf.supernet.supernet import StaticNetwork
from daqu_tf.targets.storage import Storage
from daqu_tf.tflite.graph import ACTIVATION_LIMITS, FloatTensor, Graph, Tensor

PROOF_IMAGES = 16
# The most deviation of a file's outputs from the network's, as a share of what outputs differ by between images. Random networks
# reached 0.12 at most, and a wrong kernel 1 or more.
MOST_DEVIATION = 0.5
# The most deviation of files that compute something else, since activations are not rounded, or, in INT4 convolutions, rounded
# twice. Random networks with 8-bit activations reached 1.07; those with fewer bits reached anything, so they only have to run.
MOST_DEVIATION_OF_OTHERS = 1.5
# Outputs that hardly differ between images, as those of a network that was never trained, are compared with this share of their own
# size, which is about two steps of 8 bits.
LEAST_SHARE = 0.02
LEAST_STEPS = 2  # The same for outputs of 8 bits whose step is fixed, as that of probabilities.
MOST_TIES = 0.25  # The most images, as a share, of which 8 bits may hide the most probable class.


def prove(data: bytes, network: StaticNetwork | keras.Model, images: np.ndarray, name: str, limit: float, ends: Ends) -> None:
    """Runs a file in a process of its own, and compares its outputs with those of the network.

    Args:
        data: The bytes of the file.
        network: The network that the file should compute.
        images: The images to compare on, as the network takes them.
        name: The name of the file, for messages.
        limit: The most deviation of the outputs, as a share of what outputs differ by between images.
        ends: What the ends of the file mean, which are compared too: pixels go in where it takes pixels.

    Raises:
        DaquError: The runtime does not run the file, or the file computes something else.
    """
    graph = tflite.read(data)
    source, sink = graph.tensor(graph.input), graph.tensor(graph.output)
    simulated = _after(ends.added, np.asarray(network(images, training=False)))
    if not np.isfinite(simulated).all():
        raise DaquError(
            f"{name} was not written: the network's outputs are not finite. Train it anew, or from an earlier checkpoint."
        )
    with tempfile.TemporaryDirectory(prefix="daqu_") as folder:
        path = os.path.join(folder, "model.tflite")
        write(data, path)
        computed = HostDevice().predict(path, ends.fed(at_size(network, images), source))
    _check_ties(simulated, computed, sink, ends)
    computed = _after(ends.left_out, computed)
    between = np.sqrt(np.mean((simulated - simulated.mean(0)) ** 2))
    step = 0.0 if ends.output_activation == "none" or isinstance(sink, FloatTensor) else sink.scale
    least = max(LEAST_SHARE * np.abs(simulated).max(), LEAST_STEPS * step, np.finfo(np.float32).tiny)
    deviation = np.sqrt(np.mean((computed - simulated) ** 2)) / max(between, least)
    if not deviation <= limit:
        raise DaquError(
            f"{name} was not written: its outputs are {deviation:.2g} times as far from the network's as those of two images from "
            "each other. Recalibrate the network, or report it."
        )


def _after(function: str, outputs: np.ndarray) -> np.ndarray:
    """The outputs of a function, `none` or one of Keras's."""
    return outputs if function == "none" else keras.activations.get(function)(tf.constant(outputs)).numpy()


def _check_ties(simulated: np.ndarray, computed: np.ndarray, sink: Tensor, ends: Ends) -> None:
    """Refuses probabilities of 8 bits of which the largest is not told apart from others, as those of hundreds of classes.

    Raises:
        DaquError: For many images the file would name another class than the network, the first of those that are equal.
    """
    if ends.output_activation != "softmax" or isinstance(sink, FloatTensor):
        return
    first = [np.mean(np.sum(outputs == outputs.max(-1, keepdims=True), -1) > 1) for outputs in (simulated, computed)]
    if first[1] - first[0] > MOST_TIES:
        raise DaquError(
            f"`output_type` must not be {sink.type.lower()!r} here: its steps of 1/256 leave {first[1]:.0%} of the images without "
            "one most probable class. Give 'float32', or `output_activation='none'` for logits."
        )


def most_deviation(network: StaticNetwork | keras.Model, storage: Storage) -> float:
    """The most deviation that `prove` allows for a network and the storage of its file."""
    if isinstance(network, StaticNetwork):
        all_bits = [bits for name, bits in network.subnet.bits.items() if name.endswith(".activation_bits")]
    else:
        all_bits = graphs.activation_bits(network)
    has_few = min(all_bits, default=FIXED_BITS) < FIXED_BITS  # One step of a tensor of few bits is a large one.
    if storage.container in ("auto", "int8"):
        return MOST_DEVIATION_OF_OTHERS if has_few else MOST_DEVIATION
    return math.inf if has_few else MOST_DEVIATION_OF_OTHERS


def checked(images: np.ndarray, graph: Graph, any_size: bool) -> np.ndarray:
    """The images as float32, if there are two or more and the graph can read them.

    Args:
        images: The images (count, height, width, channels).
        graph: The graph.
        any_size: Whether the network resizes images, so that their height and width do not matter.

    Raises:
        DaquError: The images do not fit.
    """
    shape = graph.tensor(graph.input).shape[1:]
    try:
        images = np.asarray(images, np.float32)
    except (TypeError, ValueError):
        images = np.zeros(0)
    fits = images.shape[1:] == shape or (any_size and images.ndim == 4 and images.shape[-1] == shape[-1])
    if not fits or len(images) < 2:
        raise DaquError(f"`images` must be two or more of shape {shape}, but received shape {images.shape}: leave them out.")
    return images


def sample_images(graph: Graph, count: int = PROOF_IMAGES, input_range: tuple[float, float] | None = None) -> np.ndarray:
    """Random images (count, height, width, channels) with similar neighbours.

    They span the given range, or else the whole one that the input of the graph can hold, or [0, 1] if it is real.

    Args:
        graph: The graph.
        count: The number of images.
        input_range: The numbers that images lie between.
    """
    source = graph.tensor(graph.input)
    shape = source.shape[1:]
    noise = np.random.default_rng(0).random((count, *(side + 2 for side in shape[:-1]), shape[-1]), np.float32)
    smooth: np.ndarray = (noise[:, :-2, :-2] + noise[:, 1:-1, 1:-1] + noise[:, 2:, 2:]) / 3 if len(shape) == 3 else noise
    if input_range is not None:
        return np.float32(input_range[0]) + smooth * np.float32(input_range[1] - input_range[0])
    if isinstance(source, FloatTensor):
        return smooth
    low, high = ACTIVATION_LIMITS[source.type]
    return (np.round(low + smooth * (high - low)) - source.zero_point) * np.float32(source.scale)


def at_size(network: StaticNetwork | keras.Model, images: np.ndarray) -> np.ndarray:
    """The images as the file reads them: for a subnet, they are resized to its resolution and less its zero, as in its network."""
    if not isinstance(network, StaticNetwork):
        return images
    resized = resize(tf.constant(images), image_size(network.space.input_shape, network.subnet["resolution"])).numpy()
    return resized - np.float32(input_zero(network))


def input_zero(network: StaticNetwork | keras.Model) -> float:
    """What is taken from images in [0, 1] before the first layer of a subnet; 0 of a model of your own, which takes any."""
    return network.input_zero if isinstance(network, StaticNetwork) else 0.0
