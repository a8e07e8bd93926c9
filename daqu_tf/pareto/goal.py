"""What a search wants: objectives with their directions, and constraints."""

import dataclasses

import numpy as np

from daqu_tf.pareto.constraints import Constraint


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

    @property
    def maximised(self) -> frozenset[str]:
        """Metrics to be maximised."""
        return frozenset(name for name, direction in self.objectives if direction == "max")

    def violation(self, values: np.ndarray) -> np.ndarray:
        """(n,) total violation of the constraints by values (n, metrics)."""
        missed = [one.violation(values[:, self.metrics.index(one.metric)]) for one in self.constraints]
        return np.sum(missed, axis=0) if missed else np.zeros(len(values))
