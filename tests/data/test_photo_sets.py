"""Labelled photos on disk: what is found, and what is refused in a sentence."""

import csv
import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from daqu_tf.data.photo_sets import PhotoSet, is_photo_set
from daqu_tf.errors import DaquError


def write(path, names):
    for number, name in enumerate(names):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(path / name)
    return path


def packed(path, names):
    folder = write(path.parent / "unpacked", names)
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.write(folder / name, name)
    return path


def listed(photo_set):
    return [(one.name, one.label, one.split) for one in photo_set.photos]


FLAT = ["cat/1.jpg", "cat/2.PNG", "dog/1.webp"]
SPLIT = ["train/cat/1.jpg", "train/dog/1.jpg", "Validation/cat/2.jpg", "test/dog/3.jpg"]


@pytest.mark.parametrize("made", [write, lambda path, names: packed(path.with_suffix(".zip"), names)])
@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (FLAT, [("cat", ""), ("cat", ""), ("dog", "")]),
        ([f"photos/{name}" for name in FLAT], [("cat", ""), ("cat", ""), ("dog", "")]),  # As many a .zip is packed.
        (SPLIT, [("cat", "val"), ("dog", "test"), ("cat", "train"), ("dog", "train")]),
        ([f"a/b/{name}" for name in SPLIT], [("cat", "val"), ("dog", "test"), ("cat", "train"), ("dog", "train")]),
        (["test/1.jpg", "other/2.jpg"], [("other", ""), ("test", "")]),  # Without `train` it is a class.
        (["train/1.jpg", "bus/2.jpg"], [("bus", ""), ("train", "")]),
    ],
)
def test_classes_and_splits_are_folders(tmp_path, made, names, expected):
    found = PhotoSet(made(tmp_path / "set", names))
    assert [(label, split) for _, label, split in listed(found)] == expected and found.notes == ()
    for one in found.photos:
        with Image.open(found.open(one)) as picture:
            assert picture.size == (8, 8)


def test_what_is_hidden_or_no_photo_is_left_aside_and_named(tmp_path):
    path = write(tmp_path / "set", [*FLAT, "cat/._1.jpg", ".git/x.jpg"])
    (path / "README.txt").write_text("read me")
    (path / "cat" / "Thumbs.db").write_bytes(b"")
    found = PhotoSet(path)
    assert [name for name, *_ in listed(found)] == FLAT
    assert found.notes == (f"Not read of {path}, since their endings are no photo's: README.txt, cat/Thumbs.db.",)


def test_links_in_circles_end(tmp_path):
    path = write(tmp_path / "set", FLAT)
    os.symlink(path, path / "cat" / "back")
    assert [name for name, *_ in listed(PhotoSet(path))] == FLAT


def test_a_class_may_be_a_link(tmp_path):
    path = write(tmp_path / "set", FLAT)
    os.symlink(write(tmp_path / "birds", ["1.jpg"]), path / "bird")
    assert ("bird/1.jpg", "bird", "") in listed(PhotoSet(path))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat/1.jpg", "2.jpg"], "holds photos beside its class folders"),
        (["cat/1.jpg", "dog/young/2.jpg"], r"a folder within a class folder \(dog/young\)"),
        (["train/cat/1.jpg", "train/2.jpg"], "beside its class folders"),
        (["cat/1.txt"], "holds no photos"),
    ],
)
def test_other_trees_are_refused(tmp_path, names, message):
    for name in names:
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(b"")
    with pytest.raises(DaquError, match=message):
        PhotoSet(tmp_path / "set")


def test_a_class_folder_without_photos_is_named(tmp_path):
    path = write(tmp_path / "set", FLAT)
    (path / "horse").mkdir()
    with pytest.raises(DaquError, match=r"a class folder without photos \(horse\)"):
        PhotoSet(path)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [("../cat/1.jpg", 1, "leads out of it"), ("/cat/1.jpg", 1, "leads out of it"), ("cat/1.jpg", 10**9, "which unpacks to")],
)
def test_a_zip_that_means_harm_is_refused(tmp_path, monkeypatch, name, size, message):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(name, b"x")
    members = zipfile.ZipFile(path).infolist()
    members[0].file_size = size
    monkeypatch.setattr(zipfile.ZipFile, "infolist", lambda self: members)
    with pytest.raises(DaquError, match=message):
        PhotoSet(path)


def test_a_file_that_is_no_zip_is_named(tmp_path):
    path = tmp_path / "set.zip"
    path.write_bytes(b"PK nothing")
    with pytest.raises(DaquError, match=r"set.zip cannot be read as a \.zip"):
        PhotoSet(path)
    assert is_photo_set(path) and is_photo_set(tmp_path) and not is_photo_set(tmp_path / "none.zip")


def table(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def test_a_table_names_photos_labels_splits_and_groups(tmp_path):
    write(tmp_path, ["a.png", "b.png", "c.png"])
    rows = [["Filename", "class", "split", "patient"], ["a.png", "ill", "train", "7"], ["b.png", "well", "train", "7"]]
    path = table(tmp_path / "set.csv", [*rows, ["c.png", "ill", "valid", "8"]])
    found = PhotoSet(path, "patient")
    assert listed(found) == [("a.png", "ill", "train"), ("b.png", "well", "train"), ("c.png", "ill", "val")]
    assert [one.group for one in found.photos] == ["7", "7", "8"]
    with Image.open(found.open(found.photos[2])) as picture:
        assert picture.getpixel((0, 0)) == (2, 2, 2)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["name", "kind"], ["a.png", "ill"]], "must have a line of names with `path` and `label`"),
        ([["path", "label"], ["a.png", ""]], "Line 2 of .* lacks a path or a label"),
        ([["path", "label", "split"], ["a.png", "ill", "later"]], "Line 2 of .* has split 'later'"),
        ([["path", "label", "split"], ["a.png", "ill", "test"], ["b.png", "ill", ""]], "says the split of some photos alone"),
        ([], "its first line is empty"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path, rows, message):
    with pytest.raises(DaquError, match=message):
        PhotoSet(table(tmp_path / "set.csv", rows))


def test_groups_are_found_in_names(tmp_path):
    path = write(tmp_path / "set", ["cat/s1_001.jpg", "cat/s1_002.jpg", "dog/s2_001.jpg"])
    assert [one.group for one in PhotoSet(path, r"(s\d+)_").photos] == ["s1", "s1", "s2"]
    assert [one.group for one in PhotoSet(path, "s[0-9]").photos] == ["s1", "s1", "s2"]
    with pytest.raises(DaquError, match="is not found in cat/s1_001.jpg, cat/s1_002.jpg: it must name a group of every photo"):
        PhotoSet(path, "s2")
    with pytest.raises(DaquError, match="must be a regular expression or a column"):
        PhotoSet(path, "(")
