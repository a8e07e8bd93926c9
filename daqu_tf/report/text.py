"""Figures as texts for people, in the page and in the card."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from daqu_tf.report.run import Member, Run


def percent(value: float | None, digits: int = 2) -> str:
    """A share as a text in percent; a dash for None."""
    return "–" if value is None else f"{100 * value:.{digits}f}%"


def kilobytes(size_bytes: float | None) -> str:
    """A size in bytes as a text in kB, without the unit; a dash for None."""
    return "–" if size_bytes is None else f"{size_bytes / 1000:.1f}"


def size(size_bytes: float) -> str:
    """A size in bytes as a text with its unit."""
    return f"{size_bytes / 1000:,.1f} kB"


def duration(microseconds: float) -> str:
    """A latency in microseconds as a text with its unit."""
    return f"{figure(microseconds)} µs" if microseconds < 1000 else f"{figure(microseconds / 1000)} ms"


def figure(value: float, digits: int = 3) -> str:
    """A number as a text with `digits` significant digits and no exponent."""
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}" if value else "0"


def timed_by(members: Iterable[Member]) -> str:
    """A text with the runtimes and devices that timed the models; empty if none did."""
    devices = {(member.runtime, _device(member.device)) for member in members if member.runtime}
    return "; ".join(f"{runtime}{device}" for runtime, device in sorted(devices))


def _device(device: Mapping[str, Any]) -> str:
    named = [str(device[key]) for key in ("model", "cpu", "os") if device.get(key)]
    return f", on {', '.join(named)}" if named else ""


def standard_error(run: Run) -> str:
    """A sentence with the standard error of the best accuracy; empty where it is not known."""
    images = (run.config.get("dataset") or {}).get("test")
    best = max((member.test for member in run.members if member.test is not None), default=None)
    if not isinstance(images, int) or images < 1 or best is None:
        return ""
    error = 100 * math.sqrt(best * (1 - best) / images)
    return f"With {images:,} test images, {percent(best, 1)} has a standard error of {error:.1f} points."
