"""Subnets of a given architecture whose bits are set or drawn."""

from collections.abc import Callable, Sequence

import numpy as np

from daqu_tf.spaces.bits import FLOAT_BITS, next_bits
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.subnet import Subnet


def in_float(subnet: Subnet) -> Subnet:
    """The architecture of `subnet` in float."""
    return subnet.with_bits(FLOAT_BITS, FLOAT_BITS)


def uniform_bits(space: SearchSpace, subnet: Subnet, bits: int) -> Subnet:
    """The architecture of `subnet` with the same bits for every tensor.

    Args:
        space: The space of the subnet.
        subnet: The subnet, whose own bits do not matter.
        bits: The bits of every tensor; one that cannot have them gets the next higher ones that it can have, or its highest.
    """
    return _with_bits(space, subnet, lambda: bits)


def mixed_bits(
    space: SearchSpace,
    subnet: Subnet,
    alphabet: Sequence[int],
    rng: np.random.Generator,
    chances: Sequence[float] | np.ndarray | None = None,
) -> Subnet:
    """The architecture of `subnet` with bits that are drawn for each tensor (after BatchQuant, Bai et al., NeurIPS 2021).

    Args:
        space: The space of the subnet.
        subnet: The subnet, whose own bits do not matter.
        alphabet: The bits that may be drawn. A tensor that cannot have what was drawn gets the next higher bits that it can have,
            or its highest.
        rng: The source of all random numbers.
        chances: The probability of each entry of `alphabet`; None makes all equally likely.
    """
    return _with_bits(space, subnet, lambda: int(rng.choice(alphabet, p=chances)))


def _with_bits(space: SearchSpace, subnet: Subnet, choose: Callable[[], int]) -> Subnet:
    values = subnet.values
    searched = [gene for gene in space.genes if gene.name.endswith("_bits") and gene.name in values]
    bits = {gene.name: next_bits(gene.values, choose()) for gene in searched}
    return Subnet(tuple((name, bits.get(name, value)) for name, value in subnet.choices))
