"""What a `.tflite` file tells an application: the standard TFLite metadata, and the labels in a zip file behind the model.

The tables, and the order of their fields, are those of `tensorflow_lite_support/metadata/metadata_schema.fbs` in
https://github.com/tensorflow/tflite-support, which MediaPipe shares; the packing is that of `MetadataPopulator` there.
"""

import dataclasses
import functools
import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import flatbuffers
import numpy as np
from flatbuffers.number_types import Int8Flags, Uint8Flags
from flatbuffers.table import Table

from daqu_tf.errors import DaquError
from daqu_tf.tflite import file
from daqu_tf.tflite.graph import ACTIVATION_LIMITS, FloatTensor, Graph, Tensor

BUFFER = "TFLITE_METADATA"
LABELS_FILE = "labels.txt"
PREPROCESSING_FILE = "preprocessing.json"  # The schema has a place for what it does not know itself: a file of any content.

_IDENTIFIER = b"M001"
_PARSER_VERSION = "1.0.0"  # The lowest version that knows all these fields.
_RGB, _GRAYSCALE, _DESCRIPTIONS, _TENSOR_AXIS_LABELS, _TENSOR_VALUE_LABELS = 1, 2, 1, 2, 3
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # The first date that a zip file can hold, so that the same model is always the same bytes.

# The fields of each table, up to the last one used. The number of a field is its place, and a union takes two numbers.
_TABLES = {
    "ModelMetadata": {
        "name": "string",
        "description": "string",
        "version": "string",
        "subgraph_metadata": "[SubGraphMetadata]",
        "author": "string",
        "license": "string",
        "associated_files": "[AssociatedFile]",
        "min_parser_version": "string",
    },
    "SubGraphMetadata": {
        "name": "string",
        "description": "string",
        "input_tensor_metadata": "[TensorMetadata]",
        "output_tensor_metadata": "[TensorMetadata]",
    },
    "TensorMetadata": {
        "name": "string",
        "description": "string",
        "dimension_names": "[string]",
        "content": "Content",
        "process_units": "[ProcessUnit]",
        "stats": "Stats",
        "associated_files": "[AssociatedFile]",
    },
    "Content": {"content_properties": "ContentProperties"},
    "FeatureProperties": {},
    "ImageProperties": {"color_space": "byte"},
    "ProcessUnit": {"options": "ProcessUnitOptions"},
    "NormalizationOptions": {"mean": "[float]", "std": "[float]"},
    "Stats": {"max": "[float]", "min": "[float]"},
    "AssociatedFile": {"name": "string", "description": "string", "type": "byte", "locale": "string"},
}
# The members of each union, up to the last one used. The tag of a member is its place, from 1.
_UNIONS = {"ContentProperties": ("FeatureProperties", "ImageProperties"), "ProcessUnitOptions": ("NormalizationOptions",)}


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What an application is told about a model beside its graph.

    Attributes:
        name: The name of the model.
        description: What the model does, in a sentence or two.
        labels: The name of each class, in the order of the outputs; of a sigmoid with one output, those of no and of yes.
        version: The version of the model, or of the program that made it.
        input_offset: The value that a pixel of 0 had in the images that the model was trained on; None is 0.
        input_scale: The difference between the values that pixels of 255 and of 0 had in those images; None is 255.
        mean: The mean in (pixel - mean) / std, which the network takes; None is 0, as for searched networks.
        std: The divisor in (pixel - mean) / std, which the network takes; None is 255, as for searched networks.
        knows_pixels: Whether anybody knows what pixels are to the network; if not, the file says nothing of them.
        output_activation: The function that the file ends with: `none`, `softmax` or `sigmoid`.
        left_out: The function with which the network ends, where the file leaves it out; else `none`.
        preprocessing: What becomes of a photo before the model reads it, as JSON values; empty if nothing says that.
    """

    name: str
    description: str
    labels: tuple[str, ...]
    version: str = ""
    input_offset: float | None = None
    input_scale: float | None = None
    mean: float | None = None
    std: float | None = None
    knows_pixels: bool = True
    output_activation: str = "none"
    left_out: str = "none"
    preprocessing: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def normalization(self) -> tuple[float, float]:
        """The mean and the divisor in (pixel - mean) / std."""
        return self.mean or 0.0, 255.0 if self.std is None else self.std

    @property
    def trained_range(self) -> tuple[float, float]:
        """The values that pixels of 0 and of 255 had in the images that the model was trained on."""
        low = self.input_offset or 0.0
        return low, low + (255.0 if self.input_scale is None else self.input_scale)

    def is_yes_or_no(self, outputs: int) -> bool:
        """Whether the only output tells two classes apart, as one with a sigmoid does."""
        return outputs == 1 and "sigmoid" in (self.output_activation, self.left_out)


def write_with_metadata(graph: Graph, metadata: Metadata) -> bytes:
    """The bytes of the `.tflite` file of a graph with metadata and labels, both of which are read back as a check.

    Raises:
        DaquError: The labels do not fit the graph's output, or the file does not hold what it should.
    """
    tables = describe(graph, metadata)
    texts = {LABELS_FILE: "".join(f"{label}\n" for label in metadata.labels)}
    if metadata.preprocessing:
        texts[PREPROCESSING_FILE] = json.dumps(metadata.preprocessing)
    data = _append_files(file.write(graph, {BUFFER: encode(tables)}), texts)
    written = read_metadata(data), read_labels(data), read_preprocessing(data)
    if written != (tables, metadata.labels, dict(metadata.preprocessing)):
        raise DaquError(f"The metadata of {metadata.name!r} are not what was written: please report its labels.")
    return data


def read_metadata(data: bytes) -> dict[str, Any] | None:
    """The metadata in the bytes of any `.tflite` file, in the form of `describe`, or None if it has none.

    Fields and members of unions that `describe` never uses are ignored.

    Raises:
        DaquError: The bytes are no `.tflite` file, or its metadata have another schema.
    """
    buffer = file.read_buffers(data).get(BUFFER)
    if buffer is None:
        return None
    if buffer[4:8] != _IDENTIFIER:
        came = f"must have the identifier {_IDENTIFIER.decode()}, but received {buffer[4:8]!r}"
        raise DaquError(f"The metadata {came}: write the file anew with `write_with_metadata`.")
    return _read_table("ModelMetadata", Table(buffer, int.from_bytes(buffer[:4], "little")))


def read_labels(data: bytes) -> tuple[str, ...]:
    """The labels in the bytes of a `.tflite` file, from the zip file behind the model; empty if it has none."""
    return tuple(_read_file(data, LABELS_FILE).splitlines())


def read_preprocessing(data: bytes) -> dict[str, Any]:
    """What becomes of a photo before the model in the bytes of a `.tflite` file reads it, a JSON object; empty if nothing says it.

    Raises:
        DaquError: The file says it in another form.
    """
    try:
        found = json.loads(_read_file(data, PREPROCESSING_FILE) or "{}")
    except ValueError:  # UnicodeDecodeError is one too.
        found = None
    if not isinstance(found, dict):
        raise DaquError(f"The {PREPROCESSING_FILE} behind the model must be a JSON object, but received others: export it again.")
    return found


def _read_file(data: bytes, name: str) -> str:
    """The text in a file of the zip file behind the model; empty if there is none."""
    stream = io.BytesIO(data)
    if not zipfile.is_zipfile(stream):
        return ""
    with zipfile.ZipFile(stream) as archive:
        return archive.read(name).decode() if name in archive.namelist() else ""


def describe(graph: Graph, metadata: Metadata) -> dict[str, Any]:
    """The metadata as plain values: a dict for each table, and for a union the name of its member and the dict.

    The normalization is that of 8-bit pixels, from which readers of an image tensor start: (pixel - mean) / std is the real number
    that the scale and the zero point of the tensor turn into an integer.

    Args:
        graph: The graph that the metadata describe.
        metadata: What is known about the model.

    Raises:
        DaquError: The labels are not one text of one line for each class.
    """
    tensors = {tensor.name: tensor for tensor in graph.tensors}
    image, scores = tensors[graph.input], tensors[graph.output]
    is_yes_or_no = metadata.is_yes_or_no(scores.shape[-1])
    _check_labels(metadata.labels, 2 if is_yes_or_no else scores.shape[-1])
    kind = _TENSOR_VALUE_LABELS if is_yes_or_no else _TENSOR_AXIS_LABELS
    sink = {
        "name": "scores",
        "description": output_text(metadata, scores),
        "content": {"content_properties": ("FeatureProperties", {})},
        "associated_files": [{"name": LABELS_FILE, "description": "Class names.", "type": kind}],
    }
    return {
        "name": metadata.name,
        "description": metadata.description,
        "version": metadata.version,
        "subgraph_metadata": [{"input_tensor_metadata": [_describe_input(metadata, image)], "output_tensor_metadata": [sink]}],
        "author": "",
        "min_parser_version": _PARSER_VERSION,
    }


def _describe_input(metadata: Metadata, image: Tensor) -> dict[str, Any]:
    mean, std = metadata.normalization
    color_space = {1: _GRAYSCALE, 3: _RGB}.get(image.shape[-1]) if len(image.shape) == 4 else None
    properties = ("ImageProperties", {"color_space": color_space}) if color_space else ("FeatureProperties", {})
    source: dict[str, Any] = {
        "name": image.name,
        "description": input_text(metadata, image),
        "content": {"content_properties": properties},
    }
    if metadata.preprocessing:
        about = "What becomes of a photo before the model reads it."
        source["associated_files"] = [{"name": PREPROCESSING_FILE, "description": about, "type": _DESCRIPTIONS}]
    if metadata.knows_pixels:
        source["process_units"] = [{"options": ("NormalizationOptions", {"mean": [mean], "std": [std]})}]
    elif isinstance(image, FloatTensor):
        return source
    ends = sorted((pixel - mean) / std for pixel in (0, 255))
    low, high = ends if isinstance(image, FloatTensor) else ACTIVATION_LIMITS[image.type]
    return source | {"stats": {"max": [float(high)], "min": [float(low)]}}


def input_text(metadata: Metadata, image: Tensor) -> str:
    """A sentence that says how to turn 8-bit pixels, or what the network takes, into what the file reads.

    Args:
        metadata: What is known about the model.
        image: The tensor that the file reads.
    """
    what = "An image" if len(image.shape) == 4 else "Numbers"
    if not metadata.knows_pixels:
        return f"{what} as the model was trained on, x: feed {_rounded('x', image)}."
    mean, std = metadata.normalization
    real = f"(pixel - {mean:g}) / {std:g}" if mean else f"pixel / {std:g}"
    feed = "pixel - 128" if image.type == "INT8" else "them as they are"
    text = f"{what} of 8-bit pixels: feed {feed if _takes_pixels(image, mean, std) else _rounded(real, image)}."
    low, high = metadata.trained_range
    return text if (low, high) == (0, 255) else f"{text} In training, 0 and 255 were {low:g} and {high:g}."


def _takes_pixels(image: Tensor, mean: float, std: float) -> bool:
    """Whether the integers of a tensor are pixels, less 128 in int8; a file makes up for a mean between two zero points."""
    if isinstance(image, FloatTensor):
        return False
    zero_point = image.zero_point - ACTIVATION_LIMITS[image.type][0]
    return bool(np.isclose(image.scale * std, 1, rtol=1e-6)) and abs(zero_point - mean) < 0.501


def _rounded(real: str, image: Tensor) -> str:
    """The formula of what the file reads, from that of the real number."""
    if isinstance(image, FloatTensor):
        return real
    return f"round({real} / {image.scale:.9g}) {'+-'[image.zero_point < 0]} {abs(image.zero_point)}"


def output_text(metadata: Metadata, scores: Tensor) -> str:
    """A sentence that says what the file puts out, and what the answer is.

    Args:
        metadata: What is known about the model.
        scores: The tensor that the file puts out.
    """
    kind = "Logits" if metadata.output_activation == "none" else "Probabilities"
    left = "" if metadata.left_out == "none" else f" The model's {metadata.left_out}, which would follow, is left out."
    half = "0" if metadata.output_activation == "none" else "0.5"
    if metadata.is_yes_or_no(scores.shape[-1]):
        no, yes = metadata.labels if len(metadata.labels) == 2 else ("class 0", "class 1")
        return f"The {kind[:5].lower() if half == '0' else 'probability'} of {yes}: above {half} it is the answer, else {no}.{left}"
    if "sigmoid" in (metadata.output_activation, metadata.left_out):
        return f"{kind}, a class each: those above {half} are the answer.{left}"
    if scores.shape[-1] == 1 and half == "0":
        return "One number, as the model puts it out."
    return f"{kind}, a class each: the largest is the answer.{left}"


def _check_labels(labels: tuple[str, ...], classes: int) -> None:
    if len(labels) != classes:
        raise DaquError(f"`labels` must be {classes} names, one for each class, but received {len(labels)}: give as many.")
    for label in labels:
        if label.splitlines() != [label] or not label.strip():
            raise DaquError(f"`labels` must be names of one line, but received {label!r}: rename that class.")


def _append_files(data: bytes, texts: dict[str, str]) -> bytes:
    stream = io.BytesIO(data)
    stream.seek(0, io.SEEK_END)  # Offsets in the zip file count from the start of the whole file, as readers expect.
    with zipfile.ZipFile(stream, "w") as archive:
        for name, text in texts.items():
            entry = zipfile.ZipInfo(name, _LONG_AGO)  # Not compressed, since readers on devices take nothing else.
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, text.encode())
    return stream.getvalue()


def encode(tables: dict[str, Any]) -> bytes:
    """The flatbuffer of metadata in the form of `describe`."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(_write_table(builder, "ModelMetadata", tables), _IDENTIFIER)
    return bytes(builder.Output())


@functools.cache
def _slots(table: str) -> dict[str, int]:
    """The number of each field of a table; for a union, the number of its tag."""
    slots, count = {}, 0
    for name, kind in _TABLES[table].items():
        slots[name] = count
        count += 2 if kind in _UNIONS else 1
    return slots


def _write_table(builder: flatbuffers.Builder, table: str, values: dict[str, Any]) -> int:
    kinds, slots = _TABLES[table], _slots(table)
    # Leaves come first, since nothing else may be written while a table is open.
    written = {name: _write(builder, kinds[name], value) for name, value in values.items()}
    builder.StartObject(len(slots) + sum(kind in _UNIONS for kind in kinds.values()))
    for name, value in written.items():
        if kinds[name] == "byte":
            builder.PrependInt8Slot(slots[name], value, 0)
        elif kinds[name] in _UNIONS:
            builder.PrependUint8Slot(slots[name], 1 + _UNIONS[kinds[name]].index(values[name][0]), 0)
            builder.PrependUOffsetTRelativeSlot(slots[name] + 1, value, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(slots[name], value, 0)
    return builder.EndObject()


def _write(builder: flatbuffers.Builder, kind: str, value: Any) -> int:
    """Writes a value and returns its offset; a byte is returned as it is."""
    if kind == "byte":
        return value
    if kind == "string":
        return builder.CreateSharedString(value)
    if kind == "[float]":
        return builder.CreateNumpyVector(np.array(value, "<f4"))
    if kind in _UNIONS:
        return _write_table(builder, *value)
    if kind in _TABLES:
        return _write_table(builder, kind, value)
    places = [_write(builder, kind[1:-1], item) for item in value]
    builder.StartVector(4, len(places), 4)
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    return builder.EndVector()


def _read_table(kind: str, table: Table) -> dict[str, Any]:
    values = {}
    for name, slot in _slots(kind).items():
        if offset := table.Offset(4 + 2 * slot):
            values[name] = _read(_TABLES[kind][name], table, offset, table.Offset(4 + 2 * (slot + 1)))
    return {name: value for name, value in values.items() if value is not None}


def _read(kind: str, table: Table, offset: int, next_offset: int) -> Any:
    """The value of a field; for a union, the field is its tag, and its value is in the next field."""
    place = table.Pos + offset
    if kind == "byte":
        return table.Get(Int8Flags, place)
    if kind in _UNIONS:
        tag = table.Get(Uint8Flags, place)
        if not 1 <= tag <= len(_UNIONS[kind]):
            return None
        member = _UNIONS[kind][tag - 1]
        return member, _read_table(member, Table(table.Bytes, table.Indirect(table.Pos + next_offset)))
    if kind[0] != "[":
        return _read_item(kind, table, place)
    start, count = table.Vector(offset), table.VectorLen(offset)
    if kind == "[float]":
        return np.frombuffer(table.Bytes, "<f4", count, start).tolist()
    return [_read_item(kind[1:-1], table, start + 4 * index) for index in range(count)]


def _read_item(kind: str, table: Table, place: int) -> Any:
    """The string or table that the reference at `place` points to."""
    return table.String(place).decode() if kind == "string" else _read_table(kind, Table(table.Bytes, table.Indirect(place)))
