"""The part of a search space that a supernet can learn in the minutes that it has.

All architectures share the weights of one supernet, and the more they differ, the less each of them learns in a short time. After
two minutes on two cores, a supernet of Fashion-MNIST whose widths alone are elastic is at 85 to 87%, where one whose resolutions,
depths and expansions are elastic too is at 77 to 83%, and ranks its subnets wrongly (ours, by measurement). So in few minutes only
widths are searched, around the network that people scale by hand.
"""

from daqu_tf import machine
from daqu_tf.pipeline.budget import SUPERNET_SHARE
from daqu_tf.runs.config import RunConfig
from daqu_tf.spaces import SearchSpace
from daqu_tf.spaces.hand_scaled import hand_scaled
from daqu_tf.targets import costs
from daqu_tf.training.samplers import Sandwich

# What is not elastic, from the least images on that the supernet's steps go through, which count once for each subnet of a step; of
# few images, so many epochs are enough.
HELD = ((0.0, 0.0, ("resolution", "depth", "kernel", "expansion")), (1e6, 60.0, ("resolution",)), (4e6, 240.0, ()))
MACS_A_CORE_SECOND = 1.3e9  # Of a supernet's training, forward; an AMD EPYC with AVX-512 (ours).


def narrowed(space: SearchSpace, config: RunConfig, count: int) -> SearchSpace:
    """The part of a space that the supernet of a job can learn.

    It is all of the space where bits are searched, where a schedule is given, and where the space is a file of the user's own.

    Args:
        space: The space.
        config: The settings, whose minutes or epochs decide.
        count: The number of training images.
    """
    if config.searches_bits or config.schedule or config.space.endswith(".json"):
        return space
    by_hand = hand_scaled(space)[-1]
    images = _images(config, count, costs.macs(space, by_hand))
    kinds = next(kinds for least, epochs, kinds in reversed(HELD) if images >= min(least, epochs * count))
    kept = {name: (value,) for name, value in by_hand.choices if name.rpartition(".")[2] in kinds}
    return space.restrict(**kept) if kept else space


def _images(config: RunConfig, count: int, macs: int) -> float:
    """About how many images the supernet's steps go through, once for each subnet; the mean one is half as large as `macs`."""
    if config.epochs:
        return config.epochs * count * Sandwich.SUBNETS
    return SUPERNET_SHARE * 60 * config.budget_minutes * machine.cores() * MACS_A_CORE_SECOND / (macs / 2)


def held(space: SearchSpace, nominal: SearchSpace) -> str:
    """Which kinds of choices of a space are not searched, for people; empty where all are.

    Args:
        space: The part that is searched.
        nominal: The whole space.
    """
    left = {gene.name: len(gene.values) for gene in space.genes}
    architecture = [gene for gene in nominal.genes if not gene.name.endswith("_bits")]
    return ", ".join(dict.fromkeys(g.name.rpartition(".")[2] for g in architecture if left[g.name] == 1 < len(g.values)))
