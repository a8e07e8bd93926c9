"""How the search holds where trials diverge, objectives have many optima and measurements are noisy; beside Optuna's TPE.

    python benchmarks/search_robustness.py

Every problem is a function of choices, and takes no time. What counts is the hypervolume of the true objectives of all that was
evaluated, without noise and without what diverged, as a share of that of the true front; a mean of 5 seeds after 50 and after 100
different evaluations. No method knows a cost beforehand. Ours is `SurrogateSearch` as `ParetoOracle` asks it, without its journal.
Cut off, the command goes on with the next seed.
"""

import functools
import itertools
import json
import os
import pathlib
import time
import zlib

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import numpy as np
import records
from absl import app, flags

from daqu_tf import pareto
from daqu_tf.pareto.choices import Choices, Code
from daqu_tf.pareto.goal import Goal
from daqu_tf.pareto.surrogate_search import SurrogateSearch

COUNTS, SEEDS, INITIAL_RANDOM = (50, 100), 5, 16
MOST_ASKED = 2  # Times as many as different ones, after which a sampler that repeats itself has had enough.
OURS, TPE, RANDOM = "ours", "Optuna TPE", "random"

_FOLDER = flags.DEFINE_string("folder", "runs/search_robustness", "What has been done so far.")
_PROBLEMS = flags.DEFINE_list("problems", None, "Those to run; all that have run are summed up. None runs all.")
_METHODS = flags.DEFINE_list("methods", [OURS, TPE, RANDOM], "Those to run.")
_QUICK = flags.DEFINE_bool("quick", False, "Two seeds of the first three problems: about a minute.")


class Problem:
    """Choices, what is measured of them, and what is true.

    Attributes:
        choices: The choices.
        directions: Of the two objectives as they are measured.
        reference: (2,) of the true objectives, both minimised.
        front: (n, 2) points that hold the true front.
    """

    choices = Choices({f"x{index}": tuple(range(8)) for index in range(10)})
    directions: tuple[str, str] = ("min", "min")
    reference: np.ndarray
    front: np.ndarray

    def true(self, code: Code) -> np.ndarray:
        """(2,) to be minimised."""
        raise NotImplementedError

    def measured(self, code: Code) -> np.ndarray:
        """(2,) as a trial reports it."""
        return self.true(code)

    def share(self, codes: list[Code]) -> float:
        """Their hypervolume, of that of the front."""
        return pareto.hypervolume(np.array(list(map(self.true, codes))), self.reference) / self._most

    @functools.cached_property
    def _most(self) -> float:
        return pareto.hypervolume(self.front, self.reference)


class Wfg4(Problem):
    """WFG4 (Huband et al., "A review of multiobjective test problems", IEEE TEVC 10(5), 2006), on a grid.

    Args:
        hills: Of its multimodal transformation, whose paper has 30; on 8 values those of 5 lie in other places.
    """

    reference, positions = np.array([2.2, 4.4]), 2

    def __init__(self, hills: int):
        self._hills = hills
        steps = self._transformed(np.arange(8))
        means = np.array([np.mean(each) for each in itertools.combinations_with_replacement(steps, self.positions)])
        self.front = self._shaped(means, np.full(len(means), steps.min()))

    def _transformed(self, index: np.ndarray) -> np.ndarray:
        place, center, height = index / 7, 0.35, 10
        away = np.abs(place - center) / (2 * (np.floor(center - place) + center))
        waves = np.cos((4 * self._hills + 2) * np.pi * (0.5 - away))
        return (1 + waves + 4 * height * away**2) / (height + 2)

    def _shaped(self, position: np.ndarray, distance: np.ndarray) -> np.ndarray:
        angle = position * np.pi / 2
        return np.stack([distance + 2 * np.sin(angle), distance + 4 * np.cos(angle)], axis=-1)

    def true(self, code: Code) -> np.ndarray:
        """Of WFG4."""
        steps = self._transformed(np.array(code))
        return self._shaped(steps[: self.positions].mean(), steps[self.positions :].mean())


class Diverging(Problem):
    """ZDT1 (Zitzler et al., Evolutionary Computation 8(2), 2000) on a grid; in a tenth of all points the second objective blows up.

    Args:
        value: What is measured there, instead.
        direction: Of the second objective: where it is `max`, its negative is measured.
    """

    reference, worst = np.array([1.1, 6.0]), np.array([2.0, 20.0])

    def __init__(self, value: float, direction: str):
        self._value, self.directions = value, ("min", direction)
        self.front = np.array([self._zdt((first, *[0] * 9)) for first in range(8)])

    def _zdt(self, code: Code) -> np.ndarray:
        first, *others = np.array(code) / 7
        slope = 1 + 9 * np.mean(others)
        return np.array([first, slope * (1 - np.sqrt(first / slope))])

    def true(self, code: Code) -> np.ndarray:
        """Of ZDT1, or beyond the reference."""
        return self.worst if zlib.crc32(bytes(map(int, code))) % 10 == 0 else self._zdt(code)

    def measured(self, code: Code) -> np.ndarray:
        """With the blow-ups."""
        first, second = self._zdt(code)
        if self.true(code) is self.worst:
            return np.array([first, self._value])
        return np.array([first, -second if self.directions[1] == "max" else second])


class NoisyCells(Problem):
    """Like NAS-Bench-201 (Dong and Yang, ICLR 2020): six edges of a cell with five operations each, accuracy and latency.

    The table is made up: accuracy grows, with less and less return, with what the paths from input to output compute, and pairs
    of operations help or harm each other. Every entry is measured once, with noise.

    Args:
        deviation: Of a measured accuracy; latencies are off by three hundredths.
    """

    choices = Choices({f"edge{index}": ("none", "skip", "conv1", "conv3", "pool") for index in range(6)})
    directions, reference = ("max", "min"), np.array([1.1, 1.1])
    PATHS = ((3,), (0, 4), (1, 5), (0, 2, 5))

    def __init__(self, deviation: float):
        codes = np.array(list(itertools.product(range(5), repeat=6)))
        rng = np.random.default_rng(1)
        passes, computes = np.array([0, 0.35, 0.7, 1, 0.4])[codes], np.array([0, 0, 1, 1, 0])[codes]
        strength = sum(passes[:, path].prod(axis=1) * (1 + 0.5 * computes[:, path].sum(axis=1)) for path in map(list, self.PATHS))
        pairs = rng.normal(0, 0.04, (6, 6, 5, 5))
        together = sum(pairs[one, other][codes[:, one], codes[:, other]] for one in range(6) for other in range(one))
        accuracy = 0.1 + 0.845 * (1 - np.exp(-1.6 * np.maximum(strength * (1 + 0.3 * together) + 0.05 * together, 0)))
        work = np.array([0, 0.05, 0.35, 1, 0.2])[codes] @ np.array([1, 1, 0.9, 1.1, 1, 0.9])
        latency = 200 * (1 + work) + 15 * (codes > 0).sum(axis=1)
        points = np.stack([-accuracy, latency], axis=1)
        front = points[pareto.non_dominated_mask(points) & (accuracy > 0.5)]
        self._points = self.front = (points - front.min(0)) / np.ptp(front, axis=0)
        noise = rng.normal(size=points.shape)
        self._measured = np.stack([accuracy + deviation * noise[:, 0], latency * np.exp(0.03 * noise[:, 1])], axis=1)

    @staticmethod
    def _row(code: Code) -> int:
        return functools.reduce(lambda row, index: 5 * row + int(index), code, 0)

    def true(self, code: Code) -> np.ndarray:
        """Without noise; 0 to 1 is the range of the front."""
        return self._points[self._row(code)]

    def measured(self, code: Code) -> np.ndarray:
        """Accuracy and latency, with noise."""
        return self._measured[self._row(code)]


PROBLEMS = {
    "WFG4": lambda: Wfg4(30),
    "losses of 1e9": lambda: Diverging(1e9, "min"),
    "noisy cells, 0.03": lambda: NoisyCells(0.03),
    "WFG4, 5 hills": lambda: Wfg4(5),
    "scores of -1e3": lambda: Diverging(-1e3, "max"),
    "losses of -1e3": lambda: Diverging(-1e3, "min"),
    "noisy cells, 0.01": lambda: NoisyCells(0.01),
}


def ours(problem: Problem, seed: int, budget: int) -> list[Code]:
    """As `ParetoOracle` does it."""
    names = ("first", "second")
    search = SurrogateSearch(problem.choices, Goal(tuple(zip(names, problem.directions))), [], INITIAL_RANDOM, seed=seed)
    found = []
    for trial in range(budget):
        values = search.propose(np.random.default_rng((seed, trial)))
        search.tried(values)
        found.append(problem.choices.encode(values))
        search.learn(values, dict(zip(names, problem.measured(found[-1]).tolist())))
    return found


def tpe(problem: Problem, seed: int, budget: int) -> list[Code]:
    """The tree-structured Parzen estimator for several objectives, numbers as integers; what it repeats costs it nothing."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    directions = [f"{direction}imize" for direction in problem.directions]
    study = optuna.create_study(directions=directions, sampler=optuna.samplers.TPESampler(seed=seed))
    found: dict[Code, None] = {}
    for _ in range(MOST_ASKED * budget):
        trial = study.ask()
        code = tuple(
            trial.suggest_int(name, 0, len(values) - 1)
            if isinstance(values[0], int)
            else values.index(trial.suggest_categorical(name, values))
            for name, values in problem.choices.options.items()
        )
        found[code] = None
        study.tell(trial, problem.measured(code).tolist())
        if len(found) == budget:
            break
    return list(found)


def random(problem: Problem, seed: int, budget: int) -> list[Code]:
    """Every choice uniformly."""
    rng = np.random.default_rng(seed)
    return [tuple(problem.choices.random(rng).tolist()) for _ in range(budget)]


METHODS = {OURS: ours, TPE: tpe, RANDOM: random}


def searches(name: str, method: str, seeds: int) -> list[dict]:
    """Shares by number of evaluations, one for each seed; those of earlier commands included."""
    path = pathlib.Path(_FOLDER.value) / "-".join(f"{name} {method}.jsonl".replace(",", "").split())
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text().splitlines() if path.exists() else []
    found = [json.loads(line) for line in lines]
    problem = PROBLEMS[name]()
    is_wanted = (_PROBLEMS.value is None or name in _PROBLEMS.value) and method in _METHODS.value
    for seed in range(len(found), seeds if is_wanted else 0):
        start = time.process_time()
        codes = METHODS[method](problem, seed, COUNTS[-1])
        seconds = round(time.process_time() - start, 2)
        shares = {str(count): round(problem.share(codes[:count]), 4) for count in COUNTS}
        found.append({"seed": seed, "seconds": seconds, "shares": shares})
        with open(path, "a") as file:
            file.write(json.dumps(found[-1]) + "\n")
        print(f"{name}, {method}, seed {seed}: {shares}, {seconds} s", flush=True)
    return found[:seeds]


def cell(found: list[dict], count: int) -> str:
    """Mean and standard deviation of the seeds."""
    shares = [one["shares"][str(count)] for one in found]
    return f"{np.mean(shares):.3f} ± {np.std(shares):.3f}"


def main(argv: list[str]) -> None:
    """Runs what has not run, and sums all up."""
    del argv
    seeds, names = (2, list(PROBLEMS)[:3]) if _QUICK.value else (SEEDS, list(PROBLEMS))
    found = {name: {method: searches(name, method, seeds) for method in METHODS} for name in names}
    if any(len(one) < seeds for by_method in found.values() for one in by_method.values()):
        return print("Not all has run: call it without --problems and --methods to run the rest.")
    rows = [
        [name, method, *(cell(one, count) for count in COUNTS), f"{np.mean([search['seconds'] for search in one]):.1f} s"]
        for name, by_method in found.items()
        for method, one in by_method.items()
    ]
    caption = (
        "Share of the true front's hypervolume after so many evaluations, mean and deviation of the seeds, and the processor time\n"
        "of a search. In a tenth of the points of ZDT1 the loss or score is as named; noisy cells are off by so much accuracy."
    )
    bars = [
        records.bar(
            f"{name}: share of ours after {count} evaluations, and TPE's",
            *(float(np.mean([one["shares"][str(count)] for one in by_method[method]])) for method in (OURS, TPE)),
            "at_least",
            "share",
        )
        for name, by_method in found.items()
        for count in COUNTS
    ]
    table = {"caption": caption, "columns": ["problem", "method", *map(str, COUNTS), "time"], "rows": rows}
    name = "search_robustness_quick" if _QUICK.value else "search_robustness"
    print(records.write(name, list(range(seeds)), {"problems": found, "tables": [table]}, bars))


if __name__ == "__main__":
    app.run(main)
