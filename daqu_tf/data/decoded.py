"""Photos that are decoded once: a file of pixels of one size, which all processes of all runs map into their memory."""

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable

import numpy as np

from daqu_tf import files, machine
from daqu_tf.data.images import hashed
from daqu_tf.data.photo_sets import LabelledPhoto, PhotoSet
from daqu_tf.data.photos import RGB, Size, pixels_of
from daqu_tf.errors import DaquError

OnProgress = Callable[[int, int], None]  # Of what is done, and of all.
CACHE_DIR = "~/.cache/daqu_tf/photos"
_VERSION = 2  # It changes with the way from a photo to its pixels.
_AT_ONCE = 256  # So many photos are decoded before it is written down which are done.
_LEAST_SIDE = 4  # A photo of fewer pixels on a side shows nothing.


@dataclasses.dataclass(frozen=True)
class Decoded:
    """The pixels of photos.

    Attributes:
        pixels: The pixels (photos, height, width, 3), uint8, mapped from a file; those of a photo that cannot be read are 0.
        ids: A number (photos,) for each photo, uint64, which differs where the pixels differ.
        bad: Why photos cannot be read, each a sentence, by the photo's index.
        path: The file of the pixels.
    """

    pixels: np.ndarray
    ids: np.ndarray
    bad: dict[int, str]
    path: pathlib.Path


def decoded(
    photo_set: PhotoSet, size: Size, cache_dir: str = CACHE_DIR, on_progress: OnProgress = lambda done, total: None
) -> Decoded:
    """The pixels of all photos of a set, which are decoded unless they have been; a process that is killed meanwhile loses little.

    Args:
        photo_set: The photos.
        size: The height and width.
        cache_dir: The folder of such files. Place, names, sizes and times of the photos decide which file is theirs.
        on_progress: Is called, while photos are decoded, with how many are done, and with the number of all.

    Raises:
        DaquError: The folder cannot be written to, or lacks the room.
    """
    folder = pathlib.Path(cache_dir).expanduser()
    path = folder / f"{_key(photo_set, size)}.npy"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("w") as lock:
            machine.lock(lock)
            if not path.exists():
                _decode(photo_set, size, path, on_progress)
        bad = {int(index): reason for index, reason in files.read_json(path.with_suffix(".json"))["bad"].items()}
        pixels = np.load(path, mmap_mode="r", allow_pickle=False)
        return Decoded(pixels, np.load(_ids_of(path), allow_pickle=False), bad, path)
    except OSError as error:
        raise DaquError(f"{folder} cannot be written to ({error.strerror}): give another --cache_dir.") from error


def _key(photo_set: PhotoSet, size: Size) -> str:
    content = [_VERSION, size, photo_set.place, [(one.name, one.stamp) for one in photo_set.photos]]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _ids_of(path: pathlib.Path) -> pathlib.Path:
    return path.with_suffix(".ids")


def _decode(photo_set: PhotoSet, size: Size, path: pathlib.Path, on_progress: OnProgress) -> None:
    """Writes the pixels, some photos at a time, and goes on where a process was cut off."""
    part, state = path.with_suffix(".part.npy"), path.with_suffix(".part.json")
    shape = (len(photo_set.photos), *size, 3)
    done, bad = 0, dict[str, str]()
    if part.exists() and state.exists():
        known = files.read_json(state)
        done, bad = known["done"], known["bad"]
        pixels, ids = (np.lib.format.open_memmap(each, "r+") for each in (part, _ids_of(path)))
    else:
        _check_room(path.parent, int(np.prod(shape)))
        pixels = np.lib.format.open_memmap(part, "w+", np.uint8, shape)
        ids = np.lib.format.open_memmap(_ids_of(path), "w+", np.uint64, shape[:1])

    def one(index: int) -> tuple[int, np.ndarray | str]:
        try:
            return index, _pixels(photo_set, photo_set.photos[index], size)
        except DaquError as error:
            return index, str(error)

    with concurrent.futures.ThreadPoolExecutor(machine.cores()) as pool:
        for start in range(done, len(pixels), _AT_ONCE):
            end = min(start + _AT_ONCE, len(pixels))
            for index, found in pool.map(one, range(start, end)):
                if isinstance(found, str):
                    bad[str(index)] = found
                else:
                    pixels[index] = found
            ids[start:end] = hashed(pixels[start:end])
            pixels.flush()
            ids.flush()
            files.write_json(state, {"done": end, "bad": bad})
            on_progress(end, len(pixels))
    files.write_json(path.with_suffix(".json"), {"bad": bad, "size": list(size), "photos": len(pixels)})
    os.replace(part, path)
    state.unlink(missing_ok=True)


def _pixels(photo_set: PhotoSet, photo: LabelledPhoto, size: Size) -> np.ndarray:
    try:
        source = photo_set.open(photo)
    except (OSError, KeyError, RuntimeError) as error:
        raise DaquError(f"{photo.name} cannot be read ({error}): leave it out.") from error
    try:
        return pixels_of(source, RGB, size, _LEAST_SIDE)
    finally:
        if not isinstance(source, str):
            source.close()


def _check_room(folder: pathlib.Path, needed: int) -> None:
    if (free := shutil.disk_usage(folder).free) < 1.05 * needed:
        raise DaquError(
            f"The pixels of the photos need {needed / 1e9:.2f} GB, but {folder} has {free / 1e9:.2f} GB free: make room, give a "
            "smaller --image_size, or another --cache_dir."
        )
