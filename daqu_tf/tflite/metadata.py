"""What a .tflite file tells an application: the standard TFLite metadata, and the labels in a zip behind the model.

The tables, and the order of their fields, are those of `tensorflow_lite_support/metadata/metadata_schema.fbs` in
https://github.com/tensorflow/tflite-support, which MediaPipe shares; the packing is that of `MetadataPopulator` there.
"""

import dataclasses
import functools
import io
import zipfile
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

_IDENTIFIER = b"M001"
_PARSER_VERSION = "1.0.0"  # The least that knows all these fields.
_RGB, _GRAYSCALE, _TENSOR_AXIS_LABELS = 1, 2, 2
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # The first date of a zip: the same model is the same bytes.

# By table, all fields up to the last one used: a field's number is its place, and a union takes two.
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
# The tag of a member is its place, from 1; members behind the last one used are left out.
_UNIONS = {"ContentProperties": ("FeatureProperties", "ImageProperties"), "ProcessUnitOptions": ("NormalizationOptions",)}


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What is known of a model beside its graph.

    Attributes:
        name: Of the model.
        description: What it does, in a sentence or two.
        labels: The name of each class, in the order of the outputs.
        version: Of the model, or of what made it.
        input_offset: What a pixel of 0 stands for in the images that the model was trained on.
        input_scale: How much more a pixel of 255 stands for.
        mean: Of the pixels: the network takes (pixel - mean) / std.
        std: Likewise; searched networks take pixel / 255.
    """

    name: str
    description: str
    labels: tuple[str, ...]
    version: str = ""
    input_offset: float = 0.0
    input_scale: float = 255.0
    mean: float = 0.0
    std: float = 255.0


def write_with_metadata(graph: Graph, metadata: Metadata) -> bytes:
    """Returns the .tflite file of `graph` with its metadata and labels, after reading both back.

    Raises:
        DaquError: If the labels do not fit the graph's output, or the file does not hold what it should.
    """
    tables = describe(graph, metadata)
    data = _append_labels(file.write(graph, {BUFFER: encode(tables)}), metadata.labels)
    if read_metadata(data) != tables or read_labels(data) != metadata.labels:
        raise DaquError(f"The metadata of {metadata.name!r} are not what was written: please report its labels.")
    return data


def read_metadata(data: bytes) -> dict[str, Any] | None:
    """Returns the metadata of any .tflite file as `describe` gives them, or None if it has none.

    Fields and members of unions that `describe` never gives are passed over.

    Raises:
        DaquError: If it is no such file, or its metadata are of another schema.
    """
    buffer = file.read_buffers(data).get(BUFFER)
    if buffer is None:
        return None
    if buffer[4:8] != _IDENTIFIER:
        raise DaquError(f"the metadata must have the identifier {_IDENTIFIER.decode()}, but received {buffer[4:8]!r}")
    return _read_table("ModelMetadata", Table(buffer, int.from_bytes(buffer[:4], "little")))


def read_labels(data: bytes) -> tuple[str, ...]:
    """Returns the labels in the zip behind a model; none if there is no such file."""
    stream = io.BytesIO(data)
    if not zipfile.is_zipfile(stream):
        return ()
    with zipfile.ZipFile(stream) as archive:
        return tuple(archive.read(LABELS_FILE).decode().splitlines()) if LABELS_FILE in archive.namelist() else ()


def describe(graph: Graph, metadata: Metadata) -> dict[str, Any]:
    """The tables of the metadata as plain values: dicts, and for a union the name of its member and the dict.

    The normalization is that of 8-bit pixels, which are what readers of an image tensor start from: (pixel - mean) / std is
    the real number that the tensor's scale and zero point turn into an integer.

    Raises:
        DaquError: There is not one label of one line for each output.
    """
    tensors = {tensor.name: tensor for tensor in graph.tensors}
    image, scores = tensors[graph.input], tensors[graph.output]
    _check_labels(metadata.labels, scores.shape[-1])
    ends = sorted((pixel - metadata.mean) / metadata.std for pixel in (0, 255))
    low, high = ends if isinstance(image, FloatTensor) else ACTIVATION_LIMITS[image.type]
    source = {
        "name": graph.input,
        "description": _image_text(metadata, image),
        "content": {"content_properties": ("ImageProperties", {"color_space": _RGB if image.shape[-1] == 3 else _GRAYSCALE})},
        "process_units": [{"options": ("NormalizationOptions", {"mean": [metadata.mean], "std": [metadata.std]})}],
        "stats": {"max": [float(high)], "min": [float(low)]},
    }
    sink = {
        "name": "scores",
        "description": "Logits, a class each: the largest is the answer.",
        "content": {"content_properties": ("FeatureProperties", {})},
        "associated_files": [{"name": LABELS_FILE, "description": "Class names.", "type": _TENSOR_AXIS_LABELS}],
    }
    return {
        "name": metadata.name,
        "description": metadata.description,
        "version": metadata.version,
        "subgraph_metadata": [{"input_tensor_metadata": [source], "output_tensor_metadata": [sink]}],
        "author": "",
        "min_parser_version": _PARSER_VERSION,
    }


def _image_text(metadata: Metadata, image: Tensor) -> str:
    """How to make of 8-bit pixels what the file reads."""
    mean, std = f" - {metadata.mean:g}" if metadata.mean else "", f" / {metadata.std:g}"
    real = f"(pixel{mean}){std}" if mean else f"pixel{std}"
    if isinstance(image, FloatTensor):
        feed = real
    elif np.isclose(image.scale * metadata.std, 1, rtol=1e-6) and not mean:
        feed = "them as they are" if image.zero_point == 0 else f"pixel - {-image.zero_point}"
    else:
        feed = f"round({real} / {image.scale:.9g}) {'+-'[image.zero_point < 0]} {abs(image.zero_point)}"
    text = f"An image of 8-bit pixels: feed {feed}."
    low, high = metadata.input_offset, metadata.input_offset + metadata.input_scale
    return text if (low, high) == (0, 255) else f"{text} In training, 0 and 255 were {low:g} and {high:g}."


def _check_labels(labels: tuple[str, ...], classes: int) -> None:
    if len(labels) != classes:
        raise DaquError(f"`labels` must be {classes} names, one a class, but received {len(labels)}: give as many.")
    for label in labels:
        if label.splitlines() != [label] or not label.strip():
            raise DaquError(f"`labels` must be names of one line, but received {label!r}: rename that class.")


def _append_labels(data: bytes, labels: tuple[str, ...]) -> bytes:
    stream = io.BytesIO(data)
    stream.seek(0, io.SEEK_END)  # Places in the zip count from the begin of the file, as readers expect.
    entry = zipfile.ZipInfo(LABELS_FILE, _LONG_AGO)  # Stored: readers on devices take no other.
    entry.create_system, entry.external_attr = 3, 0o644 << 16
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(entry, "".join(f"{label}\n" for label in labels).encode())
    return stream.getvalue()


def encode(tables: dict[str, Any]) -> bytes:
    """The flatbuffer of what `describe` gives."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(_write_table(builder, "ModelMetadata", tables), _IDENTIFIER)
    return bytes(builder.Output())


@functools.cache
def _slots(table: str) -> dict[str, int]:
    """The number of each field; of a union, that of its tag."""
    slots, count = {}, 0
    for name, kind in _TABLES[table].items():
        slots[name] = count
        count += 2 if kind in _UNIONS else 1
    return slots


def _write_table(builder: flatbuffers.Builder, table: str, values: dict[str, Any]) -> int:
    kinds, slots = _TABLES[table], _slots(table)
    # Leaves first: nothing else may be written while a table is.
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
    """Writes a value and returns where it is; a byte is its own value."""
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
    """A field's value; that of a union, whose tag it is, comes next."""
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
    """What the reference at `place` leads to."""
    return table.String(place).decode() if kind == "string" else _read_table(kind, Table(table.Bytes, table.Indirect(place)))
