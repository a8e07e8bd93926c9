"""The finished members of a run, and which of them are on their Pareto front."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from daqu_tf.export.manifest import Manifest
from daqu_tf.pareto.constraints import Constraint, total_violation
from daqu_tf.pareto.fronts import non_dominated_mask
from daqu_tf.pareto.goal import sign
from daqu_tf.targets import Target


def front_of(target: Target, members: Sequence[Manifest], constraints: Sequence[Constraint] = ()) -> list[Manifest]:
    """All members, best accuracy first, each marked whether it is on their Pareto front.

    The search knew inherited accuracies and single or predicted latencies: what misses a constraint by final figures is not on it.

    Args:
        target: The target, whose objectives count.
        members: The finished members.
        constraints: What members must meet.
    """
    missed = [_missed(member, constraints) for member in members]
    good = [index for index, each in enumerate(missed) if not each]
    points = np.array([_point(target, members[index]) for index in good]).reshape(len(good), len(target.objectives))
    front = {index for index, is_on_front in zip(good, non_dominated_mask(points)) if is_on_front}
    marked = [
        dataclasses.replace(member, missed_constraints=missed[index], on_front=index in front)
        for index, member in enumerate(members)
    ]
    return sorted(marked, key=lambda member: -member.search_accuracy)


def _missed(member: Manifest, constraints: Sequence[Constraint]) -> tuple[str, ...]:
    """The constraints that a member misses; of metrics that depend on the subnet alone the search has seen to it."""
    figures = member.figures
    return tuple(str(one) for one in constraints if one.metric in figures and total_violation([one], figures))


def _point(target: Target, member: Manifest) -> list[float]:
    """The target's objectives, all to be minimised."""
    figures = member.figures
    return [figures[name] * sign(direction) for name, direction in target.objectives]
