"""What a surrogate learns of a metric instead of its raw values: on a scale that suits them, and with outliers drawn in.

A training that diverges reports a loss of 1e9 or a score of -1e3. One such number makes all others look alike to whatever works
with means and deviations. So what lies more than `REACH` interquartile ranges beyond the quartile (Tukey, "Exploratory Data
Analysis", 1977: his outer fences) on the worse side counts as lying on that fence, and on the better side, where a great find
lies too, its distance from the fence counts by its logarithm: that keeps the order. (The two sides and the scale are ours.)
"""

import dataclasses

import numpy as np

REACH = 3.0
_TINY, _HUGE = 1e-300, 1e150  # The least that a logarithm is taken of, and the most whose square is a float.


@dataclasses.dataclass(frozen=True)
class Scale:
    """From the values of one metric to what is learned.

    Attributes:
        logarithmic: Whether logarithms are taken first.
        low: The fence below, of what is taken.
        high: The fence above.
        spread: The interquartile range, of what is taken.
        better: 1 where more is better, -1 where less is, 0 where neither.
    """

    logarithmic: bool = False
    low: float = -np.inf
    high: float = np.inf
    spread: float = 1.0
    better: int = 0

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """What is learned, of values of any shape."""
        taken = self.taken(values)
        drawn = np.clip(taken, self.low, self.high)
        if not self.better:
            return drawn
        beyond = np.maximum((taken - self.high) if self.better > 0 else (self.low - taken), 0.0)
        return drawn + self.better * self.spread * np.log1p(beyond / self.spread)

    def taken(self, values: np.ndarray) -> np.ndarray:
        """The values, or their logarithms."""
        values = np.asarray(values, dtype=float)
        return np.log(np.maximum(values, _TINY)) if self.logarithmic else np.clip(values, -_HUGE, _HUGE)

    def is_off(self, values: np.ndarray) -> np.ndarray:
        """Which values lie beyond a fence."""
        taken = self.taken(values)
        return (taken > self.high) | (taken < self.low)

    def is_beyond(self, values: np.ndarray) -> np.ndarray:
        """Which values lie beyond the fence on the better side."""
        taken = self.taken(values)
        return (taken > self.high) & (self.better > 0) | (taken < self.low) & (self.better < 0)


def fitted(values: np.ndarray, logarithmic: bool, better: int = 0, limits: tuple[float, ...] = ()) -> Scale:
    """The scale that suits the values (n,) of a metric.

    Args:
        values: Finite.
        logarithmic: Whether logarithms are taken.
        better: As of `Scale`.
        limits: Those of constraints on the metric, which the fences leave room for, so that what misses one still does.
    """
    plain = Scale(logarithmic, better=better)
    taken, bounds = plain.taken(values), plain.taken(np.array(limits))
    first, middle, third = np.quantile(taken, (0.25, 0.5, 0.75))
    # Where more than a quarter has diverged, the better half alone says what is usual.
    half = {1: third - middle, -1: middle - first, 0: 0.0}[better]
    spreads = [each for each in (third - first, 2 * half) if each > 0]
    if not spreads:
        return plain
    spread = min(spreads)
    center = middle + better * half / 2  # Between the quartiles.
    low, high = (center - (REACH + 0.5) * spread, center + (REACH + 0.5) * spread)
    return Scale(logarithmic, min([low, *(bounds - spread)]), max([high, *(bounds + spread)]), spread, better)


def is_skew(values: np.ndarray) -> bool:
    """Whether the logarithms of positive values (n,) lie more evenly about their median than the values do, outliers aside.

    The measure is the octile skewness of Hinkley, "On power transformations to symmetry", Biometrika 62(1), 1975.
    """
    return abs(_skewness(np.log(values))) < abs(_skewness(np.minimum(values, _HUGE)))


def _skewness(values: np.ndarray) -> float:
    low, middle, high = np.quantile(values, (0.125, 0.5, 0.875))
    return float((high + low - 2 * middle) / (high - low)) if high > low else 0.0
