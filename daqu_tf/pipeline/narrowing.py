"""The part of a search space that a supernet can learn in the minutes that it has.

All architectures share the weights of one supernet, and the more they differ, the less each of them learns in a short time. After
two minutes on two cores, a supernet of Fashion-MNIST whose widths alone are elastic is at 85 to 87%, where one whose resolutions,
depths and expansions are elastic too is at 77 to 83%, and ranks its subnets wrongly (ours, by measurement). So a search of few
minutes is one of widths, around the network that people scale by hand.
"""

import dataclasses
import math

from daqu_tf.pipeline import budget
from daqu_tf.pipeline.forecast import supernet_images
from daqu_tf.pipeline.speed import Speed
from daqu_tf.runs.config import RunConfig
from daqu_tf.spaces import SearchSpace
from daqu_tf.spaces.hand_scaled import hand_scaled
from daqu_tf.targets import costs

# What is not elastic, from the least images on that the supernet's steps go through, which count once for each subnet of a step; of
# few images, so many epochs are enough.
HELD = ((0.0, 0.0, ("resolution", "depth", "kernel", "expansion")), (1e6, 60.0, ("resolution",)), (4e6, 240.0, ()))
# A network is worth having that can see so many images as one of three finalists; of few images, so many epochs are enough.
LEAST_SEEN = (4e5, 8.0)
# From so many images through its steps on a supernet is worth its minutes; of few images, so many epochs are enough. In twenty
# minutes on two cores it is not, with a twelfth of these images. That it is with these is a guess.
PAYS = (1e7, 300.0)


def narrowed(space: SearchSpace, config: RunConfig, count: int, speed: Speed) -> SearchSpace:
    """The part of a space that a job can train: what its supernet can learn, and no wider than what its finalists have time for.

    It is all of the space where bits are searched, where a schedule is given, where the space is a file of the user's own, and
    where it begins as a trained network.

    Args:
        space: The space.
        config: The settings, whose minutes or epochs decide.
        count: The number of training images.
        speed: What a training step takes on this machine.
    """
    if config.searches_bits or config.schedule or config.space.endswith(".json") or config.init_from:
        return space
    *_, by_hand = hand_scaled(space)
    images = _images(space, config, count, speed)
    kinds = next(kinds for least, epochs, kinds in reversed(HELD) if images >= min(least, epochs * count))
    free = () if config.searches_architectures else ("resolution",)  # Networks that are trained alone learn theirs in any case.
    kept = {name: (value,) for name, value in by_hand.choices if (kind := name.rpartition(".")[2]) in kinds and kind not in free}
    return _no_wider(space.restrict(**kept) if kept else space, config, count, speed)


def supernet_pays(space: SearchSpace, config: RunConfig, count: int, speed: Speed) -> bool:
    """Whether a supernet is worth its minutes, which networks that people scale by hand would have for themselves otherwise.

    In jobs of 20 minutes, two architectures ended 0.2 and 0.1 points lower on Fashion-MNIST from the supernet's weights than from
    random ones in the same time, that of the supernet and of the search counted, and one 0.6 points lower on Imagenette; the front
    of the whole job had a hypervolume of 1.5 times that of hand-scaled MobileNetV2 with the supernet, and of 2.2 without it, on
    Fashion-MNIST (ours, one seed).

    Args:
        space: The space.
        config: The settings, whose minutes or epochs decide.
        count: The number of training images.
        speed: What a training step takes on this machine.
    """
    least, epochs = PAYS
    return _images(space, config, count, speed) >= min(least, epochs * count)


def _images(space: SearchSpace, config: RunConfig, count: int, speed: Speed) -> float:
    """About how many images go through the supernet's steps, once for each subnet."""
    *_, by_hand = hand_scaled(space)
    return supernet_images(config, count, speed.seconds_an_image(costs.macs(space, by_hand) / 2))


def _no_wider(space: SearchSpace, config: RunConfig, count: int, speed: Speed) -> SearchSpace:
    """Without the widths beyond those of the largest network, of those that people scale by hand, which has time for its images."""
    if config.finetune_epochs:
        return space
    small, *others = hand_scaled(space)
    least, epochs = LEAST_SEEN
    slowest = _seconds_each(config, count) / min(least, epochs * count)
    fitting = [one for one in others if speed.seconds_an_image(costs.macs(space, one)) <= slowest]
    widest = (fitting or others[:1] or [small])[-1]
    widths = {gene.name: gene.values for gene in space.genes if gene.name.endswith(".width")}
    return space.restrict(**{name: [one for one in values if one <= widest[name]] for name, values in widths.items()})


def least_minutes(space: SearchSpace, config: RunConfig, count: int, speed: Speed) -> int:
    """The shortest budget, in whole minutes, in which the smallest network sees what it needs as one of three finalists.

    Args:
        space: The space.
        config: The settings. Where they give fine-tuning its epochs, no minutes are too few.
        count: The number of training images.
        speed: What a training step takes on this machine.
    """
    if config.finetune_epochs:
        return 0
    least, epochs = LEAST_SEEN
    needed = min(least, epochs * count) * speed.seconds_an_image(costs.macs(space, hand_scaled(space)[0]))
    # They grow linearly with the minutes, once there are some.
    some, more = (_seconds_each(dataclasses.replace(config, budget_minutes=minutes), count) for minutes in (1000.0, 2000.0))
    return math.ceil(max(1000 + 1000 * (needed - some) / (more - some), 1.0))


def _seconds_each(config: RunConfig, count: int) -> float:
    """The seconds for which each of three finalists can be trained."""
    *_, finalists = budget.stage_seconds(config)
    rounds = max(1.0, budget.LEAST_FINALISTS / budget.workers(config))
    return finalists / rounds - budget.overhead(count)


def held(space: SearchSpace, nominal: SearchSpace) -> str:
    """Which kinds of choices of a space are not searched, for people; empty where all are.

    Args:
        space: The part that is searched.
        nominal: The whole space.
    """
    left = {gene.name: len(gene.values) for gene in space.genes}
    architecture = [gene for gene in nominal.genes if not gene.name.endswith(("_bits", ".width"))]
    return ", ".join(dict.fromkeys(g.name.rpartition(".")[2] for g in architecture if left[g.name] == 1 < len(g.values)))


def widest(space: SearchSpace, nominal: SearchSpace) -> str:
    """The largest widths that are searched, for people; empty where those are the largest of the whole space.

    Args:
        space: The part that is searched.
        nominal: The whole space.
    """
    here, there = ([g.values[-1] for g in one.genes if g.name.endswith(".width")] for one in (space, nominal))
    return "" if here == there else ", ".join(map(str, here))
