import numpy as np
import pytest
import tensorflow as tf

from daqu_tf.keras import QuantizeWrapper, keras
from daqu_tf.spaces.bits import activation_range, weight_range
from daqu_tf.supernet.initial_steps import best_steps
from daqu_tf.supernet.layers import ElasticConv2D
from daqu_tf.supernet.quantizers import (
    SwitchableQuantizeConfig,
    SwitchableQuantizer,
    fake_quantize,
    quantize_activation,
)

ALPHABET = (2, 3, 4, 6, 8)
RANGES = {  # Bits to weight, ReLU activation and signed activation codes.
    2: ((-1, 1), (0, 3), (-2, 1)),
    3: ((-3, 3), (0, 7), (-4, 3)),
    4: ((-7, 7), (0, 15), (-8, 7)),
    5: ((-15, 15), (0, 31), (-16, 15)),
    6: ((-31, 31), (0, 63), (-32, 31)),
    7: ((-63, 63), (0, 127), (-64, 63)),
    8: ((-127, 127), (0, 255), (-128, 127)),
}


def values(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def built(shape, **arguments):
    quantizer = SwitchableQuantizer(ALPHABET, **arguments)
    return quantizer, quantizer.build(shape, "x", keras.layers.Layer())


def quantize(x, log_step, lower, upper):
    """Output and gradients of the sum of squares, as NumPy arrays."""
    x, log_step = tf.constant(x), tf.constant(log_step)
    with tf.GradientTape() as tape:
        tape.watch([x, log_step])
        y = fake_quantize(x, log_step, tf.constant(float(lower)), tf.constant(float(upper)))
        loss = tf.reduce_sum(y**2)
    return y.numpy(), *(gradient.numpy() for gradient in tape.gradient(loss, [x, log_step]))


@pytest.mark.parametrize("bits", RANGES)
def test_code_ranges(bits):
    assert weight_range(bits) == RANGES[bits][0]
    assert activation_range(bits, signed=False) == RANGES[bits][1]
    assert activation_range(bits, signed=True) == RANGES[bits][2]
    assert SwitchableQuantizer((bits,), channel_axis=0).code_range(bits) == RANGES[bits][0]
    assert SwitchableQuantizer((bits,)).code_range(bits) == RANGES[bits][1]
    assert SwitchableQuantizer((bits,), signed=True).code_range(bits) == RANGES[bits][2]


@pytest.mark.parametrize("bits", RANGES)
@pytest.mark.parametrize("role", range(3))
def test_every_code_and_no_other_comes_out(bits, role):
    lower, upper = RANGES[bits][role]
    x = np.linspace(lower - 2, upper + 2, 5000, dtype=np.float32) * 0.25
    y, *_ = quantize(x, np.float32(np.log(0.25)), lower, upper)
    np.testing.assert_allclose(np.unique(np.round(y / 0.25, 3)), np.arange(lower, upper + 1))
    kept = (x > (lower - 0.5) * 0.25) & (x < (upper + 0.5) * 0.25)
    assert np.abs(y - x)[kept].max() <= 0.125 + 1e-5


def test_gradients_are_the_formulas_of_lsq():
    x, log_step, lower, upper = values(500), np.float32(np.log(0.3)), -3, 3
    y, d_x, d_log_step = quantize(x, log_step, lower, upper)
    scaled, upstream = x / 0.3, 2 * y
    inside = (scaled >= lower) & (scaled <= upper)
    assert 0 < inside.sum() < len(x)
    d_step = np.where(inside, np.round(scaled) - scaled, np.clip(scaled, lower, upper))
    np.testing.assert_allclose(d_x, np.where(inside, upstream, 0), rtol=1e-5)
    np.testing.assert_allclose(d_log_step, (upstream * d_step).sum() * 0.3, rtol=1e-4)


def test_step_gradient_is_the_true_one_where_values_are_clipped():
    x, log_step, delta = np.float32([5, -5, 7, 9]), np.float32(np.log(0.5)), np.float32(1e-2)
    sums = [(quantize(x, log_step + sign * delta, -3, 3)[0] ** 2).sum() for sign in (1, -1)]
    np.testing.assert_allclose(quantize(x, log_step, -3, 3)[2], (sums[0] - sums[1]) / (2 * delta), rtol=1e-3)


def test_gradients_of_steps_per_channel():
    x, log_step = values(6, 5, 3), np.log([0.1, 0.3, 0.9]).astype(np.float32)
    y, d_x, d_log_step = quantize(x, log_step, -3, 3)
    for channel in range(3):
        alone = quantize(x[..., channel], log_step[channel], -3, 3)
        np.testing.assert_array_equal(y[..., channel], alone[0])
        np.testing.assert_array_equal(d_x[..., channel], alone[1])
        np.testing.assert_allclose(d_log_step[channel], alone[2], rtol=1e-5)


@pytest.mark.parametrize("axis, shape", [(None, (4, 3)), (3, (3, 3, 4, 5)), (2, (3, 3, 4, 1)), (1, (6, 7))])
@pytest.mark.parametrize("bits", [32, tf.constant(32)], ids=["int", "tensor"])
def test_32_bits_change_nothing(axis, shape, bits):
    quantizer, weights = built(shape, bits=lambda: bits, channel_axis=axis)
    x = values(*shape)
    np.testing.assert_array_equal(quantizer(tf.constant(x), False, weights), x)


@pytest.mark.parametrize("axis, shape", [(3, (3, 3, 4, 5)), (2, (3, 3, 4, 1)), (1, (6, 7))])
def test_channel_axes(axis, shape):
    quantizer, weights = built(shape, bits=lambda: 4, channel_axis=axis)
    assert tuple(weights["log_step"].shape) == (len(ALPHABET), shape[axis])
    steps = np.exp(values(len(ALPHABET), shape[axis])) / 5
    weights["log_step"].assign(np.log(steps))
    x = values(*shape)
    y = quantizer(tf.constant(x), False, weights).numpy()
    for channel in range(shape[axis]):
        step = steps[ALPHABET.index(4), channel]
        expected = np.clip(np.round(x.take(channel, axis) / step), -7, 7) * step
        np.testing.assert_allclose(y.take(channel, axis), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("axis", [None, 1])
def test_bits_in_a_variable_are_the_same_as_an_int_and_need_one_trace(signed, axis):
    active = tf.Variable(8)
    quantizer, weights = built((50, 4), bits=active.read_value, signed=signed, channel_axis=axis)
    fixed, _ = built((50, 4), signed=signed, channel_axis=axis)
    x = values(50, 4)
    quantizer.initialise(weights, x if signed or axis else np.maximum(x, 0), ALPHABET)
    call = tf.function(lambda x: quantizer(x, False, weights))
    for bits in (*ALPHABET, 32):
        active.assign(bits)
        fixed.bits = lambda bits=bits: bits
        np.testing.assert_array_equal(call(tf.constant(x)), fixed(tf.constant(x), False, weights))
    assert call.experimental_get_tracing_count() == 1


def test_only_the_active_row_of_steps_has_a_gradient():
    quantizer, weights = built((20, 4), bits=lambda: 3, channel_axis=1)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(quantizer(tf.constant(values(20, 4)), True, weights) ** 2)
    gradient = tf.convert_to_tensor(tape.gradient(loss, weights["log_step"])).numpy()
    assert np.all(gradient[ALPHABET.index(3)] != 0)
    assert not np.delete(gradient, ALPHABET.index(3), axis=0).any()


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_initialise_lowers_the_error(axis):
    x = values(40, 6) * np.logspace(-2, 1, 6, dtype=np.float32)
    quantizer, weights = built(x.shape, signed=True, channel_axis=axis)

    def errors():
        for bits in ALPHABET:
            quantizer.bits = lambda bits=bits: bits
            yield bits, float(np.square(quantizer(tf.constant(x), False, weights) - x).mean())

    full = np.abs(x).max() if axis is None else np.abs(x).max(1 - axis)
    for row, bits in enumerate(ALPHABET):  # Steps that clip nothing.
        weights["log_step"][row].assign(np.log(full / (2 ** (bits - 1) - 1)))
    before = dict(errors())
    quantizer.initialise(weights, x, ALPHABET)
    after = dict(errors())
    assert all(after[bits] <= before[bits] * (1 + 1e-5) for bits in ALPHABET)
    assert after[2] < 0.9 * before[2]
    assert sorted(after.values(), reverse=True) == list(after.values())


def test_initialise_leaves_other_bits():
    quantizer, weights = built((30, 2), channel_axis=1)
    quantizer.initialise(weights, values(30, 2), (4, 5))  # 5 is not in the alphabet.
    steps = weights["log_step"].numpy()
    assert np.all(steps[ALPHABET.index(4)] != 0)
    assert not np.delete(steps, ALPHABET.index(4), axis=0).any()


@pytest.mark.parametrize("bits", RANGES)
def test_best_steps_are_near_the_best_of_a_fine_grid(bits):
    x = values(300, 1)
    lower, upper = weight_range(bits)

    def error(step):
        return np.square(np.clip(np.round(x / step), lower, upper) * step - x).sum()

    grid = np.abs(x).max() / upper * np.linspace(0.1, 1, 1000)
    assert error(best_steps(x, lower, upper)) <= 1.05 * min(map(error, grid))


def test_best_steps_of_zeros_are_positive():
    assert np.all(best_steps(np.zeros((5, 2)), -7, 7) > 0)


def test_configuration_round_trip():
    quantizer = SwitchableQuantizer((4, 8), lambda: 4, signed=True, channel_axis=2)
    restored = SwitchableQuantizeConfig.from_config(SwitchableQuantizeConfig(quantizer).get_config()).kernel
    assert restored.get_config() == quantizer.get_config() == {"alphabet": [4, 8], "signed": True, "channel_axis": 2}
    assert restored.bits() == 8


def test_wrapped_layer_uses_the_quantized_kernel():
    quantizer = SwitchableQuantizer((3,), channel_axis=3)
    wrapper = QuantizeWrapper(ElasticConv2D(5), SwitchableQuantizeConfig(quantizer))
    x = tf.constant(values(2, 4, 4, 3))
    wrapper(x)
    ((kernel, _, steps),) = wrapper._weight_vars
    quantizer.initialise(steps, kernel.numpy(), (3,))
    step = np.exp(steps["log_step"].numpy()[0])
    codes = np.clip(np.round(kernel.numpy() / step), -3, 3)
    np.testing.assert_allclose(wrapper(x), x.numpy() @ (codes * step)[0, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8, 32])
@pytest.mark.parametrize("signed, relu", [(True, False), (False, False), (False, True)])
@pytest.mark.parametrize("as_bits", [int, tf.constant], ids=["int", "tensor"])
def test_the_fused_activation_is_the_plain_one(bits, signed, relu, as_bits):
    x, log_step, weight = tf.constant(values(40, 7)), tf.constant(np.log(0.11), tf.float32), tf.constant(values(40, 7) + 1)

    def plain(x, log_step):
        x = tf.nn.relu(x) if relu else x
        if bits == 32:
            return x
        lower, upper = activation_range(bits, signed)
        return fake_quantize(x, log_step, tf.constant(float(lower)), tf.constant(float(upper)))

    def fused(x, log_step):
        return quantize_activation(x, log_step, as_bits(bits), signed, relu)

    results = []
    for function in (plain, fused, tf.function(fused)):
        with tf.GradientTape() as tape:
            tape.watch([x, log_step])
            loss = tf.reduce_sum(function(x, log_step) * weight)
        gradients = tape.gradient(loss, [x, log_step], unconnected_gradients=tf.UnconnectedGradients.ZERO)
        results.append([function(x, log_step), *gradients])
    for other in results[1:]:
        for expected, actual in zip(results[0], other, strict=True):
            np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


def test_an_infinite_range_is_float():
    x, log_step = tf.constant(values(5, 4)), tf.zeros(4)
    with tf.GradientTape() as tape:
        tape.watch([x, log_step])
        y = fake_quantize(x, log_step, tf.constant(-np.inf), tf.constant(np.inf))
    np.testing.assert_array_equal(y, x)
    d_x, d_log_step = tape.gradient(y, [x, log_step])
    assert np.all(d_x == 1) and not np.any(d_log_step)


@pytest.mark.parametrize("step", [np.nan, np.inf])
def test_a_step_that_is_not_finite_is_no_error_of_the_runtime(step):
    y = quantize_activation(tf.constant([1.0, np.nan]), tf.constant(step), 4, signed=True)
    assert not np.isfinite(y[1])
