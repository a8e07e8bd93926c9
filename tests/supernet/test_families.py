"""Every family: the supernet, the static network of a subnet, its baked form and a network written by hand compute the same."""

import subprocess
import sys
import types

import numpy as np
import pytest
import stock_networks
import tensorflow as tf
from families import FAMILIES, smooth_images
from family_supernets import family_supernet, make_supernet
from recording import agree_where_they_first_differ, disagreement, recorded_codes

from daqu_tf import spaces
from daqu_tf.keras import keras
from daqu_tf.spaces.architecture import image_size
from daqu_tf.spaces.bits import FLOAT_BITS
from daqu_tf.spaces.subnet import Subnet
from daqu_tf.supernet import units
from daqu_tf.supernet.baked import bake
from daqu_tf.supernet.layers import quantize_input, resize
from daqu_tf.supernet.weights import cut

# The order of float sums may put a value on the other side of a tie.
MOST_CODES_THAT_DIFFER = 1e-4


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    supernet, images = family_supernet(request.param)
    return types.SimpleNamespace(supernet=supernet, images=images, space=supernet.space, name=request.param)


def recalibrated(supernet, subnet, images):
    """The extracted network of `subnet`, after its statistics were measured in the supernet."""
    supernet.activate(subnet)
    supernet(images, training=True, statistics_rate=1.0)
    return supernet.extract(subnet)


def random_subnets(space, count):
    """Half of them uniform over subnets, which are deep, and half over genes."""
    rng = np.random.default_rng(1)
    return [space.sample(rng) if index % 2 else space.sample_by_gene(rng) for index in range(count)]


def compare(supernet, images, subnet):
    """Codes of supernet, static and baked network agree, and so do logits in float."""
    network = recalibrated(supernet, subnet, images)
    with recorded_codes() as codes:
        logits = supernet(images)
    with recorded_codes() as static_codes:
        expected = network(images)
    share, most = disagreement(codes, static_codes)
    assert share <= MOST_CODES_THAT_DIFFER and most <= 1, (str(subnet), share, most)
    np.testing.assert_allclose(logits, expected, atol=1e-5 if share == 0 else np.inf)
    return network, static_codes


def compare_baked(network, codes, images):
    """The baked one's sums are of other products, and a code that falls differently goes through all layers behind it."""
    assert agree_where_they_first_differ(codes, baked_codes(network, images)), str(network.subnet)


def small_images(network, images):
    """As an app has them: at the subnet's resolution, on the grid of an int8 input."""
    return quantize_input(resize(tf.constant(images), image_size(network.space.input_shape, network.subnet["resolution"])))


def baked_codes(network, images):
    """Codes of the tensors of a baked network, which are its stock layers' outputs."""
    model, layers = bake(network), network.space.layers(network.subnet)
    names = [name for layer in layers for name in layer.tensors]
    outputs = [model.get_layer(name).output for name in names]
    values = keras.Model(model.inputs, outputs)(small_images(network, images))
    arrays, codes = network.arrays(), []
    for name, value in zip(names, values):
        log_steps = arrays[f"{name}/activation_log_step"]
        gene = f"{name.rpartition('.')[0]}.activation_bits"
        row = network.space.activation_bits.index(network.subnet[gene]) if len(log_steps) > 1 else 0
        codes.append(value.numpy() / np.exp(log_steps[row]))
    return codes


@pytest.mark.parametrize("place", [slice(0, 2), pytest.param(slice(2, 6), marks=pytest.mark.slow)], ids=["two", "others"])
def test_quantized_subnets(family, place):
    for subnet in random_subnets(family.space, 6)[place]:
        compare_baked(*compare(family.supernet, family.images, subnet), family.images)


@pytest.mark.parametrize("place", [slice(0, 2), pytest.param(slice(2, 4), marks=pytest.mark.slow)], ids=["two", "others"])
def test_float_subnets(family, place):
    for subnet in random_subnets(family.space, 4)[place]:
        subnet = subnet.with_bits(FLOAT_BITS, FLOAT_BITS)
        network = recalibrated(family.supernet, subnet, family.images)
        logits = network(family.images)
        np.testing.assert_allclose(family.supernet(family.images), logits, atol=1e-5)
        np.testing.assert_allclose(bake(network)(small_images(network, family.images)), logits, atol=1e-4)


def test_one_layer_in_float_among_quantized_ones(family):
    layer = "stage2.block1." + family.space.stages[1].layer_names(1)[0]
    subnet = family.space.largest()
    subnet = type(subnet)(tuple((n, FLOAT_BITS if n == f"{layer}.weight_bits" else v) for n, v in subnet.choices))
    network, _ = compare(family.supernet, family.images, subnet)
    kernel = bake(network).get_layer(layer).get_weights()[0]
    np.testing.assert_array_equal(kernel, network.arrays()[f"{layer}/kernel"])


@pytest.mark.parametrize("training", [False, True], ids=["infer", "train"])
def test_the_largest_subnet_in_float_is_the_network_written_by_hand(family, training):
    largest = family.space.largest().with_bits(FLOAT_BITS, FLOAT_BITS)
    network = recalibrated(family.supernet, largest, family.images)
    stock, arrays = getattr(stock_networks, family.name)(), family.supernet.arrays()
    for layer in stock.layers:
        if layer.name.endswith(".normalize"):
            layer.set_weights([arrays[f"{layer.name}/{name}"] for name in ("gamma", "beta", "moving_mean", "moving_variance")])
        elif layer.weights:
            layer.set_weights([arrays[f"{layer.name}/{leaf}"] for leaf in ("kernel", "bias")[: len(layer.weights)]])
    images = far_from_kinks(stock, smooth_images(family.space, 32), training)
    actual, gradients = with_gradients(family.supernet, images, training)
    expected, stock_gradients = with_gradients(stock, images, training)
    np.testing.assert_allclose(actual, expected, atol=1e-4)
    named = {v.ref(): name for name, v in family.supernet.variables_by_name.items()}
    found = {named[v.ref()]: tf.convert_to_tensor(g).numpy() for v, g in gradients if g is not None}
    compared = 0
    for variable, gradient in stock_gradients:
        name = variable.name.split(":")[0].replace("depthwise_kernel", "kernel")
        tolerance = 1e-3 * np.abs(gradient).max() + 1e-5
        np.testing.assert_allclose(found[name], gradient, atol=tolerance, err_msg=name)
        compared += 1
    assert compared == len(stock.trainable_variables) > 20
    assert len(network.trainable_variables) > compared  # And the steps, which have no part in it.


def far_from_kinks(stock, images, training):
    """Two of `images`: near a kink of a ReLU, the order of float sums decides its gradient, and with it all others."""
    rectifiers = [layer for layer in stock.layers if isinstance(layer, keras.layers.ReLU)]
    inputs = tf.function(keras.Model(stock.inputs, [layer.input for layer in rectifiers]))
    kinks = [[0.0] if layer.max_value is None else [0.0, layer.max_value] for layer in rectifiers]

    def margin(pair):
        values = inputs(pair, training=training)
        return min(np.abs(np.subtract.outer(value, kink)).min() for value, kink in zip(values, kinks))

    best = max(np.split(images, len(images) // 2), key=margin)
    assert margin(best) > 1e-4
    return best


def with_gradients(model, images, training):
    with tf.GradientTape() as tape:
        logits = model(images, training=training)
        loss = tf.reduce_sum(tf.sin(logits))
    return logits, list(zip(model.trainable_variables, tape.gradient(loss, model.trainable_variables)))


def test_one_trace_and_no_more(family):
    infer = tf.function(lambda x: family.supernet(x))
    for subnet in random_subnets(family.space, 4):
        family.supernet.activate(subnet)
        np.testing.assert_allclose(infer(family.images), family.supernet(family.images), atol=1e-5)
    assert infer.experimental_get_tracing_count() == 1


def gradients_by_name(network, images):
    """Arrays of all variables' gradients, 0 where a variable has no part in the active subnet."""
    arrays = {name: np.zeros(variable.shape, np.float32) for name, variable in network.variables_by_name.items()}
    named = {variable.ref(): name for name, variable in network.variables_by_name.items()}
    for variable, gradient in with_gradients(network, images, True)[1]:
        if gradient is not None:
            arrays[named[variable.ref()]] = tf.convert_to_tensor(gradient).numpy()
    return arrays


def assert_close(actual, expected):
    """But for very few: a code that falls on the other side of a tie changes the gradients that go through it."""
    far = {}
    for name, gradient in expected.items():
        tolerance = 2e-3 * np.abs(gradient).max() + 1e-5
        far[name] = np.abs(actual[name] - gradient) > tolerance
    shares = {name: np.mean(values) for name, values in far.items() if values.any()}
    assert np.mean(np.concatenate([values.ravel() for values in far.values()])) < 1e-3, shares


def test_gradients_are_those_of_the_static_network(family):
    subnet = family.space.sample_by_gene(np.random.default_rng(3))
    network = recalibrated(family.supernet, subnet, family.images)
    whole = gradients_by_name(family.supernet, family.images)
    assert_close(gradients_by_name(network, family.images), cut(family.space, subnet, whole))


def test_gradients_through_codes_are_those_through_real_values(family, monkeypatch):
    for seed in range(3):
        family.supernet.activate(family.space.sample_by_gene(np.random.default_rng(seed)))
        through_codes = gradients_by_name(family.supernet, family.images)
        with monkeypatch.context() as patch:
            patch.setattr(units, "_reads_only", lambda layer: False)
            assert_close(through_codes, gradients_by_name(family.supernet, family.images))
        assert any(np.any(gradient) for name, gradient in through_codes.items() if name.endswith("activation_log_step"))


def test_an_alphabet_of_one_entry_and_a_product_in_float():
    space = FAMILIES["squeeze_excite"].restrict(weight_bits=(4,), activation_bits=(4,))
    supernet, images = make_supernet(space, 8)
    in_float = "stage2.block1.excite.activation_bits"
    for subnet in (space.largest(), Subnet(tuple((n, 32 if n == in_float else v) for n, v in space.largest().choices))):
        network = recalibrated(supernet, subnet, images)
        logits = network(images).numpy()
        # One code that falls differently at 4 bits shows in the logits of its image.
        same = np.abs(bake(network)(small_images(network, images)) - logits) < 1e-3
        assert np.mean(same) > 0.7


def test_baked_models_are_saved_and_loaded_without_daqu_tf(tmp_path):
    for name in FAMILIES:
        supernet, images = family_supernet(name)
        model = bake(recalibrated(supernet, supernet.space.sample_by_gene(np.random.default_rng(5)), images))
        inputs = np.random.default_rng(0).random((2, *model.input_shape[1:]), np.float32)
        np.savez(tmp_path / f"{name}.npz", images=inputs, logits=model(inputs))
        model.save(tmp_path / f"{name}.h5")
    code = (
        "import sys, numpy as np, tf_keras\n"
        f"for name in {list(FAMILIES)}:\n"
        "    data = np.load(f'{name}.npz')\n"
        "    model = tf_keras.models.load_model(f'{name}.h5', compile=False)\n"
        "    np.testing.assert_allclose(model(data['images']), data['logits'], atol=1e-5)\n"
        "assert 'daqu_tf' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenet_v2_28", "mobilenet_v3_cifar", "resnet_cifar"])
def test_random_subnets_of_a_named_space(name):
    supernet, images = make_supernet(spaces.get(name), 4)
    for subnet in random_subnets(supernet.space, 20):
        compare_baked(*compare(supernet, images, subnet), images)
        network = supernet.extract(in_float := subnet.with_bits(FLOAT_BITS, FLOAT_BITS))
        supernet.activate(in_float)
        np.testing.assert_allclose(supernet(images), network(images), atol=1e-5)
