"""What makes timings doubtful: pure functions, and the limits that they use.

A latency can have these flags, and has none where nothing is doubtful:

- `spread`: the calls of one process differ by more than `SPREAD`, as an interquartile range over the median.
- `run_spread`: the medians of its processes differ by more than `RUN_SPREAD`, as an interquartile range over the median.
- `throttled`: the device said that it slowed down, was hotter than its limit or lowered its frequency, or the medians of its
  processes rose from turn to turn.
- `clock`: the device's clock jumped; calls that took no time, less than none, or more than passed here are left out.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from daqu_tf.devices.errors import DeviceLostError

SPREAD = 0.2
RUN_SPREAD = 0.1
DRIFT = 0.05
FREQUENCY_LOSS = 0.1
_OUTLIER_DEVIATIONS = 5
_NORMAL = 1.4826  # The ratio of the standard deviation to the median absolute deviation in a normal distribution.


def outliers(samples: Sequence[float]) -> np.ndarray:
    """The samples that lie more than five standard deviations over the median.

    The standard deviation is estimated from the median absolute deviation, as at least 1% of the median, since coarse clocks show
    no deviation at all.

    Args:
        samples: The samples (n,), in the order taken.

    Returns:
        The indices (k,) of these samples.
    """
    values = np.asarray(samples, float)
    median = np.median(values)
    deviation = max(_NORMAL * np.median(np.abs(values - median)), 0.01 * median)
    return np.flatnonzero(values > median + _OUTLIER_DEVIATIONS * deviation)


def relative_spread(values: Sequence[float]) -> float:
    """The interquartile range of the values over their median, as a fraction."""
    low, median, high = np.percentile(values, (25, 50, 75))
    return float((high - low) / median)


def possible(samples: Sequence[float], elapsed_us: float, name: str) -> tuple[float, ...]:
    """The samples that can be true, given the time that passed on this machine.

    Args:
        samples: The samples in microseconds, by the device's clock.
        elapsed_us: The microseconds that passed here, by a clock that never jumps, from before the first call to after the last.
        name: The name of the device.

    Raises:
        DeviceLostError: At least half of the samples are impossible, or all of them took longer than passed here.
    """
    kept = tuple(sample for sample in samples if is_possible(sample, elapsed_us))
    if 2 * len(kept) <= len(samples) or sum(kept) > elapsed_us:
        shown = f"{len(samples)} calls in {sum(samples) / 1e6:.3g} s, {len(samples) - len(kept)} of them impossible"
        raise clock_fault(name, shown, elapsed_us)
    return kept


def is_possible(sample_us: float, elapsed_us: float) -> bool:
    """Whether a call can have taken `sample_us` microseconds when `elapsed_us` passed here."""
    return math.isfinite(sample_us) and 0 < sample_us <= elapsed_us


def clock_fault(name: str, shown: str, elapsed_us: float) -> DeviceLostError:
    """The error for a device whose clock shows impossible times.

    Args:
        name: The name of the device.
        shown: What its clock showed.
        elapsed_us: The microseconds that passed here.
    """
    return DeviceLostError(
        f"The clock of {name} jumped or is wrong ({shown}, where {elapsed_us / 1e6:.3g} s passed here): "
        "let it set its time, then try again."
    )


def is_throttled(before: dict[str, Any], after: dict[str, Any], max_celsius: float) -> bool:
    """Whether the conditions before and after a run say that the device slowed down.

    Args:
        before: The conditions before the run, as a `Latency` holds them.
        after: The conditions after the run.
        max_celsius: The temperature from which on the device is too hot.
    """
    hottest = max((each["temperature_celsius"] for each in (before, after) if each.get("temperature_celsius")), default=0.0)
    first, last = before.get("frequency_hz"), after.get("frequency_hz")
    told = any(each.get("throttled") for each in (before, after))
    return told or hottest >= max_celsius or bool(first and last and last < (1 - FREQUENCY_LOSS) * first)


def is_drifting(medians: Sequence[Sequence[float]]) -> bool:
    """Whether each of the last three turns took longer than the one before, in the median over the models.

    Args:
        medians: For each model, the medians of its runs in the order taken; models with fewer than three runs do not count.
    """
    ratios = [(runs[-2] / runs[-3], runs[-1] / runs[-2]) for runs in medians if len(runs) >= 3]
    if not ratios:
        return False
    first, second = np.median(ratios, axis=0)
    return bool(first > 1 and second > 1 and first * second > 1 + DRIFT)
