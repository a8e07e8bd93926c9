"""What the two ends of a file mean: which numbers its pixels stand for, and what it puts out.

The types of the ends are those of a `targets.Storage`. Here is what they leave open, as a network, its user and the metadata say
it, and the record of a file that was written.
"""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from daqu_tf import tflite
from daqu_tf.data.photos import HIGHEST_PIXEL, Preprocessing, Size, channels_of
from daqu_tf.errors import DaquError
from daqu_tf.targets.storage import Storage
from daqu_tf.tflite.graph import ACTIVATION_LIMITS, Graph, QuantizedTensor, Tensor
from daqu_tf.tflite.metadata import Metadata, input_text, output_text

ACTIVATIONS = ("none", "softmax", "sigmoid")
LEAST_CODES = 32  # An input that keeps fewer of the 256 pixels apart was trained on images of another range.
NEGLIGIBLE = 1e-3  # The share of a pixel that no operator has to make up for.

Range = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Ends:
    """What the two ends of a file mean.

    Attributes:
        input_range: The numbers that the network takes for pixels of 0 and of 255; None where that is not known.
        in_pixels: Whether the file takes pixels as uint8, or pixels less 128 as int8, and makes of them what the network takes.
        output_activation: The function behind the network's logits that the file computes, one of `ACTIVATIONS`.
        ending: The function with which the network itself ends, one of `ACTIVATIONS`.
        source_size: The height and width of the images that the network takes, where it brings them to those of the file by itself.
    """

    input_range: Range | None = None
    in_pixels: bool = False
    output_activation: str = "none"
    ending: str = "none"
    source_size: Size | None = None

    @property
    def left_out(self) -> str:
        """The function with which the network ends and the file does not."""
        return self.ending if self.output_activation == "none" else "none"

    @property
    def added(self) -> str:
        """The function with which the file ends and the network does not."""
        return self.output_activation if self.ending == "none" else "none"

    @property
    def _step(self) -> float:
        """The difference of the numbers that two neighbouring pixels stand for."""
        low, high = self.input_range or (0.0, 1.0)
        return (high - low) / HIGHEST_PIXEL

    def pixels(self, name: str, shape: tuple[int, ...], kind: str) -> tuple[QuantizedTensor, float]:
        """The tensor of pixels that the file reads, and what must be added to its real numbers to get those of the network.

        Args:
            name: The name of the tensor.
            shape: The shape of the tensor.
            kind: The type of the tensor, `UINT8` or `INT8`.
        """
        low, _ = self.input_range or (0.0, 1.0)
        zero_point = round(-low / self._step)
        offset = low + zero_point * self._step
        tensor = QuantizedTensor(name, shape, self._step, zero_point + ACTIVATION_LIMITS[kind][0], kind)
        return tensor, offset if abs(offset) > NEGLIGIBLE * self._step else 0.0

    def nearest(self, images: np.ndarray) -> np.ndarray:
        """The numbers of the nearest pixels, where the file takes pixels; else the images themselves."""
        if not self.in_pixels or self.input_range is None:
            return images
        return (self.input_range[0] + self._codes(images) * self._step).astype(np.float32)

    def _codes(self, images: np.ndarray) -> np.ndarray:
        low, _ = self.input_range or (0.0, 1.0)
        return np.clip(np.rint((images.astype(np.float64) - low) / self._step), 0, HIGHEST_PIXEL)

    def preprocessing(self, source: Tensor) -> Preprocessing | None:
        """What becomes of a photo before the file reads it; None where nothing says that.

        Args:
            source: The tensor that the file reads.
        """
        return None if self.input_range is None else preprocessing_of(source, self.input_range, self.source_size)

    def fed(self, images: np.ndarray, source: Tensor) -> np.ndarray:
        """The numbers that the scale and the zero point of the file's input turn into the pixels of images.

        Args:
            images: The images as the network takes them.
            source: The tensor that the file reads.
        """
        if not self.in_pixels or not isinstance(source, QuantizedTensor):
            return images
        codes = self._codes(images) + ACTIVATION_LIMITS[source.type][0]
        return ((codes - source.zero_point) * source.scale).astype(np.float32)


def preprocessing_of(source: Tensor, input_range: Range, source_size: Size | None = None) -> Preprocessing | None:
    """What becomes of a photo before it is an input; None of an input that is no image of one or three channels.

    Args:
        source: The tensor that the file reads.
        input_range: The numbers that the network takes for pixels of 0 and of 255.
        source_size: The height and width of the images that the network was trained with.
    """
    if len(source.shape) != 4 or source.shape[-1] not in (1, 3):
        return None
    (_, height, width, count), kind = source.shape, source.type.lower()
    scale, zero_point = (source.scale, source.zero_point) if isinstance(source, QuantizedTensor) else (None, None)
    return Preprocessing((height, width), kind, input_range, channels_of(count), source_size, scale, zero_point)


def resolve(
    graph: Graph,
    storage: Storage,
    ending: str,
    own_range: Range | None,
    input_range: Range | None = None,
    output_activation: str | None = None,
    metadata: Metadata | None = None,
) -> Ends:
    """What the ends of a file mean, by all that is said of them.

    Args:
        graph: The graph of the network, up to its logits.
        storage: The storage, which has the types of the ends.
        ending: The function with which the network ends, one of `ACTIVATIONS`.
        own_range: The numbers that the network is known to take for pixels of 0 and of 255.
        input_range: The numbers that a user says it takes.
        output_activation: The function that the file shall end with; None for the network's own.
        metadata: The metadata, which may say something of pixels too.

    Raises:
        DaquError: Two of these contradict each other, or pixels are asked for and nothing says what they are.
    """
    source = graph.tensor(graph.input)
    known = _agreed(own_range, None if input_range is None else _checked_range(input_range), metadata)
    wanted = storage.input_type or source.type.lower()
    if wanted == "uint8" and known is None:
        raise DaquError(
            "`input_type` must not be 'uint8' where nothing says what pixels are to the model: give `input_range`, the numbers "
            "that it takes for pixels of 0 and of 255, as (0, 1) or (-1, 1)."
        )
    in_pixels = known is not None and wanted != "float32" and (input_range is not None or wanted == "uint8")
    activation = _activation(output_activation, ending, graph.tensor(graph.output).shape[-1])
    ends = Ends(known, in_pixels, activation, ending)
    if not in_pixels or known is None:
        return ends
    if isinstance(source, QuantizedTensor):
        _check_codes(source, known)
        if ends.pixels(source.name, source.shape, source.type) == (source, 0.0):  # What the network was trained on are pixels.
            return dataclasses.replace(ends, in_pixels=False)
    return ends


def _checked_range(given: Range) -> Range:
    try:
        low, high = map(float, given)
    except (TypeError, ValueError):
        low = high = float("nan")
    if not (np.isfinite([low, high]).all() and low <= 0 <= high and low < high):
        raise DaquError(
            "`input_range` must be the numbers that the model takes for pixels of 0 and of 255, two that have 0 between them, but "
            f"received {given!r}: give it as (0, 1) or (-1, 1)."
        )
    return low, high


def _agreed(own: Range | None, asked: Range | None, metadata: Metadata | None) -> Range | None:
    """The one range that is said; None if none is."""
    said: list[tuple[str, Range | None]] = [("the network", own), ("`input_range`", asked)]
    if metadata and (metadata.mean is not None or metadata.std is not None):
        mean, std = metadata.normalization
        said.append(("`mean` and `std` of the metadata", (-mean / std, (HIGHEST_PIXEL - mean) / std)))
    if metadata and own is None and (metadata.input_offset is not None or metadata.input_scale is not None):
        said.append(("`input_offset` and `input_scale` of the metadata", metadata.trained_range))
    known = [(who, value) for who, value in said if value is not None]
    if not known:
        return None
    (first, found), *others = known
    for who, value in others:
        if not np.allclose(value, found, rtol=0, atol=1e-5 * (found[1] - found[0])):
            numbers = [f"{low:g} and {high:g}" for low, high in (found, value)]
            raise DaquError(f"Pixels of 0 and 255 are {numbers[0]} by {first}, but {numbers[1]} by {who}: make them the same.")
    return _checked_range(found)


def _check_codes(source: QuantizedTensor, known: Range) -> None:
    """Refuses a range that has next to nothing to do with what the network was trained on."""
    low, high = ACTIVATION_LIMITS[source.type]
    codes = np.clip(np.rint(np.linspace(*known, HIGHEST_PIXEL + 1) / source.scale) + source.zero_point, low, high)
    if (count := len(np.unique(codes))) < LEAST_CODES:
        ends = [f"{(code - source.zero_point) * source.scale:.3g}" for code in (low, high)]
        raise DaquError(
            f"`input_range` must be that of the images that set the steps of {source.name!r}, which holds {' to '.join(ends)}, but "
            f"of ({known[0]:g}, {known[1]:g}) it keeps {count} of 256 pixels apart: give the range of those images, or set the "
            "steps with images of this one."
        )


def _activation(asked: str | None, ending: str, outputs: int) -> str:
    """The function that the file ends with."""
    if asked is None:
        return ending
    choices = ("none", ending) if ending != "none" else ACTIVATIONS
    if asked not in choices:
        why = f" of a model that ends in {ending}" if ending != "none" else ""
        raise DaquError(
            f"`output_activation`{why} must be one of {', '.join(choices)}, but received {asked!r}: choose one of these."
        )
    if asked == "softmax" and ending == "none" and outputs == 1:
        raise DaquError(
            "`output_activation` must not be 'softmax' of one output, which then is always 1: give 'sigmoid' or 'none'."
        )
    return asked


def state(name: str, ends: Ends, metadata: Metadata | None, labels: Sequence[str] | None) -> Metadata:
    """What the file means in words and numbers, which is what its metadata say, if it gets any.

    Args:
        name: The name of the network, where no metadata name it.
        ends: What the ends mean.
        metadata: What the user says beside.
        labels: The labels; None for those of the metadata.

    Raises:
        DaquError: The labels are no texts, or others than those of the metadata.
    """
    stated = metadata or Metadata(name, "", ())
    if labels is not None:
        if isinstance(labels, str) or not all(isinstance(label, str) for label in labels):
            raise DaquError(f"`labels` must be a sequence of texts, but received {labels!r}: give one for each class.")
        if stated.labels and stated.labels != tuple(labels):
            raise DaquError(f"`labels` must be those of the metadata, but received {list(labels)}: give them once.")
        stated = dataclasses.replace(stated, labels=tuple(labels))
    return dataclasses.replace(stated, output_activation=ends.output_activation, left_out=ends.left_out, **_numbers(stated, ends))


def _numbers(stated: Metadata, ends: Ends) -> dict[str, Any]:
    """The fields of the metadata that tell how pixels become what the network takes; what was said agrees and stays."""
    if ends.input_range is None:
        return {"knows_pixels": False}
    low, high = ends.input_range
    std = HIGHEST_PIXEL / (high - low)
    found: dict[str, Any] = {"knows_pixels": True}
    if stated.mean is None and stated.std is None:
        found |= {"mean": -low * std + 0.0, "std": std}  # A zero without a sign.
    return found


@dataclasses.dataclass(frozen=True)
class ExportedFile:
    """What was written to a file, and what its two ends mean.

    Attributes:
        path: The path of the file.
        sha256: The hash of the file, in hex.
        file_bytes: The size of the file in bytes.
        input_type: The type of what it reads: `int8`, `uint8` or `float32`.
        input_shape: The shape of what it reads, with the 1 of its batch.
        input_range: The numbers that the network takes for pixels of 0 and of 255; None where nothing says that.
        input_text: A sentence that says what to feed.
        output_type: The type of what it puts out: `int8`, `uint8` or `float32`.
        output_shape: The shape of what it puts out.
        output_activation: The function that it ends with: `none`, `softmax` or `sigmoid`.
        left_out: The function with which the network ends, where the file leaves it out; else `none`.
        output_text: A sentence that says what is put out, and what the answer is.
        labels: The labels in the file; empty if it has none.
        preprocessing: What becomes of a photo before the file reads it; None where nothing says that.
    """

    path: str
    sha256: str
    file_bytes: int
    input_type: str
    input_shape: tuple[int, ...]
    input_range: Range | None
    input_text: str
    output_type: str
    output_shape: tuple[int, ...]
    output_activation: str
    left_out: str
    output_text: str
    labels: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None

    @classmethod
    def of(cls, path: str | os.PathLike, data: bytes, ends: Ends, stated: Metadata) -> "ExportedFile":
        """The record of a file.

        Args:
            path: The path of the file.
            data: The bytes of the file.
            ends: What the ends mean.
            stated: What the file means in words and numbers.
        """
        graph = tflite.read(data)
        source, sink = graph.tensor(graph.input), graph.tensor(graph.output)
        return cls(
            path=os.fspath(path),
            sha256=hashlib.sha256(data).hexdigest(),
            file_bytes=len(data),
            input_type=source.type.lower(),
            input_shape=source.shape,
            input_range=ends.input_range,
            input_text=input_text(stated, source),
            output_type=sink.type.lower(),
            output_shape=sink.shape,
            output_activation=ends.output_activation,
            left_out=ends.left_out,
            output_text=output_text(stated, sink),
            labels=tflite.read_labels(data),
            preprocessing=ends.preprocessing(source),
        )

    def classes(self, outputs: np.ndarray) -> np.ndarray:
        """The class that each row of outputs names: the largest, or of one output with a sigmoid, 1 where it is above one half.

        Args:
            outputs: The outputs (count, classes) of the file as real numbers.
        """
        if outputs.shape[-1] > 1 or "sigmoid" not in (self.output_activation, self.left_out):
            return outputs.argmax(-1)
        return (outputs[..., 0] > (0.5 if self.output_activation == "sigmoid" else 0.0)).astype(np.int64)

    def meaning(self) -> dict[str, Any]:
        """What the ends mean, as JSON values, for a manifest."""
        names = ("input_type", "input_range", "output_type", "output_activation", "left_out")
        found = {name: getattr(self, name) for name in names}
        return found | {"input_range": list(self.input_range) if self.input_range else None}

    def stated(self) -> dict[str, Any]:
        """What a manifest states of the ends, by the names of its fields."""
        way = {} if self.preprocessing is None else {"preprocessing": self.preprocessing.to_json()}
        return {"ends": self.meaning()} | way
