"""How photos become the arrays of a data set: their size, what stays together, and what becomes of those that cannot be read."""

import dataclasses
import pathlib
import re
from typing import Any

import numpy as np
from PIL import Image

from daqu_tf.data.decoded import CACHE_DIR, OnProgress, decoded
from daqu_tf.data.images import Images
from daqu_tf.data.photo_sets import LabelledPhoto, PhotoSet
from daqu_tf.data.photos import Size
from daqu_tf.errors import DaquError

CLASS_WEIGHTS = ("none", "balanced")
USUAL_SIDE = 64  # Of photos that are larger: what minutes on a few cores are enough for.
SIDES = (8, 320)
_LOOKED_AT, _MOST_NAMED = 200, 5


@dataclasses.dataclass(frozen=True)
class Reading:
    """How photos are read.

    Attributes:
        image_size: The side of the images in pixels, as `64`, or height and width, as `48x64`; `auto` takes the size of the photos
            where all have one of at most 96 pixels, and else squares of 64, or less where most photos are smaller.
        group_by: What photos stay in one split: a regular expression, whose first group in a photo's name counts, or the name of a
            column of a `.csv`. Empty keeps only equal images together.
        skip_bad_files: Whether photos that cannot be read are left out; otherwise they are an error.
        cache_dir: The folder of the photos' pixels, which are decoded once.
        class_weights: How much a class counts in training: `balanced`, each class alike, or `none`, each image alike.

    Raises:
        DaquError: A setting has another form.
    """

    image_size: str = "auto"
    group_by: str = ""
    skip_bad_files: bool = False
    cache_dir: str = CACHE_DIR
    class_weights: str = "none"

    def __post_init__(self) -> None:
        if self.class_weights not in CLASS_WEIGHTS:
            raise DaquError(f"`class_weights` must be one of {', '.join(CLASS_WEIGHTS)}, but received {self.class_weights!r}.")
        low, high = SIDES
        if self.image_size != "auto" and not all(low <= side <= high for side in self.size or (0,)):
            raise DaquError(
                f"`image_size` must be auto, a side of {low} to {high} pixels, or height and width as 48x64, but received "
                f"{self.image_size!r}."
            )

    @property
    def size(self) -> Size | None:
        """The height and width that were asked for; None where they go by the photos, or have another form."""
        found = re.fullmatch(r"(\d{1,4})(?:x(\d{1,4}))?", self.image_size)
        return (int(found[1]), int(found[2] or found[1])) if found else None


def read_photos(
    path: pathlib.Path, how: Reading, on_progress: OnProgress = lambda done, total: None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The images and labels of photos, as the arrays of a `.npz` file, with `group_train` where groups are known; and notes.

    Args:
        path: The path of a folder, a `.zip` or a `.csv`.
        how: How the photos are read.
        on_progress: Is called, while photos are decoded, with how many are done, and with the number of all.

    Raises:
        DaquError: The photos cannot be read, or are not what a data set is made of.
    """
    photo_set = PhotoSet(path, how.group_by)
    size = how.size or _usual_size(photo_set)
    found = decoded(photo_set, size, how.cache_dir, on_progress)
    notes = [*photo_set.notes, *_note_on_bad(path, photo_set.photos, found.bad, how.skip_bad_files)]
    notes.append(f"The photos of {path.name} are read as {size[1]} x {size[0]} pixels (--image_size); they lie in {found.path}.")
    good = np.array([index for index in range(len(photo_set.photos)) if index not in found.bad])
    photos = [photo_set.photos[index] for index in good]
    names = _class_names(path, photos)
    pixels = Images(found.pixels, known_ids=found.ids).take(good)
    if all((part[..., :1] == part).all() for part in pixels.parts()):
        pixels = dataclasses.replace(pixels, source=found.pixels[..., :1])
    arrays: dict[str, Any] = {"class_names": np.array(names)}
    labels = np.array([names.index(one.label) for one in photos])
    splits = np.array([one.split or "train" for one in photos])
    for split in dict.fromkeys(splits):
        arrays[f"x_{split}"] = pixels.take(np.flatnonzero(splits == split))
        arrays[f"y_{split}"] = labels[splits == split]
    if how.group_by:
        arrays["group_train"] = np.array([one.group for one in photos])[splits == "train"]
    return arrays, tuple(notes)


def _note_on_bad(path: pathlib.Path, photos: list[LabelledPhoto], bad: dict[int, str], skips: bool) -> list[str]:
    if not bad:
        return []
    told = " ".join(bad[index] for index in sorted(bad)[:_MOST_NAMED])
    more = f" So are {len(bad) - _MOST_NAMED} more." if len(bad) > _MOST_NAMED else ""
    if not skips:
        raise DaquError(
            f"{len(bad)} of the {len(photos)} photos of {path} cannot be read: {told}{more} To leave such photos out, give "
            "--skip_bad_files."
        )
    if len(bad) == len(photos):
        raise DaquError(f"None of the photos of {path} can be read: {told}{more}")
    return [f"{len(bad)} of the {len(photos)} photos of {path} are left out, since they cannot be read: {told}{more}"]


def _class_names(path: pathlib.Path, photos: list[LabelledPhoto]) -> list[str]:
    """The names of the classes in order, numbers by their value."""
    names = {one.label for one in photos if one.split in ("", "train")}
    if strangers := sorted({one.label for one in photos} - names):
        raise DaquError(
            f"{path} has photos of {strangers[0]} to test with, but none to train with: add some, or leave the class out."
        )
    if len(names) < 2:
        only = f"one class only ({next(iter(names))})" if names else "no photos to train with"
        raise DaquError(f"{path} has {only}: give a folder of photos for each of at least 2 classes.")
    return sorted(names, key=int) if all(name.isdecimal() for name in names) else sorted(names)


def _usual_size(photo_set: PhotoSet) -> Size:
    """The height and width by some of the photos, of which only the beginning is read."""
    sizes = []
    for photo in photo_set.photos[:: len(photo_set.photos) // _LOOKED_AT + 1]:
        try:
            with Image.open(photo_set.open(photo)) as picture:
                sizes.append((picture.height, picture.width))
        except Exception:  # It is named when all of it is read.
            continue
    low, _ = SIDES
    if len(set(sizes)) == 1 and low <= min(sizes[0]) and max(sizes[0]) <= 1.5 * USUAL_SIDE:
        return sizes[0]
    side = int(np.median([min(each) for each in sizes])) // low * low if sizes else USUAL_SIDE
    return (min(USUAL_SIDE, max(2 * low, side)),) * 2
