"""The finished members of a run, and which of them are on their Pareto front."""

from collections.abc import Sequence

import numpy as np

from daqu_tf.pareto.constraints import Constraint, total_violation
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.targets.target import Target


def front_of(target: Target, space: SearchSpace, members: list[dict], constraints: Sequence[Constraint] = ()) -> dict:
    """The content of `pareto.json`: all members, best accuracy first, each marked whether it is on their Pareto front.

    The search knew inherited accuracies and single or predicted latencies: what misses a constraint by final figures is not on it.
    """
    from daqu_tf.pareto.fronts import non_dominated_mask

    for member in members:
        figures = final_figures(member)
        known = [one for one in constraints if one.metric in figures]  # Others depend on the subnet alone.
        member["missed_constraints"] = [str(one) for one in known if total_violation([one], figures)]
        member["on_front"] = False
    good = [member for member in members if not member["missed_constraints"]]
    points = np.array([objective_values(target, member) for member in good]).reshape(len(good), len(target.objectives))
    for member, on_front in zip(good, non_dominated_mask(points)):
        member["on_front"] = bool(on_front)
    members.sort(key=lambda member: -member["accuracy"]["fine_tuned"]["search"])
    objectives = [{"name": name, "direction": direction} for name, direction in target.objectives]
    return {"space": space.name, "target": target.name, "objectives": objectives, "members": members}


def objective_values(target: Target, member: dict) -> list[float]:
    """The target's objectives of a finished member, all to be minimised."""
    figures = final_figures(member)
    return [figures[name] * (-1 if direction == "max" else 1) for name, direction in target.objectives]


def final_figures(member: dict) -> dict:
    """A finished member's figures by the names of metrics; the accuracy is that on the search split."""
    return member | {"accuracy": member["accuracy"]["fine_tuned"]["search"], "latency_us": member["latency"]["median_us"]}
