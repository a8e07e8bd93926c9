"""What a subnet will score, and how sure that is: a Gaussian process over the choices and what is known of the costs.

Which surrogate: `benchmarks/surrogates.py` compares this one with others at the sizes that a search has.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from daqu_tf.errors import DaquError
from daqu_tf.pareto import targets
from daqu_tf.pareto.choices import ABSENT, Alphabet, Genome
from daqu_tf.pareto.gaussian_process import GaussianProcess
from daqu_tf.pareto.incoming import columns
from daqu_tf.pareto.targets import Scale

Costs = Callable[[list[dict[str, Any]]], Mapping[str, np.ndarray]]
RAMPS = 7  # Pieces of a number with many values.
DOUBT = 2.0  # Spreads by which a value beyond a fence may be off: it says something of its neighbours, and not much (ours).
_EXACT = 1e-6
_MEMORY = 100_000  # Subnets whose costs are remembered.
_COST_SHARE = 0.3  # Of a cost's deviation: its range is then about 1, as that of a choice.


class Features:
    """Genomes as real vectors, in which any additive effect of a number's steps is linear.

    A number with k values becomes min(k - 1, `RAMPS`) ramps from 0 to 1, one behind the other; anything else one column a value. A
    choice that is absent lies halfway. The two ends of every choice are equally far apart.

    Args:
        alphabet: Of the genomes.
    """

    def __init__(self, alphabet: Alphabet):
        self._tables = [_table(values) for values in alphabet.choices.values() if len(values) > 1]
        self._columns = [index for index, values in enumerate(alphabet.choices.values()) if len(values) > 1]

    def __call__(self, genomes: np.ndarray) -> np.ndarray:
        """Features (count, columns) of genomes (count, n); the last row of a table is `ABSENT`'s."""
        assert ABSENT == -1
        parts = [table[genomes[:, column]] for table, column in zip(self._tables, self._columns)]
        return np.concatenate(parts, axis=1) if parts else np.zeros((len(genomes), 1))


def _table(values: tuple) -> np.ndarray:
    """Shape (k + 1, columns)."""
    count = len(values)
    if all(isinstance(value, bool | int | float) for value in values):
        ramps = min(count - 1, RAMPS)
        place = np.empty(count)
        place[np.argsort(np.array(values, dtype=float), kind="stable")] = np.linspace(0, ramps, count)
        table = np.clip(place[:, None] - np.arange(ramps), 0, 1) / np.sqrt(ramps)
    else:
        table = np.eye(count) / np.sqrt(2)
    return np.vstack([table, table.mean(0)])


class Standardised:
    """Columns with mean 0 and deviation 1, as of the rows given first."""

    def __init__(self, rows: np.ndarray):
        self.mean, self.deviation = rows.mean(0), np.maximum(rows.std(0), 1e-12)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """The rows, standardised."""
        return (rows - self.mean) / self.deviation


class CostColumns:
    """Costs (count,) by name as features (count, names): logarithms of those that are positive for all that were fitted."""

    def __init__(self, costs: Mapping[str, np.ndarray]):
        self._least = {name: float(np.min(values)) for name, values in costs.items()}

    def __call__(self, costs: Mapping[str, np.ndarray]) -> np.ndarray:
        """Features (count, names)."""
        return np.stack([self._column(name, np.asarray(values, dtype=float)) for name, values in costs.items()], axis=1)

    def _column(self, name: str, values: np.ndarray) -> np.ndarray:
        least = self._least[name]
        # One that is not positive counts as the least that was seen.
        return np.log(np.where(values > 0, values, least)) if least > 0 else values


class KnownCosts:
    """What is known before a subnet runs, looked up once.

    Args:
        alphabet: Of the genomes.
        costs: Values of many subnets to costs (count,) by name; None if nothing is known.
    """

    def __init__(self, alphabet: Alphabet, costs: Costs | None):
        self._alphabet, self._costs = alphabet, costs
        self._names: list[str] = []
        self._memory: dict[Genome, tuple[float, ...]] = {}

    def __call__(self, genomes: np.ndarray) -> dict[str, np.ndarray]:
        """Costs (count,) by name of genomes (count, n)."""
        if self._costs is None or not len(genomes):
            return {}
        keys = [tuple(genome) for genome in np.asarray(genomes).tolist()]
        if new := [key for key in dict.fromkeys(keys) if key not in self._memory]:
            self._look_up(self._costs, new)
        rows = np.array([self._memory[key] for key in keys])
        if len(self._memory) > _MEMORY:
            self._memory.clear()
        return dict(zip(self._names, rows.T))

    def _look_up(self, costs: Costs, keys: list[Genome]) -> None:
        many = [self._alphabet.decode(key) for key in keys]
        found = columns(costs(list(many)), many)
        if self._names and set(found) != set(self._names):
            raise DaquError(
                f"`costs` must always return the same names, but {self._names} became {list(found)}: return all of them."
            )
        self._names = self._names or list(found)
        self._memory |= zip(keys, np.stack([found[name] for name in self._names], axis=1).tolist())


@dataclasses.dataclass
class MetricsPredictor:
    """Predicts every metric that a search looks at, each in its own unit or, if `logarithmic`, as its logarithm.

    A metric that the costs name is taken from there; what trials measured beyond it, if anything, is learned. Other costs are
    features.

    Attributes:
        alphabet: Of the genomes.
        metrics: Names.
        maximised: Those whose logarithm is not taken: what is minimised counts by its ratio, if it is positive (ours).
        known: Costs (count,) by name of genomes (count, n), as of `KnownCosts`.
        limits: By metric those of its constraints.
    """

    alphabet: Alphabet
    metrics: Sequence[str]
    maximised: frozenset[str] = frozenset()
    known: "Callable[[np.ndarray], dict[str, np.ndarray]]" = lambda genomes: {}
    limits: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self._features = Features(self.alphabet)
        self._columns = CostColumns({})
        self._known_features: Standardised | None = None
        self.scales: dict[str, Scale] = {}
        self._models: dict[str, GaussianProcess | None] = {}

    def fit(
        self, genomes: np.ndarray, values: np.ndarray, kernels: Mapping[str, np.ndarray | None] | None = None
    ) -> "MetricsPredictor":
        """Learns values (n, metrics) of genomes (n, genes).

        Args:
            genomes: What was run.
            values: What was measured, finite.
            kernels: As `kernels` of one that was fitted before.
        """
        rows, known = self.all_features(genomes), self.known(genomes)
        for name, column in zip(self.metrics, values.T):
            self.scales[name] = self._scale(name, column, known)
            rest = self.scaled(name, column) - (self.scaled(name, known[name]) if name in known else 0.0)
            scale = self.scales[name]
            off = scale.is_off(column)
            if name in known:
                scale = targets.fitted(rest, logarithmic=False)
                off, rest = scale.is_off(rest), scale(rest)
            doubt = np.where(off, DOUBT * scale.spread, 0.0)
            exact = name in known and np.abs(rest).max() < _EXACT
            self._models[name] = None if exact else GaussianProcess((kernels or {}).get(name)).fit(rows, rest, doubt)
        return self

    def _scale(self, name: str, values: np.ndarray, known: Mapping[str, np.ndarray]) -> Scale:
        is_maximised = name in self.maximised
        is_positive = not is_maximised and bool((np.minimum(values, known.get(name, values)) > 0).all())
        if name in known:
            return Scale(is_positive)
        is_log = is_positive and targets.is_skew(values)
        return targets.fitted(values, is_log, 1 if is_maximised else -1, self.limits.get(name, ()))

    def all_features(self, genomes: np.ndarray) -> np.ndarray:
        """Features (count, columns) of genomes (count, n) that are all there are, costs included."""
        known = self.known(genomes)
        self._columns = CostColumns(known)
        self._known_features = Standardised(self._columns(known)) if known else None
        return self._rows(genomes, known)

    @property
    def kernels(self) -> dict[str, np.ndarray]:
        """The hyperparameters of every metric's kernel."""
        return {name: model.hyperparameters for name, model in self._models.items() if model}

    def scaled(self, name: str, values: np.ndarray) -> np.ndarray:
        """Values of a metric in the unit of predictions."""
        return self.scales[name](values)

    def _rows(self, genomes: np.ndarray, known: Mapping[str, np.ndarray]) -> np.ndarray:
        rows = self._features(genomes)
        if not known or self._known_features is None:
            return rows
        return np.hstack([rows, _COST_SHARE * self._known_features(self._columns(known))])

    def predict(self, genomes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation (count, metrics) of genomes (count, genes); the deviation is 0 where a metric is exact."""
        known = self.known(genomes)
        rows = self._rows(genomes, known)
        means, deviations = np.zeros((2, len(genomes), len(self.metrics)))
        for place, name in enumerate(self.metrics):
            if name in known:
                means[:, place] = self.scaled(name, known[name])
            if model := self._models[name]:
                mean, deviations[:, place] = model.predict(rows)
                means[:, place] += mean
        return means, deviations
