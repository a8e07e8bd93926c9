"""Evolutionary operators: steady-state NSGA-II over genomes.

A genome is a tuple of ints; entry i indexes the values of the i-th choice, or is `ABSENT` where the choice changes
nothing in this network (the precision of a block that the depth leaves out).

Sources: Deb et al., "NSGA-II", IEEE TEVC 6(2), 2002; replacing the worst by one child at a time: Durillo et al., "On
the effect of the steady-state selection scheme in multi-objective genetic algorithms", EMO 2009.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from daqu_tf import pareto
from daqu_tf.errors import DaquError

ABSENT = -1
_ATTEMPTS = 100  # Duplicates in a row before a way to propose is given up.
_ENUMERABLE = 100_000  # Spaces up to this size are searched for a last untried subnet before the search ends.
Genome = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Alphabet:
    """The choices and their values; translates between values by name and genomes.

    Attributes:
        choices: Name to values, in the order of the genome.
    """

    choices: dict[str, tuple[Any, ...]]

    @property
    def sizes(self) -> np.ndarray:
        """(n,) number of values of each choice."""
        return np.array([len(values) for values in self.choices.values()], dtype=int)

    def encode(self, values: Mapping[str, Any]) -> Genome:
        """The genome of `values`; a choice without a value is `ABSENT`.

        Raises:
            DaquError: A name is unknown, or a value is not among the choice's.
        """
        for name, value in values.items():
            if name not in self.choices:
                raise DaquError(f"`{name}` is no hyperparameter of the search: leave it out, or add it to `hyperparameters`.")
            if value not in self.choices[name]:
                raise DaquError(f"`{name}` must be one of {list(self.choices[name])}, but received {value!r}.")
        return tuple(options.index(values[name]) if name in values else ABSENT for name, options in self.choices.items())

    def decode(self, genome: Genome) -> dict[str, Any]:
        """The values of `genome`, without those that are `ABSENT`."""
        return {name: options[index] for (name, options), index in zip(self.choices.items(), genome) if index != ABSENT}

    def random(self, rng: np.random.Generator) -> np.ndarray:
        """(n,) indices, each uniform over its choice's values."""
        return rng.integers(self.sizes)


def crossover(mother: Genome, father: Genome, rng: np.random.Generator) -> np.ndarray:
    """Takes each entry from either parent; one that is absent in one parent comes from the other."""
    mother, father = np.array(mother), np.array(father)
    child = np.where(rng.random(mother.shape) < 0.5, mother, father)
    return np.where(child == ABSENT, np.maximum(mother, father), child)


def mutate(genome: np.ndarray, alphabet: Alphabet, rng: np.random.Generator) -> np.ndarray:
    """Changes one entry on average, to a neighbouring value or to any other; absent entries become random ones.

    The step to a neighbour is ours: values are mostly ordered (widths, bits), and the paper's polynomial mutation is
    for real numbers.
    """
    sizes, shape = alphabet.sizes, np.shape(genome)
    fresh = rng.integers(0, sizes, shape)
    free = sizes > 1
    neighbour = np.clip(genome + rng.choice((-1, 1), shape), 0, sizes - 1)
    moved = np.where(rng.random(shape) < 0.5, neighbour, fresh)
    hit = free & (rng.random(shape) < 1 / max(1, free.sum()))
    return np.where(genome == ABSENT, fresh, np.where(hit, moved, genome))


def fitness(points: np.ndarray) -> np.ndarray:
    """Places points by front, and by falling crowding distance within one.

    Args:
        points: (n, m) objectives, minimised.

    Returns:
        (n,) int, 0 for the best; a permutation.
    """
    ranks = pareto.non_dominated_ranks(points)
    crowding = np.zeros(len(points))
    for rank in np.unique(ranks):
        crowding[ranks == rank] = pareto.crowding_distance(points[ranks == rank])
    places = np.empty(len(points), dtype=int)
    places[np.lexsort((-crowding, ranks))] = np.arange(len(points))
    return places


@dataclasses.dataclass
class Population:
    """The best points seen, at most `size`; each `add` costs the same however many came before.

    Attributes:
        alphabet: Of the genomes.
        size: How many parents there are at most.
    """

    alphabet: Alphabet
    size: int
    genomes: list[Genome] = dataclasses.field(default_factory=list)
    points: list[np.ndarray] = dataclasses.field(default_factory=list)
    _places: np.ndarray | None = None

    def add(self, genome: Genome, point: np.ndarray) -> None:
        """Takes in one evaluated genome, and drops the worst if there are now too many.

        Args:
            genome: What was evaluated.
            point: (m,) its objectives, minimised and finite.
        """
        self.genomes.append(genome)
        self.points.append(point)
        self._places = fitness(np.array(self.points))
        if len(self.points) > self.size:
            worst = int(np.argmax(self._places))
            del self.genomes[worst], self.points[worst]
            self._places = np.delete(self._places, worst)

    def child(self, rng: np.random.Generator) -> np.ndarray:
        """(n,) indices bred from two binary tournaments; needs at least one member."""
        return mutate(crossover(self._parent(rng), self._parent(rng), rng), self.alphabet, rng)

    def _parent(self, rng: np.random.Generator) -> Genome:
        return self.genomes[min(rng.integers(len(self.genomes), size=2), key=lambda index: self._places[index])]


class Evolution:
    """Proposes what to try next: a given design, then random subnets, then children; never the same twice.

    Args:
        alphabet: The choices.
        design: Values to try first.
        initial_random: How many random ones follow.
        canonicalise: Maps values to those that stand for all equal ones; None where all differ.
        sample: Draws random values; None draws every choice uniformly.
        population_size: How many of the best are parents.

    Raises:
        DaquError: The design has a value that is not in the alphabet, or lacks one.
    """

    def __init__(
        self,
        alphabet: Alphabet,
        design: Sequence[Mapping[str, Any]],
        initial_random: int,
        canonicalise: Callable[[dict[str, Any]], Mapping[str, Any]] | None,
        sample: Callable[[np.random.Generator], Mapping[str, Any]] | None,
        population_size: int,
    ):
        self._alphabet = alphabet
        self._canonicalise = canonicalise
        self._sample = sample or (lambda rng: alphabet.decode(alphabet.random(rng)))
        self._design = list(dict.fromkeys(self._canonical(values) for values in design))
        self.first = len(self._design) + initial_random
        self._population = Population(alphabet, population_size)
        self._tried: set[Genome] = set()

    def tried(self, values: Mapping[str, Any]) -> None:
        """Excludes `values` from what is proposed from now on."""
        self._tried.add(self._alphabet.encode(values))

    def learn(self, values: Mapping[str, Any], point: np.ndarray) -> None:
        """Takes in (m,) objectives of `values`, minimised and finite."""
        self._population.add(self._alphabet.encode(values), point)

    def propose(self, rng: np.random.Generator) -> dict[str, Any] | None:
        """Canonical values that were not tried before, or None when none are left."""
        genome = next((genome for genome in self._design if genome not in self._tried), None)
        if genome is None and len(self._tried) >= self.first and self._population.genomes:
            genome = self._untried(lambda: self._alphabet.decode(self._population.child(rng)))
        if genome is None:
            genome = self._untried(lambda: self._sample(rng))
        if genome is None:
            genome = self._leftover(rng)
        return None if genome is None else self._alphabet.decode(genome)

    def _untried(self, draw: Callable[[], Mapping[str, Any]]) -> Genome | None:
        genomes = (self._canonical(draw()) for _ in range(_ATTEMPTS))
        return next((genome for genome in genomes if genome not in self._tried), None)

    def _leftover(self, rng: np.random.Generator) -> Genome | None:
        """One of the last untried genomes of a small space."""
        if math.prod(map(int, self._alphabet.sizes)) > _ENUMERABLE:
            return None
        every = itertools.product(*map(range, self._alphabet.sizes))
        genomes = dict.fromkeys(self._canonical(self._alphabet.decode(genome)) for genome in every)
        left = [genome for genome in genomes if genome not in self._tried]
        return left[rng.integers(len(left))] if left else None

    def _canonical(self, values: Mapping[str, Any]) -> Genome:
        if self._canonicalise:
            return self._alphabet.encode(self._canonicalise(dict(values)))
        genome = self._alphabet.encode(values)
        if ABSENT in genome:
            name = list(self._alphabet.choices)[genome.index(ABSENT)]
            raise DaquError(f"Values must have every hyperparameter, but `{name}` is missing: add it.")
        return genome
