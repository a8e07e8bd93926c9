"""Several objectives of a KerasTuner trial, kept apart."""

import functools
from collections.abc import Mapping, Sequence

import keras_tuner
import numpy as np
from keras_tuner.engine.metrics_tracking import infer_metric_direction
from keras_tuner.engine.trial import Trial
from keras_tuner.src.engine.objective import MultiObjective

from daqu_tf.pareto.goal import sign
from daqu_tf.pareto.incoming import number


@functools.cache
def direction(name: str) -> str:
    """`min` or `max`, as KerasTuner infers it from a metric's name."""
    return infer_metric_direction(name) or "min"


def objective_point(trial: Trial, objectives: Sequence[keras_tuner.Objective]) -> np.ndarray:
    """What the trial reported last for each objective, all to be minimised.

    Returns:
        (m,) values in the metrics' units, negated where the direction is `max`; NaN where nothing was reported.
    """
    values = [
        trial.metrics.get_last_value(objective.name) if trial.metrics.exists(objective.name) else None for objective in objectives
    ]
    signs = [sign(objective.direction) for objective in objectives]
    return np.array([one * number(value) for value, one in zip(values, signs)])


class Objectives(MultiObjective):
    """Several objectives. Where KerasTuner's own code wants one number, for the best epoch of a training, it takes the first.

    Its sum of all, under a name of its own, would make seconds weigh as much as shares, and be asked for in every trial's metrics.

    Args:
        objectives: At least one.
    """

    def __init__(self, objectives: list[keras_tuner.Objective]):
        super().__init__(objectives)
        self.name, self.direction = objectives[0].name, objectives[0].direction

    def get_value(self, logs: Mapping[str, float]) -> float:
        """That of the first objective."""
        return logs[self.name]
