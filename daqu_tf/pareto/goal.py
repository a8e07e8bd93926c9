"""The goal of a search: objectives with their directions, and constraints."""

import dataclasses
import functools

import numpy as np

from daqu_tf.pareto.constraints import Constraint, total_violation


def sign(direction: str) -> float:
    """The factor, 1 or -1, that turns a metric with a direction, `min` or `max`, into one that is minimised."""
    return -1.0 if direction == "max" else 1.0


@dataclasses.dataclass(frozen=True)
class Goal:
    """The objectives and constraints of a search.

    Attributes:
        objectives: Pairs of a metric and its direction, `min` or `max`.
        constraints: The constraints that must be met.
    """

    objectives: tuple[tuple[str, str], ...]
    constraints: tuple[Constraint, ...] = ()

    @property
    def metrics(self) -> list[str]:
        """The names of all metrics that a trial must report: those of the objectives, then those of the constraints."""
        return list(dict.fromkeys([*(name for name, _ in self.objectives), *(one.metric for one in self.constraints)]))

    @functools.cached_property
    def signs(self) -> np.ndarray:
        """The factor (objectives,), 1 or -1, that turns each objective into one that is minimised."""
        return np.array([sign(direction) for _, direction in self.objectives])

    @property
    def maximised(self) -> frozenset[str]:
        """The names of the metrics that are maximised."""
        return frozenset(name for name, direction in self.objectives if direction == "max")

    @property
    def limits(self) -> dict[str, tuple[float, ...]]:
        """The limits of the constraints on each metric, by its name."""
        return {name: tuple(one.limit for one in self.constraints if one.metric == name) for name in self.metrics}

    def violation(self, values: np.ndarray) -> np.ndarray:
        """The total violation of the constraints (n,) by the metrics (n, metrics) of trials, in the order of `metrics`."""
        return np.zeros(len(values)) + total_violation(self.constraints, dict(zip(self.metrics, values.T)))
