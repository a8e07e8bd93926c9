"""Data sets of photos, from the folder to the arrays that a job trains with."""

import numpy as np
import pytest
from PIL import Image

from daqu_tf import RunConfig, data
from daqu_tf.data import Reading
from daqu_tf.data.photos import pixels_of
from daqu_tf.errors import DaquError
from daqu_tf.training.batches import Augmentation, Batches


def write(path, counts, side=24, grey=False, seed=0):
    rng = np.random.default_rng(seed)
    for label, count in counts.items():
        (path / label).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (side, side + 2) if grey else (side, side + 2, 3), np.uint8)
            Image.fromarray(pixels).save(path / label / f"{number:03d}.png")
    return path


@pytest.fixture
def load(tmp_path):
    def load(path, seed=0, **how):
        return data.load(path, seed, how=Reading(cache_dir=str(tmp_path / "cache"), **how))

    return load


def test_a_folder_is_a_data_set_whose_classes_have_names(tmp_path, load):
    path = write(tmp_path / "pets", {"cat": 20, "dog": 30})
    found = load(path, image_size="16")
    assert (found.name, found.class_names, found.image_shape) == ("pets", ("cat", "dog"), (16, 16, 3))
    assert sum(map(len, (found.y_train, found.y_search, found.y_test))) == 50 and found.test_was_cut
    first = pixels_of(path / "dog" / "000.png", "RGB", (16, 16)) / np.float32(255)
    everything, labels = (
        np.concatenate([getattr(found, f"{name}_{split}") for split in ("train", "search", "test")]) for name in "xy"
    )
    (place,) = np.flatnonzero(np.abs(everything - first).max(axis=(1, 2, 3)) < 1e-6)
    assert found.class_names[labels[place]] == "dog"
    assert any("16 x 16 pixels" in note for note in found.notes)


def test_splits_that_the_folder_has_are_kept(tmp_path, load):
    for number, (split, count) in enumerate((("train", 12), ("val", 6), ("test", 4))):
        write(tmp_path / "pets" / split, {"cat": count, "dog": count}, seed=number)
    found = load(tmp_path / "pets", image_size="8")
    assert (len(found.y_train), len(found.y_search), len(found.y_test)) == (24, 12, 8) and not found.test_was_cut


@pytest.mark.parametrize(
    ("side", "image_size", "expected"),
    [(24, "auto", (24, 26)), (300, "auto", (64, 64)), (300, "20x32", (20, 32)), (100, "auto", (64, 64)), (24, "32", (32, 32))],
)
def test_the_size_goes_by_the_photos_unless_it_is_given(tmp_path, load, side, image_size, expected):
    path = write(tmp_path / "pets", {"cat": 5, "dog": 5}, side=side)
    assert load(path, image_size=image_size).image_shape == (*expected, 3)


def test_photos_of_many_sizes_become_squares_no_larger_than_most(tmp_path, load):
    path = write(tmp_path / "pets", {"cat": 5}, side=40)
    write(path, {"dog": 5}, side=52)
    assert load(path).image_shape == (40, 40, 3)


def test_grey_photos_have_one_channel(tmp_path, load):
    assert load(write(tmp_path / "grey", {"a": 6, "b": 6}, grey=True)).image_shape == (24, 26, 1)
    mixed = write(tmp_path / "mixed", {"a": 6}, grey=True)
    assert load(write(mixed, {"b": 6})).image_shape == (24, 26, 3)


def test_numbers_as_class_names_are_in_their_order(tmp_path, load):
    assert load(write(tmp_path / "set", {"10": 5, "9": 5, "2": 5})).class_names == ("2", "9", "10")


def test_groups_stay_in_one_split(tmp_path, load):
    path = tmp_path / "video"
    rng = np.random.default_rng(0)
    for label in ("walk", "run"):
        (path / label).mkdir(parents=True)
        for scene in range(12):
            for frame in range(rng.integers(3, 9)):
                pixels = np.full((8, 8, 3), scene + 20 * (label == "run"), np.uint8)
                pixels[0, 0] = frame  # Hashes of frames differ; what they show does not.
                Image.fromarray(pixels).save(path / label / f"s{scene:02d}_{frame}.png")
    found = load(path, group_by=r"(\w+/s\d+)_", image_size="8")
    scenes = [{*zip(y.tolist(), np.rint(255 * x[:, 7, 7, 0]).astype(int).tolist())} for x, y in (
        (found.x_train, found.y_train), (found.x_search, found.y_search), (found.x_test, found.y_test)
    )]  # fmt: skip
    assert all(scenes) and not (scenes[0] & scenes[1] or scenes[0] & scenes[2] or scenes[1] & scenes[2])
    total = sum(map(len, (found.y_train, found.y_search, found.y_test)))
    assert 0.12 * total <= len(found.y_test) <= 0.28 * total
    for y in (found.y_train, found.y_search, found.y_test):
        assert set(y.tolist()) == {0, 1}


def test_bad_photos_are_named_and_left_out_only_if_asked(tmp_path, load):
    path = write(tmp_path / "pets", {"cat": 8, "dog": 8})
    for number in range(6):
        (path / "cat" / f"bad{number}.jpg").write_bytes(b"x")
    with pytest.raises(
        DaquError, match=r"6 of the 22 photos of .*pets cannot be read: .*bad0.jpg .* So are 1 more. .*--skip_bad_files"
    ):
        load(path)
    found = load(path, skip_bad_files=True)
    assert sum(map(len, (found.y_train, found.y_search, found.y_test))) == 16
    assert any("6 of the 22 photos" in note and "left out" in note for note in found.notes)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"train/cat": 3, "train/dog": 3, "test/cow": 2}, "has photos of cow to test with, but none to train with"),
        ({"cat": 5}, r"one class only \(cat\)"),
        ({"train/cat": 5, "test/cat": 2}, r"one class only \(cat\)"),
    ],
)
def test_classes_that_cannot_be_learned_are_refused(tmp_path, load, counts, message):
    with pytest.raises(DaquError, match=message):
        load(write(tmp_path / "pets", counts))


def test_classes_of_different_sizes_are_said_and_can_be_weighed(tmp_path, load):
    path = write(tmp_path / "pets", {"cat": 8, "dog": 40})
    plain, balanced = load(path), load(path, class_weights="balanced")
    assert any("of dog" in note and "--class_weights=balanced" in note for note in plain.notes) and plain.class_weights == ()
    counts = np.bincount(balanced.y_train)
    np.testing.assert_allclose(counts * balanced.class_weights, [len(balanced.y_train) / 2] * 2)
    _, labels = next(iter(Batches(balanced, 16, 0, Augmentation(0, False)).starting_at(0)))
    rows = labels.numpy()
    np.testing.assert_allclose(rows.sum(1), np.array(balanced.class_weights)[rows.argmax(1)], rtol=1e-6)


def test_a_table_that_names_a_missing_photo_is_refused_by_its_name(tmp_path, load):
    write(tmp_path, {"cat": 4, "dog": 4})
    rows = [f"{label}/{number:03d}.png,{label}" for label in ("cat", "dog") for number in range(4)]
    (tmp_path / "set.csv").write_text("\n".join(["path,label", *rows, "cat/gone.png,cat"]))
    with pytest.raises(DaquError, match=r"1 of the 9 photos .* cannot be read: .*gone.png does not exist"):
        load(tmp_path / "set.csv")
    assert load(tmp_path / "set.csv", skip_bad_files=True).class_names == ("cat", "dog")


@pytest.mark.parametrize("size", ["7", "64x", "321", "big", "48x4", "-8", "0"])
def test_sizes_that_are_none_are_refused_before_anything_is_read(size):
    with pytest.raises(DaquError, match="`image_size` must be auto, a side of 8 to 320 pixels"):
        RunConfig("digits", "run", image_size=size)


def test_groups_need_photos():
    with pytest.raises(DaquError, match="`group_by` needs photos"):
        data.load("digits", how=Reading(group_by="a"))
    assert len(data.load("digits").y_train) > 1000
