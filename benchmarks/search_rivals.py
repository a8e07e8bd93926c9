"""The samplers of the field on a table of scored subnets: each a function of a problem, a seed and a number of evaluations.

A subnet that a rival asks for again costs it nothing: only new ones count, as long as it does not ask five times as often (TPE,
which takes seconds for it: twice; KerasTuner's, which takes longer and runs what it asks for: once). All see choices as whole
numbers in the order of their values, and those with populations have one of 20, which is better here than their defaults of 50
and 100.
"""

import tempfile
import warnings
from collections.abc import Callable

import numpy as np

POPULATION = 20


class Done(Exception):
    """All evaluations are spent."""


class Evaluations:
    """Looks subnets up, and writes down the order of new ones.

    Args:
        problem: A `search_quality.Problem`.
        budget: How many new ones there may be.
    """

    def __init__(self, problem, budget: int):
        self.problem, self.budget = problem, budget
        self.rows: dict[int, None] = {}
        self.most_asked = 5 * budget
        self._asked = 0

    def __call__(self, code: np.ndarray) -> np.ndarray:
        """Normalised objectives (m,), to be minimised, of indices (n,) of the choices' values.

        Raises:
            Done: There were enough.
        """
        self._asked += 1
        row = self.problem.row_of(code)
        if (row not in self.rows and len(self.rows) == self.budget) or self._asked > self.most_asked:
            raise Done
        self.rows[row] = None
        return self.problem.points[row]


def random(evaluate: Evaluations, seed: int) -> None:
    """Without repetition."""
    rng = np.random.default_rng(seed)
    for row in rng.permutation(len(evaluate.problem.points)):
        evaluate(evaluate.problem.codes[row])


def keras_tuner_bayesian(evaluate: Evaluations, seed: int) -> None:
    """KerasTuner's own, on the sum of the normalised objectives; what it proposes twice it runs twice."""
    import keras_tuner

    evaluate.most_asked = evaluate.budget
    choices = evaluate.problem.choices
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        oracle = keras_tuner.oracles.BayesianOptimizationOracle(
            objective=keras_tuner.Objective("score", "min"),
            max_trials=10**6,
            seed=seed + 1,  # 0 is none to it.
            hyperparameters=evaluate.problem.hyperparameters(),
        )
        oracle.verbose = 0
        oracle._set_project_dir(folder, "search")
        while True:
            trial = oracle.create_trial("tuner0")
            point = evaluate(np.array(choices.encode(trial.hyperparameters.values)))
            oracle.update_trial(trial.trial_id, {"score": float(point.sum())})
            trial.status = "COMPLETED"
            oracle.end_trial(trial)


def _pymoo(algorithm: Callable, evaluate: Evaluations, seed: int) -> None:
    from pymoo.core.evaluator import Evaluator
    from pymoo.core.problem import Problem
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair
    from pymoo.operators.sampling.rnd import IntegerRandomSampling
    from pymoo.problems.static import StaticProblem

    sizes = evaluate.problem.choices.sizes
    problem = Problem(n_var=len(sizes), n_obj=evaluate.problem.points.shape[1], xl=0, xu=sizes - 1, vtype=int)
    method = algorithm(
        sampling=IntegerRandomSampling(),
        crossover=SBX(prob=0.9, eta=3, vtype=float, repair=RoundingRepair()),
        mutation=PM(eta=3, vtype=float, repair=RoundingRepair()),
        eliminate_duplicates=True,
    )
    method.setup(problem, termination=("n_gen", 10**6), seed=seed, verbose=False)
    while True:
        asked = method.ask()
        points = np.array([evaluate(code) for code in asked.get("X").astype(int)])
        Evaluator().eval(StaticProblem(problem, F=points), asked)
        method.tell(infills=asked)


def pymoo_nsga2(evaluate: Evaluations, seed: int) -> None:
    """With integer operators."""
    from pymoo.algorithms.moo.nsga2 import NSGA2

    _pymoo(lambda **operators: NSGA2(pop_size=POPULATION, **operators), evaluate, seed)


def pymoo_nsga3(evaluate: Evaluations, seed: int) -> None:
    """With about as many reference directions as individuals."""
    from pymoo.algorithms.moo.nsga3 import NSGA3
    from pymoo.util.ref_dirs import get_reference_directions

    objectives = evaluate.problem.points.shape[1]
    directions = get_reference_directions("das-dennis", objectives, n_partitions={2: 19, 3: 5}[objectives])
    _pymoo(lambda **operators: NSGA3(directions, pop_size=max(POPULATION, len(directions)), **operators), evaluate, seed)


def _optuna(sampler, evaluate: Evaluations) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    choices = evaluate.problem.choices
    study = optuna.create_study(directions=["minimize"] * evaluate.problem.points.shape[1], sampler=sampler)
    while True:
        trial, code = study.ask(), []
        for name, values in choices.options.items():
            acts = all(
                choices.options[parent][code[list(choices.options).index(parent)]] in wanted
                for parent, wanted in choices.conditions.get(name, ())
            )
            code.append(trial.suggest_int(name, 0, len(values) - 1) if acts else 0)
        study.tell(trial, evaluate(np.array(code)).tolist())


def optuna_nsga2(evaluate: Evaluations, seed: int) -> None:
    """Optuna's."""
    import optuna

    _optuna(optuna.samplers.NSGAIISampler(population_size=POPULATION, seed=seed), evaluate)


def optuna_tpe(evaluate: Evaluations, seed: int) -> None:
    """The tree-structured Parzen estimator for several objectives."""
    import optuna

    evaluate.most_asked = 2 * evaluate.budget
    _optuna(optuna.samplers.TPESampler(seed=seed), evaluate)


RIVALS = {
    "random": random,
    "pymoo NSGA-II": pymoo_nsga2,
    "pymoo NSGA-III": pymoo_nsga3,
    "Optuna NSGA-II": optuna_nsga2,
    "Optuna TPE": optuna_tpe,
    "KerasTuner BO": keras_tuner_bayesian,
}
