"""The choices of any search space as vectors of small integers: genomes, of which thousands are handled at once.

Entry i of a genome indexes the values of the i-th choice, or is `ABSENT` where the choice changes nothing (the precision of a
block that the depth leaves out).
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
LEVELS = 64  # Of a number with more values than that: none of them is searched more finely.
Genome = tuple[int, ...]
Conditions = tuple[tuple[str, tuple[Any, ...]], ...]  # (Parent, values of it).


@dataclasses.dataclass(frozen=True)
class Alphabet:
    """The choices and their values; translates between values by name and genomes.

    Attributes:
        choices: Name to values, in the order of the genome; numbers ascend.
        conditions: Name to (parent, values of it): the choice acts only where every parent acts and has one of those values.
            Parents stand before their children.
    """

    choices: dict[str, tuple[Any, ...]]
    conditions: Mapping[str, Conditions] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """(n,) number of values of each choice."""
        return np.array([len(values) for values in self.choices.values()], dtype=int)

    @functools.cached_property
    def _names(self) -> list[str]:
        return list(self.choices)

    @functools.cached_property
    def _gates(self) -> list[tuple[int, int, list[int]]]:
        """Child, parent, and the parent's indices at which the child acts."""
        gates = []
        for name, parents in self.conditions.items():
            for parent, values in parents:
                options = self.choices[parent]
                gates.append(
                    (self._names.index(name), self._names.index(parent), [options.index(v) for v in values if v in options])
                )
        return sorted(gates, key=lambda gate: gate[0])

    def encode(self, values: Mapping[str, Any]) -> Genome:
        """The genome of `values`; a choice without a value is `ABSENT`, and a real number becomes the nearest that is searched.

        Raises:
            DaquError: A name is unknown, or a value is not among the choice's.
        """
        for name in named("values", values):
            if name not in self.choices:
                raise DaquError(f"`{name}` is no hyperparameter of the search: leave it out, or add it to `hyperparameters`.")
        return tuple(self._index(name, values[name]) if name in values else ABSENT for name in self.choices)

    def _index(self, name: str, value: Any) -> int:
        options = self.choices[name]
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

    def decode(self, genome: Sequence[int]) -> dict[str, Any]:
        """The values of `genome`, without those that are `ABSENT`."""
        return {name: options[index] for (name, options), index in zip(self.choices.items(), genome) if index != ABSENT}

    def random(self, rng: np.random.Generator) -> np.ndarray:
        """(n,) indices, each uniform over its choice's values."""
        return rng.integers(self.sizes)

    def canonical(self, genomes: np.ndarray) -> np.ndarray:
        """Genomes (count, n) with `ABSENT` wherever a condition does not hold."""
        genomes = np.array(genomes, dtype=int)
        for child, parent, indices in self._gates:
            genomes[~np.isin(genomes[:, parent], indices), child] = ABSENT
        return genomes

    def missing(self, genome: Genome) -> str | None:
        """The name of the first choice that acts but has no value."""
        acts = self.canonical(np.maximum(genome, 0)[None])[0] != ABSENT
        return next((name for name, index, acting in zip(self._names, genome, acts) if acting and index == ABSENT), None)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
