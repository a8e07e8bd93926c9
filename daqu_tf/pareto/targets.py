"""What a surrogate learns of a metric in place of its raw values: outliers drawn in, on a scale that suits the others.

A training that diverges reports a loss of 1e9 or a score of -1e3. One such number makes all others look alike to whatever works
with means and deviations. So a value that lies more than `REACH` interquartile ranges beyond the quartiles (the outer fences of
Tukey, "Exploratory Data Analysis", 1977) counts as lying on that fence if it is worse than usual. If it is better, which a great
find is as well, its distance from the fence counts by its logarithm, which keeps the order. (The difference between the two sides
is ours.)
"""

import dataclasses

import numpy as np

REACH = 3.0
_TINY, _HUGE = 1e-300, 1e150  # The least that a logarithm is taken of, and the most whose square is a float.


@dataclasses.dataclass(frozen=True)
class Scale:
    """A function from the values of one metric to what is learned of them, which preserves their order between the fences.

    Attributes:
        logarithmic: Whether the logarithms of the values are learned.
        low: The lower fence, in the unit of what is learned.
        high: The upper fence, in the unit of what is learned.
        spread: The usual interquartile range, in the unit of what is learned.
        is_maximised: Whether a value beyond the upper fence is better than usual; otherwise one beyond the lower fence is.
    """

    logarithmic: bool = False
    low: float = -np.inf
    high: float = np.inf
    spread: float = 1.0
    is_maximised: bool = False

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """What is learned of values of any shape."""
        taken = self._taken(values)
        drawn = np.clip(taken, self.low, self.high)
        sign = 1 if self.is_maximised else -1
        return drawn + sign * self.spread * np.log1p(np.maximum(sign * (taken - drawn), 0.0) / self.spread)

    def is_outlier(self, values: np.ndarray) -> np.ndarray:
        """Whether each of the values, of any shape, lies beyond a fence."""
        taken = self._taken(values)
        return (taken > self.high) | (taken < self.low)

    def _taken(self, values: np.ndarray) -> np.ndarray:
        values = np.asarray(values, dtype=float)
        return np.log(np.maximum(values, _TINY)) if self.logarithmic else np.clip(values, -_HUGE, _HUGE)


def fitted(values: np.ndarray, logarithmic: bool, is_maximised: bool, limits: tuple[float, ...] = ()) -> Scale:
    """The scale that suits a metric; it has no fences where most values are equal.

    Args:
        values: The finite values (n,) of the metric.
        logarithmic: Whether the logarithms of the values are learned.
        is_maximised: Whether more is better.
        limits: The limits of constraints on the metric. The fences leave room for them, so that what misses a limit still does.
    """
    plain = Scale(logarithmic, is_maximised=is_maximised)
    taken, bounds = plain._taken(values), plain._taken(np.array(limits))
    first, middle, third = np.quantile(taken, (0.25, 0.5, 0.75))
    # Where more than a quarter has diverged, the better half alone says what is usual.
    half = third - middle if is_maximised else middle - first
    spread = min((each for each in (third - first, 2 * half) if each > 0), default=0.0)
    if spread == 0:
        return plain
    center = middle + (half if is_maximised else -half) / 2
    reach = (REACH + 0.5) * spread
    low, high = min([center - reach, *(bounds - spread)]), max([center + reach, *(bounds + spread)])
    return Scale(logarithmic, low, high, spread, is_maximised)
