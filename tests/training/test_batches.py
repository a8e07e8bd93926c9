import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf

from daqu_tf.data import mirroring
from daqu_tf.data.dataset import Dataset
from daqu_tf.training.batches import COLOUR, CUTOUT, ZOOM, Augmentation, Batches, taught_labels

NONE = Augmentation(0, False)


def dataset(name="digits", count=100, shape=(8, 8, 1), classes=10):
    """Every image has its number in each pixel, and its label is that number modulo the classes."""
    numbers = np.arange(count, dtype=np.float32)
    x, y = np.broadcast_to(numbers[:, None, None, None], (count, *shape)).copy(), (np.arange(count) % classes).astype(np.int32)
    empty = {"x_search": x[:0], "y_search": y[:0], "x_test": x[:0], "y_test": y[:0]}
    return Dataset(
        name, x, y, **empty, num_classes=classes, input_offset=0, input_scale=1, test_was_cut=False, fingerprint="", class_names=()
    )


def take(batches, start, count):
    return [(x.numpy(), y.numpy()) for x, y in batches.starting_at(start).take(count)]


def numbers(parts):
    """Which images there are, in order."""
    return np.concatenate([x[:, 0, 0, 0] for x, _ in parts]).astype(int)


def assert_equal(first, second):
    assert len(first) == len(second)
    for a, b in zip(itertools.chain(*first), itertools.chain(*second)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("count, size", [(100, 20), (96, 32), (7, 7), (5, 1)])
def test_each_image_is_once_in_an_epoch(count, size):
    batches = Batches(dataset(count=count), size, 0, NONE)
    assert batches.per_epoch == count // size
    for epoch in range(3):
        parts = take(batches, epoch * batches.per_epoch, batches.per_epoch)
        assert sorted(numbers(parts)) == list(range(count))


def test_what_is_left_of_an_epoch_differs():
    batches = Batches(dataset(count=107), 20, 0, NONE)
    assert batches.per_epoch == 5
    epochs = [numbers(take(batches, 5 * epoch, 5)) for epoch in range(12)]
    assert all(len(set(epoch)) == 100 for epoch in epochs)
    left = [frozenset(range(107)) - set(epoch) for epoch in epochs]
    assert len(set(left)) == 12


def test_labels_are_one_hot_and_belong_to_the_images():
    for x, y in take(Batches(dataset(), 20, 3, NONE), 0, 5):
        assert x.shape == (20, 8, 8, 1) and x.dtype == np.float32 and y.shape == (20, 10) and y.dtype == np.float32
        np.testing.assert_array_equal(y, np.eye(10)[x[:, 0, 0, 0].astype(int) % 10])


def test_every_epoch_and_every_seed_has_its_own_order():
    orders = [numbers(take(Batches(dataset(), 20, seed, NONE), 5 * epoch, 5)) for seed in range(4) for epoch in range(4)]
    for first, second in itertools.combinations([np.arange(100), *orders], 2):
        assert np.mean(first == second) < 0.1  # Of two random orders, one in a hundred.
        assert abs(np.corrcoef(first, second)[0, 1]) < 0.4


def test_a_place_in_the_epoch_is_open_to_every_image():
    batches = Batches(dataset(count=8), 4, 0, NONE)
    first = [part[0][0, 0, 0, 0] for part in take(batches, 0, 800)[::2]]
    counts = np.bincount(np.array(first, int), minlength=8)
    assert counts.min() > 25 and counts.max() < 80  # 50 each.


@pytest.mark.parametrize("step", [1, 4, 5, 13])
def test_to_start_at_a_step_is_to_skip_the_ones_before(step):
    batches, again = (Batches(dataset(), 20, 1, Augmentation(2, True)) for _ in range(2))
    assert_equal(take(again, step, 8), take(batches, 0, step + 8)[step:])


def test_images_are_augmented_anew_in_each_step():
    data = dataclasses.replace(dataset(count=4), x_train=np.random.default_rng(0).random((4, 8, 8, 1), np.float32))
    steps = [x for x, _ in take(Batches(data, 4, 0, Augmentation(2, True)), 0, 12)]
    seen = {image.tobytes() for x in steps for image in x}
    assert len(seen) > 24  # Of 48; each image has 50 forms.


def test_the_steps_of_an_epoch_are_augmented_in_different_ways():
    image = np.random.default_rng(0).random((1, 8, 8, 1), np.float32)
    data = dataclasses.replace(dataset(count=64), x_train=np.repeat(image, 64, axis=0))
    first, second, *_ = (x for x, _ in take(Batches(data, 16, 0, Augmentation(2, True)), 0, 4))
    assert np.mean(np.all(first == second, axis=(1, 2, 3))) < 0.3


def test_the_augmentation_that_fits_the_data_is_the_default(monkeypatch):
    data = dataclasses.replace(dataset("photos", 4), x_train=np.random.default_rng(0).random((4, 32, 32, 3), np.float32))
    monkeypatch.setattr(mirroring, "keeps_classes", lambda *arrays: True)
    by_default = take(Batches(data, 4, 0, Augmentation.of(data, "auto")), 0, 3)
    assert_equal(by_default, take(Batches(data, 4, 0, Augmentation(4, True)), 0, 3))


@pytest.mark.parametrize(
    "name, height, augmentation, shift, mirror",
    [
        *((name, 28, "auto", 2, False) for name in ("fashion_mnist", "cifar10", "cifar100")),  # What is in the file decides.
        ("mnist", 28, "auto", 2, False),
        ("digits", 8, "auto", 1, False),
        ("my_letters", 56, "auto", 4, False),
        *((name, 28, "none", 0, False) for name in ("fashion_mnist", "cifar10", "mnist", "my_letters")),
        ("cifar10", 32, "shift", 2, False),
        ("fashion_mnist", 28, "shift", 2, False),
        ("mnist", 28, "shift", 2, False),
        ("mnist", 28, "shift_mirror", 2, True),
        ("my_letters", 224, "shift_mirror", 16, True),
        ("my_letters", 224, "mirror, shift", 16, True),
        ("my_letters", 224, "mirror", 0, True),
        ("cifar10", 32, "shift_mirror", 2, True),
    ],
)
def test_what_an_augmentation_is_for_a_data_set(name, height, augmentation, shift, mirror):
    data = dataset(name, 2, (height, 2 * height, 1))
    assert Augmentation.of(data, augmentation) == Augmentation(shift, mirror)


def moved(image, down, right, mirror):
    """As NumPy says it: edges repeated."""
    height, width = image.shape[:2]
    image = image[np.clip(np.arange(height) + down, 0, height - 1)][:, np.clip(np.arange(width) + right, 0, width - 1)]
    return image[:, ::-1] if mirror else image


@pytest.mark.parametrize("shift, mirror", [(1, False), (2, True), (0, True)])
def test_images_are_shifted_and_mirrored_only(shift, mirror):
    images = np.random.default_rng(0).random((600, 6, 9, 2), np.float32)
    augmented = Augmentation(shift, mirror)(tf.constant(images), tf.constant([1, 2], tf.int64)).numpy()
    assert augmented.shape == images.shape and augmented.dtype == np.float32
    offsets = range(-shift, shift + 1)
    ways = list(itertools.product(offsets, offsets, (False, True) if mirror else (False,)))
    found = []
    for before, after in zip(images, augmented):
        (way,) = [way for way in ways if np.array_equal(moved(before, *way), after)]
        found.append(way)
    counts = [found.count(way) for way in ways]
    expected = 600 / len(ways)
    assert min(counts) > 0.35 * expected and max(counts) < 2 * expected  # Each way, of both axes, as often as the others.


def test_none_leaves_images_untouched():
    images = np.random.default_rng(0).random((9, 8, 8, 1), np.float32)
    np.testing.assert_array_equal(NONE(tf.constant(images), tf.constant([0, 0], tf.int64)), images)


def test_the_seed_decides_the_augmentation():
    images, augmentation = np.random.default_rng(0).random((64, 8, 8, 1), np.float32), Augmentation(2, True)
    first, same, step, seed = (
        augmentation(tf.constant(images), tf.constant(s, tf.int64)) for s in ([3, 4], [3, 4], [3, 5], [4, 4])
    )
    np.testing.assert_array_equal(first, same)
    for other in (step, seed):
        assert np.mean(np.all(first == other, axis=(1, 2, 3))) < 0.2  # One of fifty ways is the same.


def grid(count, height, width):
    """Images whose first channel is the row of a pixel, and whose second is its column, both as a share of the side."""
    rows, columns = np.meshgrid(np.arange(height) / height, np.arange(width) / width, indexing="ij")
    return tf.constant(np.repeat(np.stack([rows, columns], -1)[np.newaxis], count, 0), tf.float32)


def test_a_zoom_sees_a_part_of_each_image_that_may_lie_anywhere():
    augmented = Augmentation(0, True, zoom=0.5)(grid(400, 32, 48), tf.constant([1, 2], tf.int64)).numpy()
    heights = augmented[:, -1, 0, 0] - augmented[:, 0, 0, 0]
    widths = augmented[:, 0, -1, 1] - augmented[:, 0, 0, 1]
    seen = np.abs(widths) * 48 / 47
    np.testing.assert_allclose(seen, heights * 32 / 31, atol=0.02)  # Nothing is stretched.
    assert 0.49 < seen.min() < 0.55 and 0.95 < seen.max() < 1.01 and 0.35 < np.mean(widths < 0) < 0.65
    lows = augmented[:, 0, 0, 0]
    assert lows.min() < 0.02 and lows.max() > 0.4 and (lows >= 0).all()


def test_colours_change_a_little_and_images_keep_their_shapes():
    images = tf.constant(np.random.default_rng(0).uniform(0.3, 0.7, (300, 4, 4, 3)), tf.float32)
    augmented = Augmentation(0, False, colour=0.15)(images, tf.constant([1, 2], tf.int64)).numpy()
    brightness = augmented.mean((1, 2, 3)) - images.numpy().mean((1, 2, 3))
    assert 0.12 < np.abs(brightness).max() < 0.16 and abs(brightness.mean()) < 0.02
    assert augmented.min() >= 0 and augmented.max() <= 1
    for before, after in zip(images.numpy(), augmented):
        assert np.corrcoef(before.mean(-1).ravel(), after.mean(-1).ravel())[0, 1] > 0.99


def test_a_square_is_cut_out_and_no_more():
    images = tf.ones((300, 20, 30, 1))
    augmented = Augmentation(0, False, cutout=0.4)(images, tf.constant([1, 2], tf.int64)).numpy()[..., 0]
    for holes in (augmented != 1).any(2).sum(1), (augmented != 1).any(1).sum(1):
        assert holes.max() == 8 and 1 <= holes[holes > 0].min() < 8
    assert set(np.unique(augmented)) == {0.5, 1.0}
    assert (augmented != 1).any(0).all()  # It may lie anywhere.


def test_all_parts_together_go_by_the_seed_and_have_their_names():
    data = dataset("my_photos", 2, (16, 16, 3))
    found = Augmentation.of(data, "shift,mirror,zoom,colour,cutout")
    assert found == Augmentation(1, True, ZOOM, COLOUR, CUTOUT)
    images = np.random.default_rng(0).random((8, 16, 16, 3), np.float32)
    first, again, other = (found(tf.constant(images), tf.constant(s, tf.int64)).numpy() for s in ([3, 4], [3, 4], [3, 5]))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1


def test_a_teacher_leaves_each_image_the_weight_of_its_class():
    labels, opinion = tf.constant([[2.0, 0.0], [0.0, 0.5]]), tf.constant([[0.25, 0.75], [0.5, 0.5]])
    np.testing.assert_allclose(taught_labels(labels, opinion, 0.5).numpy(), [[1.25, 0.75], [0.125, 0.375]])
    np.testing.assert_array_equal(taught_labels(labels, opinion, 0.0), labels)
