import dataclasses

import numpy as np
import pytest

from daqu_tf import spaces, targets
from daqu_tf.errors import DaquError

DIGITS = spaces.get("digits")
LAYER = DIGITS.layers(DIGITS.largest())[0]


@pytest.mark.parametrize("name", targets.TARGETS)
def test_restrict_leaves_what_changes_an_objective(name):
    target = targets.get(name)
    restricted = target.restrict(DIGITS)
    assert target.name == name
    assert target.objectives[0] == ("accuracy", "max")
    assert restricted.activation_bits == (DIGITS.activation_bits if name == "accelerator" else (8,))
    assert restricted.weight_bits == DIGITS.weight_bits
    assert 1 < restricted.cardinality <= DIGITS.cardinality
    assert target.restrict(restricted) == restricted
    subnet = restricted.sample(np.random.default_rng(0))
    assert DIGITS.subnet(subnet.values) == subnet


def test_restrict_of_a_space_without_the_target_s_bits_takes_the_highest():
    space = DIGITS.restrict(activation_bits=(2, 4))
    assert targets.get("litert_cpu").restrict(space).activation_bits == (4,)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("kind", ["conv", "pointwise", "depthwise", "dense"])
def test_containers(kind, bits):
    layer = dataclasses.replace(LAYER, kind=kind, weight_bits=bits)
    packed = kind in ("pointwise", "dense") and bits <= 4
    assert targets.get("litert_cpu").container(layer) == ("INT4" if packed else "INT8")
    assert targets.get("litert_cpu_int8").container(layer) == "INT8"


def test_unknown_name():
    with pytest.raises(DaquError, match=r"`target` must be one of litert_cpu, .* received 'gpu'"):
        targets.get("gpu")
