import numpy as np
import pytest
import tensorflow as tf

from daqu_tf.errors import DaquError
from daqu_tf.keras import keras
from daqu_tf.spaces.bits import FLOAT_BITS
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.stage import Stage
from daqu_tf.supernet.layers import ElasticConv2D, ElasticDense, ElasticDepthwiseConv2D
from daqu_tf.supernet.supernet import HALF_TYPES, StaticNetwork, Supernet
from daqu_tf.training.optimizer import FIRST_SCALE, GROWTH_STEPS, Optimizer

STAGE = Stage(widths=(4, 8), depths=(1,), kernels=(3, 5), expansions=(2,), stride=2, squeeze_excite=True)
SPACE = SearchSpace("tiny", (8, 8, 1), 10, (8,), 1, (STAGE,), (16,))
HALF = pytest.mark.parametrize("half", HALF_TYPES)
# Of one rounding, relative; float16 has 11 bits and bfloat16 8.
EPSILON = {"float16": 2.0**-11, "bfloat16": 2.0**-8}


def batch():
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 10
    means = rng.random((10, *SPACE.input_shape))
    images = (means[labels] + rng.random((40, *SPACE.input_shape))) / 2
    return images.astype(np.float32), tf.one_hot(labels, 10)


def network(half, bits=FLOAT_BITS):
    keras.utils.set_random_seed(0)
    made = StaticNetwork(SPACE, SPACE.largest().with_bits(bits, bits), half)
    if bits != FLOAT_BITS:
        made.initialise_steps(batch()[0], SPACE.weight_bits)
    return made


@HALF
@pytest.mark.parametrize(
    "make",
    [
        lambda half: ElasticConv2D(5, 1, half=half),
        lambda half: ElasticConv2D(5, 3, 2, half=half),
        lambda half: ElasticDepthwiseConv2D(3, half=half),
        lambda half: ElasticDense(5, half),
    ],
    ids=["pointwise", "conv", "depthwise", "dense"],
)
def test_codes_are_exact_and_results_float32(make, half):
    layer, plain = make(half), make(None)
    x = np.random.default_rng(0).integers(0, 256, (2, 6, 6, 4)).astype(np.float32)
    x = x[:, 0, 0] if isinstance(layer, ElasticDense) else x
    for each in (layer, plain):
        each.build(x.shape)
        kernel = np.zeros(each.kernel.shape, np.float32)
        kernel[(each.kernel_size // 2,) * 2 if kernel.ndim == 4 else ()] = 1.0 if kernel.shape[-1] == 1 else np.eye(4, 5)
        each.kernel.assign(kernel)
    y = layer(x)
    assert y.dtype == tf.float32
    np.testing.assert_array_equal(y, plain(x))


@HALF
@pytest.mark.parametrize("bits", [FLOAT_BITS, 8])
def test_forward_agrees_with_float32(half, bits):
    images, _ = batch()
    expected = network(None, bits)(images, training=True).numpy()
    made = network(half, bits)
    actual = made(images, training=True)
    assert actual.dtype == tf.float32 and {variable.dtype for variable in made.trainable_variables} == {tf.float32}
    difference = np.sqrt(np.mean(np.square(actual - expected)) / np.mean(np.square(expected)))
    # A few layers, each of which rounds twice; quantized, some values fall to the next code.
    assert 0 < difference < 8 * EPSILON[half] + (0.0 if bits == FLOAT_BITS else 0.03)


@HALF
@pytest.mark.parametrize("bits", [FLOAT_BITS, 4])
def test_training_lowers_the_loss(half, bits):
    made, (images, targets) = network(half, bits), batch()
    optimizer = Optimizer(made, 1e-2)
    losses = []
    for _ in range(12):
        losses.append(float(optimizer.accumulate(images, targets)[0]))
        assert optimizer.apply(1.0)
    assert losses[-1] < 0.8 * losses[0]
    assert {variable.dtype for variable in made.trainable_variables} == {tf.float32}


def test_gradients_do_not_depend_on_the_scale():
    images, targets = batch()
    gradients = []
    for scale in (1.0, FIRST_SCALE):
        optimizer = Optimizer(network("float16"), 1e-2)
        optimizer.scale.assign(scale)
        optimizer.accumulate(images, targets)
        gradients.append(optimizer.gradient.numpy() / scale)
    error = np.linalg.norm(gradients[0] - gradients[1]) / np.linalg.norm(gradients[1])
    assert error < 0.01


def test_an_overflow_halves_the_scale_and_skips_the_step():
    made, (images, targets) = network("float16"), batch()
    optimizer = Optimizer(made, 1e-2)
    optimizer.accumulate(images, targets)
    assert optimizer.apply(1.0)
    before, state = made.arrays(), optimizer.arrays()
    optimizer.scale.assign(2.0**40)
    optimizer.accumulate(images, targets)
    assert optimizer.apply(1.0)  # The scale is being found: no failure.
    assert optimizer.scale.numpy() == 2.0**39 and optimizer.finite_steps.numpy() == 0
    for name, array in made.arrays().items():
        np.testing.assert_array_equal(array, before[name])
    for name in ("mean", "square", "updates"):
        np.testing.assert_array_equal(optimizer.arrays()[name], state[name])
    assert not optimizer.gradient.numpy().any()
    optimizer.scale.assign(1.0)
    optimizer.accumulate(images * np.nan, targets)
    assert not optimizer.apply(1.0)


def test_the_scale_doubles_after_many_finite_steps_and_is_part_of_the_state():
    made, (images, targets) = network("float16"), batch()
    optimizer = Optimizer(made, 1e-2)
    optimizer.finite_steps.assign(GROWTH_STEPS - 2.0)
    for expected in (FIRST_SCALE, 2 * FIRST_SCALE, 2 * FIRST_SCALE):
        optimizer.accumulate(images, targets)
        assert optimizer.apply(1.0) and optimizer.scale.numpy() == expected
    other = Optimizer(made, 1e-2)
    other.load_arrays(optimizer.arrays())
    assert other.scale.numpy() == 2 * FIRST_SCALE and other.finite_steps.numpy() == 1 and other.updates.numpy().max() == 3


def test_only_float16_has_a_scale():
    assert set(Optimizer(network("bfloat16"), 1e-2).arrays()) == {"mean", "square", "updates"}


@HALF
def test_a_supernet_has_the_switch_and_the_same_weights(half):
    supernet = Supernet(SPACE, half)
    other = Supernet(SPACE)
    other.load_arrays(supernet.arrays())
    images, _ = batch()
    np.testing.assert_allclose(supernet(images, training=True), other(images, training=True), atol=0.2)
    assert supernet.extract(SPACE.smallest()).mixed_precision is None


def test_other_types_are_refused():
    with pytest.raises(DaquError, match="`mixed_precision` must be one of float16, bfloat16, or None, but received 'int8'"):
        Supernet(SPACE, "int8")
