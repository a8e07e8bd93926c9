"""Scores of subnets: batch-norm statistics are recalibrated for the very subnet, architecture and bits, before it is scored."""

import functools
import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from daqu_tf.spaces.subnet import Subnet
from daqu_tf.supernet.supernet import Network

RECALIBRATION_IMAGES, MOST_RECALIBRATION_IMAGES = 1024, 8192
RECALIBRATION_BATCH = 256
SCORING_BATCH = 500


class Scorer:
    """Recalibrates and scores a network as it is; for a supernet, its active subnet. Traced once.

    Args:
        network: What is scored.
        x_train: Training images (count, height, width, channels), of which the first ones recalibrate; they are shuffled already.
    """

    def __init__(self, network: Network, x_train: np.ndarray):
        self._network = network
        self._scores: dict[tuple, float] = {}
        self._images = x_train[:MOST_RECALIBRATION_IMAGES]
        self._batches = self._cut(x_train[:RECALIBRATION_IMAGES])

    @functools.cached_property
    def _all_batches(self) -> list[tf.Tensor]:
        return self._cut(self._images)

    def _cut(self, images: np.ndarray) -> list[tf.Tensor]:
        size = min(RECALIBRATION_BATCH, len(images))
        # Whole batches only: a short one would weigh as much as the others.
        return [tf.constant(images[i : i + size]) for i in range(0, len(images) - size + 1, size)]

    @functools.cached_property
    def _recalibrate_on(self) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        return tf.function(lambda x, rate: self._network(x, training=True, statistics_rate=rate), autograph=False)

    @functools.cached_property
    def _infer(self) -> Callable[[tf.Tensor], tf.Tensor]:
        shape = [None, *self._network.space.input_shape]
        return tf.function(lambda x: self._network(x), input_signature=[tf.TensorSpec(shape)], autograph=False)

    def recalibrate(self, thoroughly: bool = False) -> None:
        """Replaces the statistics by the mean over the recalibration batches.

        Args:
            thoroughly: Over eight times as many, where there are so many.
        """
        for number, images in enumerate(self._all_batches if thoroughly else self._batches, 1):
            self._recalibrate_on(images, tf.constant(1.0 / number))

    def evaluate(self, subnets: Sequence[Subnet], x: np.ndarray, y: np.ndarray) -> list[float]:
        """Top-1 accuracies of many subnets of a supernet, each recalibrated first; what is known already is not computed again.

        A score is known by the subnet, the images and the weights that the supernet has now.

        Args:
            subnets: Any number.
            x: Images (count, height, width, channels).
            y: Labels (count,).
        """
        setting = self._weights_version(), _digest(x), _digest(y)
        asked = [(*setting, subnet) for subnet in subnets]
        for key, subnet in zip(asked, subnets):
            if key not in self._scores:
                self._network.activate(subnet)
                self.recalibrate()
                self._scores[key] = self.accuracy(x, y)
        return [self._scores[key] for key in asked]

    def _weights_version(self) -> str:
        """Changes with any weight or step; statistics are those of whatever subnet was recalibrated last."""
        arrays = self._network.arrays()
        return _digest(*(arrays[name] for name in sorted(arrays) if "moving_" not in name))

    def logits(self, x: np.ndarray) -> np.ndarray:
        """Logits (count, classes) of images (count, height, width, channels)."""
        parts = [self._infer(tf.constant(x[i : i + SCORING_BATCH])).numpy() for i in range(0, len(x), SCORING_BATCH)]
        return np.concatenate(parts)

    def accuracy(self, x: np.ndarray, y: np.ndarray) -> float:
        """Top-1 accuracy in [0, 1]."""
        return top1(self.logits(x), y)


def _digest(*arrays: np.ndarray) -> str:
    digest = hashlib.sha1(usedforsecurity=False)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()


def top1(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows whose largest logit is the label's."""
    return float(np.mean(logits.argmax(axis=1) == labels))
