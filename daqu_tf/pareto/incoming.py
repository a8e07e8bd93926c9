"""Numbers and values that come from a user's functions and trials: checked here, so that nothing behind has to."""

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from daqu_tf.errors import DaquError

_SHOWN = 200  # Characters of what came, at most.


def shown(value: Any) -> str:
    """The text of a value for a sentence, cut off where it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."


def number(value: Any) -> float:
    """A real number as a float, whatever its type; NaN for what is none: None, a text, a complex number, several numbers.

    An integer beyond the range of floats is infinite, as a float that has overflowed is.
    """
    if isinstance(value, str | bytes | complex | np.complexfloating):
        return math.nan
    try:
        array = np.asarray(value)
        if array.dtype == object:
            return float(value)
        return float(array.reshape(())) if array.size == 1 and array.dtype.kind in "biuf" else math.nan
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except (TypeError, ValueError):
        return math.nan


def named(argument: str, value: Any) -> Mapping[str, Any]:
    """Gives back a value that must be a mapping from names.

    Args:
        argument: The name of the argument, for the message.
        value: The value, as it came.

    Raises:
        DaquError: The value is no mapping from names.
    """
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise DaquError(f"`{argument}` must give values by name, but received {shown(value)}: use a dict with texts as keys.")
    return value


def is_whole(value: Any) -> bool:
    """Whether a value is an integer of any type, which True and False are not."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def columns(found: Any, many: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The costs that a user's function returned, as arrays (count,) of finite floats by name.

    Args:
        found: What the function returned, as it came.
        many: The values by name (count,) that the function was asked for.

    Raises:
        DaquError: What was returned has another form, or has a number that is not finite.
    """
    if not named("costs", found):
        raise DaquError("`costs` must return at least one array by name, but returned none: leave `costs` out if nothing is known.")
    return {name: _column(name, column, many) for name, column in found.items()}


def _column(name: str, column: Any, many: Sequence[Mapping[str, Any]]) -> np.ndarray:
    try:
        array = np.asarray(column)
    except (TypeError, ValueError):
        array = np.asarray(None)
    if array.dtype == object:  # Integers that are too large for an array's own type, or no numbers.
        array = np.array([number(value) for value in array.reshape(-1)]).reshape(array.shape)
    if array.dtype.kind not in "biuf":
        raise DaquError(f"`costs` must return real numbers, but `{name}` is {shown(column)}: return an array of floats.")
    if array.shape != (len(many),):
        raise DaquError(
            f"`costs` must return a number for each of the {len(many)} it was asked for, but `{name}` has shape {array.shape}: "
            "return an array of one dimension."
        )
    array = array.astype(float)
    if not np.isfinite(array).all():
        place = int(np.argmin(np.isfinite(array)))
        raise DaquError(
            f"`costs` must return finite numbers, but `{name}` is {array[place]} for {shown(dict(many[place]))}: mend it, or leave "
            f"`{name}` out."
        )
    return array
