"""What a network is judged by, and constraints on it as people write them, such as `latency<=2ms`."""

import re
from collections.abc import Sequence

from daqu_tf.errors import DaquError
from daqu_tf.pareto.constraints import Constraint, parse

COMPUTED = ("parameters", "macs", "bitops", "bit_packed_bytes", "peak_activation_bytes")  # Of each there is a function in `costs`.
METRICS = ("accuracy", "latency_us", "file_bytes", "deflated_bytes", *COMPUTED)  # What a trial can report.
SHORT = {"latency": "latency_us", "size": "file_bytes"}
_TIMES = {"us": 1.0, "µs": 1.0, "ms": 1e3, "s": 1e6}
_SIZES = {"B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "KiB": 1024.0, "MiB": 1024.0**2}
_COUNTS = {"k": 1e3, "M": 1e6, "G": 1e9}
_FORM = re.compile(r"\s*(\w+)\s*(<=|>=)\s*([-+.\d]+(?:e[-+]?\d+)?)\s*([a-zA-Zµ%]*)\s*")


def units_of(metric: str) -> dict[str, float]:
    """The units in which a limit on a metric may be given, each with its size in the unit of the metric itself."""
    if metric == "accuracy":
        return {"%": 0.01}
    return _TIMES if metric.endswith("_us") else _SIZES if metric.endswith("_bytes") else _COUNTS


def constraints_of(texts: Sequence[str | Constraint]) -> tuple[Constraint, ...]:
    """The constraints that texts describe, in the metrics' own names and units.

    Args:
        texts: Texts such as `latency<=2ms`, `latency_us<=2000`, `size<=100kB`, `macs<=5M` or `accuracy>=90%`.

    Raises:
        DaquError: A text has another form, or names a metric or a unit that there is not.
    """
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        return parse(texts)  # Which says what is wrong.
    return tuple(_constraint(text) for text in texts)


def _constraint(text: str | Constraint) -> Constraint:
    found = _FORM.fullmatch(text) if isinstance(text, str) else None
    name, operator, number, unit = found.groups() if found else ("", "", "", "")
    (one,) = parse([f"{SHORT.get(name, name)}{operator}{number}" if found else text])
    if one.metric not in METRICS:
        raise DaquError(f"`constraint` must name latency, size or one of {', '.join(METRICS)}, but received {one.metric!r}.")
    units = units_of(one.metric)
    if unit and unit not in units:
        raise DaquError(f"`constraint` {text!r} has the unit {unit!r}, but {one.metric} is given in {', '.join(units)}.")
    limit = one.limit * units.get(unit, 1.0)
    if one.metric == "accuracy" and limit > 1:
        raise DaquError(f"`constraint` {text!r} asks for more than all: accuracy is a share, as accuracy>=0.9 or accuracy>=90%.")
    return Constraint(one.metric, one.operator, limit)
