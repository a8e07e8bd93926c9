"""The objectives that trials have reached, and that others would probably reach, normalised alike."""

import numpy as np
from scipy.special import ndtr

from daqu_tf.pareto.fronts import first_front
from daqu_tf.pareto.goal import Goal
from daqu_tf.pareto.predictor import MetricsPredictor


class Outlook:
    """Predictions as normalised objectives: the front so far ranges from 0 to 1, and less is better.

    Args:
        predictor: A predictor that has been fitted to the trials so far.
        goal: The objectives and constraints of the search.
        codes: The codes (n, choices) of the trials so far.
        values: The metrics (n, metrics) of the trials so far, in the order of `goal.metrics`.

    Attributes:
        front: The normalised objectives (f, m) of the trials on the front, among those that meet the constraints. Where none does,
            it is one point: the worst value of each objective.
    """

    def __init__(self, predictor: MetricsPredictor, goal: Goal, codes: np.ndarray, values: np.ndarray):
        self._predictor, self._goal = predictor, goal
        scaled = [predictor.scaled(name, column) for name, column in zip(goal.metrics, values.T)]
        points = np.stack(scaled[: len(goal.signs)], axis=1) * goal.signs
        # A value that is too good to be true may be: it counts as what is expected where it was measured.
        objectives = goal.metrics[: len(goal.signs)]
        outlying = np.stack([predictor.scales[name].is_outlier(column) for name, column in zip(objectives, values.T)], axis=1)
        if outlying.any():
            expected = predictor.predict(codes)[0][:, : len(goal.signs)] * goal.signs
            points = np.where(outlying, np.maximum(expected, points), points)
        good = points[goal.violation(values) == 0]
        front = good[first_front(good)] if len(good) else points.max(0, keepdims=True)
        self._low, spans = front.min(0), np.ptp(front, axis=0)
        self._span = np.where(spans > 0, spans, np.maximum(np.ptp(points, axis=0), 1e-9))
        self.front = (front - self._low) / self._span

    def __call__(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Predicts the objectives of candidates with codes (count, n).

        Returns:
            The means (count, m) and deviations (count, m) of the normalised objectives, and the probability (count,) that the
            constraints are met.
        """
        means, deviations = self._predictor.predict(codes)
        m = len(self._goal.signs)
        points = (means[:, :m] * self._goal.signs - self._low) / self._span
        return points, deviations[:, :m] / self._span, self._feasibility(means, deviations)

    def _feasibility(self, means: np.ndarray, deviations: np.ndarray) -> np.ndarray:
        chance = np.ones(len(means))
        for one in self._goal.constraints:
            place = self._goal.metrics.index(one.metric)
            room = one.sign * (self._predictor.scaled(one.metric, np.array(one.limit)) - means[:, place])
            exact = deviations[:, place] == 0
            chance *= np.where(exact, room >= -1e-9, ndtr(room / np.maximum(deviations[:, place], 1e-12)))
        return chance
