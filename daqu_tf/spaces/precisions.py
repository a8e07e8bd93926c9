"""Subnets whose architecture stays and whose bits are drawn or set."""

from collections.abc import Callable, Sequence

import numpy as np

from daqu_tf.spaces.bits import FLOAT_BITS, next_width
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.subnet import Subnet


def in_float(subnet: Subnet) -> Subnet:
    """The architecture in full precision."""
    return subnet.with_bits(FLOAT_BITS, FLOAT_BITS)


def uniform_bits(space: SearchSpace, subnet: Subnet, width: int) -> Subnet:
    """The architecture with `width` bits of every tensor; where a tensor does not have that, with the next width that it has."""
    return _with_bits(space, subnet, lambda: width)


def mixed_bits(
    space: SearchSpace,
    subnet: Subnet,
    widths: Sequence[int],
    rng: np.random.Generator,
    chances: Sequence[float] | np.ndarray | None = None,
) -> Subnet:
    """The architecture with one of `widths` for each tensor, or the next that it has (after BatchQuant).

    Args:
        space: Of the subnet.
        subnet: Whose bits do not matter.
        widths: What may be drawn.
        rng: Where the choice comes from.
        chances: Of the widths; by default all the same.
    """
    return _with_bits(space, subnet, lambda: int(rng.choice(widths, p=chances)))


def _with_bits(space: SearchSpace, subnet: Subnet, choose: Callable[[], int]) -> Subnet:
    values = subnet.values
    searched = [gene for gene in space.genes if gene.name.endswith("_bits") and gene.name in values]
    bits = {gene.name: next_width(gene.values, choose()) for gene in searched}
    return Subnet(tuple((name, bits.get(name, value)) for name, value in subnet.choices))
