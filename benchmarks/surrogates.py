"""Which surrogate predicts the accuracy of subnets best from the few that a search has scored (tables of `search_quality.py`).

    python benchmarks/surrogates.py

All learn from the same random subnets and are judged by all others: Kendall's tau of the means; the negative log-likelihood, which
says whether the uncertainty is right too; and the seconds to learn and to predict thousands.
"""

import time
import warnings

import numpy as np
import records
import search_quality
from absl import app, flags
from scipy.stats import kendalltau, norm
from sklearn.ensemble import ExtraTreesRegressor, RandomForestRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import BayesianRidge
from sklearn.neural_network import MLPRegressor

from daqu_tf.pareto.predictor import MetricsPredictor

TRIALS, SEEDS = (40, 100, 200), 3
OURS = "Gaussian process, one length"


class Direct:
    """A model of scikit-learn that knows its own deviation, on standardised targets."""

    def __init__(self, model):
        self.model = model

    def fit(self, rows, targets):
        """Learns."""
        self.mean, self.deviation = targets.mean(), targets.std()
        self.model.fit(rows, (targets - self.mean) / self.deviation)
        return self

    def predict(self, rows):
        """Means and deviations."""
        mean, deviation = self.model.predict(rows, return_std=True)
        return self.mean + self.deviation * mean, self.deviation * deviation


class Trees:
    """The spread of the trees, and the error that each makes out of its bag."""

    def __init__(self, kind):
        self.model = kind(100, bootstrap=True, oob_score=True, min_samples_leaf=2, random_state=0)

    def fit(self, rows, targets):
        """Learns."""
        self.model.fit(rows, targets)
        self.noise = np.std(targets - self.model.oob_prediction_)
        return self

    def predict(self, rows):
        """Means and deviations."""
        each = np.array([tree.predict(rows) for tree in self.model.estimators_])
        return each.mean(0), np.sqrt((each.var(0) + self.noise**2) / 2)


class Networks(Direct):
    """Five small networks, which differ in their first weights."""

    def __init__(self):
        settings = {"hidden_layer_sizes": (64, 64), "alpha": 1e-2, "max_iter": 400, "learning_rate_init": 3e-3}
        self.models = [MLPRegressor(random_state=seed, **settings) for seed in range(5)]

    def fit(self, rows, targets):
        """Learns."""
        self.mean, self.deviation = targets.mean(), targets.std()
        for model in self.models:
            model.fit(rows, (targets - self.mean) / self.deviation)
        return self

    def predict(self, rows):
        """Means and deviations."""
        each = np.array([model.predict(rows) for model in self.models])
        return self.mean + self.deviation * each.mean(0), self.deviation * np.sqrt(each.var(0) + 0.1)


def gaussian_process(lengths):
    """Of scikit-learn, with one length, or one a feature."""
    return Direct(GaussianProcessRegressor(ConstantKernel(1.0) * RBF(lengths) + WhiteKernel(0.1), alpha=1e-6, random_state=0))


KINDS = {
    "Bayesian ridge": lambda columns: Direct(BayesianRidge()),
    "extra trees": lambda columns: Trees(ExtraTreesRegressor),
    "random forest": lambda columns: Trees(RandomForestRegressor),
    "five small networks": lambda columns: Networks(),
    OURS: lambda columns: gaussian_process(1.0),
    "Gaussian process, a length a feature": lambda columns: gaussian_process(np.ones(columns)),
}


def judge(kind: str, rows: np.ndarray, accuracies: np.ndarray, trials: int, seed: int) -> list[float]:
    """Tau, negative log-likelihood a subnet, and seconds."""
    order = np.random.default_rng(seed).permutation(len(rows))
    seen, others = order[:trials], order[trials:]
    start = time.process_time()
    mean, deviation = KINDS[kind](rows.shape[1]).fit(rows[seen], accuracies[seen]).predict(rows[others])
    seconds = time.process_time() - start
    likelihood = -norm.logpdf(accuracies[others], mean, np.maximum(deviation, 1e-5)).mean()
    return [float(kendalltau(mean, accuracies[others])[0]), float(likelihood), seconds]


def main(argv):
    """Judges all, and writes the result; quickly: with one seed, and less trials."""
    del argv
    warnings.simplefilter("ignore")
    seeds, sizes, found, tables = (1, TRIALS[:2], {}, []) if flags.FLAGS.quick else (SEEDS, TRIALS, {}, [])
    for name in ("fashion_mnist", "cifar10"):
        problem = search_quality.problems(name)[-1]
        known = {cost: problem.metrics[cost] for cost in problem.objectives[1:]}
        predictor = MetricsPredictor(problem.choices, ["accuracy"], known=lambda codes, known=known: known)
        rows = predictor.all_features(problem.codes)
        found[name] = {
            kind: {
                trials: np.mean([judge(kind, rows, problem.metrics["accuracy"], trials, seed) for seed in range(seeds)], 0).tolist()
                for trials in sizes
            }
            for kind in KINDS
        }
        cells = [
            [kind, *(f"{tau:.3f}, {loss:.2f}, {seconds:.2f} s" for tau, loss, seconds in by_size.values())]
            for kind, by_size in found[name].items()
        ]
        caption = f"{name}: Kendall's tau, negative log-likelihood and CPU time after learning from so many random subnets"
        tables.append({"caption": caption, "columns": ["surrogate", *map(str, sizes)], "rows": cells})
    bars = [
        records.bar(
            f"{name}: tau of the oracle's surrogate after 100 subnets, less that of the best that takes no more than a second",
            by_kind[OURS][100][0] - max(by_size[100][0] for by_size in by_kind.values() if by_size[100][2] <= 1),
            -0.02,
            "at_least",
            "",
        )
        for name, by_kind in found.items()
    ]
    print(
        records.write(
            "surrogates_quick" if flags.FLAGS.quick else "surrogates", list(range(seeds)), {"found": found, "tables": tables}, bars
        )
    )


if __name__ == "__main__":
    app.run(main)
