"""The front of a whole space, far too large for a table: `ParetoOracle` and the best of the field's samplers, really scored.

    python benchmarks/search_unrestricted.py --dataset=fashion_mnist.npz --supernet=supernet.npz --latency_table=table.json

The space is `mobilenet_v2_28` on `litert_cpu`; accuracies are inherited ones on 4,000 search images, latencies are those of a
latency table of the space, and bytes are computed. The hypervolume is that of objectives normalised to [0, 1] over all that any
method scored (costs as logarithms), up to 1.1. Cut off, the command goes on with the next search.
"""

import contextlib
import json
import os
import pathlib
import tempfile

import keras_tuner
import numpy as np
import records
from absl import app, flags
from search_rivals import RIVALS, Done, Evaluations

from daqu_tf import data, files, latency, pareto, spaces, targets
from daqu_tf.oracle.oracle import ParetoOracle
from daqu_tf.pareto.choices import Choices
from daqu_tf.search.search import INITIAL_RANDOM, first_design
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.targets import costs

OBJECTIVES = ("accuracy", "latency_us", "deflated_bytes")
METHODS = ("ParetoOracle", "pymoo NSGA-II", "pymoo NSGA-III")
EVALUATIONS, EARLY, IMAGES, REFERENCE = 200, 100, 4000, 1.1

_DATASET = flags.DEFINE_string("dataset", None, "A .npz file.")
_SUPERNET = flags.DEFINE_string("supernet", None, "A trained supernet.npz of the space.")
_TABLE = flags.DEFINE_string("latency_table", None, "Of daqu-profile, for the space.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "How many.")
_FOLDER = flags.DEFINE_string("folder", "runs/search_unrestricted", "What has been done so far.")
_QUICK = flags.DEFINE_bool("quick", False, "One seed of 60 evaluations: about two minutes.")


class Space:
    """The space as samplers see it, and the scores of its subnets."""

    def __init__(self, dataset: data.Dataset):
        from daqu_tf.supernet.scoring import Scorer
        from daqu_tf.supernet.supernet import Supernet

        self._dataset = dataset
        full = spaces.get("mobilenet_v2_28").for_images(dataset.image_shape, dataset.num_classes)
        self.space: SearchSpace = targets.get("litert_cpu").restrict(full)
        self.choices = Choices({gene.name: gene.values for gene in self.space.genes}, self.space.conditions)
        self.table = latency.LatencyTable.load(_TABLE.value)
        self.points = np.zeros((0, len(OBJECTIVES)))  # Of which rivals look at the shape alone.
        self._supernet = Supernet(full)
        self._supernet.load_arrays(files.read_arrays(pathlib.Path(_SUPERNET.value)))
        self._scorer = Scorer(self._supernet, dataset.x_train)
        self._accuracies: dict = {}

    def row_of(self, code: np.ndarray) -> tuple[int, ...]:
        """What stands for all codes of one subnet."""
        return tuple(self.choices.canonical(np.maximum(code, 0)[None])[0].tolist())

    def known(self, many: list[dict]) -> dict[str, np.ndarray]:
        """The costs of subnets."""
        genomes = self.space.genomes(many)
        found = costs.of_many(self.space, genomes, targets.get("litert_cpu"))
        return {"latency_us": self.table.predict_many(self.space, genomes), "deflated_bytes": found["deflated_bytes"]}

    def metrics(self, row: tuple[int, ...]) -> dict[str, float]:
        """Of one subnet, scored if it has not been yet."""
        values = self.choices.decode(row)
        if row not in self._accuracies:
            self._supernet.activate(self.space.subnet(values))
            self._scorer.recalibrate()
            self._accuracies[row] = self._scorer.accuracy(self._dataset.x_search[:IMAGES], self._dataset.y_search[:IMAGES])
        return {"accuracy": self._accuracies[row]} | {name: float(column[0]) for name, column in self.known([values]).items()}


class Scored(Evaluations):
    """Scores what a rival asks for; keeps the metrics of new subnets in `rows`."""

    def __call__(self, code: np.ndarray) -> np.ndarray:
        """Objectives (m,), to be minimised."""
        self._asked += 1
        row = self.problem.row_of(code)
        if (row not in self.rows and len(self.rows) == self.budget) or self._asked > self.most_asked:
            raise Done
        self.rows[row] = self.problem.metrics(row)
        return point(self.rows[row])


def point(metrics: dict[str, float]) -> np.ndarray:
    """Objectives (m,), to be minimised."""
    return np.array([-metrics["accuracy"], *(np.log(metrics[name]) for name in OBJECTIVES[1:])])


def ours(evaluate: Scored, seed: int) -> None:
    """As `daqu-search` does it."""
    problem = evaluate.problem
    with tempfile.TemporaryDirectory() as folder:
        oracle = ParetoOracle(
            [keras_tuner.Objective(name, "min" if place else "max") for place, name in enumerate(OBJECTIVES)],
            max_trials=evaluate.budget,
            hyperparameters=problem.space.to_hyperparameters(),
            seed=seed,
            initial_design=[subnet.to_json() for subnet in first_design(problem.space)],
            initial_random=INITIAL_RANDOM,
            sample=lambda rng: problem.space.sample_by_gene(rng).to_json(),
            conditions=problem.space.conditions,
            costs=problem.known,
        )
        oracle._set_project_dir(folder, "search")
        while (trial := oracle.create_trial("tuner0")).status != "STOPPED":
            code = np.array(problem.choices.encode(trial.hyperparameters.values))
            evaluate(code)
            oracle.update_trial(trial.trial_id, evaluate.rows[problem.row_of(code)])
            trial.status = "COMPLETED"
            oracle.end_trial(trial)


def searches(problem: Space, path: pathlib.Path) -> dict[str, list[list[dict]]]:
    """By method the metrics of every seed's subnets, in order; those of earlier commands included."""
    budget, seeds = (60, 1) if _QUICK.value else (EVALUATIONS, _SEEDS.value)
    lines = path.read_text().splitlines() if path.exists() else []
    found = {(line["method"], line["seed"]): line["subnets"] for line in map(json.loads, lines)}
    for seed in range(seeds):
        for method in METHODS:
            if (method, seed) not in found:
                evaluate = Scored(problem, budget)
                with contextlib.suppress(Done):
                    (ours if method == METHODS[0] else RIVALS[method])(evaluate, seed)
                found[method, seed] = list(evaluate.rows.values())
                with open(path, "a") as file:
                    file.write(json.dumps({"method": method, "seed": seed, "subnets": found[method, seed]}) + "\n")
                print(f"{method}, seed {seed}: {len(found[method, seed])} subnets", flush=True)
    return {method: [found[method, seed] for seed in range(seeds)] for method in METHODS}


def hypervolumes(found: dict[str, list[list[dict]]]) -> dict[str, dict[int, list[float]]]:
    """By method and number of evaluations, of every seed."""
    every = np.array([point(metrics) for seeds in found.values() for subnets in seeds for metrics in subnets])
    low, span = every.min(axis=0), np.ptp(every, axis=0)
    reference = np.full(len(OBJECTIVES), REFERENCE)

    def volume(subnets: list[dict]) -> float:
        return float(pareto.hypervolume((np.array(list(map(point, subnets))) - low) / span, reference))

    counts = (50, EARLY, EVALUATIONS)
    return {method: {count: [volume(subnets[:count]) for subnets in seeds] for count in counts} for method, seeds in found.items()}


def main(argv: list[str]) -> None:
    """Searches what has not been searched, and writes `results/search_unrestricted.json`."""
    del argv
    os.environ["OMP_NUM_THREADS"] = "1"
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    name = f"search_unrestricted{'_quick' if _QUICK.value else ''}"
    folder = pathlib.Path(_FOLDER.value)
    folder.mkdir(parents=True, exist_ok=True)
    problem = Space(data.load(_DATASET.value, seed=0))
    volumes = hypervolumes(searches(problem, folder / f"{name}.jsonl"))
    medians = {method: {count: float(np.median(values)) for count, values in counts.items()} for method, counts in volumes.items()}
    best = max(METHODS[1:], key=lambda method: medians[method][EVALUATIONS])
    ratio = medians[METHODS[0]][EARLY] / medians[best][EVALUATIONS]
    title = f"hypervolume of ours after {EARLY} evaluations, over the best rival's ({best}) after {EVALUATIONS}, medians"
    rows = [
        [method, *(f"{np.median(values):.3f} ({min(values):.3f} to {max(values):.3f})" for values in counts.values())]
        for method, counts in volumes.items()
    ]
    caption = (
        f"The whole of {problem.space.name} on litert_cpu ({problem.space.cardinality:.1e} subnets), accuracy, latency and\n"
        "deflated bytes: hypervolume after so many evaluations, each really scored; median, least and most of the seeds."
    )
    table = {"caption": caption, "columns": ["method", *map(str, next(iter(volumes.values())))], "rows": rows}
    bars = [records.bar(title, ratio, 1.0, "at_least", "x")]
    print(f"Wrote {records.write(name, list(range(_SEEDS.value)), {'tables': [table], 'hypervolumes': volumes}, bars)}")


if __name__ == "__main__":
    flags.mark_flags_as_required(["dataset", "supernet", "latency_table"])
    app.run(main)
