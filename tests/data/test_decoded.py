"""The pixels of photos: decoded once, by whoever comes first, and not anew where a process was cut off."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from daqu_tf.data import decoded as module
from daqu_tf.data.decoded import decoded
from daqu_tf.data.photo_sets import PhotoSet
from daqu_tf.data.photos import pixels_of
from daqu_tf.errors import DaquError


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(7):
        path = tmp_path / "set" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20 + number, 30, 3), np.uint8)).save(path)
    return tmp_path / "set"


@pytest.fixture
def counted(monkeypatch):
    calls = []
    monkeypatch.setattr(
        module, "_pixels", lambda photo_set, photo, size: calls.append(photo.name) or pixels_of(photo_set.open(photo), "RGB", size)
    )
    return calls


def test_pixels_are_those_of_the_one_way_and_are_kept(folder, tmp_path, counted):
    photo_set = PhotoSet(folder)
    told = []
    found = decoded(photo_set, (16, 12), str(tmp_path / "cache"), lambda *how_many: told.append(how_many))
    assert told == [(7, 7)]
    assert found.pixels.shape == (7, 16, 12, 3) and found.pixels.dtype == np.uint8 and not found.bad
    for one, pixels in zip(photo_set.photos, found.pixels):
        np.testing.assert_array_equal(pixels, pixels_of(folder / one.name, "RGB", (16, 12)))
    again = decoded(PhotoSet(folder), (16, 12), str(tmp_path / "cache"))
    assert len(counted) == 7 and isinstance(again.pixels, np.memmap)
    decoded(photo_set, (8, 8), str(tmp_path / "cache"))
    (folder / "a" / "0.png").write_bytes((folder / "a" / "2.png").read_bytes())
    decoded(PhotoSet(folder), (16, 12), str(tmp_path / "cache"))
    assert len(counted) == 21  # Another size, and another photo.


def test_another_folder_of_the_same_names_sizes_and_times_is_another_set(folder, tmp_path):
    other = tmp_path / "other"
    for path in sorted(folder.rglob("*.png")):
        copy = other / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        size = Image.open(path).size
        Image.new("RGB", size, "red").save(copy.with_suffix(".bmp"))
        Image.new("RGB", size, "blue").save(path.with_suffix(".bmp"))
        path.unlink()
        for each in (copy, path):
            os.utime(each.with_suffix(".bmp"), (10**9, 10**9))
    blue, red = (decoded(PhotoSet(each), (8, 8), str(tmp_path / "cache")).pixels for each in (folder, other))
    assert (blue == [0, 0, 255]).all() and (red == [255, 0, 0]).all()


def test_a_process_that_is_cut_off_loses_little(folder, tmp_path, monkeypatch, counted):
    monkeypatch.setattr(module, "_AT_ONCE", 3)
    write = module.files.write_json

    def cut_off(path, content):
        write(path, content)
        if content.get("done") == 6:
            raise KeyboardInterrupt

    monkeypatch.setattr(module.files, "write_json", cut_off)
    with pytest.raises(KeyboardInterrupt):
        decoded(PhotoSet(folder), (8, 8), str(tmp_path / "cache"))
    monkeypatch.setattr(module.files, "write_json", write)
    found = decoded(PhotoSet(folder), (8, 8), str(tmp_path / "cache"))
    assert len(counted) == 7 and found.pixels.reshape(7, -1).any(axis=1).all()
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == [".ids", ".json", ".lock", ".npy"]


def test_what_cannot_be_read_is_kept_with_its_reason(folder, tmp_path):
    (folder / "a" / "0.png").write_bytes(b"no photo")
    Image.new("RGB", (1, 1)).save(folder / "b" / "1.png")
    (folder / "b" / "3.png").write_bytes((folder / "b" / "3.png").read_bytes()[:400])
    for _ in range(2):
        found = decoded(PhotoSet(folder), (8, 8), str(tmp_path / "cache"))
        assert [PhotoSet(folder).photos[index].name for index in found.bad] == ["a/0.png", "b/1.png", "b/3.png"]
        assert "no format that is known" in found.bad[0] and any(
            "1 x 1 pixels, which show nothing" in each for each in found.bad.values()
        )


def test_a_full_disk_is_said_before_anything_is_decoded(folder, tmp_path, monkeypatch, counted):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100})())
    with pytest.raises(DaquError, match=r"need 0.00 GB, but .* has 0.00 GB free: make room"):
        decoded(PhotoSet(folder), (8, 8), str(tmp_path / "cache"))
    assert not counted and not list((tmp_path / "cache").glob("*.npy"))


def test_a_folder_that_cannot_be_written_to_is_named(folder, tmp_path):
    (tmp_path / "file").write_text(json.dumps({}))
    with pytest.raises(DaquError, match="give another --cache_dir"):
        decoded(PhotoSet(folder), (8, 8), str(tmp_path / "file" / "cache"))
