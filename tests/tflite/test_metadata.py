import dataclasses
import io
import struct
import zipfile

import numpy as np
import pytest
import tflite_networks
from ai_edge_litert.interpreter import Interpreter

from daqu_tf import tflite
from daqu_tf.errors import DaquError
from daqu_tf.tflite.file import read_buffers
from daqu_tf.tflite.metadata import (
    Metadata,
    describe,
    read_labels,
    read_metadata,
    read_preprocessing,
    write_with_metadata,
)

LABELS = tuple(f"class {number}" for number in range(10))
METADATA = Metadata("m00", "Tells clothes apart.", LABELS, "1.2")


def graph(channels: int = 3):
    network = tflite_networks.RandomNetwork(0, (1, 6, 6, channels))
    return network.graph(network.dense(network.pool(network.conv("input", 8)), 10))


class Fields:
    """The fields of one flatbuffer table by number, read by hand."""

    def __init__(self, data: bytes, place: int):
        self.data, self.place = data, place

    def find(self, number: int) -> int:
        table = self.place - struct.unpack_from("<i", self.data, self.place)[0]
        size = struct.unpack_from("<H", self.data, table)[0]
        offset = struct.unpack_from("<H", self.data, table + 4 + 2 * number)[0] if 4 + 2 * number < size else 0
        assert offset, f"field {number} is missing"
        return self.place + offset

    def follow(self, place: int) -> int:
        return place + struct.unpack_from("<I", self.data, place)[0]

    def byte(self, number: int) -> int:
        return self.data[self.find(number)]

    def table(self, number: int) -> "Fields":
        return Fields(self.data, self.follow(self.find(number)))

    def vector(self, number: int) -> tuple[int, int]:
        start = self.follow(self.find(number))
        return start + 4, struct.unpack_from("<I", self.data, start)[0]

    def text(self, number: int) -> str:
        start, size = self.vector(number)
        return self.data[start : start + size].decode()

    def floats(self, number: int) -> list[float]:
        start, size = self.vector(number)
        return list(struct.unpack_from(f"<{size}f", self.data, start))

    def only(self, number: int) -> "Fields":
        start, size = self.vector(number)
        assert size == 1
        return Fields(self.data, self.follow(start))


def test_the_fields_have_the_numbers_of_the_public_schema():
    buffer = read_buffers(write_with_metadata(graph(), METADATA))["TFLITE_METADATA"]
    assert buffer[4:8] == b"M001"
    root = Fields(buffer, struct.unpack_from("<I", buffer)[0])
    assert [root.text(number) for number in (0, 1, 2, 4, 7)] == ["m00", "Tells clothes apart.", "1.2", "", "1.0.0"]
    subgraph = root.only(3)
    image, scores = subgraph.only(2), subgraph.only(3)
    assert image.text(0) == "input" and "feed round(pixel / 255 / 0.015625) - 3." in image.text(1)
    assert image.table(3).byte(0) == 2 and image.table(3).table(1).byte(0) == 1  # ImageProperties, RGB
    unit = image.only(4)
    assert unit.byte(0) == 1 and unit.table(1).floats(0) == [0.0] and unit.table(1).floats(1) == [255.0]
    assert image.table(5).floats(0) == [127.0] and image.table(5).floats(1) == [-128.0]
    assert scores.text(0) == "scores" and scores.table(3).byte(0) == 1  # FeatureProperties
    file = scores.only(6)
    assert file.text(0) == "labels.txt" and file.byte(2) == 2  # TENSOR_AXIS_LABELS


GREY, COLOUR = (("ImageProperties", {"color_space": number}) for number in (2, 1))


@pytest.mark.parametrize(("channels", "content"), [(1, GREY), (3, COLOUR), (4, ("FeatureProperties", {}))])
def test_what_is_read_is_what_was_written(channels, content):
    network = graph(channels=channels)
    data = write_with_metadata(network, METADATA)
    tables = read_metadata(data)
    assert tables == describe(network, METADATA)
    (source,) = tables["subgraph_metadata"][0]["input_tensor_metadata"]
    assert source["content"]["content_properties"] == content
    assert read_labels(data) == LABELS
    assert tflite.read(data) == network
    plain = tflite.write(network)
    assert read_metadata(plain) is None and read_labels(plain) == ()


def test_any_reader_of_zip_files_finds_the_labels_uncompressed():
    data = write_with_metadata(graph(), METADATA)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        (entry,) = archive.infolist()
        assert (entry.filename, entry.compress_type) == ("labels.txt", zipfile.ZIP_STORED)
        # As tflite_support's populator places it: counted from the begin of the whole file.
        assert data[entry.header_offset :].startswith(b"PK\3\4") and entry.header_offset > 0
        assert archive.read("labels.txt").decode() == "".join(f"{label}\n" for label in LABELS)


def test_the_same_model_is_the_same_bytes_and_few():
    network = graph()
    data = write_with_metadata(network, METADATA)
    assert data == write_with_metadata(network, METADATA)
    assert len(data) - len(tflite.write(network)) < 1200 + sum(len(label) + 1 for label in LABELS)


def test_what_becomes_of_a_photo_lies_beside_the_labels():
    way = {"size": [6, 6], "filter": "antialiased triangle"}
    data = write_with_metadata(graph(), dataclasses.replace(METADATA, preprocessing=way))
    assert (read_preprocessing(data), read_labels(data)) == (way, LABELS)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert {each.filename: each.compress_type for each in archive.infolist()} == {
            "labels.txt": zipfile.ZIP_STORED, "preprocessing.json": zipfile.ZIP_STORED,
        }  # fmt: skip
    buffer = read_buffers(data)["TFLITE_METADATA"]
    image = Fields(buffer, struct.unpack_from("<I", buffer)[0]).only(3).only(2)
    assert image.only(6).text(0) == "preprocessing.json" and image.only(6).byte(2) == 1  # DESCRIPTIONS
    assert read_preprocessing(write_with_metadata(graph(), METADATA)) == {}


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe"])
def test_another_form_of_it_is_said(content):
    file = io.BytesIO(tflite.write(graph()))
    file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("preprocessing.json", content)
    with pytest.raises(DaquError, match="must be a JSON object"):
        read_preprocessing(file.getvalue())


def test_the_ends_of_any_file():
    network = graph()
    assert tflite.read_ends(tflite.write(network)) == (network.tensor("input"), network.tensor(network.output), "none")
    with pytest.raises(DaquError, match="must be a .tflite file"):
        tflite.read_ends(b"words that are no model")


def test_runtimes_compute_the_same_with_metadata():
    network = graph()
    values = np.random.default_rng(0).integers(-128, 128, (1, 6, 6, 3)).astype(np.int8)
    outputs = []
    for data in (tflite.write(network), write_with_metadata(network, METADATA)):
        run = Interpreter(model_content=data).get_signature_runner()
        outputs.append(next(iter(run(input=values).values())))
    np.testing.assert_array_equal(*outputs)


def test_other_pixels_are_explained():
    metadata = dataclasses.replace(METADATA, input_offset=-1.0, input_scale=2.0)
    (source,) = read_metadata(write_with_metadata(graph(), metadata))["subgraph_metadata"][0]["input_tensor_metadata"]
    assert source["description"].endswith("In training, 0 and 255 were -1 and 1.")


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (LABELS[1:], "must be 10 names, one for each class, but received 9"),
        (("", *LABELS[1:]), "names of one line, but received ''"),
        ((" ", *LABELS[1:]), "names of one line, but received ' '"),
        (("a\nb", *LABELS[1:]), "names of one line"),
    ],
)
def test_labels_that_do_not_fit(labels, sentence):
    with pytest.raises(DaquError, match=sentence):
        write_with_metadata(graph(), dataclasses.replace(METADATA, labels=labels))


def test_labels_of_any_script():
    labels = ("T-shirt/top", "Ähre", "猫", "🐶", *LABELS[4:])
    assert read_labels(write_with_metadata(graph(), dataclasses.replace(METADATA, labels=labels))) == labels


def test_metadata_of_another_schema():
    with pytest.raises(DaquError, match="must have the identifier M001"):
        read_metadata(tflite.write(graph(), {"TFLITE_METADATA": b"\0\0\0\0M002"}))
