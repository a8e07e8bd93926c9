import numpy as np
import pytest
from scipy.optimize import approx_fprime

from daqu_tf.pareto import gaussian_process
from daqu_tf.pareto.gaussian_process import GaussianProcess

ROWS = np.random.default_rng(0).random((60, 5))
TARGETS = np.sin(3 * ROWS[:, 0]) + ROWS @ np.arange(5.0) + np.random.default_rng(1).normal(0, 0.05, 60)


def test_predictions_are_those_of_scikit_learn():
    process = pytest.importorskip("sklearn.gaussian_process")
    kernels = process.kernels
    ours = GaussianProcess().fit(ROWS, TARGETS)
    linear, smooth, length, noise = np.exp(ours.hyperparameters)
    kernel = linear * kernels.DotProduct(0.0, "fixed") + smooth * kernels.RBF(length) + kernels.WhiteKernel(noise)
    theirs = process.GaussianProcessRegressor(kernel, alpha=1e-6, optimizer=None)
    center, mean, deviation = ROWS.mean(0), TARGETS.mean(), TARGETS.std()
    theirs.fit(ROWS - center, (TARGETS - mean) / deviation)
    others = np.random.default_rng(2).random((20, 5))
    wanted, doubt = theirs.predict(others - center, return_std=True)
    found, deviations = ours.predict(others)
    assert found == pytest.approx(mean + deviation * wanted, rel=1e-6) and deviations == pytest.approx(deviation * doubt, rel=1e-4)


def test_the_gradient_is_that_of_the_likelihood():
    centered = ROWS - ROWS.mean(0)
    squares = ((centered[:, None] - centered) ** 2).sum(2)
    arguments = (centered @ centered.T, squares, 1e-6 * np.eye(60), (TARGETS - TARGETS.mean()) / TARGETS.std())
    start = np.log([0.5, 1.0, 0.7, 0.05])
    cost = gaussian_process._cost
    assert cost(start, *arguments)[1] == pytest.approx(approx_fprime(start, lambda at: cost(at, *arguments)[0]), rel=1e-3, abs=1e-3)


def test_effects_of_single_features_are_learned_from_few_rows():
    """Twenty features and 40 rows: what lies far from all of them is predicted by adding up."""
    rng = np.random.default_rng(3)
    rows, effects = rng.integers(0, 2, (140, 20)).astype(float), rng.normal(size=20)
    found, _ = GaussianProcess().fit(rows[:40], (rows @ effects)[:40]).predict(rows[40:])
    assert np.corrcoef(found, (rows @ effects)[40:])[0, 1] > 0.98


def test_targets_that_all_agree_are_predicted():
    mean, deviation = GaussianProcess().fit(ROWS, np.full(60, 3.0)).predict(ROWS[:2])
    assert mean == pytest.approx([3.0, 3.0]) and np.isfinite(deviation).all()
