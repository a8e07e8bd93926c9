"""Hard constraints on the metrics that a trial reports, such as `latency_us<=2000`.

Deb's rule orders trials: one that meets all constraints before all that do not, and of those the one that misses them by less
(Deb, "An efficient constraint handling method for genetic algorithms", CMAME 186, 2000).
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from daqu_tf.errors import DaquError
from daqu_tf.pareto.incoming import number

_FORM = re.compile(r"\s*([A-Za-z_][\w.\-/ ]*?)\s*(<=|>=)\s*(\S+)\s*")


@dataclasses.dataclass(frozen=True)
class Constraint:
    """A metric and the highest or lowest value that it may have.

    Attributes:
        metric: The name of the metric, as trials report it.
        operator: The relation to the limit, `<=` or `>=`.
        limit: The limit in the unit of the metric.
    """

    metric: str
    operator: str
    limit: float

    def __str__(self) -> str:
        return f"{self.metric}{self.operator}{self.limit:g}"

    @property
    def sign(self) -> float:
        """1 where a value is better the smaller it is, -1 where it is better the larger it is."""
        return 1.0 if self.operator == "<=" else -1.0

    def violation(self, values: np.ndarray) -> np.ndarray:
        """How far values (count,) of the metric miss the limit: a share of the limit unless that is 0, and 0 where it is met."""
        with np.errstate(over="ignore"):  # Beyond the range of floats it is infinite, and orders as the worst.
            return np.maximum((values - self.limit) * self.sign, 0.0) / (abs(self.limit) or 1.0)


def parse(constraints: Sequence[str | Constraint]) -> tuple[Constraint, ...]:
    """The constraints that texts describe.

    Args:
        constraints: Texts such as `latency_us<=2000`, or constraints, which are kept.

    Raises:
        DaquError: A text has another form, or its limit is no finite number.
    """
    if isinstance(constraints, str):
        raise DaquError(f"`constraints` must be a list, but received {constraints!r}: write [{constraints!r}].")
    if not isinstance(constraints, Sequence):
        raise DaquError(f"`constraints` must be a list, but received {constraints!r}: write each as 'METRIC<=NUMBER'.")
    return tuple(_checked(one) if isinstance(one, Constraint) else _parse(one) for one in constraints)


def _checked(one: Constraint) -> Constraint:
    if one.operator not in ("<=", ">=") or not math.isfinite(number(one.limit)):
        raise DaquError(f"`constraints` must have <= or >= and a finite limit, but received {one}: write METRIC<=NUMBER.")
    return one


def _parse(text: str) -> Constraint:
    found = _FORM.fullmatch(text) if isinstance(text, str) else None
    try:
        limit = float(found[3]) if found else math.nan
    except ValueError:
        limit = math.nan
    if found is None or not math.isfinite(limit):
        raise DaquError(f"`constraints` must have the form METRIC<=NUMBER or METRIC>=NUMBER, but received {text!r}.")
    return Constraint(found[1], found[2], limit)


def total_violation(constraints: Sequence[Constraint], metrics: Mapping[str, float | np.ndarray]) -> np.ndarray:
    """The sum of the violations of all constraints, infinite where a metric is missing or not finite.

    Args:
        constraints: The constraints.
        metrics: The metrics by name, each one number for one trial, or an array (count,) for many.

    Returns:
        The sum for one trial, of shape (), or for many (count,); 0 where all constraints are met.
    """
    total = np.zeros(())
    for one in constraints:
        found = metrics.get(one.metric, math.nan)
        values = found if isinstance(found, np.ndarray) else np.asarray(number(found))
        total = total + np.where(np.isfinite(values), one.violation(values), math.inf)
    return total
