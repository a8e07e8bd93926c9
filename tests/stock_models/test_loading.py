"""Networks from files: they come back whole, and what could run code is refused before anything is built."""

import json
import zipfile

import h5py
import numpy as np
import pytest
import tensorflow as tf
import trained_networks

from daqu_tf.errors import DaquError
from daqu_tf.keras import keras
from daqu_tf.stock_models import loading
from daqu_tf.stock_models.loading import load_trained

layers = keras.layers
IMAGES = trained_networks.photos(2, 64)


@pytest.mark.parametrize("name", ["resnet", "mobilenet_v1 0.25"])
@pytest.mark.parametrize("ending", [".keras", ".h5", ""])
def test_a_network_comes_back_whole(name, ending, tmp_path):
    model, _ = trained_networks.trained(name)
    model.save(path := tmp_path / f"model{ending}")
    np.testing.assert_array_equal(load_trained(path)(IMAGES), model(IMAGES))


def test_a_sequential_network_comes_back_as_a_functional_one(tmp_path):
    model = keras.Sequential([layers.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(2)])
    model.save(path := tmp_path / "model.keras")
    np.testing.assert_array_equal(load_trained(path)(IMAGES[:, :8, :8]), model(IMAGES[:, :8, :8]))


def test_models_within_the_model_are_laid_open(tmp_path):
    base = keras.Sequential([layers.Conv2D(4, 3, input_shape=(8, 8, 3), name="conv"), layers.ReLU(6.0)], name="base")
    inputs = keras.Input((8, 8, 3))
    x = base(layers.Rescaling(1 / 127.5, -1)(inputs))
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, name="conv")(x))))
    model.save(path := tmp_path / "model.keras")
    found = load_trained(path)
    assert not [layer for layer in found.layers if isinstance(layer, keras.Model)]
    assert {"conv", "conv_1"} <= {layer.name for layer in found.layers}
    np.testing.assert_array_equal(found(IMAGES[:, :8, :8]), model(IMAGES[:, :8, :8]))


@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_operations_that_layers_stand_for_are_taken(ending, tmp_path):
    """As MobileNetV3 has them."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    x = layers.GlobalAveragePooling2D()(x * (tf.nn.relu6(x + 3.0) / 6.0))
    model = keras.Model(inputs, layers.Dense(2)(layers.Concatenate()([x, -x])))
    model.save(path := tmp_path / f"model{ending}")
    found = load_trained(path)
    np.testing.assert_allclose(found(IMAGES[:, :8, :8]), model(IMAGES[:, :8, :8]), atol=1e-6)


class Own(layers.Layer):
    def call(self, x):
        raise AssertionError("it was run")


def with_layer(layer):
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(layer(inputs))))


@pytest.mark.parametrize("ending", [".keras", ".h5", ""])
@pytest.mark.parametrize("what", ["lambda", "own", "operation"])
def test_code_is_refused_and_not_run(what, ending, tmp_path, monkeypatch):
    ran = tmp_path / "ran"
    written = str(ran)
    made = {
        "lambda": lambda: layers.Lambda(lambda x: x + float(len(str(tf.io.write_file(written, "x"))) * 0)),
        "own": lambda: Own(),
        "operation": lambda: lambda x: tf.math.exp(x),
    }[what]
    monkeypatch.setattr(Own, "call", lambda self, x: x)
    model = with_layer(made())
    model.save(path := tmp_path / f"model{ending}")
    monkeypatch.undo()
    ran.unlink(missing_ok=True)
    with pytest.raises(DaquError, match="holds .*nothing of it was run"):
        load_trained(path)
    assert not ran.exists()


def test_a_name_of_a_stock_layer_for_code_of_another_module_is_refused(tmp_path):
    with_layer(layers.ReLU()).save(path := tmp_path / "model.keras")
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(content["config.json"])
    config["config"]["layers"][1]["module"] = "os.path"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, json.dumps(config) if name == "config.json" else data)
    with pytest.raises(DaquError, match="code of the module 'os.path'"):
        load_trained(path)
    named = {"class_name": "TFOpLambda", "module": "os.path", "config": {"name": "add", "function": "math.add"}}
    config["config"]["layers"][1] |= named
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, json.dumps(config) if name == "config.json" else data)
    with pytest.raises(DaquError, match="code of the module 'os.path'"):
        load_trained(path)


def test_what_is_no_model_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "broken.keras").write_bytes(b"PK\x03\x04 half a file")
    (tmp_path / "broken.h5").write_bytes(b"\x89HDF")
    (tmp_path / "model.onnx").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file["kernel"] = np.zeros(3)
    for name, expected in {
        "missing.keras": "does not exist: give a .keras or .h5 file",
        "broken.keras": "cannot be read as a model of tf_keras .*save it anew",
        "broken.h5": "cannot be read as a model of tf_keras .*save it anew",
        "model.onnx": "must be a .keras or .h5 file",
        "folder": "is no SavedModel of tf_keras",
        "weights.h5": "has weights alone: save the whole model",
    }.items():
        with pytest.raises(DaquError, match=expected) as error:
            load_trained(tmp_path / name)
        assert "\n" not in str(error.value)


def test_a_download_that_fails_is_said(monkeypatch):
    def fail(weights):
        raise Exception("URL fetch failure\nmore")

    monkeypatch.setattr(loading.keras.applications, "MobileNetV2", fail)
    with pytest.raises(DaquError, match="could not be downloaded .URL fetch failure.: connect this machine"):
        load_trained("mobilenet_v2_imagenet")
