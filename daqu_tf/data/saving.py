"""Data sets of `tf.data`, as files that a job reads in all its processes."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from daqu_tf import files
from daqu_tf.errors import DaquError

_FORM = "each element must be an image and its label, or a batch of both"


def save(
    path: str | os.PathLike, train: Any, val: Any = None, test: Any = None, class_names: Sequence[str] | None = None
) -> pathlib.Path:
    """Writes `tf.data` data sets, as of TensorFlow Datasets or `image_dataset_from_directory`, as a `.npz` file that a job takes.

    Args:
        path: The path of the file, which ends in `.npz`.
        train: The training images, a `tf.data.Dataset` whose elements are pairs of an image (height, width, channels) or a batch of
            images and class numbers or one-hot rows; or dicts of both, as `image` and `label`. All images have one size.
        val: The images on which networks are compared; None takes some of the training images for that.
        test: The images for the final figures; None takes some of the training images for that.
        class_names: The names of the classes, in the order of their numbers; None takes those of `train`, if it has some.

    Returns:
        The path of the file.

    Raises:
        DaquError: An element has another form, the images differ in size, or there are none.
    """
    path = pathlib.Path(path)
    if path.suffix != ".npz":
        raise DaquError(f"`path` must end in .npz, but received {path}.")
    arrays = {}
    for split, dataset in (("train", train), ("val", val), ("test", test)):
        if dataset is not None:
            arrays[f"x_{split}"], arrays[f"y_{split}"] = _collected(split, dataset)
    names = class_names or getattr(train, "class_names", None)
    if names is not None:
        arrays["class_names"] = np.array(list(names), dtype=str)
    files.write_arrays(path, arrays)
    return path


def _collected(split: str, dataset: Any) -> tuple[np.ndarray, np.ndarray]:
    """The images (N, height, width, channels), uint8 where nothing is lost by that, and the class numbers (N,)."""
    if not hasattr(dataset, "as_numpy_iterator"):
        raise DaquError(f"`{split}` must be a tf.data.Dataset, but received {type(dataset).__name__}.")
    images, labels = [], []
    for element in dataset.as_numpy_iterator():
        image, label = _pair(split, element)
        if image.ndim == 3:
            image, label = image[np.newaxis], label[np.newaxis]
        images.append(_in_bytes(image))
        labels.append(label.argmax(-1) if label.ndim == 2 and label.shape[1] > 1 else label.reshape(len(image)))
    if not images:
        raise DaquError(f"`{split}` holds no images.")
    if len({(each.shape[1:]) for each in images}) > 1:
        raise DaquError(f"The images of `{split}` differ in size: map them to one, with tf.image.resize and antialias=True.")
    whole = all(each.dtype == np.uint8 for each in images)
    return np.concatenate(images if whole else [each.astype(np.float32) for each in images]), np.concatenate(labels)


def _pair(split: str, element: Any) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(element, Mapping):
        element = (element.get("image"), element.get("label"))
    if not isinstance(element, tuple) or len(element) != 2 or any(part is None for part in element):
        raise DaquError(f"`{split}` has elements of another form: {_FORM}.")
    image, label = map(np.asarray, element)
    if image.ndim not in (3, 4) or (image.ndim == 4 and len(label) != len(image)):
        raise DaquError(f"`{split}` has images of shape {image.shape} and labels of shape {label.shape}: {_FORM}.")
    return image, label


def _in_bytes(images: np.ndarray) -> np.ndarray:
    """Pixels that are whole numbers up to 255, as bytes; others as they are."""
    if images.dtype == np.uint8 or images.max() <= 1:
        return images
    as_bytes = images.astype(np.uint8)
    return as_bytes if np.array_equal(as_bytes, images) else images
