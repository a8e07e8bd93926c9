"""The scoring of subnets, before which batch-norm statistics are recalibrated for the subnet, its architecture and bits."""

import functools
import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from daqu_tf.data.images import Images, at_once
from daqu_tf.spaces.subnet import Subnet
from daqu_tf.supernet.supernet import Network

RECALIBRATION_IMAGES, MOST_RECALIBRATION_IMAGES = 1024, 8192
RECALIBRATION_BATCH = 256
SCORING_BATCH = 500


class Scorer:
    """Recalibrates and scores a network, or the active subnet of a supernet, with one trace for all subnets.

    Args:
        network: The network or supernet to score.
        x_train: The training images (count, height, width, channels), in random order, of which the first ones recalibrate.
    """

    def __init__(self, network: Network, x_train: Images | np.ndarray):
        self._network, self._images = network, x_train
        self._scores: dict[tuple, float] = {}
        self._size = at_once(SCORING_BATCH, network.space.input_shape)

    def recalibration_batches(self, thoroughly: bool) -> list[slice]:
        """The places of the images in each batch that recalibrates."""
        count = min(MOST_RECALIBRATION_IMAGES if thoroughly else RECALIBRATION_IMAGES, len(self._images))
        size = min(at_once(RECALIBRATION_BATCH, self._network.space.input_shape), count)
        # Only whole batches are used, since a short one would weigh as much as the others.
        return [slice(start, start + size) for start in range(0, count - size + 1, size)]

    @functools.cached_property
    def _recalibrate_on(self) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        return tf.function(lambda x, rate: self._network(x, training=True, statistics_rate=rate), autograph=False)

    @functools.cached_property
    def _infer(self) -> Callable[[tf.Tensor], tf.Tensor]:
        shape = [None, *self._network.space.input_shape]
        return tf.function(lambda x: self._network(x), input_signature=[tf.TensorSpec(shape)], autograph=False)

    def recalibrate(self, thoroughly: bool = False) -> None:
        """Replaces the batch-norm statistics by their means over the recalibration batches.

        Args:
            thoroughly: Whether to use eight times as many images, as far as there are so many.
        """
        for number, places in enumerate(self.recalibration_batches(thoroughly), 1):
            self._recalibrate_on(tf.constant(self._images[places]), tf.constant(1.0 / number))

    def evaluate(self, subnets: Sequence[Subnet], x: Images | np.ndarray, y: np.ndarray) -> list[float]:
        """The top-1 accuracies, in [0, 1], of many subnets of a supernet, each of which is recalibrated first.

        The score of a subnet is remembered, and not computed again for the same images and weights.

        Args:
            subnets: The subnets to score.
            x: The images (count, height, width, channels).
            y: The labels (count,).
        """
        setting = self._weights_version(), _digest(x.ids if isinstance(x, Images) else x), _digest(y)
        asked = [(*setting, subnet) for subnet in subnets]
        for key, subnet in zip(asked, subnets):
            if key not in self._scores:
                self._network.activate(subnet)
                self.recalibrate()
                self._scores[key] = self.accuracy(x, y)
        return [self._scores[key] for key in asked]

    def _weights_version(self) -> str:
        """A text that changes with any weight or step, but not with statistics, which belong to the last recalibrated subnet."""
        arrays = self._network.arrays()
        return _digest(*(arrays[name] for name in sorted(arrays) if "moving_" not in name))

    def logits(self, x: Images | np.ndarray) -> np.ndarray:
        """The logits (count, classes) of images (count, height, width, channels)."""
        parts = [self._infer(tf.constant(x[i : i + self._size])).numpy() for i in range(0, len(x), self._size)]
        return np.concatenate(parts)

    def accuracy(self, x: Images | np.ndarray, y: np.ndarray) -> float:
        """The top-1 accuracy, in [0, 1], on images (count, height, width, channels) with labels (count,)."""
        return top1(self.logits(x), y)


def _digest(*arrays: np.ndarray) -> str:
    digest = hashlib.sha1(usedforsecurity=False)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()


def top1(logits: np.ndarray, labels: np.ndarray) -> float:
    """The top-1 accuracy, in [0, 1], of logits (count, classes) with labels (count,)."""
    return float(np.mean(logits.argmax(axis=1) == labels))
