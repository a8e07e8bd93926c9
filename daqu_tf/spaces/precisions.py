"""Subnets whose architecture stays and whose bits are drawn or set."""

from collections.abc import Callable, Sequence

import numpy as np

from daqu_tf.spaces.bits import FLOAT_BITS, next_bits
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.subnet import Subnet


def in_float(subnet: Subnet) -> Subnet:
    """The architecture in full precision."""
    return subnet.with_bits(FLOAT_BITS, FLOAT_BITS)


def uniform_bits(space: SearchSpace, subnet: Subnet, bits: int) -> Subnet:
    """The architecture with `bits` for every tensor; a tensor that cannot have them gets the next that it can have."""
    return _with_bits(space, subnet, lambda: bits)


def mixed_bits(
    space: SearchSpace, subnet: Subnet, alphabet: Sequence[int], rng: np.random.Generator, chances: Sequence[float] | None = None
) -> Subnet:
    """The architecture with bits from `alphabet` for each tensor, or the next that it can have (after BatchQuant).

    Args:
        space: Of the subnet.
        subnet: Whose bits do not matter.
        alphabet: The bits that may be drawn.
        rng: Where the choice comes from.
        chances: The probability of each of `alphabet`; by default all are equally likely.
    """
    return _with_bits(space, subnet, lambda: int(rng.choice(alphabet, p=chances)))


def _with_bits(space: SearchSpace, subnet: Subnet, choose: Callable[[], int]) -> Subnet:
    values = subnet.values
    searched = [gene for gene in space.genes if gene.name.endswith("_bits") and gene.name in values]
    bits = {gene.name: next_bits(gene.values, choose()) for gene in searched}
    return Subnet(tuple((name, bits.get(name, value)) for name, value in subnet.choices))
