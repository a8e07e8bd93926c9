import contextlib

import numpy as np
import pytest
import tensorflow as tf

from daqu_tf.errors import DaquError
from daqu_tf.spaces.bits import FLOAT_BITS
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.stage import Stage
from daqu_tf.spaces.subnet import Subnet
from daqu_tf.supernet.supernet import StaticNetwork, Supernet
from daqu_tf.supernet.weights import cut

# One code more or less anywhere near the end would show: a logit's step is far larger.
TOLERANCE = 1e-5


def subnets_of(space):
    """The extremes, mixed bits, and float and uniformly low-bit ones."""
    rng = np.random.default_rng(4)
    samples = [space.sample_by_gene(rng) for _ in range(4)]
    return {
        "largest": space.largest(),
        "smallest": space.smallest(),
        **{f"mixed{index}": subnet for index, subnet in enumerate(samples)},
        "float": samples[0].with_bits(FLOAT_BITS, FLOAT_BITS),
        "largest float": space.largest().with_bits(FLOAT_BITS, FLOAT_BITS),
        "w2a2": samples[1].with_bits(2, 2),
    }


@contextlib.contextmanager
def changed(supernet, part, change):
    """Changes the variables whose name contains `part` for the time of the block."""
    variables = [variable for name, variable in supernet.variables_by_name.items() if part in name]
    saved = [variable.numpy() for variable in variables]
    assert variables
    try:
        for variable, value in zip(variables, saved):
            variable.assign(change(value))
        yield
    finally:
        for variable, value in zip(variables, saved):
            variable.assign(value)


def named(network, gradients):
    """Gradients of the trainable variables as arrays by the variables' names; 0 for statistics and unused ones."""
    arrays = {name: np.zeros(variable.shape) for name, variable in network.variables_by_name.items()}
    names = {variable.ref(): name for name, variable in network.variables_by_name.items()}
    for variable, gradient in zip(network.trainable_variables, gradients):
        if gradient is not None:
            arrays[names[variable.ref()]] = tf.convert_to_tensor(gradient).numpy()
    return arrays


def tiny_space(**bits):
    stage = Stage(widths=(4, 8), depths=(1,), kernels=(3, 5), expansions=(2,), stride=2)
    return SearchSpace("tiny", (8, 8, 1), 10, (8,), 1, (stage,), (16,), **bits)


@pytest.fixture(scope="module")
def tiny():
    return Supernet(tiny_space(weight_bits=(2, 8), activation_bits=(8,)))


def test_the_static_network_of_a_subnet_computes_the_same(digits, images):
    for name, subnet in subnets_of(digits.supernet.space).items():
        digits.supernet.activate(subnet)
        network = digits.supernet.extract(subnet)
        outputs = {False: digits.infer(images), True: digits.train(images)[0]}
        for training, output in outputs.items():
            expected = network(images, training=training)
            assert np.ptp(expected) > 0.1, name
            np.testing.assert_allclose(output, expected, atol=TOLERANCE, err_msg=f"{name} {training=}")


def test_subnets_differ(digits, images):
    outputs = []
    for subnet in subnets_of(digits.supernet.space).values():
        digits.supernet.activate(subnet)
        outputs.append(digits.infer(images).numpy())
    assert all(np.abs(a - b).max() > 0.01 for i, a in enumerate(outputs) for b in outputs[:i])


def test_one_trace_serves_all_subnets(digits, images):
    for subnet in subnets_of(digits.supernet.space).values():
        digits.supernet.activate(subnet)
        digits.infer(images)
        digits.train(images)
    assert digits.infer.experimental_get_tracing_count() == 1
    assert digits.train.experimental_get_tracing_count() == 1


def test_blocks_beyond_the_depth_are_not_computed(digits, images):
    space = digits.supernet.space
    deep = space.largest()
    shallow = space.subnet(deep.values | {"stage2.depth": 1})
    with changed(digits.supernet, "stage2.block2.", lambda value: np.full_like(value, np.nan)):
        digits.supernet.activate(shallow)
        assert np.all(np.isfinite(digits.infer(images)))
        assert all(np.all(np.isfinite(tf.convert_to_tensor(gradient))) for gradient in digits.train(images)[1])
        digits.supernet.activate(deep)
        assert not np.any(np.isfinite(digits.infer(images)))


def test_only_active_weights_have_gradients(digits, images):
    supernet = digits.supernet
    subnet = supernet.space.smallest()
    supernet.activate(subnet)
    gradients = digits.train(images)[1]
    by_variable = {v.ref(): tf.convert_to_tensor(g).numpy() for v, g in zip(supernet.trainable_variables, gradients)}
    moved = {name: by_variable[v.ref()] != 0 for name, v in supernet.variables_by_name.items() if v.ref() in by_variable}
    assert not any(moved[name].any() for name in moved if ".block2." in name)
    expand, depthwise = moved["stage2.block1.expand/kernel"], moved["stage2.block1.depthwise/kernel"]
    assert expand[..., :8, :16].any()
    assert not expand[..., 8:, :].any()
    assert not expand[..., 16:].any()
    assert depthwise[1:4, 1:4, :16].any()
    assert not depthwise[[0, 4]].any()
    steps = moved["head/kernel_log_step"]
    assert steps[-1, :32].any()
    assert not steps[:-1].any()


def test_gradients_are_those_of_the_static_network(digits, images):
    supernet = digits.supernet
    subnet = supernet.space.sample_by_gene(np.random.default_rng(8))
    supernet.activate(subnet)
    expected = named(supernet, digits.train(images)[1])
    network = supernet.extract(subnet)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.square(network(images, training=True)))
    actual = named(network, tape.gradient(loss, network.trainable_variables))
    for name, gradient in cut(supernet.space, subnet, expected).items():
        tolerance = 1e-3 * np.abs(gradient).max()
        np.testing.assert_allclose(actual[name], gradient, atol=tolerance + 1e-6, err_msg=name)


def test_names_are_those_of_the_space_s_layers(digits):
    space = digits.supernet.space
    names = set(digits.supernet.arrays())
    for layer in space.layers(space.largest()):
        assert {f"{layer.name}/kernel", f"{layer.name}/kernel_log_step"} <= names
    assert names == {*digits.supernet.variables_by_name, "weight_bits", "activation_bits"}
    assert len(names) == len({*map(str.lower, names)})


def test_arrays_round_trip(digits, images):
    supernet = digits.supernet
    supernet.activate(supernet.space.sample_by_gene(np.random.default_rng(2)))
    saved, before = supernet.arrays(), digits.infer(images)
    with changed(supernet, "", np.zeros_like):
        assert np.abs(digits.infer(images) - before).max() > 0.01
        supernet.load_arrays(saved)
        np.testing.assert_array_equal(digits.infer(images), before)
    assert all(np.array_equal(value, saved[name]) for name, value in supernet.arrays().items())


def test_arrays_are_copies(tiny):
    saved = tiny.arrays()
    with changed(tiny, "classifier/bias", lambda value: value + 1):
        assert not saved["classifier/bias"].any()


def test_arrays_of_another_space(digits, tiny):
    with pytest.raises(DaquError, match=r"another space than 'tiny': `weight_bits` must be \[2, 8\], but received \[2, 3, 4"):
        tiny.load_arrays(digits.supernet.arrays())
    arrays = digits.supernet.arrays()
    with pytest.raises(DaquError, match=r"another space than 'digits': `.*` must have shape .*, but received \("):
        digits.supernet.load_arrays(arrays | {"head/kernel": np.zeros((1, 1, 3, 3))})
    with pytest.raises(DaquError, match=r"`stage3/kernel` must not be there, but received shape \(1,\)"):
        digits.supernet.load_arrays(arrays | {"stage3/kernel": np.zeros(1)})
    with pytest.raises(DaquError, match="but received nothing"):
        tiny.load_arrays({})


def test_a_subnet_of_another_space(digits, tiny):
    with pytest.raises(DaquError, match="must be one of"):
        tiny.activate(Subnet(()))
    with pytest.raises(DaquError, match="`subnet` must be of space 'tiny', but has other genes"):
        tiny.activate(Subnet((*tiny.space.largest().choices, ("stage9.width", 8))))


def test_extracted_weights_are_the_network_s_own(tiny):
    before = tiny.arrays()
    network = tiny.extract(tiny.space.smallest())
    for variable in network.trainable_variables:
        variable.assign_add(tf.ones_like(variable))
    assert all(np.array_equal(value, before[name]) for name, value in tiny.arrays().items())


def test_initialise_steps_sets_the_bits_it_is_given(images):
    network = StaticNetwork(tiny_space(weight_bits=(2, 8)), tiny_space(weight_bits=(2, 8)).largest())
    network.initialise_steps(images, (8,))
    for name, steps in network.arrays().items():
        if name.endswith("log_step"):
            assert np.all(steps[-1] != 0), name  # Of 8 bits.
            # Only weights open bits by bits; activations have all their steps from the first.
            assert np.any(steps[:-1]) == (len(steps) > 1 and "activation" in name), name
