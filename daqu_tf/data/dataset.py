"""Data sets, named ones, files and folders of photos, as images in [0, 1] in three splits: train, search and test.

Training, recalibration and the predictor see `train`, selection sees `search`, and nothing sees `test` before the end.
"""

import dataclasses
import hashlib
import os
import pathlib
import zipfile
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from daqu_tf.data.classes import names_of_classes, weights_of
from daqu_tf.data.copies import keep_together, note_on_copies, together
from daqu_tf.data.decoded import OnProgress
from daqu_tf.data.images import Images
from daqu_tf.data.photo_sets import is_photo_set
from daqu_tf.data.ranges import PixelRange, range_of
from daqu_tf.data.reading import Reading, read_photos
from daqu_tf.errors import DaquError

MOST_CHANNELS = 4  # Of images in arrays: colour with alpha or infrared, or several sensors.
KERAS_NAMES = ("fashion_mnist", "mnist", "cifar10", "cifar100")
NAMES = ("digits", *KERAS_NAMES)

_STATED_RANGES = {"digits": (0.0, 16.0)}
_TEST_FRACTION = 0.2
_SEARCH_IMAGES_PER_CLASS = 25
_KNOWN_ARRAYS = ("x_train", "y_train", "x_val", "y_val", "x_test", "y_test", "class_names")
_MOST_NAMED = 8
_Arrays = dict[str, Any]  # Arrays by name; photos are `Images`.
_Part = tuple[Images, np.ndarray]  # Images with their ids, and labels.
_NPZ_ERRORS = (
    OSError,
    ValueError,
    EOFError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A labelled image data set in its three splits.

    Attributes:
        name: The name of the data set, or of the file without its suffix.
        x_train: The training images (N, H, W, C). What is read of them is float32 in [0, 1].
        y_train: The labels (N,) of the training images, int32 in [0, num_classes).
        x_search: Images on which subnets are compared, in the form of `x_train`: the source's `x_val`, or else held
            out of training.
        y_search: The labels of `x_search`, in the form of `y_train`.
        x_test: Images for the final figures alone, in the form of `x_train`.
        y_test: The labels of `x_test`, in the form of `y_train`.
        num_classes: The number of classes.
        input_offset: The offset of the given images, which became `clip((given - input_offset) / input_scale, 0, 1)`. An
            application must do the same before it calls a model.
        input_scale: The scale of the given images: 255 for uint8, for other numbers that of the usual range which they fill
            ([0, 1], [-1, 1] or [0, 255]), else the range of the training images.
        test_was_cut: Whether `test` was cut out of the training images because the source has no test split.
        fingerprint: The sha256, in hex, of the images as given, or of the hashes of photos, and of the labels, in the order of the
            splits.
        class_names: The name of each class by its number; the numbers themselves where no names are known.
        class_weights: How much the loss of an image of each class counts in training; empty counts all alike.
        notes: Sentences about the data that a user should read before a run.
    """

    name: str
    x_train: Images
    y_train: np.ndarray
    x_search: Images
    y_search: np.ndarray
    x_test: Images
    y_test: np.ndarray
    num_classes: int
    input_offset: float
    input_scale: float
    test_was_cut: bool
    fingerprint: str
    class_names: tuple[str, ...]
    class_weights: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The height, width and channels of one image."""
        return self.x_train.shape[1:]

    def describe(self) -> dict[str, Any]:
        """The description of the data set in the files of a run, as a JSON object: name, sizes of the splits and fingerprint."""
        return {
            "name": self.name,
            "train": len(self.x_train),
            "search": len(self.x_search),
            "test": len(self.x_test),
            "test_was_cut": self.test_was_cut,
            "num_classes": self.num_classes,
            "fingerprint": self.fingerprint,
        }


def load(
    name_or_path: str | os.PathLike,
    seed: int = 0,
    search_fraction: float = 0.1,
    how: Reading | None = None,
    on_progress: OnProgress = lambda done, total: None,
) -> Dataset:
    """Loads a data set and splits it, the same way each time for the same seed.

    Args:
        name_or_path: One of `NAMES`; the path of a `.npz` file with x_train, y_train and perhaps x_val, y_val, x_test, y_test and
            class_names; or labelled photos: a folder with a folder for each class, perhaps within train, val and test, a `.zip` of
            one, or a `.csv` with columns path, label and perhaps split.
        seed: The seed of the splits.
        search_fraction: The share of the training images held out as `search`, above 0 and at most 0.5. At least 25 images per
            class are held out, unless that is more than a third. It has no effect where the source has x_val and y_val: these are
            `search` then.
        how: How photos are read, and what is to stay together; None has the defaults of `Reading`.
        on_progress: Is called, while photos are decoded, with how many are done, and with the number of all.

    Raises:
        DaquError: The source cannot be read or is not a labelled image data set that can be split.
    """
    if not 0 < search_fraction <= 0.5:
        raise DaquError(f"`search_fraction` must be above 0 and at most 0.5, but received {search_fraction}.")
    how = how or Reading()
    name, arrays, notes = _read(name_or_path, how, on_progress)
    parts, class_names = _parts(name, arrays)
    ids = parts["train"][0].ids
    kin = together(ids, arrays["group_train"]) if "group_train" in arrays else ids
    test_was_cut, search_was_cut, num_classes = "test" not in parts, "val" not in parts, len(class_names)
    if test_was_cut:
        parts["train"], parts["test"], kin = _cut(name, parts["train"], kin, _TEST_FRACTION, num_classes, seed)
    others = {split: x for split, (x, _) in parts.items() if split != "train"}
    pixels = range_of(name, parts["train"][0], others, _STATED_RANGES.get(os.fspath(name_or_path)))
    if search_was_cut:
        wanted = _SEARCH_IMAGES_PER_CLASS * num_classes
        parts["train"], parts["val"], _ = _cut(name, parts["train"], kin, search_fraction, wanted, seed)
    splits = {"train": parts["train"], "search": parts["val"], "test": parts["test"]}
    notes += note_on_copies(name, {split: (x.ids, y) for split, (x, y) in splits.items()})
    fingerprint = _fingerprint(splits.values())
    weights, told = weights_of(name, splits["train"][1], how.class_weights, class_names)
    if not search_was_cut:  # A cut shuffles; what was not cut may be sorted by class, and the first images stand for all in places.
        splits |= {split: _shuffled(*splits[split], seed) for split in ("train", "search")}
    return Dataset(
        name=name,
        **{f"{array}_{split}": part for split, each in splits.items() for array, part in zip("xy", _in_range(each, pixels))},
        num_classes=num_classes,
        input_offset=pixels.offset,
        input_scale=pixels.scale,
        test_was_cut=test_was_cut,
        fingerprint=fingerprint,
        class_names=class_names,
        class_weights=weights,
        notes=pixels.notes + notes + told,
    )


def _parts(name: str, arrays: _Arrays) -> tuple[dict[str, _Part], tuple[str, ...]]:
    """The splits that the source has, and the names of the classes."""
    train = _checked(name, "train", arrays["x_train"], arrays["y_train"])
    num_classes = _num_classes(name, train[1])
    given = {split: _given(name, split, arrays, train[0], num_classes) for split in ("val", "test") if f"x_{split}" in arrays}
    return {"train": train, **given}, names_of_classes(name, num_classes, arrays.get("class_names"))


def _read(name_or_path: str | os.PathLike, how: Reading, on_progress: OnProgress) -> tuple[str, _Arrays, tuple[str, ...]]:
    """The name, the arrays, and notes on what was not read."""
    text = os.fspath(name_or_path)
    path = pathlib.Path(text)
    if text not in NAMES and is_photo_set(path):
        return path.resolve().name if path.is_dir() else path.stem, *read_photos(path, how, on_progress)
    if how.group_by:
        raise DaquError("`group_by` needs photos, whose names or columns say what belongs together: leave it out.")
    if text == "digits":
        return text, _read_digits(), ()
    if text in KERAS_NAMES:
        return text, _read_keras(text), ()
    if text.endswith(".npz") or os.path.exists(text):
        return path.stem, *_read_npz(path)
    fault = "does not exist" if os.sep in text or path.suffix else "is no data set known here"
    raise DaquError(
        f"`{text}` {fault}: give one of {', '.join(NAMES)}, the path of a .npz file, or that of photos: a folder, a .zip or a .csv."
    )


def _read_digits() -> _Arrays:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return {"x_train": digits.images, "y_train": digits.target}


def _read_keras(name: str) -> _Arrays:
    import tf_keras  # Imported late: it brings TensorFlow, which nothing else here needs.

    try:
        (x_train, y_train), (x_test, y_test) = getattr(tf_keras.datasets, name).load_data()
    except Exception as error:  # tf_keras raises a bare Exception when the download fails.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DaquError(
            f"The data set {name} could not be downloaded ({reason}): connect this machine to the internet, "
            "or give the path of a .npz file with x_train, y_train, x_test, y_test."
        ) from error
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


def _read_npz(path: pathlib.Path) -> tuple[_Arrays, tuple[str, ...]]:
    if not path.is_file():
        raise DaquError(f"The data file {path} does not exist: give the path of a .npz file or one of {', '.join(NAMES)}.")
    try:
        with np.load(path, allow_pickle=False) as file:
            _check_keys(path, file.files)
            arrays = {key: file[key] for key in _KNOWN_ARRAYS if key in file.files}
            unknown = sorted(set(file.files) - set(arrays))
            if "class_names" not in arrays and _is_text(file, "labels"):
                arrays["class_names"] = file["labels"]
                unknown.remove("labels")
            return arrays, _note_on_unknown(path, unknown)
    except DaquError:
        raise
    except PermissionError as error:
        raise DaquError(f"The data file {path} may not be read: allow it with chmod or give another file.") from error
    except (*_NPZ_ERRORS, AttributeError, TypeError) as error:  # The last two come where np.load gave the lone array of a .npy.
        raise DaquError(
            f"The data file {path} is not a whole .npz of plain number arrays: write it anew with "
            "numpy.savez(path, x_train=..., y_train=..., x_test=..., y_test=...)."
        ) from error


def _note_on_unknown(path: pathlib.Path, unknown: list[str]) -> tuple[str, ...]:
    if not unknown:
        return ()
    named = ", ".join(key if key.isprintable() else repr(key) for key in unknown[:_MOST_NAMED])
    more = f" and {len(unknown) - _MOST_NAMED} more" if len(unknown) > _MOST_NAMED else ""
    return (f"Not used of the data file {path}: {named}{more}. What is used is called {', '.join(_KNOWN_ARRAYS)}.",)


def _is_text(file: np.lib.npyio.NpzFile, key: str) -> bool:
    """Whether the file has an array of texts under `key`; any other array of that name, even an unreadable one, is ignored."""
    try:
        return key in file.files and file[key].dtype.kind == "U"
    except ValueError:
        return False


def _check_keys(path: pathlib.Path, found: list[str]) -> None:
    halves = [split for split in ("val", "test") if len({f"x_{split}", f"y_{split}"} & set(found)) == 1]
    if not {"x_train", "y_train"} <= set(found) or halves:
        split = halves[0] if halves else "test"
        raise DaquError(
            f"The data file {path} must hold x_train and y_train, and x_{split} and y_{split} or neither of them, "
            f"but it holds {', '.join(sorted(found)) or 'nothing'}: rename its arrays."
        )


def _checked(name: str, split: str, x: np.ndarray | Images, y: np.ndarray) -> _Part:
    """The images, and the labels as int32 (N,)."""
    images = x if isinstance(x, Images) else Images(_checked_images(f"`x_{split}` of {name}", x))
    return images, _checked_labels(f"`y_{split}` of {name}", y, len(images))


def _checked_images(what: str, x: np.ndarray) -> np.ndarray:
    if x.dtype.kind not in "buif":
        raise DaquError(f"{what} must hold numbers, but its type is {x.dtype}: save the images as uint8 or float32.")
    images = x[..., None] if x.ndim == 3 else x
    if images.ndim != 4 or images.shape[-1] > MOST_CHANNELS or not images.size:
        raise DaquError(
            f"{what} must have the shape (N, H, W) or (N, H, W, C) with up to {MOST_CHANNELS} channels, but received {x.shape}: "
            "reshape the images."
        )
    if x.dtype.kind == "f" and not np.isfinite(images).all():
        raise DaquError(f"{what} holds NaN or infinite pixels: remove those images or mend them.")
    return images


def _checked_labels(what: str, y: np.ndarray, images: int) -> np.ndarray:
    labels = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if labels.shape != (images,):
        raise DaquError(
            f"{what} must be one class number for each of the {images} images, but its shape is {y.shape}: "
            "save as many labels as images, and class numbers instead of one-hot rows."
        )
    if labels.dtype.kind not in "uif" or not np.array_equal(labels, np.floor(labels)):
        raise DaquError(f"{what} must hold whole class numbers, but received type {y.dtype}: number the classes 0, 1, 2, ...")
    if labels.min() < 0 or labels.max() >= 2**31:
        raise DaquError(f"{what} has labels from {labels.min()} to {labels.max()}: number the classes 0, 1, 2, ...")
    return labels.astype(np.int32)


def _num_classes(name: str, labels: np.ndarray) -> int:
    """The number of classes; every class number up to the highest must occur."""
    found = np.unique(labels)
    missing = np.flatnonzero(found != np.arange(len(found)))
    if missing.size:
        raise DaquError(
            f"`y_train` of {name} has labels up to {found[-1]} but none of class {missing[0]}: "
            "number the classes 0, 1, 2, ... without gaps."
        )
    if len(found) < 2:
        raise DaquError(f"`y_train` of {name} has one class only: give a data set with at least 2 classes.")
    return len(found)


def _given(name: str, split: str, arrays: _Arrays, x_train: Images, num_classes: int) -> _Part:
    """A split of the source beside train, in the form of train."""
    x, y = _checked(name, split, arrays[f"x_{split}"], arrays[f"y_{split}"])
    train_type, own_type = x_train.source.dtype, x.source.dtype
    if x_train.shape[1:] != x.shape[1:] or train_type != own_type:
        raise DaquError(
            f"The images of {name} must have one shape and type, but train has {x_train.shape[1:]} {train_type} "
            f"and {split} {x.shape[1:]} {own_type}: save both alike."
        )
    if y.max() >= num_classes:
        raise DaquError(
            f"`y_{split}` of {name} has label {y.max()}, but `y_train` only 0 to {num_classes - 1}: "
            f"remove those {split} images or add training images of their class."
        )
    return x, y


def _cut(name: str, whole: _Part, kin: np.ndarray, fraction: float, wanted: int, seed: int) -> tuple[_Part, _Part, np.ndarray]:
    """Cuts off `fraction` of the images, or `wanted` images if that is more, but then at most a third; stratified by class.

    Images that have one number in `kin` stay together. What is kept comes first, then what is held out, then the `kin` of the kept.
    """
    from sklearn.model_selection import train_test_split

    x, y = whole
    counts = np.bincount(y)
    if counts.min() < 3:
        raise DaquError(
            f"Class {counts.argmin()} of {name} has too few images ({counts.min()} to train with) to hold any out: "
            "give each class at least 3 images, and 5 if there is no test split, or leave the class out."
        )
    size = max(round(fraction * len(y)), min(wanted, len(y) // 3))
    kept, held = train_test_split(np.arange(len(y)), test_size=size, random_state=seed, stratify=y)
    kept, held = keep_together(kin, y, kept, held)
    return (x.take(kept), y[kept]), (x.take(held), y[held]), kin[kept]


def _shuffled(x: Images, y: np.ndarray, seed: int) -> _Part:
    order = np.random.default_rng(seed).permutation(len(y))
    return x.take(order), y[order]


def _in_range(part: _Part, pixels: PixelRange) -> tuple[Any, Any]:
    """The split, whose images read as numbers in [0, 1]."""
    images, labels = part
    return dataclasses.replace(images, offset=pixels.offset, scale=pixels.scale), labels


def _fingerprint(splits: Iterable[_Part]) -> str:
    digest = hashlib.sha256()
    for images, labels in splits:
        digest.update(f"{images.source.dtype.str} {images.shape}".encode())
        # Photos may be more than can be read in a moment, and were hashed when they were decoded.
        for part in [images.ids] if images.is_mapped else images.parts():
            digest.update(np.ascontiguousarray(part).data)
        digest.update(f"{labels.dtype.str} {labels.shape}".encode())
        digest.update(np.ascontiguousarray(labels).data)
    return digest.hexdigest()
