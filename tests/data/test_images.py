"""Images that are kept as given read as the same numbers as an array of them would."""

import numpy as np
import pytest

from daqu_tf.data.images import AT_ONCE_PIXELS, PART_BYTES, Images, at_once, hashed, parts_of

GIVEN = np.random.default_rng(0).integers(0, 256, (11, 6, 5, 3), np.uint8)
ORDER = np.array([4, 1, 9, 0, 10])
KEYS = (2, -1, slice(1, 4), slice(None), np.array([3, 0, 0]), np.array([True, False, True, False, True]), (slice(2), 0, 1))
KEYS += ((slice(None), slice(None), slice(None, None, -1)), (..., 0), (1, 2, 3, 0))


def whole(offset=0.0, scale=255.0):
    return np.clip((GIVEN[ORDER].astype(np.float32) - np.float32(offset)) / np.float32(scale), 0, 1)


@pytest.fixture(params=["in memory", "mapped"])
def images(request, tmp_path):
    source = GIVEN
    if request.param == "mapped":
        np.save(tmp_path / "pixels.npy", GIVEN)
        source = np.load(tmp_path / "pixels.npy", mmap_mode="r")
    return Images(source, ORDER, scale=255.0)


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_a_part_is_that_of_the_whole_array(images, key):
    np.testing.assert_array_equal(images[key], whole()[key])
    assert images[key].dtype == np.float32


def test_it_is_used_like_an_array(images):
    assert len(images) == 5 and images.shape == (5, 6, 5, 3) and images.ndim == 4 and images.dtype == np.float32
    np.testing.assert_array_equal(np.asarray(images), whole())
    np.testing.assert_array_equal(list(images), whole())
    np.testing.assert_array_equal(images * 2 - 1, whole() * 2 - 1)
    np.testing.assert_array_equal(np.concatenate([images, images]), np.concatenate([whole(), whole()]))
    assert images.max() == whole().max() and images.mean() == whole().mean()
    assert not hasattr(images, "nothing")


def test_what_lies_beyond_the_range_is_clipped():
    np.testing.assert_array_equal(Images(GIVEN, ORDER, 50.0, 100.0)[:], whole(50.0, 100.0))


def test_some_of_some_are_the_right_ones_and_keep_their_ids(images):
    some = images.take(np.array([3, 1]))
    np.testing.assert_array_equal(some[:], whole()[[3, 1]])
    np.testing.assert_array_equal(some.ids, hashed(GIVEN[[0, 1]]))
    np.testing.assert_array_equal(some.given(), GIVEN[[0, 1]])
    np.testing.assert_array_equal(np.concatenate(list(images.parts(2))), GIVEN[ORDER])


def test_only_what_is_not_mapped_takes_memory(images):
    mapped = isinstance(images.source, np.memmap)
    assert images.is_mapped == mapped and images.nbytes == (0 if mapped else 5 * 6 * 5 * 3)
    grey = Images(images.source[..., :1])
    assert grey.is_mapped == mapped and grey.shape == (11, 6, 5, 1)


def test_large_images_are_computed_with_some_at_a_time():
    assert at_once(500, (64, 64, 3)) == 500 and at_once(500, (224, 224, 3)) == AT_ONCE_PIXELS // 224**2
    assert at_once(128, (28, 28, 1)) == 128 and at_once(4, (4096, 4096, 3)) == 1


def test_parts_of_a_set_are_all_of_it(images, monkeypatch):
    assert len(list(parts_of(images))) == 1
    monkeypatch.setattr("daqu_tf.data.images.PART_BYTES", 2 * 6 * 5 * 3 * 4)
    assert [len(part) for part in parts_of(images)] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate(list(parts_of(images))), whole())
    assert PART_BYTES < 2**30
