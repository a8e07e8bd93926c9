"""Labelled photos on disk: a folder with a folder for each class, a `.zip` of one, or a `.csv` of paths and labels."""

import csv
import dataclasses
import functools
import os
import pathlib
import re
import zipfile
from collections.abc import Iterator, Sequence
from typing import IO

from daqu_tf.errors import DaquError

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
PHOTOS = (".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")  # The endings of files that are read.
_PATHS, _LABELS = ("path", "file", "filename", "filepath", "image", "image_path"), ("label", "class", "class_name", "category")
_MOST_NAMED = 5
_MOST_BYTES = 500_000_000  # Of one unpacked photo: more is no photo, but made to fill a memory.


@dataclasses.dataclass(frozen=True)
class LabelledPhoto:
    """A photo as its set lists it.

    Attributes:
        name: The path of the photo within the set, its parts joined by slashes.
        label: The name of the class.
        split: `train`, `val`, `test`, or empty where the set does not say.
        stamp: What changes when the photo does: its bytes, and when they were written or their checksum.
        group: What the photo was taken with and must not be parted from, as the frames of one scene; empty where nothing is said.
    """

    name: str
    label: str
    split: str
    stamp: tuple[float, ...]
    group: str = ""


class PhotoSet:
    """The photos of a set, in the order of their names, and the way to open each.

    Args:
        path: The path of the folder, the `.zip` or the `.csv`.
        group_by: A regular expression that is searched in the name of each photo, and whose first group, or else whole match, names
            what photos must stay together; or the name of a column of a `.csv`. Empty says nothing.

    Attributes:
        photos: The photos.
        place: Where the photos lie; empty for a `.zip`, whose photos have checksums.
        notes: Sentences about what was left aside.

    Raises:
        DaquError: The set cannot be read, or is not made as it has to be (where is said).
    """

    def __init__(self, path: pathlib.Path, group_by: str = ""):
        self._path = path
        self.notes: tuple[str, ...] = ()
        self.place = str(path.resolve()) if path.suffix.lower() != ".zip" or path.is_dir() else ""
        if path.is_dir():
            names, self.notes = _apart(path, [path.joinpath(name) for name in _files(path)], path)
            stated = _in_class_folders(path, names)
            _check_no_class_is_empty(path, stated)
            photos = [dataclasses.replace(one, stamp=_stamp(path / one.name)) for one in stated]
        elif path.suffix.lower() == ".csv":
            photos, by_column = _in_table(path, group_by)
            group_by = "" if by_column else group_by
        else:
            found = _unpacked(path)
            names, self.notes = _apart(path, [pathlib.PurePosixPath(name) for name in found], pathlib.PurePosixPath())
            photos = [dataclasses.replace(one, stamp=found[one.name]) for one in _in_class_folders(path, names)]
        self.photos = _grouped(photos, group_by)

    def open(self, photo: LabelledPhoto) -> str | IO[bytes]:
        """What `photos.decode` reads: the path of the photo, or its open file."""
        if self._path.is_dir():
            return str(self._path / photo.name)
        if self._path.suffix.lower() == ".csv":
            return str(self._path.parent / photo.name)
        return self._zip.open(photo.name)

    @functools.cached_property
    def _zip(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(self._path)  # Several threads may read from one.


def is_photo_set(path: pathlib.Path) -> bool:
    """Whether something by this path is read as labelled photos."""
    return path.is_dir() or (path.suffix.lower() in (".zip", ".csv") and path.exists())


def _files(path: pathlib.Path) -> Iterator[str]:
    """The names of all files below a folder that are not hidden; a folder that a link leads back to is entered once."""
    seen = set()
    for folder, inside, found in os.walk(path, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            inside.clear()
            continue
        seen.add(real)
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        below = pathlib.Path(folder).relative_to(path)
        yield from (below.joinpath(name).as_posix() for name in sorted(found) if not name.startswith("."))


def _unpacked(path: pathlib.Path) -> dict[str, tuple[float, ...]]:
    """The names of the files in a `.zip` that are not hidden, sorted, each with its stamp."""
    try:
        with zipfile.ZipFile(path) as file:
            members = [member for member in file.infolist() if not member.is_dir()]
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise DaquError(f"{path} cannot be read as a .zip ({error}): pack it anew, or give its folder.") from error
    for member in members:
        parts = pathlib.PurePosixPath(member.filename).parts
        if member.filename.startswith("/") or ".." in parts or "\\" in member.filename:
            raise DaquError(f"{path} holds a path that leads out of it ({member.filename!r}): pack its folder anew.")
        if member.flag_bits & 1:
            raise DaquError(f"{path} is encrypted: unpack it, and give its folder.")
        if member.file_size > _MOST_BYTES:
            raise DaquError(f"{path} holds {member.filename!r}, which unpacks to {member.file_size:,} bytes: leave it out.")
    shown = [one for one in members if not _is_hidden(one.filename)]
    return {one.filename: (one.file_size, one.CRC) for one in sorted(shown, key=lambda one: one.filename)}


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _apart(path: pathlib.Path, files: Sequence[pathlib.PurePath], root: pathlib.PurePath) -> tuple[list[str], tuple[str, ...]]:
    """The names of photos, and a note on other files."""
    names = [file.relative_to(root).as_posix() for file in files]
    photos = [name for name in names if name.lower().endswith(PHOTOS)]
    if not photos:
        raise DaquError(
            f"{path} holds no photos (files that end in {', '.join(PHOTOS)}): give a folder with a folder of photos for each class."
        )
    others = sorted(set(names) - set(photos))
    note = f"Not read of {path}, since their endings are no photo's: {_some(others)}."
    return photos, (note,) if others else ()


def _in_class_folders(path: pathlib.Path, names: list[str]) -> list[LabelledPhoto]:
    """The photos of names such as `cat/1.jpg` or `train/cat/1.jpg`; one folder around all of it is passed by."""
    parts = {name: name.split("/") for name in names}
    around = 0
    while len({tuple(each[: around + 1]) for each in parts.values()}) == 1 and min(map(len, parts.values())) > around + 2:
        if next(iter(parts.values()))[around].lower() in SPLITS:
            break
        around += 1
    inside = {name: each[around:] for name, each in parts.items()}
    first = {each[0].lower() for each in inside.values()}
    has_splits = "train" in first and first <= set(SPLITS)
    found = []
    for name, each in inside.items():
        split = SPLITS[each[0].lower()] if has_splits else ""
        label, *rest = each[has_splits:]
        if not rest:
            raise DaquError(f"{path} holds photos beside its class folders ({name}): put each into the folder of its class.")
        if len(rest) > 1:
            raise DaquError(
                f"{path} holds a folder within a class folder ({'/'.join(name.split('/')[:-1])}): put the photos of a class right "
                "into its folder; folders around those of classes may be train, val and test."
            )
        found.append(LabelledPhoto(name, label, split, ()))
    return found


def _check_no_class_is_empty(path: pathlib.Path, photos: list[LabelledPhoto]) -> None:
    level = {os.path.dirname(os.path.dirname(one.name)) for one in photos}
    held = {os.path.dirname(one.name) for one in photos}
    for above in sorted(level):
        for folder in sorted((path / above).iterdir()):
            name = folder.relative_to(path).as_posix()
            if folder.is_dir() and not folder.name.startswith(".") and name not in held:
                raise DaquError(f"{path} has a class folder without photos ({name}): fill it, or delete it.")


def _in_table(path: pathlib.Path, group_by: str) -> tuple[list[LabelledPhoto], bool]:
    """The photos that a `.csv` lists, and whether `group_by` is one of its columns."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise DaquError(f"{path} cannot be read as a .csv ({error}): save it as text in UTF-8, with a line of names.") from error
    columns = {name.strip().lower(): name for name in (rows[0] if rows else {}) if name}
    where, what = (next((columns[name] for name in names if name in columns), None) for names in (_PATHS, _LABELS))
    if where is None or what is None:
        raise DaquError(
            f"{path} must have a line of names with `path` and `label`, and then a photo a line, but its first line is "
            f"{', '.join(columns) or 'empty'}: name its columns."
        )
    by_column = bool(group_by) and group_by.strip().lower() in columns
    found = []
    for number, row in enumerate(rows, 2):
        name, label, split = ((row.get(each) or "").strip() for each in (where, what, columns.get("split", "")))
        if not name or not label:
            raise DaquError(f"Line {number} of {path} lacks a path or a label: complete it, or delete it.")
        if split and split.lower() not in SPLITS:
            raise DaquError(f"Line {number} of {path} has split {split!r}: write train, val or test.")
        group = (row.get(columns[group_by.strip().lower()]) or "").strip() if by_column else ""
        photo = path.parent / name
        found.append(LabelledPhoto(name, label, SPLITS[split.lower()] if split else "", _stamp(photo), group))
    if len({bool(one.split) for one in found}) > 1:
        raise DaquError(f"{path} says the split of some photos alone: say it of all, or leave the column out.")
    return found, by_column


def _stamp(path: pathlib.Path) -> tuple[float, ...]:
    try:
        status = path.stat()
    except OSError:  # It is named when it is read.
        return (0.0,)
    return status.st_size, status.st_mtime


def _grouped(photos: list[LabelledPhoto], group_by: str) -> list[LabelledPhoto]:
    if not group_by:
        return photos
    try:
        expression = re.compile(group_by)
    except re.error as error:
        raise DaquError(f"`group_by` must be a regular expression or a column, but received {group_by!r} ({error}).") from error
    found = [expression.search(one.name) for one in photos]
    missed = [one.name for one, match in zip(photos, found) if match is None]
    if missed:
        raise DaquError(f"`group_by` {group_by!r} is not found in {_some(missed)}: it must name a group of every photo.")
    return [
        dataclasses.replace(one, group=(match.group(1) or "") if match.groups() else match.group())
        for one, match in zip(photos, found)
        if match
    ]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(name if name.isprintable() else repr(name) for name in names[:_MOST_NAMED]) + more
