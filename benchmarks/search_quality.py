"""How good the front is after so many evaluations, of `ParetoOracle` and of the field's samplers, on subnets that were all scored.

    python benchmarks/search_quality.py

Every method reads the same tables (`search_tables.py`): the accuracy of every subnet of a restricted space, and its costs. What
counts is the hypervolume of objectives normalised to [0, 1] over the table (costs as logarithms), up to 1.1, over 20 seeds; that of
all subnets is the most there is. `ParetoOracle` is told the costs before it runs a subnet, as it is in a search of `daqu_tf`; "no
costs" shows it without. Cut off, the command goes on with the next seed.
"""

import contextlib
import dataclasses
import functools
import gzip
import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable

import keras_tuner
import numpy as np
import records
import search_plots
from absl import app, flags
from search_rivals import RIVALS, Done, Evaluations

from daqu_tf import files, pareto
from daqu_tf.oracle.oracle import ParetoOracle
from daqu_tf.pareto.choices import Choices

REFERENCE = 1.1
EVALUATIONS = (50, 100, 200, 400)
CURVE = (20, 30, 50, 70, 100, 140, 200, 280, 400)
OURS, WITHOUT_COSTS = "ParetoOracle", "ParetoOracle, no costs"
PROBLEMS = {
    "2 objectives": ("accuracy", "deflated_bytes"),
    "3 objectives": ("accuracy", "latency_us", "deflated_bytes"),
}
# Evaluations and seeds of those that take long to propose.
SHORTER = {WITHOUT_COSTS: (200, 5), "Optuna TPE": (200, 20), "KerasTuner BO": (100, 3)}
INITIAL_RANDOM = 8  # As of `daqu_tf.search`.
SLOWEST = "KerasTuner BO"
_RESAMPLES = 2000

_SEEDS = flags.DEFINE_integer("seeds", 20, "How many.")
_METHODS = flags.DEFINE_list("methods", [OURS, WITHOUT_COSTS, *RIVALS], "Those to run; all that have run are summed up.")
_TABLES = flags.DEFINE_list("tables", ["fashion_mnist", "cifar10"], "Data sets.")
_FOLDER = flags.DEFINE_string("folder", "runs/search_quality", "What has been done so far.")
_QUICK = flags.DEFINE_bool("quick", False, "Three seeds, 100 evaluations, without KerasTuner: about a minute.")


@dataclasses.dataclass(frozen=True)
class Problem:
    """A table and what counts.

    Attributes:
        name: Data set and objectives.
        choices: The choices.
        codes: (n, genes) of all subnets.
        metrics: (n,) by name.
        objectives: Names; the first is to be maximised, the others minimised.
    """

    name: str
    choices: Choices
    codes: np.ndarray
    metrics: dict[str, np.ndarray]
    objectives: tuple[str, ...]

    @functools.cached_property
    def points(self) -> np.ndarray:
        """(n, m) normalised objectives, minimised."""
        accuracy, *costs = (self.metrics[name] for name in self.objectives)
        columns = np.stack([-accuracy, *np.log(costs)], axis=1)
        return (columns - columns.min(0)) / np.ptp(columns, axis=0)

    @functools.cached_property
    def rows(self) -> dict[tuple[int, ...], int]:
        """Where a subnet is."""
        return {tuple(code): row for row, code in enumerate(self.codes.tolist())}

    def row_of(self, code: np.ndarray) -> int:
        """The same, whatever values its choices have that change nothing."""
        return self.rows[tuple(self.choices.canonical(np.maximum(code, 0)[None])[0].tolist())]

    def hyperparameters(self) -> keras_tuner.HyperParameters:
        """For KerasTuner."""
        space = keras_tuner.HyperParameters()
        for name, values in self.choices.options.items():
            parents = self.choices.conditions.get(name, ((None, None),))
            space.Choice(name, list(values), parent_name=parents[0][0], parent_values=parents[0][1] and list(parents[0][1]))
        return space

    def design(self) -> list[dict]:
        """As `daqu_tf.search.search.first_design`: the largest and the smallest architecture at all weight bits throughout."""
        all_bits = sorted({bits for name, options in self.choices.options.items() if name.endswith("_bits") for bits in options})
        found = []
        for end in (-1, 0):
            for bits in reversed(all_bits):
                values = {
                    name: next((each for each in options if each >= bits), options[-1]) if name.endswith("_bits") else options[end]
                    for name, options in self.choices.options.items()
                }
                code = self.choices.canonical(np.array([self.choices.encode(values)]))[0]
                found.append(self.choices.decode(code))
        return found

    def hypervolume(self, rows: list[int] | slice) -> float:
        """Of the subnets in these rows."""
        return pareto.hypervolume(self.points[rows], np.full(len(self.objectives), REFERENCE))


def problems(table: str) -> list[Problem]:
    """Those of a data set."""
    content = json.loads(gzip.decompress((records.RESULTS / f"search_quality_{table}.json.gz").read_bytes()))
    conditions = {name: tuple((parent, tuple(values)) for parent, values in gates) for name, gates in content["conditions"].items()}
    choices = Choices({name: tuple(values) for name, values in content["choices"].items()}, conditions)
    codes = np.array(content["genomes"])
    metrics = {name: np.array(values) for name, values in content["metrics"].items()}
    return [Problem(f"{table}, {name}", choices, codes, metrics, objectives) for name, objectives in PROBLEMS.items()]


def ours(evaluate: Evaluations, seed: int, with_costs: bool) -> None:
    """The oracle as a user runs it, journal and all."""
    problem = evaluate.problem
    names = problem.objectives

    def costs(many: list[dict]) -> dict[str, np.ndarray]:
        rows = [problem.rows[problem.choices.encode(values)] for values in many]
        return {name: problem.metrics[name][rows] for name in names[1:]}

    with tempfile.TemporaryDirectory() as folder:
        oracle = ParetoOracle(
            [keras_tuner.Objective(name, "min" if place else "max") for place, name in enumerate(names)],
            max_trials=evaluate.budget,
            hyperparameters=problem.hyperparameters(),
            seed=seed,
            initial_design=problem.design(),
            initial_random=INITIAL_RANDOM,
            costs=costs if with_costs else None,
        )
        oracle._set_project_dir(folder, "search")
        while (trial := oracle.create_trial("tuner0")).status != "STOPPED":
            code = np.array(problem.choices.encode(trial.hyperparameters.values))
            evaluate(code)
            row = problem.row_of(code)
            oracle.update_trial(trial.trial_id, {name: float(problem.metrics[name][row]) for name in names})
            trial.status = "COMPLETED"
            oracle.end_trial(trial)


METHODS: dict[str, Callable[[Evaluations, int], None]] = {
    OURS: lambda evaluate, seed: ours(evaluate, seed, True),
    WITHOUT_COSTS: lambda evaluate, seed: ours(evaluate, seed, False),
    **RIVALS,
}


def run(problem: Problem, method: str, seed: int, budget: int) -> dict:
    """One search: the hypervolume after each number of evaluations."""
    evaluate = Evaluations(problem, budget)
    start = time.process_time()
    with contextlib.suppress(Done):
        METHODS[method](evaluate, seed)
    rows = list(evaluate.rows)
    return {
        "seed": seed,
        "seconds": round(time.process_time() - start, 2),
        "evaluated": len(rows),
        "hypervolume": {str(count): problem.hypervolume(rows[:count]) for count in CURVE if count <= budget},
    }


def searches(problem: Problem, method: str) -> list[dict]:
    """One for each seed, those of earlier commands included."""
    budget, seeds = SHORTER.get(method, (EVALUATIONS[-1], _SEEDS.value))
    budget, seeds = (100, 3) if _QUICK.value else (budget, min(seeds, _SEEDS.value))
    path = pathlib.Path(_FOLDER.value) / "-".join(f"{problem.name} {method} {budget}.jsonl".replace(",", "").split())
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    found = [json.loads(line) for line in lines if line.endswith("\n")]
    if len(found) < seeds and method in _METHODS.value:
        files.write_bytes(path, "".join(json.dumps(search) + "\n" for search in found).encode())
        with open(path, "a", buffering=1) as file:
            for seed in range(len(found), seeds):
                found.append(run(problem, method, seed, budget))
                file.write(json.dumps(found[-1]) + "\n")
    return found[:seeds]


def hypervolumes(found: list[dict], count: int) -> np.ndarray:
    """Of the seeds, after so many evaluations; empty if there were not as many."""
    return np.array([search["hypervolume"][str(count)] for search in found if str(count) in search["hypervolume"]])


def compare(mine: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    """The ratio of the medians, and the interval of 95 of 100 resamples of the seeds, which both have in common."""
    mine, theirs = mine[: len(theirs)], theirs[: len(mine)]
    picked = np.random.default_rng(0).integers(len(mine), size=(_RESAMPLES, len(mine)))
    low, high = np.quantile(np.median(mine[picked], axis=1) / np.median(theirs[picked], axis=1), (0.025, 0.975))
    return {"ratio": float(np.median(mine) / np.median(theirs)), "low": float(low), "high": float(high)}


def summary(problem: Problem) -> dict | None:
    """Shares of the true front's hypervolume by method and number of evaluations, and the comparison that decides.

    None where ours, or all rivals, have not run.
    """
    wanted = [method for method in METHODS if not (_QUICK.value and method == SLOWEST)]
    found = {method: searches(problem, method) for method in wanted}
    missing = [method for method, searches in found.items() if not searches]
    found = {method: searches for method, searches in found.items() if searches}
    if OURS not in found or not found.keys() & RIVALS.keys():
        return None
    most = problem.hypervolume(slice(None))
    shares = {
        method: {
            count: [float(value) for value in np.quantile(values, (0.5, 0.25, 0.75)) / most]
            for count in CURVE
            if len(values := hypervolumes(searches, count))
        }
        for method, searches in found.items()
    }
    early, late = (50, 100) if _QUICK.value else (100, 200)
    best = max((method for method in found if method in RIVALS), key=lambda method: shares[method].get(late, [0.0])[0])
    return {
        "subnets": len(problem.points),
        "front": int(pareto.non_dominated_mask(problem.points).sum()),
        "hypervolume": most,
        "shares": shares,
        "seeds": {method: len(searches) for method, searches in found.items()},
        "seconds": {method: float(np.mean([search["seconds"] for search in searches])) for method, searches in found.items()},
        "best_rival": best,
        "not_run": missing,
        "compared": {"ours_at": early, "rivals_at": late, **compare(*_pair(found, best, early, late))},
    }


def _pair(found: dict[str, list[dict]], rival: str, early: int, late: int) -> tuple[np.ndarray, np.ndarray]:
    return hypervolumes(found[OURS], early), hypervolumes(found[rival], late)


def table(name: str, result: dict) -> dict:
    """For the README."""
    rows = [
        [method, *(f"{shares[count][0]:.3f}" if count in shares else "" for count in EVALUATIONS), str(result["seeds"][method])]
        for method, shares in result["shares"].items()
    ]
    caption = (
        f"{name}: share of the hypervolume of all {result['subnets']:,} subnets ({result['front']} on the front) after so many "
        f"evaluations, median of the seeds"
    ) + (f" (not run: {', '.join(result['not_run'])})" if result["not_run"] else "")
    return {"caption": caption, "columns": ["method", *map(str, EVALUATIONS), "seeds"], "rows": rows}


def main(argv):
    """Runs what has not run, and sums all up."""
    del argv
    results = {problem.name: summary(problem) for name in _TABLES.value for problem in problems(name)}
    if None in results.values():
        sys.exit("Too little has run for a comparison: ours, and at least one rival on every problem.")
    name = "search_quality_quick" if _QUICK.value else "search_quality"
    search_plots.draw(records.RESULTS / f"{name}.png", {key: result["shares"] for key, result in results.items()})
    bars = [
        records.bar(
            f"{key}: hypervolume of ours after {result['compared']['ours_at']} evaluations, over the best rival's "
            f"({result['best_rival']}) after {result['compared']['rivals_at']}, medians",
            result["compared"]["ratio"],
            1.0,
            "at_least",
            "x",
        )
        for key, result in results.items()
    ]
    content = {"problems": results, "tables": [table(*item) for item in results.items()], "picture": f"results/{name}.png"}
    print(records.write(name, list(range(3 if _QUICK.value else _SEEDS.value)), content, bars))


if __name__ == "__main__":
    app.run(main)
