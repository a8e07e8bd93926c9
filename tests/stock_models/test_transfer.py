"""A trained network as the largest subnet of a supernet: the very same logits, and channels that matter first."""

import numpy as np
import pytest
import trained_networks

from daqu_tf import spaces
from daqu_tf.keras import keras
from daqu_tf.spaces.bits import FLOAT_BITS
from daqu_tf.spaces.hand_scaled import scaled
from daqu_tf.stock_models.recognition import recognise
from daqu_tf.stock_models.transfer import sorted_channels, start_from
from daqu_tf.supernet.supernet import StaticNetwork, Supernet

IMAGES = trained_networks.photos(6, 64)


def supernet_from(model, images=IMAGES, classes=7):
    """The supernet that begins as `model`, with its largest subnet active in float, and how it began."""
    start = start_from(recognise(model), images, classes)
    supernet = Supernet(start.space)
    supernet.load_arrays(start.arrays)
    supernet.activate(start.space.largest().with_bits(FLOAT_BITS, FLOAT_BITS))
    return supernet, start


@pytest.mark.parametrize("family", ["digits", "resnet", "mobilenet_v1", "mobilenet_v2", "mobilenet_v2_28", "mobilenet_v3_cifar"])
def test_sorted_channels_change_nothing_of_what_a_network_computes(family):
    space = spaces.get(family).for_images((16, 16, 3), 3)
    subnet = scaled(space, 0.5).with_bits(FLOAT_BITS, FLOAT_BITS)
    keras.utils.set_random_seed(0)
    images = trained_networks.photos(4, 16)
    networks = [StaticNetwork(space, subnet) for _ in range(2)]
    arrays = networks[0].arrays()
    rng = np.random.default_rng(0)
    for name in arrays:
        if name.endswith(("gamma", "moving_variance")):
            arrays[name] = rng.uniform(0.5, 2.0, arrays[name].shape).astype(np.float32)
    networks[0].load_arrays(arrays)
    found = sorted_channels(arrays, space.layers(subnet))
    assert any((found[name] != array).any() for name, array in arrays.items() if name.endswith("kernel"))
    networks[1].load_arrays(found)
    expected = networks[0](images).numpy()
    np.testing.assert_allclose(networks[1](images).numpy(), expected, atol=1e-4 * max(1.0, np.abs(expected).max()))


FAST = ("mobilenet_v2 0.35", "mobilenet_v1 0.25", "resnet", "resnet without norm")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in trained_networks.NETWORKS]
)
def test_the_largest_subnet_in_float_has_the_logits_of_the_network(name):
    model, limits = trained_networks.trained(name)
    supernet, start = supernet_from(model)
    assert start.keeps_classifier
    expected = trained_networks.logits(model)(IMAGES * (limits[1] - limits[0]) + limits[0]).numpy()
    assert expected.std() > 0.1
    np.testing.assert_allclose(supernet(IMAGES).numpy(), expected, atol=1e-4 * max(1.0, np.abs(expected).max()))
