"""Predictions of what a trial will measure, with their deviations, by Gaussian processes over the choices and the known costs.

`benchmarks/surrogates.py` compares this surrogate with others at the sizes that a search has.
"""

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from daqu_tf.errors import DaquError
from daqu_tf.pareto import targets
from daqu_tf.pareto.choices import ABSENT, Choices, Code
from daqu_tf.pareto.incoming import columns
from daqu_tf.pareto.targets import Scale

Costs = Callable[[list[dict[str, Any]]], Mapping[str, np.ndarray]]
Kernel = tuple[bool, np.ndarray]  # Whether logarithms are learned, and the hyperparameters of the kernel.
RAMPS = 7  # The most pieces into which a number with many values is cut.
DOUBT = 2.0  # An outlier may be off by so many interquartile ranges: it says something of its neighbours, and not much (ours).
_EXACT = 1e-6
_MEMORY = 100_000  # The number of codes whose costs are remembered.
_COST_SHARE = 0.3  # The factor of a standardised cost as a feature, whose range is then about 1, as that of a choice.


class Features:
    """Codes as real vectors, in which any additive effect of a number's steps is linear (ours).

    A number with k values becomes min(k - 1, `RAMPS`) ramps from 0 to 1, one behind the other; any other choice becomes one column
    for each value. A choice that is absent lies halfway. The two ends of every choice are equally far apart.

    Args:
        choices: The choices that the codes belong to.
    """

    def __init__(self, choices: Choices):
        self._tables = [_table(values) for values in choices.options.values() if len(values) > 1]
        self._columns = [index for index, values in enumerate(choices.options.values()) if len(values) > 1]

    def __call__(self, codes: np.ndarray) -> np.ndarray:
        """The features (count, columns) of codes (count, n)."""
        assert ABSENT == -1  # The last row of a table is that of `ABSENT`.
        parts = [table[codes[:, column]] for table, column in zip(self._tables, self._columns)]
        return np.concatenate(parts, axis=1) if parts else np.zeros((len(codes), 1))


def _table(values: tuple) -> np.ndarray:
    """The features (k + 1, columns) of a choice's k values, and behind them those of `ABSENT`."""
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
    """Standardises rows, so that the columns of the first rows have mean 0 and deviation 1.

    Args:
        rows: The first rows (n, columns), whose mean and deviation are used for all others.
    """

    def __init__(self, rows: np.ndarray):
        self.mean, self.deviation = rows.mean(0), np.maximum(rows.std(0), 1e-12)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """The standardised rows (count, columns)."""
        return (rows - self.mean) / self.deviation


class GaussianProcess:
    """scikit-learn's Gaussian process with a linear part, a smooth part and noise, fitted by marginal likelihood.

    In the linear part every feature has an effect whatever the others are, which is what can be learned of many choices from few
    trials (Duvenaud et al., "Additive Gaussian processes", NeurIPS 2011). In the smooth part, which has one length scale for all
    columns, features act together.

    Args:
        hyperparameters: The hyperparameters of the kernel from an earlier process, so that fitting takes a Cholesky decomposition
            alone; None finds them.
    """

    def __init__(self, hyperparameters: np.ndarray | None = None):
        self._hyperparameters = hyperparameters

    def fit(self, rows: np.ndarray, targets: np.ndarray, doubts: np.ndarray | None = None) -> "GaussianProcess":
        """Learns targets of rows.

        Args:
            rows: The features (n, columns).
            targets: What was measured (n,).
            doubts: The deviation (n,) by which each target may be off beside the noise of all; None where none is.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel

        linear = ConstantKernel(0.1, (1e-4, 1e3)) * DotProduct(0.0, "fixed")
        kernel = linear + ConstantKernel(1.0, (1e-2, 1e3)) * RBF(1.0, (0.1, 100.0)) + WhiteKernel(0.1, (1e-4, 1.0))
        optimizer: str | None = "fmin_l_bfgs_b"
        if self._hyperparameters is not None:
            kernel, optimizer = kernel.clone_with_theta(self._hyperparameters), None
        sure = targets if doubts is None or doubts.all() else targets[doubts == 0]
        self._center, self._mean, self._deviation = rows.mean(0), sure.mean(), sure.std() or 1.0
        noise = 1e-6 if doubts is None else 1e-6 + (doubts / self._deviation) ** 2
        self._process = GaussianProcessRegressor(kernel, alpha=noise, optimizer=optimizer, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._process.fit(rows - self._center, (targets - self._mean) / self._deviation)
        return self

    @property
    def likelihood(self) -> float:
        """The logarithm of the marginal likelihood of the targets."""
        return self._process.log_marginal_likelihood_value_ - len(self._process.X_train_) * np.log(self._deviation)

    @property
    def hyperparameters(self) -> np.ndarray:
        """The hyperparameters of the kernel, for another process."""
        return self._process.kernel_.theta

    def predict(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The mean (count,) and the deviation (count,) of the targets of rows (count, columns), with noise."""
        mean, deviation = self._process.predict(rows - self._center, return_std=True)
        return self._mean + self._deviation * mean, self._deviation * deviation


class CostColumns:
    """Costs as features, with the logarithms of those that are always positive.

    Args:
        costs: The costs (n,) by name from which the predictor learns, which decide about the logarithms.
    """

    def __init__(self, costs: Mapping[str, np.ndarray]):
        self._least = {name: float(np.min(values)) for name, values in costs.items()}

    def __call__(self, costs: Mapping[str, np.ndarray]) -> np.ndarray:
        """The features (count, names) of costs (count,) by name."""
        return np.stack([self._column(name, np.asarray(values, dtype=float)) for name, values in costs.items()], axis=1)

    def _column(self, name: str, values: np.ndarray) -> np.ndarray:
        least = self._least[name]
        # A cost that is not positive counts as the least that was seen.
        return np.log(np.where(values > 0, values, least)) if least > 0 else values


class KnownCosts:
    """The costs that are known before a trial runs, each looked up once.

    Args:
        choices: The choices that the codes belong to.
        costs: A function from a list of values by name to costs (count,) by name; None if no costs are known.
    """

    def __init__(self, choices: Choices, costs: Costs | None):
        self._choices, self._costs = choices, costs
        self._names: list[str] = []
        self._memory: dict[Code, tuple[float, ...]] = {}

    def __call__(self, codes: np.ndarray) -> dict[str, np.ndarray]:
        """The costs (count,) by name of codes (count, n)."""
        if self._costs is None or not len(codes):
            return {}
        keys = [tuple(code) for code in np.asarray(codes).tolist()]
        if new := [key for key in dict.fromkeys(keys) if key not in self._memory]:
            self._look_up(self._costs, new)
        rows = np.array([self._memory[key] for key in keys])
        if len(self._memory) > _MEMORY:
            self._memory.clear()
        return dict(zip(self._names, rows.T))

    def _look_up(self, costs: Costs, keys: list[Code]) -> None:
        many = [self._choices.decode(key) for key in keys]
        found = columns(costs(list(many)), many)
        if self._names and set(found) != set(self._names):
            raise DaquError(
                f"`costs` must always return the same names, but {self._names} became {list(found)}: return all of them."
            )
        self._names = self._names or list(found)
        self._memory |= zip(keys, np.stack([found[name] for name in self._names], axis=1).tolist())


@dataclasses.dataclass
class MetricsPredictor:
    """Predicts all metrics of a search, each in its own unit or as its logarithm.

    A metric that is among the known costs is predicted by its cost and by what trials measured beyond that, which is learned. Other
    costs are features. A known cost is predicted as its logarithm if it is positive and not maximised, since what is minimised
    counts by its ratio (ours). Another metric of that kind is, if its logarithms have the greater likelihood (Box and Cox, "An
    analysis of transformations", J. R. Stat. Soc. B 26(2), 1964). Outliers are drawn in, and count for little (`targets`).

    Attributes:
        choices: The choices that the codes belong to.
        metrics: The names of the metrics.
        maximised: The names of the metrics that are maximised.
        known: A function from codes (count, n) to the costs (count,) by name, as `KnownCosts` is.
        limits: The limits of the constraints on each metric, by its name.
    """

    choices: Choices
    metrics: Sequence[str]
    maximised: frozenset[str] = frozenset()
    known: "Callable[[np.ndarray], dict[str, np.ndarray]]" = lambda codes: {}
    limits: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self._features = Features(self.choices)
        self._columns = CostColumns({})
        self._known_features: Standardised | None = None
        self.scales: dict[str, Scale] = {}
        self._models: dict[str, GaussianProcess | None] = {}

    def fit(self, codes: np.ndarray, values: np.ndarray, kernels: Mapping[str, Kernel] | None = None) -> "MetricsPredictor":
        """Learns what trials measured.

        Args:
            codes: The codes (count, n) of the trials.
            values: The metrics (count, metrics) that they measured, all finite.
            kernels: The `kernels` of a predictor that was fitted before; None finds them.
        """
        rows, known = self.all_features(codes), self.known(codes)
        for name, column in zip(self.metrics, values.T):
            is_positive = name not in self.maximised and bool((np.minimum(column, known.get(name, column)) > 0).all())
            kernel = (kernels or {}).get(name)
            if name in known or kernel:
                ways = [is_positive and (kernel is None or kernel[0])]
            else:
                ways = [True, False] if is_positive else [False]
            fits = [self._fit(rows, name, column, known, way, kernel) for way in ways]
            self.scales[name], self._models[name], _ = max(fits, key=lambda fit: fit[2])
        return self

    def _fit(
        self,
        rows: np.ndarray,
        name: str,
        values: np.ndarray,
        known: Mapping[str, np.ndarray],
        logarithmic: bool,
        kernel: Kernel | None,
    ) -> tuple[Scale, "GaussianProcess | None", float]:
        """The scale and the model of a metric, None where it is exact, and the logarithm of the likelihood of the values (n,)."""
        is_maximised = name in self.maximised
        if name in known:  # The cost itself is not drawn in, but what was measured beyond it is.
            scale = Scale(logarithmic)
            values = scale(values) - scale(known[name])
            drawn = targets.fitted(values, False, is_maximised)
        else:
            scale = drawn = targets.fitted(values, logarithmic, is_maximised, self.limits.get(name, ()))
        learned = drawn(values)
        if name in known and np.abs(learned).max() < _EXACT:
            return scale, None, 0.0
        doubts = np.where(drawn.is_outlier(values), DOUBT * drawn.spread, 0.0)
        model = GaussianProcess(kernel[1] if kernel else None).fit(rows, learned, doubts)
        # The density of a value is the density of its logarithm, divided by the value.
        return scale, model, model.likelihood - (learned.sum() if drawn.logarithmic else 0.0)

    def all_features(self, codes: np.ndarray) -> np.ndarray:
        """The features (count, columns) of codes (count, n), with their costs standardised over these codes."""
        known = self.known(codes)
        self._columns = CostColumns(known)
        self._known_features = Standardised(self._columns(known)) if known else None
        return self._rows(codes, known)

    @property
    def kernels(self) -> dict[str, Kernel]:
        """The kernel of each metric that is not exact, by its name."""
        return {name: (self.scales[name].logarithmic, model.hyperparameters) for name, model in self._models.items() if model}

    def scaled(self, name: str, values: np.ndarray) -> np.ndarray:
        """Values of the metric `name` in the unit of its predictions."""
        return self.scales[name](values)

    def _rows(self, codes: np.ndarray, known: Mapping[str, np.ndarray]) -> np.ndarray:
        rows = self._features(codes)
        if not known or self._known_features is None:
            return rows
        return np.hstack([rows, _COST_SHARE * self._known_features(self._columns(known))])

    def predict(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predicts the metrics of codes (count, n).

        Returns:
            The means and the deviations, both (count, metrics); the deviation is 0 where a metric is exact.
        """
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
