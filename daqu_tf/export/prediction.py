"""What a `.tflite` file says of photos: the reference for applications, from the photo to the label. No TensorFlow."""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from daqu_tf import tflite
from daqu_tf.data import photos
from daqu_tf.data.photos import HIGHEST_PIXEL, Preprocessing
from daqu_tf.devices import HostDevice
from daqu_tf.errors import DaquError
from daqu_tf.export.ends import Range, preprocessing_of
from daqu_tf.export.manifest import ENDING, Manifest
from daqu_tf.tflite.graph import QuantizedTensor, Tensor
from daqu_tf.tflite.metadata import LABELS_FILE

_BATCH = 256  # So many photos at a time are decoded, and go through one process.


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a file says of one photo.

    Attributes:
        photo: The path of the photo.
        classes: The numbers of the classes, the most probable one first.
        labels: The names of these classes; their numbers where no names are known.
        scores: The probabilities of these classes, in [0, 1].
    """

    photo: str
    classes: tuple[int, ...]
    labels: tuple[str, ...]
    scores: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """The prediction as a JSON object, its first class outside the list of all."""
        each = zip(self.classes, self.labels, self.scores)
        top = [{"class": number, "label": label, "score": score} for number, label, score in each]
        return {"photo": self.photo, **top[0], "top": top}


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a file says of photos.

    Attributes:
        model: The path of the file.
        preprocessing: What became of each photo before the file read it.
        found: The predictions, a photo each, in the order of the photos.
        faults: A sentence for each photo that could not be read.
    """

    model: str
    preprocessing: Preprocessing
    found: tuple[Prediction, ...]
    faults: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All of it as a JSON object."""
        predictions = [prediction.to_json() for prediction in self.found]
        way = {"preprocessing": self.preprocessing.to_json()}
        return {"model": self.model, **way, "predictions": predictions, "faults": list(self.faults)}


def predict(model: str | os.PathLike, photo: str | os.PathLike, top: int = 1) -> Predictions:
    """Runs a `.tflite` file on a photo, or on all photos in a folder and those below it, from the photo to the label.

    What becomes of a photo before the file reads it is what the file's manifest or metadata say; it is in the result. Scores are
    probabilities: where the file puts out logits, their softmax, or the sigmoid of one that tells yes from no.

    Args:
        model: The path of the file, which may have a manifest beside it.
        photo: The path of a photo or of a folder. In a folder, what is no image is a fault in the result.
        top: The number of classes to name for each photo.

    Raises:
        DaquError: There is no such file or photo, the only photo cannot be read, or nothing says what a photo is to the model.
    """
    if top < 1:
        raise DaquError(f"`top` must be at least 1, but received {top}.")
    classifier, place = Classifier.read(pathlib.Path(model)), pathlib.Path(photo)
    if not place.exists():
        raise DaquError(f"{place} does not exist: give the path of a photo or of a folder.")
    if not place.is_dir():
        pixels = classifier.preprocessing.pixels(place)
        return Predictions(str(model), classifier.preprocessing, tuple(classifier.predictions([str(place)], pixels[None], top)))
    found: list[Prediction] = []
    faults: list[str] = []
    for names, batch in _batches(photos.in_folder(place), classifier.preprocessing.pixels, faults.append):
        found += classifier.predictions(names, batch, top)
    return Predictions(str(model), classifier.preprocessing, tuple(found), tuple(faults))


def _batches(
    paths: Sequence[pathlib.Path], read: Callable[[pathlib.Path], np.ndarray], fault: Callable[[str], None]
) -> Iterator[tuple[list[str], np.ndarray]]:
    """The names and pixels of the photos that can be read, some at a time."""
    for start in range(0, len(paths), _BATCH):
        names, found = [], []
        for path in paths[start : start + _BATCH]:
            try:
                found.append(read(path))
                names.append(str(path))
            except DaquError as error:
                fault(str(error))
        if found:
            yield names, np.stack(found)


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A `.tflite` file that tells photos apart.

    Attributes:
        path: The path of the file.
        source: The tensor that the file reads.
        preprocessing: What becomes of a photo before the file reads it.
        function: The function that makes probabilities of the file's outputs: `none` where they are some, `softmax` or `sigmoid`.
        outputs: The number of outputs.
        labels: The name of each class; their numbers where no names are known.
    """

    path: pathlib.Path
    source: Tensor
    preprocessing: Preprocessing
    function: str
    outputs: int
    labels: tuple[str, ...]

    @classmethod
    def read(cls, path: pathlib.Path) -> "Classifier":
        """The file at a path, by what is stated in its metadata and in the manifest beside it.

        Raises:
            DaquError: There is no such file, it reads no images, or nothing says what a photo is to it.
        """
        data = _content(path)
        manifest = _manifest(path, data)
        try:
            source, sink, ending = tflite.read_ends(data)
        except DaquError as error:
            raise DaquError(f"{path} is no model that tells photos apart ({str(error).rstrip('.')}).") from error
        names = _labels(path, data, manifest)
        outputs, left_out = sink.shape[-1], manifest.ends.get("left_out", "none")
        is_yes_or_no = outputs == 1 and (len(names) == 2 or "sigmoid" in (ending, left_out))
        if outputs == 1 and not is_yes_or_no:
            raise DaquError(f"{path} puts out one number, and nothing says what it means: give the file of a classifier.")
        function = "none" if ending != "none" else "sigmoid" if is_yes_or_no or left_out == "sigmoid" else "softmax"
        classes = 2 if is_yes_or_no else outputs
        if names and len(names) != classes:
            raise DaquError(f"{path} has {classes} classes, but {len(names)} labels: give as many, or none.")
        way = _preprocessing(path, data, source, manifest)
        return cls(path, source, way, function, outputs, names or tuple(map(str, range(classes))))

    def scores(self, pixels: np.ndarray) -> np.ndarray:
        """The probabilities (count, classes) of the classes of photos, float64.

        Args:
            pixels: The pixels (count, height, width, channels) at the size that the file reads, uint8.

        Raises:
            ModelError: The runtime does not run the file.
        """
        numbers = self.preprocessing.numbers(pixels)
        if isinstance(self.source, QuantizedTensor):  # The runner makes these integers again of such real numbers.
            numbers = ((numbers.astype(np.float64) - self.source.zero_point) * self.source.scale).astype(np.float32)
        outputs = HostDevice().predict(self.path, numbers).reshape(len(pixels), self.outputs).astype(np.float64)
        if self.function == "softmax":
            powers = np.exp(outputs - outputs.max(-1, keepdims=True))
            return powers / powers.sum(-1, keepdims=True)
        found = 1 / (1 + np.exp(-outputs)) if self.function == "sigmoid" else outputs
        return np.concatenate([1 - found, found], -1) if found.shape[-1] < len(self.labels) else found

    def predictions(self, names: Sequence[str], pixels: np.ndarray, top: int = 1) -> Iterator[Prediction]:
        """What the file says of photos.

        Args:
            names: The paths of the photos.
            pixels: The pixels (count, height, width, channels) of the photos at the size that the file reads, uint8.
            top: The number of classes to name for each photo.
        """
        for name, scores in zip(names, self.scores(pixels)):
            order = np.argsort(-scores, kind="stable")[:top].tolist()
            yield Prediction(
                name, tuple(order), tuple(self.labels[each] for each in order), tuple(float(scores[each]) for each in order)
            )


def _content(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DaquError(f"The model {path} cannot be read ({error.strerror}): give the path of a .tflite file.") from error


def _manifest(path: pathlib.Path, data: bytes) -> Manifest:
    """The manifest beside a file, or one that states nothing."""
    beside = path.with_suffix(ENDING)
    if not beside.exists():
        return Manifest(path.stem)
    try:
        manifest = Manifest.read(beside)
    except (KeyError, TypeError, AttributeError) as error:
        raise DaquError(f"{beside} is no manifest ({type(error).__name__}: {error}): take it away, or export again.") from error
    if manifest.sha256 and manifest.sha256 != hashlib.sha256(data).hexdigest():
        raise DaquError(f"{beside} is the manifest of another file: export {path.name} again, or take the manifest away.")
    return manifest


def _labels(path: pathlib.Path, data: bytes, manifest: Manifest) -> tuple[str, ...]:
    """The names of the classes: those in the file, in the manifest, or in a file of labels beside it."""
    if known := tflite.read_labels(data) or manifest.class_names:
        return known
    beside = path.with_name(LABELS_FILE)
    return tuple(beside.read_text(encoding="utf-8", errors="replace").splitlines()) if beside.exists() else ()


def _preprocessing(path: pathlib.Path, data: bytes, source: Tensor, manifest: Manifest) -> Preprocessing:
    """What is stated of photos, with the size, the scale and the zero point that the file really has."""
    stated = manifest.preprocessing or tflite.read_preprocessing(data)
    way = Preprocessing.from_json(stated) if stated else None
    known = way.input_range if way else _range(data, manifest)
    if preprocessing_of(source, (0.0, 1.0)) is None:
        raise DaquError(f"{path} reads {source.shape}, which is no image: give a model that reads images of 1 or 3 channels.")
    found = None if known is None else preprocessing_of(source, known, way.source_size if way else None)
    if found is None:
        raise DaquError(
            f"Nothing says what pixels are to {path}: export it again with `input_range` and `labels`, or put a "
            f"{path.stem}{ENDING} beside it that says it, as "
            '{"name": "mine", "ends": {"input_range": [0, 1]}}.'
        )
    return found


def _range(data: bytes, manifest: Manifest) -> Range | None:
    """The numbers that the network takes for pixels of 0 and of 255; None where nothing says them."""
    if said := manifest.ends.get("input_range"):
        low, high = said
        return float(low), float(high)
    (described,) = ((tflite.read_metadata(data) or {}).get("subgraph_metadata") or [{}])[:1]
    units = [unit["options"] for image in described.get("input_tensor_metadata", ())[:1] for unit in image.get("process_units", ())]
    for kind, options in filter(None, units):
        means, stds = (set(options.get(name, ())) for name in ("mean", "std"))
        if kind == "NormalizationOptions" and len(means) == len(stds) == 1:
            mean, std = means.pop(), stds.pop()
            return -mean / std + 0.0, (HIGHEST_PIXEL - mean) / std
    return None
