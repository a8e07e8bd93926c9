"""The objectives of a KerasTuner trial, which are kept apart."""

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
    """The direction of a metric, `min` or `max`, as KerasTuner infers it from the name; `min` where it cannot."""
    return infer_metric_direction(name) or "min"


def objective_point(trial: Trial, objectives: Sequence[keras_tuner.Objective]) -> np.ndarray:
    """The objectives of a trial as a point, all of which are minimised.

    Args:
        trial: The trial.
        objectives: The objectives, each with a direction.

    Returns:
        The values (m,) that the trial reported last, negated where the direction is `max`; NaN where nothing was reported.
    """
    values = [
        trial.metrics.get_last_value(objective.name) if trial.metrics.exists(objective.name) else None for objective in objectives
    ]
    signs = [sign(objective.direction) for objective in objectives]
    return np.array([one * number(value) for value, one in zip(values, signs)])


class Objectives(MultiObjective):
    """Several objectives for KerasTuner, whose own code takes the first where it wants one number.

    It wants one number for the best epoch of a training. Its own sum of all objectives would weigh seconds like shares, and would
    have to be reported by every trial under a name of its own.

    Args:
        objectives: The objectives, at least one.
    """

    def __init__(self, objectives: list[keras_tuner.Objective]):
        super().__init__(objectives)
        self.name, self.direction = objectives[0].name, objectives[0].direction

    def get_value(self, logs: Mapping[str, float]) -> float:
        """The value of the first objective in `logs`."""
        return logs[self.name]
