import types

import numpy as np
import pytest
from interpreters import XNNPACK, loaded
from own_models import (
    INPUT,
    OURS,
    POOLED,
    annotated,
    assert_file_computes_what_the_model_does,
    assert_is_the_reference,
    calibrated,
    centred,
    choose,
    conv,
    graph_of,
    plain,
    randomise,
    residual,
    run,
    separable,
    sequence,
    smooth,
)

from daqu_tf import tflite
from daqu_tf.export.export import export_tflite, round_biases
from daqu_tf.keras import keras
from daqu_tf.stock_models import initialise_steps, make_switchable, set_bits, switchable_tensors
from daqu_tf.stock_models.quantizers import StockQuantizeConfig
from daqu_tf.tflite.graph import FloatTensor

layers = keras.layers


@pytest.fixture(scope="module", params=[plain, separable, residual], ids=lambda create: create.__name__)
def net(request):
    return calibrated(request.param)


IN_FLOAT = {
    "activation": (StockQuantizeConfig((8,)), POOLED, ["conv", "images.real", "pooled.unrounded"]),
    "weight": (StockQuantizeConfig((), (8,)), POOLED, ["conv.unrounded", "images.real"]),
    "last activation": (StockQuantizeConfig((8,), (8,)), None, ["conv.real", "pooled"]),
}


@pytest.mark.parametrize("case", IN_FLOAT)
def test_what_has_no_quantizer_is_real(case, tmp_path):
    *configs, names = IN_FLOAT[case]
    model = annotated(OURS, *configs)
    graph = graph_of(model)
    assert sorted(tensor.name for tensor in graph.tensors if isinstance(tensor, FloatTensor)) == sorted(names)
    export_tflite(model, tmp_path / "model.tflite", images=smooth(INPUT, 8))


@pytest.mark.parametrize(("weight_bits", "activation_bits"), [(32, 8), (4, 32), (32, 32)])
def test_layers_in_float_compute_what_the_model_does(net, weight_bits, activation_bits, tmp_path):
    set_bits(net.model, weight_bits, activation_bits)
    export_tflite(net.model, path := tmp_path / "model.tflite", output_activation="none")
    assert_file_computes_what_the_model_does(net, path)


@pytest.mark.parametrize("container", ["float32", "float16"])
def test_a_model_without_quantizers_in_a_float_file(container, tmp_path):
    keras.utils.set_random_seed(1)
    model, images = residual(), smooth(INPUT)
    randomise(model, images)
    export_tflite(model, path := tmp_path / "model.tflite", container, output_activation="none")
    computed = centred(np.array([run(loaded(path.read_bytes(), XNNPACK), image) for image in images]))
    expected = centred(np.log(model(images).numpy()))
    most = {"float32": 1e-5, "float16": 5e-3}[container]
    assert np.abs(computed - expected).max() < most * np.abs(expected).max()


FLOATS = ("float32", "float16", "dynamic")


@pytest.mark.parametrize("container", FLOATS)
def test_a_quantized_model_in_a_float_file_is_near(net, container, tmp_path):
    choose(net.model, "w4a8")
    export_tflite(net.model, path := tmp_path / "model.tflite", container, output_activation="none")
    stored = {op.container for op in tflite.read(path.read_bytes()).operators if hasattr(op, "container")}
    assert stored <= {"float32": {"FLOAT32"}, "float16": {"FLOAT16"}, "dynamic": {"INT4", "INT8", "FLOAT32"}}[container]
    assert container != "dynamic" or stored & {"INT4", "INT8"}
    computed = centred(np.array([run(loaded(path.read_bytes(), XNNPACK), image) for image in net.images]))
    expected = centred(np.log(net.model(net.images).numpy()))
    assert np.sqrt(np.mean((computed - expected) ** 2)) < 0.2 * np.std(expected)


@pytest.mark.parametrize("container", FLOATS)
@pytest.mark.parametrize("bits", [4, 8])
def test_a_float_file_clips_at_6(container, bits, tmp_path):
    keras.utils.set_random_seed(0)
    model = make_switchable(sequence(conv(), layers.ReLU(6.0, name="six"), layers.GlobalAveragePooling2D(), layers.Dense(3)))
    images = smooth(INPUT, 8)
    kernel = next(tensor.kernel for tensor in switchable_tensors(model) if tensor.layer == "conv" and tensor.role == "weight")
    kernel.assign(30 * kernel)
    initialise_steps(model, images)
    set_bits(model, 8, bits)
    export_tflite(model, path := tmp_path / "model.tflite", container, output_activation="none")
    computed = np.array([run(loaded(path.read_bytes(), XNNPACK), image) for image in images])
    assert np.abs(computed - model(images)).max() < {4: 0.1, 8: 0.02}[bits] * np.abs(computed).max()


@pytest.mark.parametrize("keepdims", [True, False])
@pytest.mark.parametrize(("container", "bits"), [("auto", 8), ("auto", 32), ("float32", 8), ("float32", 32)])
def test_a_relu_behind_a_pool(container, bits, keepdims, tmp_path):
    pool = layers.GlobalAveragePooling2D(keepdims=keepdims, name="pool")
    model = make_switchable(sequence(conv(), pool, layers.ReLU(), layers.Flatten(), layers.Dense(3)))
    images = smooth(INPUT, 8)
    initialise_steps(model, images)
    set_bits(model, bits, bits)
    round_biases(model)
    export_tflite(model, path := tmp_path / "model.tflite", container, images=images, output_activation="none")
    computed = np.array([run(loaded(path.read_bytes(), XNNPACK), image) for image in images])
    np.testing.assert_allclose(computed, model(images), atol=0.02)


@pytest.mark.parametrize("bits", [8, 3, 32])
def test_what_scales_by_itself_is_a_convolution_of_one_pixel(bits, tmp_path):
    """Pixels to numbers, a normalization of a sum and of features, and one before a convolution, as in ResNet V2."""
    images = keras.Input(INPUT, name="images")
    x = layers.Rescaling(2.0, offset=[-1.0, -0.5, 0.0], name="scaled")(layers.Rescaling(0.5, name="halved")(images))
    x = shortcut = conv(padding="same")(layers.BatchNormalization(name="first_bn")(x))
    x = layers.ReLU(name="first_relu")(layers.BatchNormalization(name="before")(x))
    x = layers.Add(name="sum")([layers.Conv2D(4, 1, name="second")(x), shortcut])
    x = layers.ReLU(6.0, name="sum_relu")(layers.BatchNormalization(name="sum_bn")(x))
    x = layers.Dense(6, activation="relu", name="features")(layers.GlobalAveragePooling2D(name="pooled")(x))
    x = layers.Dropout(0.5)(layers.BatchNormalization(name="features_bn")(x))
    stock = keras.Model(images, layers.Dense(3, name="logits")(x))
    randomise(stock, smooth(INPUT, 64))
    net = types.SimpleNamespace(model=make_switchable(stock), images=smooth(INPUT, 64))
    initialise_steps(net.model, net.images)
    set_bits(net.model, bits, bits)
    round_biases(net.model)
    export_tflite(net.model, tmp_path / "model.tflite", images=net.images)
    if bits != 32:
        assert_is_the_reference(net)


def test_a_model_of_dense_layers(tmp_path):
    keras.utils.set_random_seed(0)
    stock = keras.Sequential([keras.Input((20,)), layers.Dense(16, activation="relu"), layers.Dense(3)])
    model = make_switchable(keras.Model(stock.inputs, stock.outputs))
    initialise_steps(model, np.random.default_rng(0).random((32, 20), np.float32))
    set_bits(model, 8, 8)
    round_biases(model)
    for container in ("auto", "float32"):
        export_tflite(model, tmp_path / "model.tflite", container)


@pytest.mark.parametrize("container", ["float32", "int8"])
def test_outputs_that_are_alike_for_all_images_are_compared_by_what_can_be_told_from_them(container, tmp_path):
    inputs = keras.Input((4, 4, 1))
    kernel, bias = keras.initializers.RandomNormal(stddev=1e-9, seed=0), keras.initializers.Constant([0.3, -0.2, 0.1])
    outputs = keras.layers.Dense(3, kernel_initializer=kernel, bias_initializer=bias)(keras.layers.Flatten()(inputs))
    model = make_switchable(keras.Model(inputs, outputs))
    initialise_steps(model, np.random.default_rng(0).random((16, 4, 4, 1), np.float32))
    set_bits(model, 8, 8)
    export_tflite(model, tmp_path / "alike.tflite", container)
    assert (tmp_path / "alike.tflite").exists()
