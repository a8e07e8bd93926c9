"""Families fit images of any size: what is pooled is neither one pixel nor many, and the named spaces stay what they are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daqu_tf import spaces
from daqu_tf.spaces.architecture import layers
from daqu_tf.spaces.fitting import FAMILIES, fitted, halvings
from daqu_tf.spaces.hand_scaled import hand_scaled
from daqu_tf.targets import costs


@pytest.mark.parametrize(
    ("side", "expected"), [(8, 1), (14, 2), (16, 2), (28, 3), (32, 3), (48, 3), (64, 4), (96, 4), (128, 5), (224, 5), (320, 5)]
)
def test_how_often_squares_are_halved(side, expected):
    assert halvings((side, side, 3)) == expected


@given(st.sampled_from(FAMILIES), st.integers(8, 320), st.integers(8, 320), st.integers(1, 4), st.integers(2, 100))
def test_any_image_has_a_network_in_every_family(name, height, width, channels, classes):
    space = fitted(name, (height, width, channels), classes)
    assert (space.name, space.input_shape, space.num_classes) == (name, (height, width, channels), classes)
    for subnet in (space.smallest(), space.largest(), *hand_scaled(space)):
        pooled = next(layer for layer in space.layers(subnet) if layer.pools)
        before = space.layers(subnet)[-2].output_size
        assert pooled.kind == "dense" and min(before) >= 1
    largest = space.layers(space.largest())[-2].output_size
    assert 2 <= np.sqrt(np.prod(largest)) <= 11


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("shape", [(49, 10, 1), (128, 1, 3), (1, 200, 1), (8, 320, 2)])
def test_signals_and_spectrograms_have_networks_too(name, shape):
    space = fitted(name, shape, 12)
    series = hand_scaled(space)
    assert len(series) > 2 and [costs.macs(space, one) for one in series] == sorted(costs.macs(space, one) for one in series)
    assert min(space.layers(space.largest())[-2].output_size) >= 1


@pytest.mark.parametrize("name", FAMILIES)
def test_images_of_the_usual_sizes_have_the_named_space(name):
    for shape in ((28, 28, 1), (32, 32, 3), (48, 48, 3)):
        assert fitted(name, shape, 10) == spaces.get(name).for_images(shape, 10)
    for other in ("mobilenet_v2_28", "digits"):
        assert fitted(other, (64, 64, 3), 10) == spaces.get(other).for_images((64, 64, 3), 10)


@pytest.mark.parametrize("name", FAMILIES)
def test_larger_images_have_wider_networks_at_their_end(name):
    small, large = (fitted(name, (side, side, 3), 10) for side in (32, 224))
    assert large.stride == 32 and small.stride == 8

    def last(space):
        return layers(space, space.largest().values)[-2].output_channels

    assert last(large) > last(small)
