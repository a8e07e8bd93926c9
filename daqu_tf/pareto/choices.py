"""The choices of any search space as vectors of small integers: codes, of which thousands are handled at once.

Entry i of a code indexes the values of the i-th choice, or is `ABSENT` where the choice changes nothing (the precision of a
block that the depth leaves out).
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from daqu_tf.errors import DaquError

ABSENT = -1
LEVELS = 64  # Of a number with more values than that: none of them is searched more finely.
Code = tuple[int, ...]
Conditions = tuple[tuple[str, tuple[Any, ...]], ...]  # (Parent, values of it).


@dataclasses.dataclass(frozen=True)
class Choices:
    """The choices and their values; translates between values by name and codes.

    Attributes:
        choices: Name to values, in the order of the code; numbers ascend.
        conditions: Name to (parent, values of it): the choice acts only where every parent acts and has one of those values.
            Parents stand before their children.
    """

    options: dict[str, tuple[Any, ...]]
    conditions: Mapping[str, Conditions] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """(n,) number of values of each choice."""
        return np.array([len(values) for values in self.options.values()], dtype=int)

    @functools.cached_property
    def _names(self) -> list[str]:
        return list(self.options)

    @functools.cached_property
    def _gates(self) -> list[tuple[int, int, list[int]]]:
        """Child, parent, and the parent's indices at which the child acts."""
        gates = []
        for name, parents in self.conditions.items():
            for parent, values in parents:
                options = self.options[parent]
                gates.append(
                    (self._names.index(name), self._names.index(parent), [options.index(v) for v in values if v in options])
                )
        return sorted(gates, key=lambda gate: gate[0])

    def encode(self, values: Mapping[str, Any]) -> Code:
        """The code of `values`; a choice without a value is `ABSENT`, and a real number becomes the nearest that is searched.

        Raises:
            DaquError: A name is unknown, or a value is not among the choice's.
        """
        for name in values:
            if name not in self.options:
                raise DaquError(f"`{name}` is no hyperparameter of the search: leave it out, or add it to `hyperparameters`.")
        return tuple(self._index(name, values[name]) if name in values else ABSENT for name in self.options)

    def _index(self, name: str, value: Any) -> int:
        options = self.options[name]
        if value in options:
            return options.index(value)
        if _is_number(value) and (same := [number for number in filter(_is_number, options) if math.isclose(number, value)]):
            return options.index(same[0])
        if len(options) > LEVELS and _is_number(value) and options[0] <= value <= options[-1]:
            return int(np.argmin(np.abs(np.array(options) - value)))
        few = list(options) if len(options) <= LEVELS else f"{options[0]:g} to {options[-1]:g}"
        raise DaquError(f"`{name}` must be one of {few}, but received {value!r}.")

    def decode(self, code: Sequence[int]) -> dict[str, Any]:
        """The values of `code`, without those that are `ABSENT`."""
        return {name: options[index] for (name, options), index in zip(self.options.items(), code) if index != ABSENT}

    def random(self, rng: np.random.Generator) -> np.ndarray:
        """(n,) indices, each uniform over its choice's values."""
        return rng.integers(self.sizes)

    def canonical(self, codes: np.ndarray) -> np.ndarray:
        """Codes (count, n) with `ABSENT` wherever a condition does not hold."""
        codes = np.array(codes, dtype=int)
        for child, parent, indices in self._gates:
            codes[~np.isin(codes[:, parent], indices), child] = ABSENT
        return codes

    def missing(self, code: Code) -> str | None:
        """The name of the first choice that acts but has no value."""
        acts = self.canonical(np.maximum(code, 0)[None])[0] != ABSENT
        return next((name for name, index, acting in zip(self._names, code, acts) if acting and index == ABSENT), None)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
