import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from daqu_tf.devices.runner import quantized
from daqu_tf.keras import keras
from daqu_tf.supernet.layers import (
    ElasticBatchNormalization,
    ElasticConv2D,
    ElasticDense,
    ElasticDepthwiseConv2D,
    TensorQuantizer,
    quantize_input,
    resize,
)
from daqu_tf.supernet.quantizers import SwitchableQuantizer, fake_quantize
from daqu_tf.supernet.weights import EPSILON

CHANNELS = 6
RELU = pytest.mark.parametrize("relu", [False, True], ids=["linear", "relu"])
TRAINING = pytest.mark.parametrize("training", [False, True], ids=["infer", "train"])
BITS = pytest.mark.parametrize("as_bits", [int, tf.constant], ids=["int", "tensor"])


def values(*shape, seed=0):
    return tf.constant(np.random.default_rng(seed).normal(size=shape), tf.float32)


def normalization(relu, bits=8, alphabet=(2, 4, 8)):
    """A layer whose every variable has values of its own."""
    quantizer = SwitchableQuantizer(alphabet, lambda: bits, signed=not relu)
    layer = ElasticBatchNormalization(relu, quantizer)
    layer.build((None, None, None, CHANNELS))
    for seed, variable in enumerate((layer.gamma, layer.beta, layer.moving_mean)):
        variable.assign(values(CHANNELS, seed=seed + 10))
    layer.moving_variance.assign(tf.exp(values(CHANNELS, seed=20)))
    layer.steps["log_step"].assign(tf.math.log(tf.constant([1.0, 0.2, 0.02])))
    return layer


def stock(layer, momentum=0.99):
    """tf_keras's layer with the same variables."""
    other = keras.layers.BatchNormalization(momentum=momentum, epsilon=EPSILON)
    other.build((None, None, None, CHANNELS))
    other.set_weights([layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance])
    return other


def composition(layer, x, training, bits):
    """Normalization, activation and quantizer as plain operations."""
    mean, variance = tf.nn.moments(x, [0, 1, 2]) if training else (layer.moving_mean, layer.moving_variance)
    y = tf.nn.batch_normalization(x, mean, variance, layer.beta, layer.gamma, EPSILON)
    y = tf.nn.relu(y) if layer.relu else y
    row = layer.quantizer.alphabet.index(bits)
    lower, upper = (float(code) for code in layer.quantizer.code_range(bits))
    return fake_quantize(y, layer.steps["log_step"][row], tf.constant(lower), tf.constant(upper))


def output_and_gradients(call, x, variables):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = call(x)
        loss = tf.reduce_sum(y * values(*y.shape, seed=5))
    return [y, *map(tf.convert_to_tensor, tape.gradient(loss, [x, *variables]))]


def assert_equal(actual, expected):
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@RELU
@TRAINING
@BITS
def test_float_normalization_is_the_stock_one(relu, training, as_bits):
    layer, x = normalization(relu, as_bits(32)), values(4, 5, 5, CHANNELS)
    other, activation = stock(layer), tf.nn.relu if relu else tf.identity
    actual = output_and_gradients(lambda x: layer(x, training=training), x, [layer.gamma, layer.beta])
    expected = output_and_gradients(lambda x: activation(other(x, training=training)), x, [other.gamma, other.beta])
    assert_equal(actual, expected)


@RELU
@TRAINING
@BITS
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_quantized_normalization_is_the_plain_composition(relu, training, as_bits, bits):
    layer, x = normalization(relu, as_bits(bits)), values(4, 5, 5, CHANNELS)
    variables = [layer.gamma, layer.beta, layer.steps["log_step"]]
    actual = output_and_gradients(lambda x: layer(x, training=training), x, variables)
    expected = output_and_gradients(lambda x: composition(layer, x, training, bits), x, variables)
    assert_equal(actual, expected)


def test_traced_normalization_is_the_eager_one():
    layer, x = normalization(True, tf.constant(4)), values(4, 5, 5, CHANNELS)
    variables = [layer.gamma, layer.beta, layer.steps["log_step"]]

    def run(x):
        return output_and_gradients(lambda x: layer(x, training=True), x, variables)

    assert_equal(tf.function(run)(x), run(x))


@pytest.mark.parametrize("rate", [0.1, 1.0])
def test_statistics_move_as_far_as_told(rate):
    layer, x = normalization(True), values(4, 5, 5, CHANNELS) * 2 + 1
    other = stock(layer, momentum=1 - rate)
    layer(x, training=True, statistics_rate=rate)
    other(x, training=True)
    assert_equal([layer.moving_mean, layer.moving_variance], [other.moving_mean, other.moving_variance])


@TRAINING
def test_statistics_stay_without_a_rate(training):
    layer = normalization(True)
    before = [layer.moving_mean.numpy(), layer.moving_variance.numpy()]
    layer(values(4, 5, 5, CHANNELS), training=training)
    assert np.array_equal(before, [layer.moving_mean, layer.moving_variance])


def test_statistics_of_idle_channels_stay():
    layer = normalization(True)
    before = layer.moving_mean.numpy()
    layer(values(4, 5, 5, 2), training=True, statistics_rate=tf.constant(1.0))
    assert np.all(layer.moving_mean.numpy()[:2] != before[:2])
    np.testing.assert_array_equal(layer.moving_mean.numpy()[2:], before[2:])


@TRAINING
def test_fewer_channels_are_the_first_ones(training):
    layer, x = normalization(True, 32), values(4, 5, 5, CHANNELS)
    np.testing.assert_allclose(layer(x[..., :4], training=training), layer(x, training=training)[..., :4], atol=1e-5)


@RELU
def test_observe_sets_the_steps_from_the_float_output(relu):
    layer, x = normalization(relu), values(4, 5, 5, CHANNELS)
    expected = normalization(relu, 32)
    before = layer.steps["log_step"].numpy()
    expected.quantizer.initialise(expected.steps, expected(x, training=True).numpy(), (2, 4))
    layer(x, training=True, observe=(2, 4))
    np.testing.assert_allclose(layer.steps["log_step"], expected.steps["log_step"], rtol=1e-4)
    assert np.all(layer.steps["log_step"].numpy()[:2] != before[:2])
    assert layer.steps["log_step"].numpy()[2] == before[2]


@pytest.mark.parametrize("kernel, stride", [(1, 1), (1, 2), (3, 1), (3, 2), (5, 2)])
@pytest.mark.parametrize("filters", [None, 3])
def test_convolution_is_the_stock_one(kernel, stride, filters):
    layer = ElasticConv2D(8, kernel, stride)
    layer.build((None, 7, 7, CHANNELS))
    other = keras.layers.Conv2D(filters or 8, kernel, stride, "same", use_bias=False)
    other.build((None, 7, 7, 4))
    other.set_weights([layer.kernel[:, :, :4, : filters or 8]])  # As if four of six channels came in.
    x = values(2, 7, 7, 4)
    assert_equal([layer(x, filters=filters)], [other(x)])
    if filters:
        assert_equal([tf.function(layer)(x, filters=tf.constant(filters))], [other(x)])


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_depthwise_convolution_is_the_stock_one(kernel, stride):
    layer = ElasticDepthwiseConv2D(7, stride)
    layer.build((None, 8, 8, CHANNELS))
    other = keras.layers.DepthwiseConv2D(kernel, stride, "same", use_bias=False)
    other.build((None, 8, 8, 4))
    edge = (7 - kernel) // 2
    other.set_weights([layer.kernel[edge : 7 - edge, edge : 7 - edge, :4]])
    x = values(2, 8, 8, 4)
    assert_equal([layer(x, kernel_size=kernel)], [other(x)])
    assert_equal([tf.function(layer)(x, kernel_size=tf.constant(kernel))], [other(x)])


def test_dense_is_the_stock_one():
    layer = ElasticDense(5)
    layer.build((None, CHANNELS))
    layer.bias.assign(values(5))
    other = keras.layers.Dense(5)
    other.build((None, 4))
    other.set_weights([layer.kernel[:4], layer.bias])
    x = values(3, 4)
    assert_equal([layer(x)], [other(x)])


def test_quantized_tensor():
    layer, x = TensorQuantizer(SwitchableQuantizer((4,), signed=True)), values(30, 7)
    layer(x, observe=(4,))
    y = layer(x).numpy()
    step = np.exp(layer.steps["log_step"].numpy()[0])
    np.testing.assert_allclose(y, np.clip(np.round(x / step), -8, 7) * step, rtol=1e-5)
    assert len(np.unique(y)) == 16


def test_input_of_bytes_is_exact_and_others_are_rounded():
    pixels = np.arange(256, dtype=np.float32) / 255
    np.testing.assert_allclose(quantize_input(tf.constant(pixels)), pixels, rtol=1e-5)
    between = quantize_input(tf.constant(pixels[:-1] + 0.4 / 255)).numpy()
    np.testing.assert_allclose(between, pixels[:-1], rtol=1e-5)
    np.testing.assert_allclose(quantize_input(tf.constant([-1.0, 2.0])), [0, 1], rtol=1e-5)


def test_input_halfway_between_two_codes_falls_as_on_the_device():
    halves = np.concatenate([np.arange(17) / 16, (np.arange(255) + 0.5) / 255]).astype(np.float32)
    codes = quantized(halves, {"dtype": np.int8, "quantization": (1.0 / 255.0, -128)})
    np.testing.assert_array_equal(np.round(quantize_input(tf.constant(halves)) * 255) - 128, codes)


@BITS
@pytest.mark.parametrize("shape", [(48, 48, 3), (40, 56, 1), (224, 224, 3)])
@pytest.mark.parametrize("size", [(32, 32), (28, 20), (9, 24)])
def test_images_are_brought_to_a_size_as_photos_are(shape, size, as_bits):
    images = np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8)
    expected = [np.asarray(Image.fromarray(each.squeeze()).resize(size[::-1], Image.Resampling.BILINEAR)) for each in images]
    found = resize(tf.constant(images / np.float32(255)), tuple(map(as_bits, size))).numpy()
    assert found.shape == (2, *size, shape[-1])
    # Pillow rounds to 8 bits twice, after the width and after the height.
    assert np.abs(found * 255 - np.reshape(expected, found.shape)).max() <= 1.01


@BITS
def test_images_of_the_size_stay_as_they_are(as_bits):
    images = values(2, 12, 10, 3)
    np.testing.assert_array_equal(resize(images, (as_bits(12), as_bits(10))), images)


@pytest.mark.parametrize("size", [(8, 10), (9, 7), (5, 11)])
def test_images_become_the_same_bits_traced_or_not(size):
    """Many of these values lie halfway between two codes, where the last bit decides."""
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (64, 10, 12, 3)) / 255, tf.float32)
    traced = tf.function(lambda images, height, width: resize(images, (height, width)))
    static, as_tensors = resize(images, size), traced(images, *map(tf.constant, size))
    np.testing.assert_array_equal(static, as_tensors)
    np.testing.assert_allclose(static, tf.image.resize(images, size, antialias=True), atol=1e-6)
