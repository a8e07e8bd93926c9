import numpy as np
import pytest
from counted_space import COUNTED

from daqu_tf import costs, spaces

# The smallest subnet of that space, layer by layer: weights, output channels, output pixels.
SMALLEST = {
    "stem": (3 * 3 * 1 * 16, 16, 64),
    "stage1.block1.expand": (16 * 32, 32, 64),
    "stage1.block1.depthwise": (3 * 3 * 32, 32, 64),
    "stage1.block1.project": (32 * 8, 8, 64),
    "stage2.block1.expand": (8 * 16, 16, 64),
    "stage2.block1.depthwise": (3 * 3 * 16, 16, 16),  # The stride: 4x4 pixels from here.
    "stage2.block1.project": (16 * 16, 16, 16),
    "head": (16 * 32, 32, 16),
    "classifier": (32 * 10, 10, 1),
}


def macs_of(names):
    return sum(SMALLEST[name][0] * SMALLEST[name][2] for name in names)


def test_layers_by_hand():
    layers = COUNTED.layers(COUNTED.smallest())
    figures = {x.name: (x.weights, x.output_channels, x.output_size[0] * x.output_size[1]) for x in layers}
    assert figures == SMALLEST


def test_totals_by_hand():
    subnet = COUNTED.smallest()
    assert costs.macs(COUNTED, subnet) == macs_of(SMALLEST) == 99_904
    assert costs.parameters(COUNTED, subnet) == sum(weights + outputs for weights, outputs, _ in SMALLEST.values()) == 2738
    assert costs.bitops(COUNTED, subnet) == 99_904 * 8 * 8


def test_bits_of_weights_and_inputs_count_where_they_are_read():
    bits = {"stage1.block1.depthwise.weight_bits": 3, "stage1.block1.expand.activation_bits": 2, "head.weight_bits": 4}
    subnet = COUNTED.subnet(COUNTED.smallest().values | bits)
    changed = {"stage1.block1.depthwise": 3 * 2, "head": 4 * 8}  # Weight bits x bits of the tensor that is read.
    expected = sum(macs_of([name]) * changed.get(name, 64) for name in SMALLEST)
    assert costs.bitops(COUNTED, subnet) == expected
    assert costs.macs(COUNTED, subnet) == costs.macs(COUNTED, COUNTED.smallest())


@pytest.mark.parametrize("space", spaces.SPACES.values(), ids=spaces.SPACES)
@pytest.mark.parametrize("cost", [costs.macs, costs.parameters, costs.bitops])
def test_every_subnet_lies_between_the_extremes(space, cost):
    rng = np.random.default_rng(0)
    lowest = space.smallest().with_bits(min(space.weight_bits), min(space.activation_bits))
    for _ in range(30):
        assert cost(space, lowest) <= cost(space, space.sample(rng)) <= cost(space, space.largest())
