"""From the photo to the label: the pixels are those of training, whatever the file states is kept to, and faults are sentences."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tflite_networks
from families import FAMILIES, smooth_images
from PIL import Image

from daqu_tf import export_tflite, predict, round_biases, tflite
from daqu_tf.data.photos import Preprocessing, pixels_of
from daqu_tf.devices import HostDevice
from daqu_tf.errors import DaquError
from daqu_tf.export.prediction import Classifier
from daqu_tf.keras import keras
from daqu_tf.stock_models import initialise_steps, make_switchable, set_bits
from daqu_tf.supernet.layers import quantize_input, resize
from daqu_tf.supernet.supernet import StaticNetwork
from daqu_tf.tflite.graph import QuantizedTensor
from daqu_tf.tflite.operators import Dequantize, Softmax

SPACE = FAMILIES["squeeze_excite"]  # Of images of 12 x 12 pixels.
LABELS = ("ant", "bee", "cat", "dog", "eel")


def photo(path, seed=0, mode="RGB", **how):
    """A photo of 90 x 70 pixels with large and small things in it, saved at a path."""
    rng = np.random.default_rng(seed)
    coarse, fine = rng.integers(0, 200, (7, 9, 3)), rng.integers(0, 56, (70, 90, 3))
    Image.fromarray((np.kron(coarse, np.ones((10, 10, 1))) + fine).astype(np.uint8)).convert(mode).save(path, **how)
    return path


def as_trained(path, size, mode="RGB"):
    """The image that a data set has of a photo, and the pixels that its network makes of it at a size."""
    given = pixels_of(path, mode, SPACE.input_shape[:2]).astype(np.float32) / 255
    return given, np.rint(quantize_input(resize(tf.constant(given[None]), size)).numpy()[0] * 255)


def trained(resolution=8):
    """A network of random weights at a resolution, with steps and statistics from data."""
    keras.utils.set_random_seed(1)
    network = StaticNetwork(SPACE, SPACE.subnet(SPACE.largest().values | {"resolution": resolution}))
    images = smooth_images(SPACE, 64)
    network.initialise_steps(images, SPACE.weight_bits)
    network(images, training=True, statistics_rate=1.0)
    round_biases(network)
    return network


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A network whose images are smaller than those of its data set, its file, and a folder with the manifest of that."""
    folder, network = tmp_path_factory.mktemp("models"), trained()
    written = export_tflite(network, folder / "m00.tflite", labels=LABELS)
    return network, written, folder / "m00.tflite"


@pytest.fixture
def model(made, tmp_path):
    """A copy of the file, in a folder of its own."""
    return shutil.copy(made[2], tmp_path / "m00.tflite")


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize("kind", ["jpeg", "turned", "grey", "transparent"])
def test_a_photo_has_the_pixels_of_training(made, kind, tmp_path):
    network, written, path = made
    exif = Image.Exif()
    exif[0x0112] = 6
    how = {"turned": {"exif": exif}}.get(kind, {})
    mode = {"grey": "L", "transparent": "RGBA"}.get(kind, "RGB")
    name = photo(tmp_path / ("some.png" if kind == "transparent" else "some.jpg"), mode=mode, **how)
    _, pixels = as_trained(name, (8, 8))
    given = written.preprocessing.pixels(name)
    assert np.abs(given - pixels).max() <= 1
    found = predict(path, name, top=5)
    (each,) = found.found
    expected = softmax(network(given[None] / np.float32(255)).numpy())[0]
    scores = dict(zip(each.labels, each.scores))
    assert [scores[label] for label in LABELS] == pytest.approx(expected, abs=0.02) and not found.faults
    assert list(each.scores) == sorted(each.scores, reverse=True) and each.labels[0] == LABELS[each.classes[0]]


def test_plain_bilinear_sampling_has_others(tmp_path):
    name = photo(tmp_path / "some.jpg")
    given, pixels = as_trained(name, (8, 8))
    skipping = tf.image.resize(given[None], (8, 8)).numpy()[0] * 255
    assert np.abs(skipping - pixels).max() > 5


@pytest.mark.parametrize("kind", ["int8", "uint8", "float32"])
def test_the_file_states_its_way_and_every_type_of_input_keeps_to_it(made, kind, tmp_path):
    network, _, path = made
    written = export_tflite(network, tmp_path / "m.tflite", input_type=kind, labels=LABELS)
    way = written.preprocessing
    assert (way.source_size, way.size, way.input_range, way.input_type) == ((12, 12), (8, 8), (0.0, 1.0), kind)
    stored = tflite.read_preprocessing((tmp_path / "m.tflite").read_bytes())
    assert Preprocessing.from_json(stored) == way
    name = photo(tmp_path / "some.jpg")
    assert predict(tmp_path / "m.tflite", name, 5).found == predict(path, name, 5).found


def test_a_photo_goes_straight_to_its_size_where_nothing_says_more(made, tmp_path):
    data, name = made[2].read_bytes(), photo(tmp_path / "some.jpg")
    graph = tflite.read(data)
    (tmp_path / "plain.tflite").write_bytes(tflite.write_with_metadata(graph, tflite.Metadata("plain", "", LABELS)))
    way = predict(tmp_path / "plain.tflite", name).preprocessing
    assert way == dataclasses.replace(made[1].preprocessing, source_size=None)


@pytest.mark.parametrize("ending", ["softmax", "none", "sigmoid", "left out", "of two", "of two left out"])
def test_files_of_own_models_with_a_manifest_or_with_metadata_alone(ending, tmp_path):
    keras.utils.set_random_seed(2)
    units = 1 if "two" in ending else 5
    function = {"softmax": "softmax", "none": None}.get(ending, "sigmoid")
    layers = keras.layers
    stack = (layers.Conv2D(4, 3, input_shape=(8, 8, 3)), layers.ReLU(), layers.GlobalAveragePooling2D())
    stock = make_switchable(keras.Sequential([*stack, layers.Dense(units, activation=function)]))
    initialise_steps(stock, np.random.default_rng(0).random((32, 8, 8, 3), np.float32) * 2 - 1)
    set_bits(stock, 8, 8)
    round_biases(stock)
    labels = LABELS[:2] if units == 1 else LABELS
    left_out = "none" if "left out" in ending else None
    written = export_tflite(stock, tmp_path / "own.tflite", input_range=(-1, 1), output_activation=left_out, labels=labels)
    name = photo(tmp_path / "some.jpg")
    numbers = written.preprocessing.pixels(name)[None] / np.float32(127.5) - 1
    outputs = stock(numbers).numpy()[0]
    expected = softmax(outputs) if ending == "none" else [1 - outputs[0], outputs[0]] if units == 1 else outputs
    stating = [written.stated()] if ending == "left out" else [{}, written.stated()]
    for content in stating:
        if content:
            (tmp_path / "own.manifest.json").write_text(json.dumps({"name": "own", **content}))
        (each,) = predict(tmp_path / "own.tflite", name, top=5).found
        scores = dict(zip(each.labels, each.scores))
        assert [scores[label] for label in labels] == pytest.approx(expected, abs=0.02)


def test_what_the_ends_of_a_manifest_say_is_enough(tmp_path):
    graph = network_of((1, 8, 8, 3))
    (tmp_path / "own.tflite").write_bytes(tflite.write(graph))
    name = photo(tmp_path / "some.jpg")
    with pytest.raises(DaquError, match=r"Nothing says what pixels are to .*own.tflite: export it again with `input_range`"):
        predict(tmp_path / "own.tflite", name)
    (tmp_path / "own.manifest.json").write_text(json.dumps({"name": "own", "ends": {"input_range": [0, 1]}}))
    (each,) = predict(tmp_path / "own.tflite", name).found
    assert each.labels == (str(each.classes[0]),)  # Nobody named the classes.
    (tmp_path / "labels.txt").write_text("yes\nno\nmaybe\n")
    assert predict(tmp_path / "own.tflite", name).found[0].labels == (("yes", "no", "maybe")[each.classes[0]],)
    (tmp_path / "labels.txt").write_text("yes\nno\n")
    with pytest.raises(DaquError, match="has 3 classes, but 2 labels"):
        predict(tmp_path / "own.tflite", name)


def network_of(shape, classes=3):
    network = tflite_networks.RandomNetwork(0, shape)
    source = network.pool("input") if len(shape) == 4 else "input"
    return network.graph(network.dense(source, classes))


def test_a_file_with_a_softmax_behind_integers(tmp_path):
    network = tflite_networks.RandomNetwork(0, (1, 8, 8, 3))
    graph = network.graph(network.dense(network.pool("input"), 3))
    sink = QuantizedTensor("chances", (1, 3), 1 / 256, -128)
    more = (Softmax(graph.output, "chances"),)
    whole = dataclasses.replace(graph, tensors=(*graph.tensors, sink), operators=(*graph.operators, *more), output="chances")
    assert tflite.read_ends(tflite.write(whole))[2] == "softmax" and tflite.read_ends(tflite.write(graph))[2] == "none"
    assert not [each for each in whole.operators if isinstance(each, Dequantize)]
    metadata = tflite.Metadata("m", "", LABELS[:3], output_activation="softmax")
    (tmp_path / "m.tflite").write_bytes(tflite.write_with_metadata(whole, metadata))
    name = photo(tmp_path / "some.jpg")
    (each,) = predict(tmp_path / "m.tflite", name, 3).found
    reader = Classifier.read(tmp_path / "m.tflite")
    numbers = reader.preprocessing.numbers(reader.preprocessing.pixels(name)[None])
    real = (numbers.astype(np.float32) + 3) / 64
    np.testing.assert_array_equal(sorted(each.scores), np.sort(HostDevice().predict(tmp_path / "m.tflite", real)[0]))


def test_a_folder_of_photos_and_what_is_none(model, tmp_path):
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    names = [photo(folder / "a.jpg", 1), photo(folder / "more" / "b.png", 2)]
    (folder / "notes.txt").write_text("No photo.")
    found = predict(model, folder)
    assert [each.photo for each in found.found] == list(map(str, names))
    assert found.found == tuple(each for name in names for each in predict(model, name).found)
    (fault,) = found.faults
    assert "notes.txt cannot be read as an image" in fault
    assert json.loads(json.dumps(found.to_json()))["predictions"][1]["label"] == found.found[1].labels[0]


@pytest.mark.parametrize("case", ["no photo", "no image", "no model", "no tflite", "a part", "no picture", "another", "top", "one"])
def test_what_cannot_be_is_one_sentence(case, model, tmp_path):
    name, top = photo(tmp_path / "some.jpg"), 1
    sentence = {
        "no photo": "none.jpg does not exist: give the path of a photo or of a folder",
        "no image": "cannot be read as an image",
        "no model": r"none.tflite cannot be read \(No such file or directory\)",
        "no tflite": "is no model that tells photos apart",
        "a part": "is no model that tells photos apart",
        "no picture": r"reads \(1, 12\), which is no image",
        "another": "is the manifest of another file",
        "top": "`top` must be at least 1",
        "one": "puts out one number, and nothing says what it means",
    }[case]
    if case == "no photo":
        name = tmp_path / "none.jpg"
    if case == "no image":
        name.write_text("No photo.")
    if case == "no model":
        model = tmp_path / "none.tflite"
    if case == "no tflite":
        model.write_bytes(b"No model.")
    if case == "a part":
        model.write_bytes(model.read_bytes()[:300])
    if case in ("no picture", "one"):
        shape, classes = ((1, 12), 3) if case == "no picture" else ((1, 8, 8, 3), 1)
        model.write_bytes(tflite.write(network_of(shape, classes)))
    if case == "another":
        model.with_name("m00.manifest.json").write_text(json.dumps({"name": "m00", "sha256": "ab" * 32}))
    if case == "top":
        top = 0
    with pytest.raises(DaquError, match=sentence) as error:
        predict(model, name, top)
    assert "\n" not in str(error.value)
