"""A Gaussian process: the mean and deviation of a number that was measured, with noise, at other rows of features.

The kernel is a sum of three parts: a linear one, in which every feature has an effect of its own whatever the others are, a smooth
one of one length, in which features act together, and noise. Their four hyperparameters have the greatest marginal likelihood
(Rasmussen and Williams, "Gaussian Processes for Machine Learning", MIT Press 2006, chapter 5). With many choices and few trials it
is the linear part that can be learned at all (Duvenaud et al., "Additive Gaussian processes", NeurIPS 2011); a search by single
choices alone, as of a tree-structured Parzen estimator, has nothing else.
"""

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.optimize import minimize
from scipy.spatial.distance import cdist

_JITTER = 1e-6
# Logarithms of the linear part's and the smooth part's variance, of the length, and of the noise's variance.
_BOUNDS = np.log([(1e-4, 1e3), (1e-2, 1e3), (0.1, 100.0), (1e-4, 1.0)])
_STARTS = np.log([(0.1, 1.0, 1.0, 0.1), (1.0, 0.1, 3.0, 0.01)])


class GaussianProcess:
    """Of targets that it standardises, and rows that it centers.

    Args:
        hyperparameters: (4,) of the kernel, as an earlier one found them: fitting then takes a Cholesky decomposition alone.
    """

    def __init__(self, hyperparameters: np.ndarray | None = None):
        self._given = hyperparameters
        self.hyperparameters = _STARTS[0] if hyperparameters is None else hyperparameters

    def fit(self, rows: np.ndarray, targets: np.ndarray, doubt: np.ndarray | None = None) -> "GaussianProcess":
        """Learns targets (n,) of rows (n, columns).

        Args:
            rows: Features.
            targets: What was measured.
            doubt: (n,) by how much each may be off beside the noise of all, as a deviation; None where none is.
        """
        doubt = np.zeros(len(targets)) if doubt is None else doubt
        sure = targets[doubt == 0] if (doubt == 0).any() else targets
        self._center, self._mean, self._deviation = rows.mean(0), sure.mean(), sure.std() or 1.0
        jitter = np.diag(_JITTER + (doubt / self._deviation) ** 2)
        self._rows = rows - self._center
        standardised = (targets - self._mean) / self._deviation
        products, squares = self._rows @ self._rows.T, cdist(self._rows, self._rows, "sqeuclidean")
        if self._given is None:
            found = [
                minimize(_cost, start, (products, squares, jitter, standardised), "L-BFGS-B", jac=True, bounds=_BOUNDS)
                for start in _STARTS
            ]
            self.hyperparameters = min(found, key=lambda one: one.fun).x
        smooth = _smooth(squares, self.hyperparameters)
        kernel = np.exp(self.hyperparameters[0]) * products + smooth
        self._factor = cho_factor(kernel + jitter + np.exp(self.hyperparameters[3]) * np.eye(len(rows)), lower=True)
        self._weights = cho_solve(self._factor, standardised)
        return self

    def predict(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation (count,) of what rows (count, columns) will measure, noise included."""
        rows = rows - self._center
        linear, smooth, _, noise = np.exp(self.hyperparameters)
        across = linear * (rows @ self._rows.T) + _smooth(cdist(rows, self._rows, "sqeuclidean"), self.hyperparameters)
        explained = solve_triangular(self._factor[0], across.T, lower=True, check_finite=False)
        variance = linear * (rows**2).sum(axis=1) + smooth + noise - (explained**2).sum(axis=0)
        deviation = np.sqrt(np.maximum(variance, 1e-12))
        return self._mean + self._deviation * (across @ self._weights), self._deviation * deviation


def _smooth(squares: np.ndarray, hyperparameters: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(hyperparameters[1] - squares / (2 * np.exp(2 * hyperparameters[2]))))


def _cost(
    hyperparameters: np.ndarray, products: np.ndarray, squares: np.ndarray, jitter: np.ndarray, targets: np.ndarray
) -> tuple[float, np.ndarray]:
    """The negative logarithm of the marginal likelihood, and its gradient (4,)."""
    linear, _, length, noise = np.exp(hyperparameters)
    smooth, unit = _smooth(squares, hyperparameters), np.eye(len(targets))
    try:
        factor = cho_factor(linear * products + smooth + jitter + noise * unit, lower=True)
    except np.linalg.LinAlgError:
        return 1e25, np.zeros(4)
    weights = cho_solve(factor, targets)
    cost = targets @ weights / 2 + np.log(np.diag(factor[0])).sum()
    slope = (cho_solve(factor, unit) - np.outer(weights, weights)) / 2
    parts = (linear * products, smooth, smooth * squares / length**2, noise * unit)
    return float(cost), np.array([(slope * part).sum() for part in parts])
