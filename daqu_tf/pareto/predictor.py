"""What a subnet will score, and how sure that is: a Gaussian process over the choices and what is known of the costs.

Which surrogate: `benchmarks/surrogates.py` compares this one with others at the sizes that a search has.
"""

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from daqu_tf.pareto.choices import ABSENT, Choices, Code

Costs = Callable[[list[dict[str, Any]]], Mapping[str, np.ndarray]]
RAMPS = 7  # Pieces of a number with many values.
_EXACT = 1e-6
_MEMORY = 100_000  # Subnets whose costs are remembered.
_COST_SHARE = 0.3  # Of a cost's deviation: its range is then about 1, as that of a choice.


class Features:
    """Codes as real vectors, in which any additive effect of a number's steps is linear.

    A number with k values becomes min(k - 1, `RAMPS`) ramps from 0 to 1, one behind the other; anything else one column a value. A
    choice that is absent lies halfway. The two ends of every choice are equally far apart.

    Args:
        choices: Of the codes.
    """

    def __init__(self, choices: Choices):
        self._tables = [_table(values) for values in choices.options.values() if len(values) > 1]
        self._columns = [index for index, values in enumerate(choices.options.values()) if len(values) > 1]

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        """Features (count, columns) of codes (count, n); the last row of a table is `ABSENT`'s."""
        assert ABSENT == -1
        parts = [table[codes[:, column]] for table, column in zip(self._tables, self._columns)]
        return np.concatenate(parts, axis=1) if parts else np.zeros((len(codes), 1))


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


class GaussianProcess:
    """One length in all directions, and noise (scikit-learn's), by marginal likelihood.

    Args:
        hyperparameters: Of the kernel, as an earlier one found them: fitting then takes a Cholesky decomposition alone.
    """

    def __init__(self, hyperparameters: np.ndarray | None = None):
        self._hyperparameters = hyperparameters

    def fit(self, rows: np.ndarray, targets: np.ndarray) -> "GaussianProcess":
        """Learns targets (n,) of rows (n, columns)."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

        kernel, optimizer = (
            ConstantKernel(1.0, (1e-2, 1e3)) * RBF(1.0, (0.1, 100.0)) + WhiteKernel(0.1, (1e-4, 1.0)),
            "fmin_l_bfgs_b",
        )
        if self._hyperparameters is not None:
            kernel, optimizer = kernel.clone_with_theta(self._hyperparameters), None
        self._mean, self._deviation = targets.mean(), targets.std() or 1.0
        self._process = GaussianProcessRegressor(kernel, alpha=1e-6, optimizer=optimizer, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._process.fit(rows, (targets - self._mean) / self._deviation)
        return self

    @property
    def hyperparameters(self) -> np.ndarray:
        """As `__init__` takes them."""
        return self._process.kernel_.theta

    def predict(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation (count,) of what rows (count, columns) will measure, noise included."""
        mean, deviation = self._process.predict(rows, return_std=True)
        return self._mean + self._deviation * mean, self._deviation * deviation


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
        choices: Of the codes.
        costs: Values of many subnets to costs (count,) by name; None if nothing is known.
    """

    def __init__(self, choices: Choices, costs: Costs | None):
        self._choices, self._costs = choices, costs
        self._names: list[str] = []
        self._memory: dict[Code, tuple[float, ...]] = {}

    def __call__(self, codes: np.ndarray) -> dict[str, np.ndarray]:
        """Costs (count,) by name of codes (count, n)."""
        if self._costs is None or not len(codes):
            return {}
        keys = [tuple(code) for code in np.asarray(codes).tolist()]
        if new := [key for key in dict.fromkeys(keys) if key not in self._memory]:
            self._look_up(new)
        rows = np.array([self._memory[key] for key in keys])
        if len(self._memory) > _MEMORY:
            self._memory.clear()
        return dict(zip(self._names, rows.T))

    def _look_up(self, keys: list[Code]) -> None:
        found = self._costs([self._choices.decode(key) for key in keys])
        self._names = list(found)
        self._memory |= zip(keys, np.stack([np.asarray(column, dtype=float) for column in found.values()], axis=1).tolist())


@dataclasses.dataclass
class MetricsPredictor:
    """Predicts every metric that a search looks at, each in its own unit or, if `logarithmic`, as its logarithm.

    A metric that the costs name is taken from there; what trials measured beyond it, if anything, is learned. Other costs are
    features.

    Attributes:
        choices: Of the codes.
        metrics: Names.
        maximised: Those whose logarithm is not taken: what is minimised counts by its ratio, if it is positive (ours).
        known: Costs (count,) by name of codes (count, n), as of `KnownCosts`.
    """

    choices: Choices
    metrics: Sequence[str]
    maximised: frozenset[str] = frozenset()
    known: "Callable[[np.ndarray], dict[str, np.ndarray]]" = lambda codes: {}

    def __post_init__(self):
        self._features = Features(self.choices)
        self._columns = CostColumns({})
        self._known_features: Standardised | None = None
        self.logarithmic: dict[str, bool] = {}
        self._models: dict[str, GaussianProcess | None] = {}

    def fit(
        self, codes: np.ndarray, values: np.ndarray, kernels: Mapping[str, np.ndarray | None] | None = None
    ) -> "MetricsPredictor":
        """Learns values (n, metrics) of codes (n, genes).

        Args:
            codes: What was run.
            values: What was measured, finite.
            kernels: As `kernels` of one that was fitted before.
        """
        rows, known = self.all_features(codes), self.known(codes)
        for name, column in zip(self.metrics, values.T):
            self.logarithmic[name] = name not in self.maximised and (np.minimum(column, known.get(name, column)) > 0).all()
            rest = self.scaled(name, column) - (self.scaled(name, known[name]) if name in known else 0.0)
            exact = name in known and np.abs(rest).max() < _EXACT
            self._models[name] = None if exact else GaussianProcess((kernels or {}).get(name)).fit(rows, rest)
        return self

    def all_features(self, codes: np.ndarray) -> np.ndarray:
        """Features (count, columns) of codes (count, n) that are all there are, costs included."""
        known = self.known(codes)
        self._columns = CostColumns(known)
        self._known_features = Standardised(self._columns(known)) if known else None
        return self._rows(codes, known)

    @property
    def kernels(self) -> dict[str, np.ndarray]:
        """The hyperparameters of every metric's kernel."""
        return {name: model.hyperparameters for name, model in self._models.items() if model}

    def scaled(self, name: str, values: np.ndarray) -> np.ndarray:
        """Values of a metric in the unit of predictions."""
        return np.log(np.maximum(values, 1e-300)) if self.logarithmic[name] else np.asarray(values, dtype=float)

    def _rows(self, codes: np.ndarray, known: Mapping[str, np.ndarray]) -> np.ndarray:
        rows = self._features(codes)
        return np.hstack([rows, _COST_SHARE * self._known_features(self._columns(known))]) if known else rows

    def predict(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation (count, metrics) of codes (count, genes); the deviation is 0 where a metric is exact."""
        known = self.known(codes)
        rows = self._rows(codes, known)
        means, deviations = np.zeros((2, len(codes), len(self.metrics)))
        for place, name in enumerate(self.metrics):
            if name in known:
                means[:, place] = self.scaled(name, known[name])
            if model := self._models[name]:
                mean, deviations[:, place] = model.predict(rows)
                means[:, place] += mean
        return means, deviations
