"""What a search wants: objectives with their directions, and constraints."""

import dataclasses
import functools

import numpy as np

from daqu_tf.pareto.constraints import Constraint, total_violation


def sign(direction: str) -> float:
    """What makes of a metric that is to go in a direction, `min` or `max`, one to be minimised: 1 or -1, to multiply it by."""
    return -1.0 if direction == "max" else 1.0


@dataclasses.dataclass(frozen=True)
class Goal:
    """What is wanted of the metrics.

    Attributes:
        objectives: (metric, `min` or `max`).
        constraints: What must be met.
    """

    objectives: tuple[tuple[str, str], ...]
    constraints: tuple[Constraint, ...] = ()

    @property
    def metrics(self) -> list[str]:
        """All that must be known of a trial, objectives first."""
        return list(dict.fromkeys([*(name for name, _ in self.objectives), *(one.metric for one in self.constraints)]))

    @functools.cached_property
    def signs(self) -> np.ndarray:
        """(objectives,) what makes each objective one to be minimised: 1 or -1."""
        return np.array([sign(direction) for _, direction in self.objectives])

    @property
    def maximised(self) -> frozenset[str]:
        """Metrics to be maximised."""
        return frozenset(name for name, direction in self.objectives if direction == "max")

    @property
    def limits(self) -> dict[str, tuple[float, ...]]:
        """Those of the constraints, by metric."""
        return {name: tuple(one.limit for one in self.constraints if one.metric == name) for name in self.metrics}

    def violation(self, values: np.ndarray) -> np.ndarray:
        """(n,) total violation of the constraints by values (n, metrics)."""
        return np.zeros(len(values)) + total_violation(self.constraints, dict(zip(self.metrics, values.T)))
