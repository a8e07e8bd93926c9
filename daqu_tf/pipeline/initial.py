"""A trained network as the start of a job: its space, its weights, and the size of the photos that it takes."""

import dataclasses
import pathlib
from typing import TYPE_CHECKING

from daqu_tf.data import NAMES, Dataset
from daqu_tf.data.images import at_once
from daqu_tf.data.photo_sets import is_photo_set
from daqu_tf.data.reading import SIDES
from daqu_tf.runs.config import RunConfig
from daqu_tf.targets import Target

if TYPE_CHECKING:
    from daqu_tf.stock_models.recognition import Recognised
    from daqu_tf.stock_models.transfer import Start

IMAGES = 128  # On which it is seen which pixels the network takes.


def network_of(config: RunConfig) -> "Recognised":
    """The network that the settings name, in the terms of a search space.

    Raises:
        DaquError: The network cannot be read, or has something that no search space has (which layer is said).
    """
    from daqu_tf.stock_models.loading import load_trained
    from daqu_tf.stock_models.recognition import recognise

    return recognise(load_trained(config.init_from))


def sized(config: RunConfig, network: "Recognised") -> RunConfig:
    """The settings, with photos of the size that the network takes unless they say another.

    Args:
        config: The settings.
        network: The network.
    """
    size, (low, high) = network.model.input_shape[1:3], SIDES
    fits = None not in size and all(low <= side <= high for side in size)
    has_photos = config.dataset not in NAMES and is_photo_set(pathlib.Path(config.dataset))
    if config.image_size != "auto" or not fits or not has_photos:
        return config
    return dataclasses.replace(config, image_size="x".join(map(str, size)))


def start(network: "Recognised", dataset: Dataset, target: Target, seed: int) -> "Start":
    """Where the network lets a job begin, for the images and classes of a data set.

    Args:
        network: The network.
        dataset: The data set.
        target: The target, which restricts the space.
        seed: The seed of the weights of a classifier of other classes.

    Raises:
        DaquError: The network takes images of other channels.
    """
    from daqu_tf.stock_models.transfer import start_from

    images = dataset.x_train[: at_once(IMAGES, dataset.image_shape)]
    return start_from(network, images, dataset.num_classes, seed, target.restrict)
