import hashlib
import pathlib
import time

import numpy as np
import pytest

from daqu_tf import data
from daqu_tf.data.classes import names_of_classes
from daqu_tf.data.images import hashed
from daqu_tf.errors import DaquError


def arrays(n=120, classes=3, shape=(6, 5), dtype=np.uint8, test=True, seed=0):
    """Random images with every class equally often."""
    rng = np.random.default_rng(seed)
    sizes = {"train": n, "test": n // 4} if test else {"train": n}
    images = {f"x_{key}": rng.integers(0, 256, (size, *shape)).astype(dtype) for key, size in sizes.items()}
    return images | {f"y_{key}": np.arange(size) % classes for key, size in sizes.items()}


@pytest.fixture
def save(tmp_path):
    def write(**content):
        path = tmp_path / "set.npz"
        np.savez(path, **content)
        return path

    return write


def refused(path, *words):
    with pytest.raises(DaquError) as caught:
        data.load(path)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    for word in words:
        assert word in message
    return message


def test_digits_are_cut_in_three_and_say_so():
    digits = data.load("digits", seed=3)
    sizes = [len(digits.y_train), len(digits.y_search), len(digits.y_test)]
    assert sum(sizes) == 1797 and sizes[2] == 359 and sizes[1] == 250
    assert digits.test_was_cut and digits.num_classes == 10 and digits.image_shape == (8, 8, 1)
    assert (digits.input_offset, digits.input_scale) == (0.0, 16.0)
    assert digits.x_train.dtype == np.float32 and digits.x_train.min() == 0 and digits.x_train.max() == 1


def test_the_splits_are_stratified_disjoint_and_complete(save):
    content = arrays(n=300, test=False)
    content["x_train"] = np.arange(300 * 30, dtype=np.int64).reshape(300, 6, 5)  # No two images alike.
    loaded = data.load(save(**content))
    firsts = np.concatenate([x[:, 0, 0, 0] for x in (loaded.x_train, loaded.x_search, loaded.x_test)])
    assert len(np.unique(firsts)) == 300
    for labels in (loaded.y_train, loaded.y_search, loaded.y_test):
        counts = np.bincount(labels)
        assert len(counts) == 3 and counts.max() - counts.min() <= 1


def test_a_given_test_split_is_kept_in_order(save):
    content = arrays()
    loaded = data.load(save(**content))
    np.testing.assert_array_equal(loaded.x_test[..., 0], content["x_test"].astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(loaded.y_test, content["y_test"])
    assert not loaded.test_was_cut and loaded.name == "set"
    assert len(loaded.y_train) + len(loaded.y_search) == 120


def test_same_seed_same_splits_other_seed_others(save):
    path = save(**arrays())
    one, two, other = data.load(path, seed=1), data.load(path, seed=1), data.load(path, seed=2)
    assert one.fingerprint == two.fingerprint != other.fingerprint
    np.testing.assert_array_equal(one.x_search, two.x_search)
    assert data.load(path, seed=1, search_fraction=0.4).fingerprint != one.fingerprint


def test_small_sets_hold_out_25_images_a_class_or_a_third(save):
    assert len(data.load(save(**arrays(n=300))).y_search) == 75
    assert len(data.load(save(**arrays(n=60))).y_search) == 20
    assert len(data.load(save(**arrays(n=60)), search_fraction=0.5).y_search) == 30


@pytest.mark.parametrize("shape, expected", [((6, 5), (6, 5, 1)), *(((6, 5, c), (6, 5, c)) for c in (1, 2, 3, 4))])
def test_grey_and_colour_become_nhwc(save, shape, expected):
    assert data.load(save(**arrays(shape=shape))).image_shape == expected


def test_floats_within_unit_range_are_untouched(save):
    content = arrays(dtype=np.float32)
    for key in ("x_train", "x_test"):
        content[key] = content[key] / 510 + 0.1
    loaded = data.load(save(**content))
    np.testing.assert_array_equal(loaded.x_test[..., 0], content["x_test"])
    assert (loaded.input_offset, loaded.input_scale) == (0.0, 1.0)


def test_other_floats_are_mapped_by_the_training_range_and_clipped(save):
    content = arrays(dtype=np.float64)
    content["x_train"] = content["x_train"] / 127.5 - 1
    content["x_test"] = content["x_test"] / 127.5 - 1
    content["x_train"].flat[:2] = -1, 1
    content["x_test"].flat[:2] = -1.2, 1.2
    loaded = data.load(save(**content))
    assert (loaded.input_offset, loaded.input_scale) == (-1.0, 2.0)
    np.testing.assert_allclose(loaded.x_test.flat[2:], (content["x_test"].flat[2:] + 1) / 2, atol=1e-6)
    assert list(loaded.x_test.flat[:2]) == [0, 1]


def floats(low, high, dtype=np.float32, seed=0):
    """Images whose pixels go exactly from `low` to `high` in train, and about so in test."""
    content = arrays(dtype=np.float64, seed=seed)
    for key in ("x_train", "x_test"):
        content[key] = (low + content[key] / 255 * (high - low)).astype(dtype)
    content["x_train"].flat[:2] = low, high
    return content


@pytest.mark.parametrize(
    ("low", "high", "offset", "scale"),
    [
        (0, 1, 0, 1),
        (0.02, 0.97, 0, 1),
        (-1, 1, -1, 2),
        (-0.98, 0.9, -1, 2),
        (-1, 0.3, -1, 2),
        (0, 255, 0, 255),
        (3, 250, 0, 255),
        (0, 1.0000001, 0, 1),
        (-1.0000001, 1, -1, 2),
        (-0.0001, 255.01, 0, 255),
    ],
)
def test_usual_ranges_are_recognised_by_images_that_do_not_touch_their_ends(save, low, high, offset, scale):
    loaded = data.load(save(**floats(low, high)))
    assert (loaded.input_offset, loaded.input_scale) == (offset, scale) and loaded.notes == ()


@pytest.mark.parametrize("dtype", [np.int16, np.int64, np.uint16, np.float16])
def test_usual_ranges_are_recognised_in_every_number_type(save, dtype):
    loaded = data.load(save(**floats(2, 251, dtype)))
    assert (loaded.input_offset, loaded.input_scale) == (0, 255) and loaded.notes == ()


@pytest.mark.parametrize(("low", "high"), [(0, 16), (-0.5, 0.5), (-2.1, 2.6), (0, 4095), (-128, 127), (-0.1, 1.1), (-1, 255)])
def test_other_ranges_are_those_of_the_training_images_and_are_said(save, low, high):
    loaded = data.load(save(**floats(low, high, np.float64)))
    assert (loaded.input_offset, loaded.input_scale) == (low, pytest.approx(high - low))
    (note,) = loaded.notes
    assert f"{low:g} is taken for black" in note and f"{high:g} for white" in note and "99%" not in note


def test_a_hot_pixel_that_squeezes_all_others_is_said(save):
    content = floats(0, 1)
    content["x_train"][5, 2, 2] = 40
    (note,) = data.load(save(**content)).notes
    assert "40 for white" in note and "99% of them lie from" in note


@pytest.mark.parametrize("content", [floats(0, 1 / 255), floats(0, 0.06), arrays() | {"x_train": np.eye(120, 30, dtype=np.uint8)}])
def test_images_that_fill_little_of_their_range_are_said(save, content):
    content["x_train"] = content["x_train"].reshape(120, 6, 5)
    (note,) = data.load(save(**content)).notes
    assert "little of the range" in note


def test_the_digits_have_a_range_that_is_known_but_a_file_of_that_name_has_not(tmp_path):
    assert data.load("digits").notes == ()
    np.savez(tmp_path / "digits.npz", **floats(0, 16))
    assert len(data.load(tmp_path / "digits.npz").notes) == 1


@pytest.mark.parametrize(("train", "test"), [((0, 255), (0, 1)), ((0, 1), (-1, 1)), ((-1, 1), (0, 255)), ((0, 255), (-1, 1))])
def test_a_test_split_on_another_scale_is_refused(save, train, test):
    content = floats(*train) | {"x_test": floats(*test)["x_test"]}
    refused(save(**content), "scale both", "in test")


def test_pixels_that_are_clipped_and_signs_that_differ_are_said(save):
    content = floats(-1, 1)
    content["x_test"].flat[:3] = -1.2, 1.2, 1.3
    (note,) = data.load(save(**content)).notes
    assert "3 of the 900 pixels of `x_test`" in note and "clipped" in note
    (note,) = data.load(save(**(floats(-1, 1) | {"x_test": floats(0, 1)["x_test"]}))).notes
    assert "scaled alike" in note
    notes = data.load(save(**(floats(0, 65535) | {"x_test": floats(0, 255)["x_test"]}))).notes
    assert len(notes) == 2 and "scaled like those of `x_train`" in notes[1]


def test_classes_are_named_by_the_file_by_the_data_set_or_by_number(save, tmp_path):
    names = np.array(["cat", "dog", " a mouse "])
    for key in ("class_names", "labels"):
        assert data.load(save(**arrays(), **{key: names})).class_names == ("cat", "dog", "a mouse")
    assert data.load(save(**arrays(), labels=np.arange(120))).class_names == ("0", "1", "2")
    assert data.load(save(**arrays(), labels=np.array(["cat", None], object))).class_names == ("0", "1", "2")
    assert data.load("digits").class_names == tuple("0123456789")
    for classes, first in ((10, "airplane"), (3, "0")):
        np.savez(tmp_path / "cifar10.npz", **arrays(classes=classes))
        assert data.load(tmp_path / "cifar10.npz").class_names[0] == first


def test_known_class_names():
    assert names_of_classes("fashion_mnist", 10)[-1] == "Ankle boot" and names_of_classes("cifar10", 10)[-1] == "truck"
    fine = names_of_classes("cifar100", 100)
    assert list(fine) == sorted(set(fine)) and fine[0] == "apple"


@pytest.mark.parametrize("names", [["cat", "dog"], ["cat", "dog", "dog"], ["cat", "dog", "a\nb"], ["cat", "", "dog"], [1, 2, 3]])
def test_class_names_that_are_none(save, names):
    refused(save(**arrays(), class_names=np.array(names)), "class names of set must be")


def test_class_names_do_not_change_what_the_data_is(save):
    plain = data.load(save(**arrays())).fingerprint
    assert data.load(save(**arrays(), class_names=np.array(["a", "b", "c"]))).fingerprint == plain


def test_labels_as_a_column_or_as_whole_floats(save):
    content = arrays()
    content["y_train"] = content["y_train"][:, None]
    content["y_test"] = content["y_test"].astype(np.float32)
    loaded = data.load(save(**content))
    assert loaded.y_train.shape == (80,) and loaded.y_test.dtype == np.int32


def test_unknown_names_and_missing_files(tmp_path):
    refused("cifar11", "cifar11", *data.NAMES)
    for gone in ("gone.npz", "gone.zip", "gone.csv", "gone"):
        refused(tmp_path / gone, "does not exist")
    refused(tmp_path, "holds no photos")
    refused("")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 broken"])
def test_not_an_npz(tmp_path, content):
    path = tmp_path / "set.npz"
    path.write_bytes(content)
    refused(path, "not a whole .npz")


def test_cut_short_or_damaged(save):
    path = save(**arrays())
    whole = path.read_bytes()
    path.write_bytes(whole[:-200])
    refused(path, "not a whole .npz")
    path.write_bytes(whole[:500] + b"x" * 100 + whole[600:])
    refused(path, "not a whole .npz")


def test_a_lone_array_is_not_an_npz(tmp_path):
    path = tmp_path / "set.npy"
    np.save(path, np.zeros(3))
    refused(path, "not a whole .npz")


class Trap:
    def __init__(self, path: pathlib.Path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def test_nothing_is_ever_unpickled(save, tmp_path):
    content = arrays()
    content["y_train"] = np.array([Trap(tmp_path / "sprung")] * 120, dtype=object)
    refused(save(**content), "not a whole .npz")
    assert not (tmp_path / "sprung").exists()


def test_wrong_keys(save):
    content = arrays()
    refused(save(images=content["x_train"], labels=content["y_train"]), "images, labels", "x_train")
    refused(save(**{key: content[key] for key in ("x_train", "y_train", "x_test")}), "neither")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"y_train": np.arange(119) % 3}, ["120 images", "(119,)"]),
        ({"y_train": np.eye(3)[np.arange(120) % 3]}, ["one-hot"]),
        ({"y_train": np.arange(120) % 3 - 1}, ["-1 to 1"]),
        ({"y_train": np.arange(120) % 3 + 1}, ["none of class 0"]),
        ({"y_train": np.arange(120) % 3 * 0.5}, ["whole class numbers"]),
        ({"y_train": np.full(120, np.nan)}, ["whole class numbers"]),
        ({"y_train": np.full(120, np.inf)}, ["inf"]),
        ({"y_train": np.array(["cat"] * 120)}, ["whole class numbers"]),
        ({"y_train": np.zeros(120, int)}, ["one class"]),
        ({"y_train": np.r_[np.zeros(60, int), np.ones(58, int), 2, 2]}, ["Class 2", "too few"]),
        ({"y_test": np.arange(30) % 4}, ["label 3"]),
        ({"x_train": np.zeros((120, 30), np.uint8)}, ["(120, 30)", "reshape"]),
        ({"x_train": np.zeros((120, 6, 5, 7), np.uint8)}, ["up to 4 channels", "(120, 6, 5, 7)", "reshape"]),
        ({"x_train": np.zeros((120, 3, 6, 5), np.uint8)}, ["(120, 3, 6, 5)"]),
        ({"x_train": np.zeros((0, 6, 5), np.uint8)}, ["(0, 6, 5)"]),
        ({"x_train": np.full((120, 6, 5), "a")}, ["numbers"]),
        ({"x_test": np.zeros((30, 5, 5), np.uint8)}, ["(5, 5, 1)", "alike"]),
        ({"x_test": np.zeros((30, 6, 5), np.float32)}, ["float32", "alike"]),
        ({"x_test": np.full((30, 6, 5), np.nan)}, ["NaN"]),
    ],
)
def test_bad_content_is_refused_in_one_sentence(save, change, words):
    refused(save(**(arrays() | change)), *words)


def test_nan_and_infinite_training_images(save):
    for bad in (np.nan, np.inf):
        content = arrays(dtype=np.float32)
        content["x_train"][7, 2, 2] = bad
        refused(save(**content), "x_train", "NaN")


def test_splits_on_different_scales_and_flat_images(save):
    content = arrays(dtype=np.float32)
    refused(save(**(content | {"x_train": content["x_train"] / 255})), "scale both")
    refused(save(**(content | {"x_train": np.full((120, 6, 5), 7.0, np.float32)})), "All pixels")


def test_too_few_images_to_cut_a_test_split(save):
    refused(save(**arrays(n=9, test=False)), "too few")
    loaded = data.load(save(**arrays(n=15, test=False)))
    assert [len(loaded.y_train), len(loaded.y_search), len(loaded.y_test)] == [8, 4, 3]


@pytest.mark.parametrize("fraction", [0, -0.1, 0.6, float("nan")])
def test_search_fraction_is_checked(fraction):
    with pytest.raises(DaquError, match="search_fraction"):
        data.load("digits", search_fraction=fraction)


def test_a_download_that_fails_says_what_to_do(monkeypatch):
    tf_keras = pytest.importorskip("tf_keras")

    def fail():
        raise Exception("URL fetch failure on https://example.org: None -- [Errno -2] Name or service not known\nmore")

    monkeypatch.setattr(tf_keras.datasets.cifar10, "load_data", fail)
    refused("cifar10", "could not be downloaded", ".npz")


def with_val(n=40, **changes):
    other = arrays(n=n, test=False, seed=5)
    return arrays(**changes) | {"x_val": other["x_train"], "y_val": other["y_train"]}


def pairs(images, labels):
    return sorted((image.tobytes(), int(label)) for image, label in zip(images, labels))


def test_x_val_is_the_search_split(save):
    content = with_val()
    loaded = data.load(save(**content), search_fraction=0.4)
    for split, name in (("search", "val"), ("train", "train")):  # Whole, each image with its label, in another order.
        images, labels = (getattr(loaded, f"{what}_{split}") for what in "xy")
        given = content[f"x_{name}"].astype(np.float32) / np.float32(255)
        assert pairs(images[..., 0], labels) == pairs(given, content[f"y_{name}"])
    np.testing.assert_array_equal(loaded.x_test[..., 0], content["x_test"].astype(np.float32) / np.float32(255))
    assert loaded.notes == () and not loaded.test_was_cut
    assert loaded.fingerprint != data.load(save(**arrays())).fingerprint


def test_x_val_without_a_test_split_still_cuts_one(save):
    loaded = data.load(save(**with_val(test=False)))
    assert [len(loaded.y_train), len(loaded.y_search), len(loaded.y_test)] == [96, 40, 24] and loaded.test_was_cut


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y_val": None}, ["x_val and y_val or neither"]),
        ({"x_val": None}, ["x_val and y_val or neither"]),
        ({"y_val": np.arange(40) % 4}, ["`y_val`", "label 3", "val images"]),
        ({"y_val": np.arange(39) % 3}, ["`y_val`", "40 images"]),
        ({"x_val": np.zeros((40, 5, 5), np.uint8)}, ["and val (5, 5, 1)"]),
        ({"x_val": np.zeros((40, 6, 5), np.float32)}, ["float32", "alike"]),
    ],
)
def test_a_bad_x_val_is_refused_like_a_bad_x_test(save, change, words):
    content = {key: value for key, value in (with_val() | change).items() if value is not None}
    refused(save(**content), *words)


def test_x_val_on_another_scale_is_refused(save):
    refused(save(**(floats(0, 255) | {"x_val": floats(0, 1)["x_test"], "y_val": np.arange(30) % 3})), "in val")


def test_arrays_that_are_not_used_are_named(save):
    (note,) = data.load(save(**arrays(), x_valid=np.zeros(3), Y_test=np.zeros(3))).notes
    assert "Y_test, x_valid." in note and "x_val" in note
    (note,) = data.load(save(**arrays(), labels=np.arange(120))).notes
    assert ": labels." in note
    names = np.array(["a", "b", "c"])
    assert data.load(save(**arrays(), labels=names)).notes == ()
    assert ": labels." in data.load(save(**arrays(), labels=names, class_names=names)).notes[0]
    (note,) = data.load(save(**arrays(), **{"a\nb": names} | {f"z{number}": names for number in range(20)})).notes
    assert "\n" not in note and "and 13 more" in note


def pictures(x):
    return {image.tobytes() for image in x}


def assert_apart(loaded, *splits):
    for first, second in splits:
        assert not pictures(getattr(loaded, f"x_{first}")) & pictures(getattr(loaded, f"x_{second}"))


@pytest.mark.parametrize("test", [True, False])
@pytest.mark.parametrize("times", [2, 3, 5])
def test_copies_are_cut_off_together(save, times, test):
    content = arrays(n=300, test=test)
    content["x_train"] = content["x_train"][np.repeat(np.arange(300 // times), times)]
    content["y_train"] = np.repeat(np.arange(300 // times) % 3, times)
    loaded = data.load(save(**content))
    assert_apart(loaded, ("train", "search"), ("train", "test"), ("search", "test"))
    assert loaded.notes == ()
    total = len(loaded.y_train) + len(loaded.y_search)
    assert total + (0 if test else len(loaded.y_test)) == 300
    assert 60 <= len(loaded.y_search) <= 90
    assert np.bincount(loaded.y_search).min() >= 15 and np.bincount(loaded.y_train).min() >= 40


def test_a_few_copies_move_little_and_images_without_copies_not_at_all(save):
    content = arrays(n=300)
    before = data.load(save(**content))
    content["x_train"][200:206] = content["x_train"][0:6]  # Some with another label.
    loaded = data.load(save(**content))
    assert_apart(loaded, ("train", "search"))
    single = pictures(before.x_search) - pictures(loaded.x_search)
    assert len(single) <= 12 and abs(len(loaded.y_search) - 75) <= 3


def test_splits_without_copies_are_what_they_were(save):
    loaded = data.load(save(**arrays()), seed=1)
    assert hashlib.sha256(loaded.x_search.tobytes()).hexdigest()[:16] == "17f24c6cd804538f"
    assert loaded.fingerprint[:16] == "74123d3a71e98d78"


def test_images_that_are_all_alike_still_make_three_splits(save):
    loaded = data.load(save(x_train=np.zeros((40, 4, 4), np.uint8), y_train=np.arange(40) % 2))
    assert min(len(loaded.y_train), len(loaded.y_search), len(loaded.y_test)) > 0
    assert any("several splits" in note for note in loaded.notes)


def test_images_that_stand_in_train_and_test_are_said(save):
    content = arrays(n=300)
    content["x_test"][:6], content["y_test"][:6] = content["x_train"][:6], content["y_train"][:6]
    content["y_test"][:2] = (content["y_test"][:2] + 1) % 3
    with_a_val = content | {"x_val": content["x_test"][10:40], "y_val": content["y_test"][10:40]}
    (note,) = data.load(save(**with_a_val)).notes
    assert "6 of the 75 test images stand in train too, 2 of them with another label" in note
    assert "30 of the 75 test images stand in search too." in note and "search images" not in note


def test_copies_are_found_in_floats_and_whatever_the_sign_of_zero(save):
    content = floats(-1, 1)
    content["x_train"][:4] = 0
    content["x_train"][:4, 0, 0] = np.linspace(0.1, 0.4, 4)
    content["x_test"][:4] = -content["x_train"][:4] * np.float32(-1)
    content["x_test"][:4][content["x_test"][:4] == 0] = -0.0
    notes = data.load(save(**content | {"x_val": content["x_train"][4:24], "y_val": np.arange(4, 24) % 3})).notes
    assert len(notes) == 1 and "4 of the 30 test images stand in train too." in notes[0]
    assert "20 of the 20 search images stand in train too." in notes[0].replace(";", ".")


def test_70000_images_are_hashed_in_about_a_second():
    images = np.random.default_rng(0).integers(0, 256, (70_000, 28, 28, 1), np.uint8)
    began = time.process_time()
    assert len(np.unique(hashed(images))) == 70_000
    assert time.process_time() - began < 3


def test_splits_that_come_sorted_by_class_are_shuffled(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 200), ("val", 50), ("test", 50)):
        arrays |= {f"x_{split}": rng.integers(0, 256, (4 * count, 8, 8), np.uint8), f"y_{split}": np.repeat(np.arange(4), count)}
    np.savez(tmp_path / "sorted.npz", **arrays)
    found = data.load(tmp_path / "sorted.npz")
    for labels in (found.y_train, found.y_search):
        assert set(labels[:40]) == {0, 1, 2, 3} and sorted(labels) == sorted(np.repeat(np.arange(4), len(labels) // 4))
    known = {image.tobytes(): label for image, label in zip(arrays["x_train"], arrays["y_train"])}
    images = np.round(found.x_train[..., 0] * 255).astype(np.uint8)
    assert [known[image.tobytes()] for image in images] == found.y_train.tolist()
