"""What makes timings doubtful, and which of them to take again; pure functions, with the limits they go by.

Flags of a latency, empty where nothing is doubtful:

- `spread`: the calls of one process differ by more than `SPREAD`, as an interquartile range over the median.
- `run_spread`: so do the medians of its processes, by more than `RUN_SPREAD`.
- `throttled`: the device said so, was hotter than its limit, or its frequency fell, or the medians of its processes rose and rose.
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
_NORMAL = 1.4826  # Times the median absolute deviation, it is the standard deviation of what is normally distributed.


def outliers(samples: Sequence[float]) -> np.ndarray:
    """Which samples lie more than five standard deviations over the median, these taken from the median absolute deviation.

    Args:
        samples: Shape (n,), in the order taken.

    Returns:
        Indices, shape (k,). A deviation of less than 1% of the median is taken as 1%, since coarse clocks show none.
    """
    values = np.asarray(samples, float)
    median = np.median(values)
    deviation = max(_NORMAL * np.median(np.abs(values - median)), 0.01 * median)
    return np.flatnonzero(values > median + _OUTLIER_DEVIATIONS * deviation)


def relative_spread(values: Sequence[float]) -> float:
    """The interquartile range over the median, as a fraction."""
    low, median, high = np.percentile(values, (25, 50, 75))
    return float((high - low) / median)


def possible(samples: Sequence[float], elapsed_us: float, name: str) -> tuple[float, ...]:
    """The samples that a clock which goes as ours does could show.

    Args:
        samples: In microseconds.
        elapsed_us: What passed here, by a clock that never jumps, from before the first to after the last.
        name: The device's.

    Raises:
        DeviceLostError: Half of the samples, or all of them together, are impossible.
    """
    kept = tuple(sample for sample in samples if is_possible(sample, elapsed_us))
    if 2 * len(kept) <= len(samples) or sum(kept) > elapsed_us:
        shown = f"{len(samples)} calls in {sum(samples) / 1e6:.3g} s, {len(samples) - len(kept)} of them impossible"
        raise clock_fault(name, shown, elapsed_us)
    return kept


def is_possible(sample_us: float, elapsed_us: float) -> bool:
    """Whether a call can have taken so long, where so much passed here."""
    return math.isfinite(sample_us) and 0 < sample_us <= elapsed_us


def clock_fault(name: str, shown: str, elapsed_us: float) -> DeviceLostError:
    """The error for a device whose clock shows what cannot be."""
    return DeviceLostError(
        f"The clock of {name} jumped or is wrong ({shown}, where {elapsed_us / 1e6:.3g} s passed here): "
        "let it set its time, then try again."
    )


def is_throttled(before: dict[str, Any], after: dict[str, Any], max_celsius: float) -> bool:
    """Whether the conditions around a run say that the device slowed down."""
    hottest = max((each["temperature_celsius"] for each in (before, after) if each.get("temperature_celsius")), default=0.0)
    first, last = before.get("frequency_hz"), after.get("frequency_hz")
    told = any(each.get("throttled") for each in (before, after))
    return told or hottest >= max_celsius or bool(first and last and last < (1 - FREQUENCY_LOSS) * first)


def is_drifting(medians: Sequence[Sequence[float]]) -> bool:
    """Whether the last three turns took longer and longer, in the median over the models.

    Args:
        medians: Of each model, those of its runs, in the order taken; of fewer than three runs they do not count.
    """
    ratios = [(runs[-2] / runs[-3], runs[-1] / runs[-2]) for runs in medians if len(runs) >= 3]
    if not ratios:
        return False
    first, second = np.median(ratios, axis=0)
    return bool(first > 1 and second > 1 and first * second > 1 + DRIFT)
