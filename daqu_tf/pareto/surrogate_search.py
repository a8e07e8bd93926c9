"""Surrogate-assisted evolution, which proposes what to run next from what the trials so far have measured.

A given design comes first, then random values. From then on, a predictor is refitted every few trials, evolution breeds thousands
of candidates on its predictions, and those run that are expected to add most to the hypervolume (see `acquisition`). Everything is
a function of the seed and of the trials that ended, in their order, so that a resumed search proposes what it would have proposed
without the interruption.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from daqu_tf.errors import DaquError
from daqu_tf.pareto import acquisition
from daqu_tf.pareto.choices import Choices, Code
from daqu_tf.pareto.constraints import total_violation
from daqu_tf.pareto.evolution import CHILDREN, PARENTS, breed, children
from daqu_tf.pareto.fronts import first_front
from daqu_tf.pareto.goal import Goal
from daqu_tf.pareto.incoming import is_whole, named, number, shown
from daqu_tf.pareto.outlook import Outlook
from daqu_tf.pareto.predictor import Costs, KnownCosts, MetricsPredictor

ENUMERABLE = 20_000  # In a space up to this size, all codes are candidates.
LEAST_BATCH, BATCH_SHARE = 2, 25  # Between two fits there are at least 2 trials, and a 25th of all so far.
FIRST_KERNEL, KERNEL_GROWTH = 8, 1.5  # The kernel is found from 8 trials, and again whenever there are 1.5 times as many.
SPARE = 16  # Candidates of a batch beyond its length, for workers that run at once and for trials that fail.
MOST_NEIGHBOURS = 200  # The failed and the measured trials among which the nearest is looked for.
MOST_ROWS, MOST_KERNEL_ROWS = 600, 300  # The trials from which a predictor and its kernel learn.
REPAIRS = 30  # The generations of the search for codes that meet the constraints, before it gives up.
_ATTEMPTS = 100  # The duplicates in a row before a way to propose is given up.


def fit_count(ended: int) -> int:
    """The number of trials that the predictor in use has seen when `ended` trials have ended."""
    count = 0
    while (following := count + max(LEAST_BATCH, count // BATCH_SHARE)) <= ended:
        count = following
    return count


def kernel_count(fitted: int) -> int:
    """The number of trials from which the kernel in use was found when the predictor has seen `fitted` trials."""
    count = min(fitted, FIRST_KERNEL)
    while (following := math.ceil(count * KERNEL_GROWTH)) <= fitted:
        count = following
    return count


def evenly(length: int, most: int) -> np.ndarray:
    """At most `most` of the indices below `length`, at equal distances."""
    return np.unique(np.linspace(0, length - 1, min(length, most)).astype(int))


class SurrogateSearch:
    """Proposes values by name, never the same twice.

    Args:
        choices: The choices of the search space.
        goal: The objectives and constraints of the search.
        design: The values to try first, in this order.
        initial_random: The number of random proposals after the design.
        canonicalise: Maps values to the values that stand for all equal ones; None where all values differ.
        sample: Draws random values; None draws every choice uniformly.
        costs: A function from a list of values to the costs (count,) by name that are known beforehand; None if no costs are known.
        seed: The seed of the candidates.

    Attributes:
        first: The number of proposals before the predictor makes them.

    Raises:
        DaquError: The design has a value that is none of its choice, or lacks one.
    """

    def __init__(
        self,
        choices: Choices,
        goal: Goal,
        design: Sequence[Mapping[str, Any]],
        initial_random: int,
        canonicalise: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None,
        sample: Callable[[np.random.Generator], Mapping[str, Any]] | None = None,
        costs: Costs | None = None,
        seed: int = 0,
    ):
        self._choices, self._goal, self._seed = choices, goal, seed
        self._known = KnownCosts(choices, costs)
        self._canonicalise, self._sample = canonicalise, sample
        if not is_whole(initial_random) or initial_random < 0:
            raise DaquError(f"`initial_random` must be an integer of at least 0, but received {shown(initial_random)}.")
        if isinstance(design, str | Mapping) or not isinstance(design, Iterable):
            raise DaquError(f"`initial_design` must be a list of values by name, but received {shown(design)}: put it into a list.")
        self._design = list(dict.fromkeys(self._canonical(named("initial_design", values)) for values in design))
        self.first = len(self._design) + initial_random
        self._tried: set[Code] = set()
        self._codes: list[Code] = []
        self._values: list[list[float]] = []
        self._failed: list[tuple[int, Code]] = []  # Each with the number of trials that were measured before it.
        self._ranked: tuple[int, list[Code]] = (0, [])
        self._kernels: tuple[int, dict] = (0, {})

    def tried(self, values: Mapping[str, Any]) -> None:
        """Excludes `values` from what is proposed from now on."""
        self._tried.add(self._choices.encode(values))

    def exclude(self, values: Mapping[str, Any]) -> None:
        """Excludes what is equal to `values`, which name every choice, some perhaps in vain."""
        self._tried.add(self._canonical(values))

    def learn(self, values: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Learns the metrics that were measured with `values`, unless one is missing or not finite."""
        measured = [number(metrics.get(name)) for name in self._goal.metrics]
        if all(map(math.isfinite, measured)):
            self._codes.append(self._choices.encode(values))
            self._values.append(measured)

    def failed(self, values: Mapping[str, Any]) -> None:
        """Learns that `values` could not be measured; what is nearer to them than to anything that could be is not proposed."""
        self._failed.append((len(self._codes), self._choices.encode(values)))

    def propose(self, rng: np.random.Generator) -> dict[str, Any] | None:
        """The values to try next, which are canonical and were not tried before; None when none are left.

        Args:
            rng: The source of random proposals.

        Raises:
            DaquError: The costs of nothing that was found meet the constraints.
        """
        code = self._next(self._design)
        if code is None and len(self._tried) >= self.first and (count := fit_count(len(self._codes))):
            code = self._next(self._ranking(count))
        if code is None:
            code = self._untried(rng)
        return None if code is None else self._choices.decode(code)

    def _next(self, codes: Iterable[Code]) -> Code | None:
        """The first code that was not tried and is not known to miss a constraint."""
        return next((code for code in codes if code not in self._tried and self._missed(np.array([code]))[0] == 0), None)

    def _missed(self, codes: np.ndarray) -> np.ndarray:
        """The total violation of the constraints (count,) by codes (count, n), as far as costs are known beforehand."""
        known = self._known(codes) if self._goal.constraints else {}
        return np.zeros(len(codes)) + total_violation([one for one in self._goal.constraints if one.metric in known], known)

    def _untried(self, rng: np.random.Generator) -> Code | None:
        code = self._next(self._canonical(self._draw(rng)) for _ in range(_ATTEMPTS))
        if code is None and self._size <= ENUMERABLE:
            return self._leftover(rng)
        return self._repaired(rng) if code is None and self._goal.constraints else code

    def _leftover(self, rng: np.random.Generator) -> Code | None:
        """A random code of a small space among those that were not tried."""
        missed = self._missed(self._everything)
        self._check(missed, self._everything)
        good = map(tuple, self._everything[missed == 0].tolist())
        left = [code for code in good if code not in self._tried]
        return left[rng.integers(len(left))] if left else None

    def _repaired(self, rng: np.random.Generator) -> Code | None:
        """A code that is bred to meet the constraints, where few codes do."""
        codes = self._choices.canonical(rng.integers(0, self._choices.sizes, (CHILDREN, len(self._choices.sizes))))
        for _ in range(REPAIRS):
            best = np.argsort(self._missed(codes), kind="stable")[:PARENTS]
            codes = np.vstack([codes[best], self._choices.canonical(children(self._choices, codes[best], CHILDREN, rng))])
            codes = np.unique(codes, axis=0)
            if (code := self._next(self._canonical(self._choices.decode(row)) for row in rng.permutation(codes))) is not None:
                return code
        self._check(self._missed(codes), codes)
        return None

    def _check(self, missed: np.ndarray, codes: np.ndarray) -> None:
        tried = self._missed(np.array(list(self._tried))) if self._tried else np.ones(1)
        if (missed > 0).all() and (tried > 0).all():
            nearest = self._known(codes[[np.argmin(missed)]])
            found = ", ".join(
                f"{one.metric} of {nearest[one.metric][0]:g}" for one in self._goal.constraints if one.metric in nearest
            )
            raise DaquError(f"`constraints` must be met by something, but the nearest found has {found}: loosen them.")

    def _draw(self, rng: np.random.Generator) -> Mapping[str, Any]:
        if self._sample:
            return named("sample", self._sample(rng))
        return self._choices.decode(self._choices.canonical(self._choices.random(rng)[None])[0])

    def _canonical(self, values: Mapping[str, Any]) -> Code:
        if self._canonicalise:
            return self._choices.encode(named("canonicalise", self._canonicalise(dict(values))))
        code = self._choices.encode(values)
        if name := self._choices.missing(code):
            raise DaquError(f"Values must have every hyperparameter, but `{name}` is missing: add it.")
        return tuple(self._choices.canonical(np.array([code]))[0].tolist())

    # Candidates.

    @functools.cached_property
    def _size(self) -> int:
        return math.prod(map(int, self._choices.sizes))

    @functools.cached_property
    def _everything(self) -> np.ndarray:
        """The codes (count, n) of a whole small space."""
        every = np.array(list(itertools.product(*map(range, self._choices.sizes))), dtype=int)
        codes = np.unique(self._choices.canonical(every), axis=0)
        if self._canonicalise is None:
            return codes
        return np.array(list(dict.fromkeys(self._canonical(self._choices.decode(code)) for code in codes)))

    def _ranking(self, count: int) -> list[Code]:
        """The codes to run after the first `count` trials, best first."""
        if self._ranked[0] != count:
            self._ranked = count, self._rank(count, np.random.default_rng((self._seed, count)))
        return self._ranked[1]

    def _rank(self, count: int, rng: np.random.Generator) -> list[Code]:
        codes, values = np.array(self._codes[:count]), np.array(self._values[:count])
        outlook = Outlook(self._fitted(codes, values), self._goal, codes, values)
        pool = self._pool(outlook, codes, rng)
        if not len(pool):
            return []
        length = max(LEAST_BATCH, count // BATCH_SHARE) + SPARE
        chosen = acquisition.choose(*outlook(pool), outlook.front, length, rng)
        return list(dict.fromkeys(self._canonical(self._choices.decode(pool[index])) for index in chosen))

    def _fitted(self, codes: np.ndarray, values: np.ndarray) -> MetricsPredictor:
        if self._kernels[0] != (count := kernel_count(len(codes))):
            rows = evenly(count, MOST_KERNEL_ROWS)
            self._kernels = count, self._predictor().fit(codes[rows], values[rows]).kernels
        rows = self._rows(values)
        return self._predictor().fit(codes[rows], values[rows], self._kernels[1])

    def _rows(self, values: np.ndarray) -> np.ndarray:
        """The indices of the trials to learn from: all, or, of too many, those on the front and some of the others."""
        if len(values) <= MOST_ROWS:
            return np.arange(len(values))
        signs = self._goal.signs
        front = first_front(values[:, : len(signs)] * signs)
        front = np.sort(front)[evenly(len(front), MOST_ROWS // 2)]
        others = np.setdiff1d(np.arange(len(values)), front)
        return np.concatenate([front, others[evenly(len(others), MOST_ROWS - len(front))]])

    def _predictor(self) -> MetricsPredictor:
        return MetricsPredictor(self._choices, self._goal.metrics, self._goal.maximised, self._known, self._goal.limits)

    def _pool(self, outlook: Outlook, codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        small = self._size <= ENUMERABLE
        pool = self._everything if small else breed(self._choices, outlook, codes, rng)
        known = set(map(tuple, codes.tolist()))
        pool = pool[[tuple(code) not in known for code in pool.tolist()]]
        # Only failures before the last measurement count, so that a search that is resumed knows the same ones.
        failed = [code for before, code in self._failed if before < len(codes)][-MOST_NEIGHBOURS:]
        if not failed or not len(pool):
            return pool
        likely = self._distance(pool, np.array(failed)) > self._distance(pool, codes[-MOST_NEIGHBOURS:])
        return pool[likely] if likely.any() else pool

    def _distance(self, codes: np.ndarray, others: np.ndarray) -> np.ndarray:
        """The distance (count,) of codes (count, n) to the nearest of others (m, n): a sum over choices, each from 0 to 1."""
        steps = np.maximum(self._choices.sizes - 1, 1)
        distances = np.full(len(codes), np.inf)
        for other in others:
            distances = np.minimum(distances, (np.abs(codes - other) / steps).sum(axis=1))
        return distances
