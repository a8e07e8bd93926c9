import io
import itertools
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from interpreters import XNNPACK, loaded
from own_models import INPUT, calibrated, conv, plain, residual, sequence, smooth

from daqu_tf import tflite
from daqu_tf.devices import HostDevice
from daqu_tf.errors import DaquError
from daqu_tf.export.ends import Ends
from daqu_tf.export.export import export_tflite, round_biases
from daqu_tf.keras import keras
from daqu_tf.stock_models import initialise_steps, make_switchable, set_bits
from daqu_tf.tflite.metadata import Metadata

layers = keras.layers
RANGES = [(0, 1), (-1, 1), (0, 255), (-0.5, 0.5), (-128, 127)]


def scaled(pixels, input_range):
    low, high = input_range
    return (low + pixels.astype(np.float64) * (high - low) / 255).astype(np.float32)


def pixels(count=24):
    return np.random.default_rng(3).permutation(np.rint(smooth(INPUT, count) * 127).clip(0, 255)).astype(np.uint8)


def trained_on(input_range, *stack):
    """A model that takes images of a range, with steps from some, at w8a8."""
    keras.utils.set_random_seed(2)
    first = conv(activation="relu", kernel_initializer=keras.initializers.RandomNormal(stddev=1 / max(map(abs, input_range))))
    model = make_switchable(sequence(first, layers.GlobalAveragePooling2D(), *stack))
    initialise_steps(model, scaled(pixels(), input_range))
    set_bits(model, 8, 8)
    round_biases(model)
    return model


def classifier(activation=None, units=5):
    return layers.Dense(units, activation=activation, kernel_initializer=keras.initializers.RandomNormal(stddev=3), name="scores")


def run_raw(path, images):
    """The raw outputs of a file for integers or numbers that go in as they are."""
    interpreter = loaded(path.read_bytes(), XNNPACK)
    (source,), (sink,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for image in images:
        interpreter.set_tensor(source["index"], image[None])
        interpreter.invoke()
        found.append(interpreter.get_tensor(sink["index"])[0])
    return np.array(found)


@pytest.mark.parametrize("input_range", RANGES)
def test_pixels_go_in_as_they_are_whatever_the_model_takes(input_range, tmp_path):
    model, images = trained_on(input_range, classifier("softmax")), pixels()
    expected = model.predict(scaled(images, input_range), verbose=0)
    for kind, shift in (("uint8", 0), ("int8", 128), (None, 128)):
        written = export_tflite(model, path := tmp_path / f"{kind}.tflite", input_type=kind, input_range=input_range)
        found = run_raw(path, (images.astype(int) - shift).astype(kind or "int8"))
        np.testing.assert_allclose(found, expected, atol=0.04)
        assert np.sqrt(np.mean((found - expected) ** 2)) < 0.1 * np.std(expected)
        assert np.mean(found.argmax(1) == expected.argmax(1)) > 0.9
        assert (written.input_type, written.input_range) == (kind or "int8", input_range)
        assert written.input_text.endswith("feed pixel - 128." if shift else "feed them as they are.")
    written = export_tflite(model, path := tmp_path / "real.tflite", input_type="float32", input_range=input_range)
    found = run_raw(path, scaled(images, input_range))
    np.testing.assert_allclose(found, expected, atol=0.04)
    assert (written.input_type, written.input_range) == ("float32", input_range)


@pytest.mark.parametrize("container", ["float32", "float16", "dynamic"])
@pytest.mark.parametrize("input_range", [(0, 1), (-1, 1)])
def test_pixels_go_into_float_files_too(container, input_range, tmp_path):
    model, images = trained_on(input_range, classifier("softmax")), pixels()
    expected = model.predict(scaled(images, input_range), verbose=0)
    written = export_tflite(model, path := tmp_path / "m.tflite", container, input_type="uint8", input_range=input_range)
    np.testing.assert_allclose(run_raw(path, images), expected, atol=0.04)
    assert (written.input_type, written.output_type) == ("uint8", "float32")
    stays = export_tflite(model, tmp_path / "real.tflite", container, input_range=input_range)
    assert (stays.input_type, stays.input_range) == ("float32", input_range)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("container", ["auto", "float32"])
def test_the_file_puts_out_what_the_model_does(activation, container, tmp_path):
    model, images = trained_on((0, 1), classifier(activation)), scaled(pixels(), (0, 1))
    expected = model.predict(images, verbose=0)
    written = export_tflite(model, path := tmp_path / "m.tflite", container, labels=list("abcde"))
    found = HostDevice().predict(path, images)
    np.testing.assert_allclose(found, expected, atol=0.03)
    assert np.array_equal(written.classes(found), found.argmax(1)) and np.mean(found.argmax(1) == expected.argmax(1)) > 0.9
    assert (written.output_activation, written.left_out, written.output_type) == (activation, "none", "float32")
    assert written.output_text.startswith("Probabilities") and written.labels == tuple("abcde")
    (sink,) = tflite.read_metadata(path.read_bytes())["subgraph_metadata"][0]["output_tensor_metadata"]
    assert sink["description"] == written.output_text
    assert written.file_bytes == path.stat().st_size

    written = export_tflite(model, path := tmp_path / "logits.tflite", container, output_activation="none")
    logits = HostDevice().predict(path, images)
    np.testing.assert_allclose(keras.activations.get(activation)(tf.constant(logits)), expected, atol=0.03)
    assert (written.output_activation, written.left_out) == ("none", activation)
    assert f"The model's {activation}, which would follow, is left out." in written.output_text


@pytest.mark.parametrize("output_type", ["int8", "uint8"])
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_probabilities_of_8_bits(output_type, activation, tmp_path):
    model, images = trained_on((0, 1), classifier(activation)), scaled(pixels(), (0, 1))
    export_tflite(model, path := tmp_path / "m.tflite", output_type=output_type)
    (sink,) = Interpreter(str(path)).get_output_details()
    assert sink["dtype"] == np.dtype(output_type) and sink["quantization"] == (1 / 256, {"int8": -128, "uint8": 0}[output_type])
    np.testing.assert_allclose(HostDevice().predict(path, images), model.predict(images, verbose=0), atol=0.03)


def test_probabilities_that_8_bits_do_not_tell_apart_are_refused(tmp_path):
    model = trained_on((0, 1), layers.Dense(1000, activation="softmax"))
    with pytest.raises(DaquError, match="`output_type` must not be 'int8' here: .* Give 'float32', or `output_activation='none'`"):
        export_tflite(model, tmp_path / "m.tflite", output_type="int8")
    assert not [*tmp_path.iterdir()]
    images = scaled(pixels(), (0, 1))
    export_tflite(model, path := tmp_path / "m.tflite")
    same = HostDevice().predict(path, images).argmax(1) == model.predict(images, verbose=0).argmax(1)
    assert same.mean() > 0.5  # Steps of the logits alone are in the way.


def test_one_sigmoid_names_two_classes(tmp_path):
    model, images = trained_on((0, 1), classifier("sigmoid", 1)), scaled(pixels(), (0, 1))
    bias = next(each for each in model.weights if each.name.endswith("scores/bias:0"))
    bias.assign_sub(np.array([np.median(tf.math.log(1 / model(images) - 1)) * -1], np.float32))
    initialise_steps(model, images)
    expected = model.predict(images, verbose=0)[:, 0] > 0.5
    assert 0.2 < expected.mean() < 0.8
    for name, activation in itertools.product(("no", "yes"), (None, "none")):
        path = tmp_path / f"{name}_{activation}.tflite"
        written = export_tflite(model, path, output_activation=activation, labels=("cat", "dog"))
        assert np.mean(written.classes(HostDevice().predict(path, images)) == expected) > 0.9
        assert written.labels == tflite.read_labels(path.read_bytes()) == ("cat", "dog")
        limit = "0.5" if activation is None else "0"
        assert f"of dog: above {limit} it is the answer, else cat." in written.output_text
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        assert archive.read("labels.txt") == b"cat\ndog\n"
    with pytest.raises(DaquError, match="`labels` must be 2 names"):
        export_tflite(model, tmp_path / "m.tflite", labels=("dog",))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_a_function_that_the_model_leaves_to_its_loss(activation, tmp_path):
    model, images = trained_on((0, 1), classifier()), scaled(pixels(), (0, 1))
    written = export_tflite(model, path := tmp_path / "m.tflite", output_activation=activation)
    expected = keras.activations.get(activation)(model(images))
    np.testing.assert_allclose(HostDevice().predict(path, images), expected, atol=0.03)
    assert (written.output_activation, written.left_out) == (activation, "none")


def test_metadata_state_the_range_that_is_true(tmp_path):
    model = trained_on((-1, 1), classifier("softmax"))
    export_tflite(model, path := tmp_path / "m.tflite", input_type="uint8", input_range=(-1, 1), labels=list("abcde"))
    (source,) = tflite.read_metadata(path.read_bytes())["subgraph_metadata"][0]["input_tensor_metadata"]
    assert source["process_units"] == [{"options": ("NormalizationOptions", {"mean": [127.5], "std": [127.5]})}]
    assert source["description"] == "An image of 8-bit pixels: feed them as they are."
    # Without a range, nothing is said of pixels.
    written = export_tflite(model, path, labels=tuple("abcde"))
    (source,) = tflite.read_metadata(path.read_bytes())["subgraph_metadata"][0]["input_tensor_metadata"]
    assert "process_units" not in source and source["description"] == written.input_text
    assert source["description"].startswith("An image as the model was trained on, x: feed round(x / 0.0")
    assert written.input_range is None
    # What the metadata say of pixels is what a uint8 file takes.
    metadata = Metadata("mine", "", tuple("abcde"), mean=127.5, std=127.5)
    written = export_tflite(model, path, input_type="uint8", metadata=metadata)
    assert written.input_range == (-1, 1)
    found, expected = run_raw(path, pixels()), model.predict(scaled(pixels(), (-1, 1)), verbose=0)
    np.testing.assert_allclose(found, expected, atol=0.04)


def test_metadata_of_numbers_that_are_no_image(tmp_path):
    keras.utils.set_random_seed(0)
    model = make_switchable(keras.Sequential([keras.Input((20,)), layers.Dense(16, activation="relu"), layers.Dense(3)]))
    initialise_steps(model, np.random.default_rng(0).random((32, 20), np.float32))
    set_bits(model, 8, 8)
    written = export_tflite(model, path := tmp_path / "m.tflite", labels=tuple("abc"))
    (source,) = tflite.read_metadata(path.read_bytes())["subgraph_metadata"][0]["input_tensor_metadata"]
    assert source["content"]["content_properties"] == ("FeatureProperties", {})
    assert written.input_text.startswith("Numbers as the model was trained on, x: feed round(x / ")


LABELS = tuple("abcde")
REFUSED = {
    "pixels of no range": ({"input_type": "uint8"}, "`input_type` must not be 'uint8' where nothing says .*: give `input_range`"),
    "another range": ({"input_range": (0, 255)}, r"`input_range` must be that of the images .* it keeps \d of 256 pixels apart"),
    "no 0": ({"input_range": (0.5, 1)}, "`input_range` must be .* two that have 0 between them, but received"),
    "backwards": ({"input_range": (1, 0)}, "`input_range` must be"),
    "one number": ({"input_range": 255}, "`input_range` must be"),
    "contradiction": (
        {"input_range": (0, 1), "metadata": Metadata("m", "", LABELS, mean=127.5, std=127.5)},
        "Pixels of 0 and 255 are 0 and 1 by `input_range`, but -1 and 1 by `mean` and `std` of the metadata: make them the same",
    ),
    "other images": (
        {"input_range": (0, 1), "metadata": Metadata("m", "", LABELS, input_offset=-1, input_scale=2)},
        "but -1 and 1 by `input_offset` and `input_scale` of the metadata",
    ),
    "other activation": ({"output_activation": "sigmoid"}, "of a model that ends in softmax must be one of none, softmax, but"),
    "no activation": ({"output_activation": "tanh"}, "`output_activation` .* but received 'tanh'"),
    "few labels": ({"labels": ["a", "b"]}, "`labels` must be 5 names"),
    "one text": ({"labels": "abcde"}, "`labels` must be a sequence of texts, but received 'abcde'"),
    "other labels": ({"labels": tuple("edcba"), "metadata": Metadata("m", "", LABELS)}, "`labels` must be those of the metadata"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_ends_that_contradict_each_other_are_refused(case, tmp_path):
    arguments, message = REFUSED[case]
    model = trained_on((0, 1), classifier("softmax"))
    with pytest.raises(DaquError, match=message):
        export_tflite(model, tmp_path / "m.tflite", **arguments)
    assert not [*tmp_path.iterdir()]


def test_a_softmax_over_another_axis_is_refused(tmp_path):
    model = sequence(conv(), layers.Softmax(axis=1, name="columns"))
    with pytest.raises(DaquError, match="'columns' of type Softmax cannot be exported because its `axis` is 1: take the last one"):
        export_tflite(model, tmp_path / "m.tflite", "float32")


@pytest.mark.parametrize("create", [plain, residual], ids=lambda create: create.__name__)
def test_a_file_with_wrong_ends_is_not_left(create, tmp_path, monkeypatch):
    net = calibrated(create)
    set_bits(net.model, 8, 8)
    pixels_of = Ends.pixels

    def shifted(self, *arguments):
        tensor, offset = pixels_of(self, *arguments)
        return tensor, offset + 0.4

    monkeypatch.setattr(Ends, "pixels", shifted)
    with pytest.raises(DaquError, match="m.tflite was not written: its outputs are"):
        export_tflite(net.model, tmp_path / "m.tflite", input_type="uint8", input_range=(0, 2))
    assert not [*tmp_path.iterdir()]
