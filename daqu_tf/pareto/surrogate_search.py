"""Surrogate-assisted evolution: what to run next, by what the trials so far say about those that were not run.

A given design comes first, then random values. From then on a predictor is refitted every few trials; evolution breeds thousands of
candidates on its predictions, and those run that are expected to add most to the hypervolume (`acquisition`). Everything is a
function of the seed and of the trials that ended, in their order, so that a resumed search proposes what it would have proposed.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from daqu_tf.errors import DaquError
from daqu_tf.pareto import acquisition
from daqu_tf.pareto.choices import Alphabet, Genome
from daqu_tf.pareto.constraints import total_violation
from daqu_tf.pareto.evolution import CHILDREN, PARENTS, breed, children
from daqu_tf.pareto.fronts import first_front
from daqu_tf.pareto.goal import Goal
from daqu_tf.pareto.incoming import is_whole, named, number, shown
from daqu_tf.pareto.outlook import Outlook
from daqu_tf.pareto.predictor import Costs, KnownCosts, MetricsPredictor

ENUMERABLE = 20_000  # Spaces up to this size have all their subnets as candidates.
LEAST_BATCH, BATCH_SHARE = 2, 25  # Trials between two fits: at least 2, and a 25th of those there are.
FIRST_KERNEL, KERNEL_GROWTH = 8, 1.5  # Its hyperparameters are found from 8 trials, and again from so many times more.
SPARE = 16  # Of a batch, for workers that run at once and for trials that failed.
MOST_NEIGHBOURS = 200  # Of failed and of measured ones, among which the nearest is looked for.
MOST_ROWS, MOST_KERNEL_ROWS = 600, 300  # From which a predictor, and its kernel, learn.
REPAIRS = 30  # Generations of the search for what meets the constraints, before none is believed to.
_ATTEMPTS = 100  # Duplicates in a row before a way to propose is given up.


def fit_count(ended: int) -> int:
    """The number of trials, at most `ended`, that the predictor in use has seen."""
    count = 0
    while (following := count + max(LEAST_BATCH, count // BATCH_SHARE)) <= ended:
        count = following
    return count


def kernel_count(fitted: int) -> int:
    """The number of trials, at most `fitted`, from which the kernel in use was found."""
    count = min(fitted, FIRST_KERNEL)
    while (following := math.ceil(count * KERNEL_GROWTH)) <= fitted:
        count = following
    return count


def evenly(length: int, most: int) -> np.ndarray:
    """At most so many of the indices below `length`, at equal distances."""
    return np.unique(np.linspace(0, length - 1, min(length, most)).astype(int))


class SurrogateSearch:
    """Proposes values, never the same twice.

    Args:
        alphabet: The choices.
        goal: Objectives and constraints.
        design: Values to try first.
        initial_random: How many random ones follow.
        canonicalise: Maps values to those that stand for all equal ones; None where all differ.
        sample: Draws random values; None draws every choice uniformly.
        costs: As in `KnownCosts`.
        seed: Of the candidates.

    Raises:
        DaquError: The design has a value that is not in the alphabet, or lacks one.
    """

    def __init__(
        self,
        alphabet: Alphabet,
        goal: Goal,
        design: Sequence[Mapping[str, Any]],
        initial_random: int,
        canonicalise: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None,
        sample: Callable[[np.random.Generator], Mapping[str, Any]] | None = None,
        costs: Costs | None = None,
        seed: int = 0,
    ):
        self._alphabet, self._goal, self._seed = alphabet, goal, seed
        self._known = KnownCosts(alphabet, costs)
        self._canonicalise, self._sample = canonicalise, sample
        if not is_whole(initial_random) or initial_random < 0:
            raise DaquError(f"`initial_random` must be an integer of at least 0, but received {shown(initial_random)}.")
        if isinstance(design, str | Mapping) or not isinstance(design, Iterable):
            raise DaquError(f"`initial_design` must be a list of values by name, but received {shown(design)}: put it into a list.")
        self._design = list(dict.fromkeys(self._canonical(named("initial_design", values)) for values in design))
        self.first = len(self._design) + initial_random
        self._tried: set[Genome] = set()
        self._genomes: list[Genome] = []
        self._values: list[list[float]] = []
        self._failed: list[tuple[int, Genome]] = []  # With how many were measured before.
        self._ranked: tuple[int, list[Genome]] = (0, [])
        self._kernels: tuple[int, dict] = (0, {})

    def tried(self, values: Mapping[str, Any]) -> None:
        """Excludes `values` from what is proposed from now on."""
        self._tried.add(self._alphabet.encode(values))

    def learn(self, values: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Takes in what was measured of `values`; nothing is learned where a metric is missing or not finite."""
        measured = [number(metrics.get(name)) for name in self._goal.metrics]
        if all(map(math.isfinite, measured)):
            self._genomes.append(self._alphabet.encode(values))
            self._values.append(measured)

    def failed(self, values: Mapping[str, Any]) -> None:
        """Takes in that `values` could not be measured: what is more like them than like anything that could be is not proposed."""
        self._failed.append((len(self._genomes), self._alphabet.encode(values)))

    def propose(self, rng: np.random.Generator) -> dict[str, Any] | None:
        """Canonical values that were not tried before, or None when none are left.

        Raises:
            DaquError: Nothing that was found meets the constraints by its costs.
        """
        genome = self._next(self._design)
        if genome is None and len(self._tried) >= self.first and (count := fit_count(len(self._genomes))):
            genome = self._next(self._ranking(count))
        if genome is None:
            genome = self._untried(rng)
        return None if genome is None else self._alphabet.decode(genome)

    def _next(self, genomes: Iterable[Genome]) -> Genome | None:
        """The first that was not tried and is not known to miss a constraint."""
        return next((genome for genome in genomes if genome not in self._tried and self._missed(np.array([genome]))[0] == 0), None)

    def _missed(self, genomes: np.ndarray) -> np.ndarray:
        """(count,) total violation of the constraints, as far as costs are known beforehand."""
        known = self._known(genomes) if self._goal.constraints else {}
        return np.zeros(len(genomes)) + total_violation([one for one in self._goal.constraints if one.metric in known], known)

    def _untried(self, rng: np.random.Generator) -> Genome | None:
        genome = self._next(self._canonical(self._draw(rng)) for _ in range(_ATTEMPTS))
        if genome is None and self._size <= ENUMERABLE:
            return self._leftover(rng)
        return self._repaired(rng) if genome is None and self._goal.constraints else genome

    def _leftover(self, rng: np.random.Generator) -> Genome | None:
        """One of the last of a small space."""
        missed = self._missed(self._everything)
        self._check(missed, self._everything)
        good = map(tuple, self._everything[missed == 0].tolist())
        left = [genome for genome in good if genome not in self._tried]
        return left[rng.integers(len(left))] if left else None

    def _repaired(self, rng: np.random.Generator) -> Genome | None:
        """One bred to meet the constraints, which few do."""
        genomes = self._alphabet.canonical(rng.integers(0, self._alphabet.sizes, (CHILDREN, len(self._alphabet.sizes))))
        for _ in range(REPAIRS):
            best = np.argsort(self._missed(genomes), kind="stable")[:PARENTS]
            genomes = np.vstack([genomes[best], self._alphabet.canonical(children(self._alphabet, genomes[best], CHILDREN, rng))])
            genomes = np.unique(genomes, axis=0)
            if (genome := self._next(self._canonical(self._alphabet.decode(row)) for row in rng.permutation(genomes))) is not None:
                return genome
        self._check(self._missed(genomes), genomes)
        return None

    def _check(self, missed: np.ndarray, genomes: np.ndarray) -> None:
        tried = self._missed(np.array(list(self._tried))) if self._tried else np.ones(1)
        if (missed > 0).all() and (tried > 0).all():
            nearest = self._known(genomes[[np.argmin(missed)]])
            found = ", ".join(
                f"{one.metric} of {nearest[one.metric][0]:g}" for one in self._goal.constraints if one.metric in nearest
            )
            raise DaquError(f"`constraints` must be met by something, but the nearest found has {found}: loosen them.")

    def _draw(self, rng: np.random.Generator) -> Mapping[str, Any]:
        if self._sample:
            return named("sample", self._sample(rng))
        return self._alphabet.decode(self._alphabet.canonical(self._alphabet.random(rng)[None])[0])

    def _canonical(self, values: Mapping[str, Any]) -> Genome:
        if self._canonicalise:
            return self._alphabet.encode(named("canonicalise", self._canonicalise(dict(values))))
        genome = self._alphabet.encode(values)
        if name := self._alphabet.missing(genome):
            raise DaquError(f"Values must have every hyperparameter, but `{name}` is missing: add it.")
        return tuple(self._alphabet.canonical(np.array([genome]))[0].tolist())

    # Candidates.

    @functools.cached_property
    def _size(self) -> int:
        return math.prod(map(int, self._alphabet.sizes))

    @functools.cached_property
    def _everything(self) -> np.ndarray:
        """Every genome of a small space."""
        every = np.array(list(itertools.product(*map(range, self._alphabet.sizes))))
        genomes = np.unique(self._alphabet.canonical(every), axis=0)
        if self._canonicalise is None:
            return genomes
        return np.array(list(dict.fromkeys(self._canonical(self._alphabet.decode(genome)) for genome in genomes)))

    def _ranking(self, count: int) -> list[Genome]:
        """What to run after the first `count` trials, best first."""
        if self._ranked[0] != count:
            self._ranked = count, self._rank(count, np.random.default_rng((self._seed, count)))
        return self._ranked[1]

    def _rank(self, count: int, rng: np.random.Generator) -> list[Genome]:
        genomes, values = np.array(self._genomes[:count]), np.array(self._values[:count])
        outlook = Outlook(self._fitted(genomes, values), self._goal, genomes, values)
        pool = self._pool(outlook, genomes, rng)
        if not len(pool):
            return []
        length = max(LEAST_BATCH, count // BATCH_SHARE) + SPARE
        chosen = acquisition.choose(*outlook(pool), outlook.front, length, rng)
        return list(dict.fromkeys(self._canonical(self._alphabet.decode(pool[index])) for index in chosen))

    def _fitted(self, genomes: np.ndarray, values: np.ndarray) -> MetricsPredictor:
        if self._kernels[0] != (count := kernel_count(len(genomes))):
            rows = evenly(count, MOST_KERNEL_ROWS)
            self._kernels = count, self._predictor().fit(genomes[rows], values[rows]).kernels
        rows = self._rows(values)
        return self._predictor().fit(genomes[rows], values[rows], self._kernels[1])

    def _rows(self, values: np.ndarray) -> np.ndarray:
        """Of too many trials those on the front, and of the others some."""
        if len(values) <= MOST_ROWS:
            return np.arange(len(values))
        signs = self._goal.signs
        front = first_front(values[:, : len(signs)] * signs)
        front = np.sort(front)[evenly(len(front), MOST_ROWS // 2)]
        others = np.setdiff1d(np.arange(len(values)), front)
        return np.concatenate([front, others[evenly(len(others), MOST_ROWS - len(front))]])

    def _predictor(self) -> MetricsPredictor:
        return MetricsPredictor(self._alphabet, self._goal.metrics, self._goal.maximised, self._known, self._goal.limits)

    def _pool(self, outlook: Outlook, genomes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        small = self._size <= ENUMERABLE
        pool = self._everything if small else breed(self._alphabet, outlook, genomes, rng)
        known = set(map(tuple, genomes.tolist()))
        pool = pool[[tuple(genome) not in known for genome in pool.tolist()]]
        # Only failures that came before the last measurement, so that a search that goes on knows the same ones.
        failed = [genome for before, genome in self._failed if before < len(genomes)][-MOST_NEIGHBOURS:]
        if not failed or not len(pool):
            return pool
        likely = self._distance(pool, np.array(failed)) > self._distance(pool, genomes[-MOST_NEIGHBOURS:])
        return pool[likely] if likely.any() else pool

    def _distance(self, genomes: np.ndarray, others: np.ndarray) -> np.ndarray:
        """(count,) from genomes (count, n) to the nearest of others (m, n): the sum of the steps, each from 0 to 1."""
        steps = np.maximum(self._alphabet.sizes - 1, 1)
        distances = np.full(len(genomes), np.inf)
        for other in others:
            distances = np.minimum(distances, (np.abs(genomes - other) / steps).sum(axis=1))
        return distances
