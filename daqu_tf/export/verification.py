"""The verification of exported files against their manifests: bytes, layers, labels and accuracy."""

import contextlib
import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from daqu_tf import data, tflite
from daqu_tf.data.images import parts_of
from daqu_tf.devices import HostDevice
from daqu_tf.errors import DaquError
from daqu_tf.export.manifest import ENDING
from daqu_tf.files import read_json
from daqu_tf.tflite.graph import Graph
from daqu_tf.tflite.weighted import CONTAINER_LIMITS, Weighted

TOLERANCE = 1e-3  # How far an accuracy may differ, since other kernels round a few values differently. One image may be more.
_AGAIN = "export the model again"


@dataclasses.dataclass(frozen=True)
class Statement:
    """What a manifest states about its file, as far as that can be verified.

    Attributes:
        path: The path of the file.
        sha256: The hash of the file, in hex.
        file_bytes: The size of the file in bytes.
        layers: The name, container and weight bits of each layer with weights, in order.
        class_names: The names of the classes, by their numbers.
        image_size: The height and width of the images that the file reads.
        dataset: The name of the data set on which the file was tested.
        fingerprint: The fingerprint of the data set, as `data.Dataset` has it.
        seed: The seed of the splits of the data set.
        accuracy: The accuracy of the file on the test split, in [0, 1].
        preprocessing: What becomes of a photo before the file reads it; empty of files of before, whose networks skipped pixels
            where they made images smaller.
    """

    path: pathlib.Path
    sha256: str
    file_bytes: int
    layers: tuple[tuple[str, str, int], ...]
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    dataset: str
    fingerprint: str
    seed: int
    accuracy: float
    preprocessing: Mapping[str, Any]

    @classmethod
    def read(cls, path: pathlib.Path) -> "Statement":
        """The statement in the manifest at `path`.

        Raises:
            DaquError: The manifest cannot be read, or lacks something.
        """
        content = read_json(path, remedy=_AGAIN)
        try:
            return cls(
                path=path.parent / content["file"],
                sha256=content["sha256"],
                file_bytes=int(content["file_bytes"]),
                layers=tuple((each["name"], each["container"], int(each["weight_bits"])) for each in content["layers"]),
                class_names=tuple(content["class_names"]),
                image_size=(int(content["input"]["height"]), int(content["input"]["width"])),
                dataset=str(content["dataset"]),
                fingerprint=content["dataset_fingerprint"],
                seed=int(content["seed"]),
                accuracy=float(content["accuracy"]["file"]["test"]),
                preprocessing=dict(content.get("preprocessing", {})),
            )
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise DaquError(f"{path} is no manifest of this version of daqu_tf ({reason}): {_AGAIN}.") from error


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The result of verifying one file.

    Attributes:
        name: The name of the model.
        faults: The faults that were found, a sentence for each.
        file_bytes: The size that the manifest states, in bytes; None where that cannot be read.
        stated: The accuracy that the manifest states, in [0, 1]; None where that cannot be read.
        found: The accuracy that the file has, in [0, 1]; None where that was not computed.
    """

    name: str
    faults: tuple[str, ...]
    file_bytes: int | None = None
    stated: float | None = None
    found: float | None = None

    def __str__(self) -> str:
        if self.faults:
            return "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        if self.found is None:
            return "sound; no data to test it on"
        return "exact" if self.found == self.stated else f"within {100 * TOLERANCE:g} points or one image, as on other kernels"


class Verifier:
    """Verifies files; a data set is loaded once for all of its files.

    Args:
        sources: What `data.load` takes for each data set, by its name; `digits` is known.
    """

    def __init__(self, sources: Mapping[str, str] | None = None):
        self._sources = {"digits": "digits"} | dict(sources or {})
        self._load = functools.cache(data.load)

    def verify(self, path: pathlib.Path) -> Verdict:
        """The verdict on the file of a manifest; whatever is wrong with the file or the manifest is a fault.

        A file that has other bytes than stated, or cannot be read, is not verified further.

        Args:
            path: The path of the manifest.
        """
        stated, found = None, None
        faults: list[str] = []
        with _noted(faults):
            stated = Statement.read(path)
            content = _checked_content(stated)
            graph = _checked_graph(stated, content)
            with _noted(faults):
                _check_layers(stated, graph)
            with _noted(faults):
                _check_labels(stated, content)
            with _noted(faults):
                _check_preprocessing(stated, content)
            with _noted(faults):
                parts, labels = self._test_split(stated, graph)
                logits = np.concatenate([HostDevice().predict(stated.path, part) for part in parts])
                if labels is not None:
                    found = float(np.mean(logits.argmax(1) == labels))
                    _check_accuracy(stated, found, len(labels))
        size, accuracy = (stated.file_bytes, stated.accuracy) if stated else (None, None)
        return Verdict(path.name.removesuffix(ENDING), tuple(faults), size, accuracy, found)

    def _test_split(self, stated: Statement, graph: Graph) -> tuple[Iterable[np.ndarray], np.ndarray | None]:
        """The test images as the file reads them, in parts, and their labels; without data, one blank image and no labels.

        Raises:
            DaquError: The data set cannot be loaded, or is not the one on which the file was tested.
        """
        if stated.dataset not in self._sources:
            shape = graph.tensor(graph.input).shape
            return [np.zeros(shape, np.float32)], None
        source = self._sources[stated.dataset]
        dataset = self._load(source, stated.seed)
        if dataset.fingerprint != stated.fingerprint:
            raise DaquError(f"{stated.path} was tested on another {stated.dataset} than {source}: give that.")
        antialias, (low, high) = bool(stated.preprocessing), stated.preprocessing.get("input_range", (0.0, 1.0))
        parts = (_resized(part, stated.image_size, antialias) for part in parts_of(dataset.x_test))
        return (np.float32(low) + part * np.float32(high - low) for part in parts), dataset.y_test


def find(folders: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """The paths of all manifests in some folders, sorted by name within each.

    Raises:
        DaquError: There is no such folder, or no manifest in it.
    """
    found = []
    for folder in folders:
        if not folder.is_dir():
            raise DaquError(f"{folder} is no folder: name one that holds .tflite files with their manifests.")
        if not (inside := sorted(folder.glob(f"*{ENDING}"))):
            raise DaquError(f"{folder} holds no *{ENDING}: name a folder that daqu-export has written to.")
        found += inside
    return found


def table(verdicts: Sequence[Verdict]) -> str:
    """A table of verdicts for people, with one line for each file."""
    width = max(len(verdict.name) for verdict in verdicts)
    lines = [f"{'model':<{width}} {'bytes':>9} {'stated':>8} {'found':>8}  verdict"]
    for each in verdicts:
        size = "-" if each.file_bytes is None else f"{each.file_bytes:,}"
        stated, found = ("-" if value is None else f"{value:.2%}" for value in (each.stated, each.found))
        lines.append(f"{each.name:<{width}} {size:>9} {stated:>8} {found:>8}  {each}")
    return "\n".join(lines)


@contextlib.contextmanager
def _noted(faults: list[str]) -> Iterator[None]:
    """Turns an error into a fault."""
    try:
        yield
    except DaquError as error:
        faults.append(str(error))


def _resized(images: np.ndarray, size: tuple[int, int], antialias: bool) -> np.ndarray:
    """The images, resized as the network of a file did it to the height and width that the file reads."""
    if images.shape[1:3] == size:
        return images
    from daqu_tf.supernet.layers import resize  # Imported late: it brings TensorFlow.

    return resize(images, size, antialias).numpy()


def _checked_content(stated: Statement) -> bytes:
    """The bytes of the file, which must be those that were exported."""
    try:
        content = stated.path.read_bytes()
    except OSError as error:
        raise DaquError(f"{stated.path} cannot be read ({error.strerror}): restore it, or delete its manifest.") from error
    if len(content) != stated.file_bytes:
        raise DaquError(f"{stated.path} has {len(content)} bytes, not {stated.file_bytes}: restore it, or {_AGAIN}.")
    if (found := hashlib.sha256(content).hexdigest()) != stated.sha256:
        raise DaquError(f"{stated.path} has the sha256 {found}, not {stated.sha256}: restore it, or {_AGAIN}.")
    return content


def _checked_graph(stated: Statement, content: bytes) -> Graph:
    """The graph of the file."""
    try:
        return tflite.read(content)
    except Exception as error:  # Bytes that are no such file can raise anything in its reader.
        raise DaquError(f"{stated.path} cannot be read as a .tflite file ({error}): {_AGAIN}.") from error


def _check_layers(stated: Statement, graph: Graph) -> None:
    """Raises `DaquError` unless containers are as stated and no weight needs more bits, but for its channel's power of two."""
    stored = [operator for operator in graph.operators if isinstance(operator, Weighted)]
    if len(stored) != len(stated.layers):
        raise DaquError(f"{stated.path} has {len(stored)} layers with weights, not {len(stated.layers)}: {_AGAIN}.")
    for operator, (name, container, bits) in zip(stored, stated.layers):
        if operator.container != container:
            raise DaquError(f"{stated.path} stores {name} as {operator.container}, not {container}: {_AGAIN}.")
        if container in CONTAINER_LIMITS and operator.trained_bits > bits:
            raise DaquError(f"{stated.path} has weights of {operator.trained_bits} bits in {name}, not {bits}: {_AGAIN}.")


def _check_labels(stated: Statement, content: bytes) -> None:
    """Raises `DaquError` unless the labels are the names of the classes."""
    if (found := tflite.read_labels(content)) != stated.class_names:
        shown = ", ".join(found) or "none"
        raise DaquError(f"{stated.path} has other labels ({shown}) than its manifest: {_AGAIN}.")


def _check_preprocessing(stated: Statement, content: bytes) -> None:
    """Raises `DaquError` unless the file says of photos what its manifest says."""
    if tflite.read_preprocessing(content) != stated.preprocessing:
        raise DaquError(f"{stated.path} says another preprocessing than its manifest: {_AGAIN}.")


def _check_accuracy(stated: Statement, found: float, images: int) -> None:
    """Raises `DaquError` unless the accuracy is as stated, up to what other kernels may change."""
    if abs(found - stated.accuracy) > max(TOLERANCE, 1.001 / images):
        raise DaquError(f"{stated.path} gets {found:.2%} of {images} test images right, not {stated.accuracy:.2%}: {_AGAIN}.")
