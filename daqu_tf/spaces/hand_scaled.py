"""The networks that people make by hand from one by a width multiplier, as MobileNet's users do (Howard et al., 2017)."""

import math
from collections.abc import Sequence

from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.subnet import Subnet

MULTIPLIERS, KERNEL = (0.35, 0.5, 0.75, 1.0), 3
FINE_STEPS = 40  # Of multipliers between the smallest and the largest.


def hand_scaled(space: SearchSpace) -> list[Subnet]:
    """The networks of a space that are nearest to those that people scale by hand, from small to large.

    The network of width 1.0 is the one that `space.by_hand` names. Where that says nothing, it has kernels of 3x3, and the largest
    value of every other gene. The others have fewer channels throughout, and are alike in all else.

    Args:
        space: The space, whose highest bits they have.
    """
    return list(dict.fromkeys(scaled(space, multiplier) for multiplier in MULTIPLIERS))


def finely_scaled(space: SearchSpace) -> list[Subnet]:
    """All networks of a space between the smallest and the largest of `hand_scaled`, for any multiplier, from small to large."""
    least, *_, most = MULTIPLIERS
    multipliers = (least * (most / least) ** (step / FINE_STEPS) for step in range(FINE_STEPS + 1))
    return list(dict.fromkeys(scaled(space, multiplier) for multiplier in multipliers))


def reduced(space: SearchSpace) -> list[Subnet]:
    """The networks of a space that lose the least of what the largest one has learned, from small to large.

    Images are made smaller first, which leaves all weights as they are, and then layers narrower.
    """
    resolutions = space.genes[0].values
    narrower = [one for one in finely_scaled(space) if one["resolution"] == resolutions[-1]]
    least = [space.subnet(one.values | {"resolution": resolutions[0]}) for one in narrower]
    smaller = [space.subnet(narrower[-1].values | {"resolution": resolution}) for resolution in resolutions]
    return list(dict.fromkeys([*least, *smaller]))


def scaled(space: SearchSpace, multiplier: float) -> Subnet:
    """The network of a space that is nearest to the one that people scale by hand with a width multiplier, as of `hand_scaled`."""
    named, values = dict(space.by_hand), {}
    for gene in space.genes:
        wanted = named.get(gene.name, KERNEL if gene.name.endswith(".kernel") else gene.values[-1])
        values[gene.name] = _nearest(gene.values, wanted * multiplier if gene.name.endswith(".width") else wanted)
    return space.subnet(values)


def _nearest(values: Sequence[int], wanted: float) -> int:
    return min(values, key=lambda value: abs(math.log(value / wanted)))
