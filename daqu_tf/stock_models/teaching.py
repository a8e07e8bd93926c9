"""A trained network of any stock layers as a teacher: what it thinks of the images of a data set."""

import dataclasses
import os
import time

import numpy as np
import tensorflow as tf

from daqu_tf.data.dataset import Dataset
from daqu_tf.data.images import at_once
from daqu_tf.errors import DaquError
from daqu_tf.keras import keras
from daqu_tf.stock_models.loading import load_trained
from daqu_tf.stock_models.transfer import RANGES

IMAGES, BATCH = 256, 32  # Of the search split, on which it is seen which pixels the network takes.
ERRORS = 3.0  # Standard errors by which a teacher has to be better than one that names the largest class.


@dataclasses.dataclass(frozen=True, eq=False)
class Teacher:
    """A trained network that names the classes of a data set.

    Attributes:
        model: The network.
        limits: The numbers that the network takes for black and for white.
        accuracy: The share, in [0, 1], of some images of the search split that the network labels rightly.
        seconds: What the network's opinion of an image takes on all cores, in seconds.
    """

    model: keras.Model
    limits: tuple[float, float]
    accuracy: float = 0.0
    seconds: float = 0.0

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """The logits (batch, classes) of images (batch, height, width, channels) in [0, 1], of any size."""
        low, high = self.limits
        _, height, width, channels = self.model.input_shape
        if None not in (height, width) and tuple(images.shape[1:3]) != (height, width):
            images = tf.image.resize(images, (height, width), antialias=True)
        outputs = self.model(low + tf.repeat(images, channels // images.shape[-1], axis=-1) * (high - low), training=False)
        return tf.math.log(outputs + 1e-7) if self._gives_probabilities else outputs

    @property
    def _gives_probabilities(self) -> bool:
        last = self.model.layers[-1]
        return isinstance(last, keras.layers.Softmax) or getattr(last, "activation", None) is keras.activations.softmax


def teacher_from(name: str | os.PathLike, dataset: Dataset) -> Teacher:
    """A trained network that is to teach the classes of a data set.

    Whether the network takes pixels in [-1, 1], [0, 1] or [0, 255] is found by trying: with the others it labels fewer images of
    the search split rightly (ours).

    Args:
        name: The network, as `load_trained` takes it. Its outputs are logits, or end with a softmax.
        dataset: The data set, whose classes the network has in the same order.

    Raises:
        DaquError: The network cannot be read, or it does not name these classes.
    """
    try:
        model = load_trained(name)
    except DaquError as error:
        raise DaquError(str(error).replace("`init_from`", "`teacher`", 1)) from error
    shape, channels = model.output_shape, dataset.image_shape[-1]
    if not isinstance(shape, tuple) or shape[1:] != (dataset.num_classes,):
        raise DaquError(
            f"`teacher` must put out one number for each of the {dataset.num_classes} classes, but {name} puts out {shape}: "
            "fine-tune it on these classes first."
        )
    if len(model.input_shape) != 4 or model.input_shape[-1] % channels:
        raise DaquError(f"`teacher` must take images of {channels} channels, but {name} takes {model.input_shape}.")
    found = max((_tried(Teacher(model, limits), dataset) for limits in RANGES), key=lambda one: one.accuracy)
    labels = dataset.y_search[: _count(dataset)]
    chance = np.bincount(labels).max() / len(labels)
    if found.accuracy <= chance + ERRORS * np.sqrt(chance * (1 - chance) / len(labels)):
        raise DaquError(
            f"`teacher` {name} labels {found.accuracy:.0%} of {len(labels)} images of the search split rightly, about as many as "
            "by chance: its classes must be those of the data set, in the same order."
        )
    return found


def _count(dataset: Dataset) -> int:
    return min(IMAGES, len(dataset.x_search))


def _tried(teacher: Teacher, dataset: Dataset) -> Teacher:
    """The teacher with its accuracy on some images of the search split, and the time that it takes for one."""
    count, size = _count(dataset), min(BATCH, at_once(BATCH, dataset.image_shape))
    call = tf.function(teacher, autograph=False)
    call(tf.constant(dataset.x_search[:size]))  # Which traces.
    begin, right = time.perf_counter(), 0
    for start in range(0, count, size):
        end = min(start + size, count)
        logits = call(tf.constant(dataset.x_search[start:end]))
        right += int(np.sum(logits.numpy().argmax(-1) == dataset.y_search[start:end]))
    return dataclasses.replace(teacher, accuracy=right / count, seconds=(time.perf_counter() - begin) / count)
