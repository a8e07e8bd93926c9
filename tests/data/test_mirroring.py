"""Images of which it is known whether a mirror changes their class."""

import numpy as np
import pytest

from daqu_tf import data
from daqu_tf.data import mirroring

RNG = np.random.default_rng(0)


def noisy(patterns, count=60, noise=0.2):
    """`count` images of each pattern, and their labels."""
    labels = np.repeat(np.arange(len(patterns)), count)
    images = np.asarray(patterns)[labels]
    return (images + noise * RNG.random(images.shape)).astype(np.float32), labels.astype(np.int32)


def keeps(patterns, **how):
    return mirroring.keeps_classes(*noisy(patterns, **how), *noisy(patterns, **how))


def symmetric(count, shape=(20, 20, 3)):
    patterns = RNG.random((count, *shape))
    return (patterns + patterns[:, :, ::-1]) / 2


def test_what_is_the_same_in_a_mirror_is_mirrored():
    assert keeps(symmetric(5))
    assert keeps(symmetric(3, (8, 12, 1)))


def test_photos_that_look_to_either_side_are_mirrored():
    images, labels = noisy(RNG.random((4, 24, 24, 1)))
    either = np.where(RNG.random((len(images), 1, 1, 1)) < 0.5, images, images[:, :, ::-1])
    assert mirroring.keeps_classes(either[::2], labels[::2], either[1::2], labels[1::2])


def test_digits_are_not():
    digits = data.load("digits", 0)
    assert not mirroring.keeps_classes(digits.x_train, digits.y_train, digits.x_search, digits.y_search)


def test_one_pair_of_arrows_among_other_signs_is_enough_to_leave_it():
    left = np.linspace(0, 1, 20)[None, None, :, None] * np.ones((1, 20, 20, 3))
    assert not keeps(np.concatenate([symmetric(12), left, left[:, :, ::-1]]))


@pytest.mark.parametrize("count", [1, 30])
def test_images_that_tell_nothing_are_left_alone(count):
    images, labels = RNG.random((3 * count, 16, 16, 1), np.float32), np.arange(3 * count) % 3
    assert not mirroring.keeps_classes(images, labels, images[::-1], RNG.permutation(labels))
