"""The choices of any search space as codes, which are vectors of small integers, thousands of which are handled at once.

Entry i of a code is the index of a value of the i-th choice, or `ABSENT` where the choice changes nothing, as the precision of a
block that the depth leaves out.
"""

import dataclasses
import functools
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from daqu_tf.errors import DaquError
from daqu_tf.pareto.incoming import named, shown

ABSENT = -1
LEVELS = 64  # A number with more values than that is searched at this resolution.
Code = tuple[int, ...]
Conditions = tuple[tuple[str, tuple[Any, ...]], ...]  # Pairs of a parent's name and values of that parent.


@dataclasses.dataclass(frozen=True)
class Choices:
    """The choices of a search space; translates between values by name and codes.

    Attributes:
        options: The values of each choice by its name, in the order of a code; numbers ascend.
        conditions: Pairs of a parent's name and values of that parent, by the name of a choice. The choice acts only where every
            parent acts and has one of those values. Parents stand before their children.
    """

    options: dict[str, tuple[Any, ...]]
    conditions: Mapping[str, Conditions] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """The number of values of each choice (n,)."""
        return np.array([len(values) for values in self.options.values()], dtype=int)

    @functools.cached_property
    def _names(self) -> list[str]:
        return list(self.options)

    @functools.cached_property
    def _gates(self) -> list[tuple[int, int, list[int]]]:
        """For each condition: the places of child and parent, and the parent's indices at which the child acts."""
        gates = []
        for name, parents in self.conditions.items():
            for parent, values in parents:
                options = self.options[parent]
                gates.append(
                    (self._names.index(name), self._names.index(parent), [options.index(v) for v in values if v in options])
                )
        return sorted(gates, key=lambda gate: gate[0])

    def encode(self, values: Mapping[str, Any]) -> Code:
        """The code of values by name.

        A choice without a value is `ABSENT`, and a real number becomes the nearest that is searched.

        Raises:
            DaquError: A name is unknown, or a value is none of its choice.
        """
        for name in named("values", values):
            if name not in self.options:
                raise DaquError(f"`{name}` is no hyperparameter of the search: leave it out, or add it to `hyperparameters`.")
        return tuple(self._index(name, values[name]) if name in values else ABSENT for name in self.options)

    def _index(self, name: str, value: Any) -> int:
        options = self.options[name]
        if isinstance(value, np.generic):
            value = value.item()
        if not isinstance(value, np.ndarray) and value in options:
            return options.index(value)
        real = float(value) if _is_number(value) and abs(value) <= sys.float_info.max else math.nan
        if same := [number for number in filter(_is_number, options) if math.isclose(number, real)]:
            return options.index(same[0])
        if len(options) > LEVELS and _is_number(options[0]) and options[0] <= real <= options[-1]:
            return int(np.argmin(np.abs(np.array(options) - real)))
        few = list(options) if len(options) <= LEVELS else f"{options[0]:g} to {options[-1]:g}"
        raise DaquError(f"`{name}` must be one of {few}, but received {shown(value)}.")

    def decode(self, code: Sequence[int]) -> dict[str, Any]:
        """The values by name of a code, without the choices that are `ABSENT`."""
        return {name: options[index] for (name, options), index in zip(self.options.items(), code) if index != ABSENT}

    def random(self, rng: np.random.Generator) -> np.ndarray:
        """A random code (n,), uniform over the values of each choice, without regard to conditions."""
        return rng.integers(self.sizes)

    def canonical(self, codes: np.ndarray) -> np.ndarray:
        """The codes (count, n) with `ABSENT` wherever a condition does not hold."""
        codes = np.array(codes, dtype=int)
        for child, parent, indices in self._gates:
            codes[~np.isin(codes[:, parent], indices), child] = ABSENT
        return codes

    def missing(self, code: Code) -> str | None:
        """The name of the first choice in a code that acts but has no value; None if there is none."""
        acts = self.canonical(np.maximum(code, 0)[None])[0] != ABSENT
        return next((name for name, index, acting in zip(self._names, code, acts) if acting and index == ABSENT), None)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
