"""What a trial costs the search itself, with 120 hyperparameters, beside KerasTuner's own oracle in the same run.

    python benchmarks/oracle_overhead.py

For every number of trials: create, update and end of one, the median of the last 50; the CPU time in which the next values are
proposed, the mean of as many; the bytes on disk; and how long it takes to read them again. KerasTuner's RandomSearch draws its
values at no cost: all it takes is bookkeeping. Trials in between are proposed at random, since only their number matters.
"""

import contextlib
import itertools
import pathlib
import tempfile
import time

import keras_tuner
import numpy as np
import records
from absl import app, flags

from daqu_tf.oracle.oracle import ParetoOracle

HYPERPARAMETERS = 120
SIZES, STOCK_SIZES, WINDOW = (100, 1000, 5000, 20_000), (100, 1000), 50
RELOADED = 5000
OBJECTIVES = (("accuracy", "max"), ("latency_us", "min"), ("file_bytes", "min"))

_QUICK = flags.DEFINE_bool("quick", False, "Up to 1,000 trials, and 200 of KerasTuner.")


class Timed(ParetoOracle):
    """Knows how long proposing took."""

    proposing_seconds = proposing_cpu_seconds = 0.0
    at_random = True

    def populate_space(self, trial_id):
        """As always, or at random."""
        start, cpu_start = time.perf_counter(), time.process_time()
        if self.at_random:
            rng = np.random.default_rng(int(trial_id))
            response = {"status": "RUNNING", "values": self._choices.decode(self._choices.random(rng))}
        else:
            response = super().populate_space(trial_id)
        self.proposing_seconds += time.perf_counter() - start
        self.proposing_cpu_seconds += time.process_time() - cpu_start
        return response


def hyperparameters() -> keras_tuner.HyperParameters:
    """Five values each, as of a space of `daqu_tf`."""
    space = keras_tuner.HyperParameters()
    for number in range(HYPERPARAMETERS):
        space.Choice(f"stage.block{number}.weight_bits", [2, 3, 4, 6, 8])
    return space


def measure(values: dict[str, int]) -> dict[str, float]:
    """Smooth objectives that contradict one another."""
    bits = np.array(list(values.values())) / 8
    return {
        "accuracy": float(np.sqrt(bits).mean()),
        "latency_us": 100 * float(bits[::2].mean()),
        "file_bytes": 1e5 * float(bits.mean()),
    }


def make(folder: pathlib.Path) -> Timed:
    """Ours."""
    objectives = [keras_tuner.Objective(*objective) for objective in OBJECTIVES]
    oracle = Timed(objectives, None, hyperparameters(), seed=0)
    oracle._set_project_dir(folder, "search")
    return oracle


def stock(folder: pathlib.Path) -> keras_tuner.Oracle:
    """KerasTuner's."""
    oracle = keras_tuner.oracles.RandomSearchOracle(
        objective=[keras_tuner.Objective(*objective) for objective in OBJECTIVES],
        max_trials=10**6,
        seed=1,
        hyperparameters=hyperparameters(),
    )
    oracle.verbose = 0
    oracle._set_project_dir(folder, "search")
    return oracle


def run(oracle: keras_tuner.Oracle, trials: int) -> np.ndarray:
    """Seconds of each of that many further ones, without those of proposing."""
    seconds = np.zeros(trials)
    for number in range(trials):
        before, start = getattr(oracle, "proposing_seconds", 0.0), time.perf_counter()
        trial = oracle.create_trial("tuner0")
        metrics = measure(trial.hyperparameters.values)
        if not isinstance(oracle, ParetoOracle):  # It wants the sum of all, too.
            metrics[oracle.objective.name] = oracle.objective.get_value(metrics)
        oracle.update_trial(trial.trial_id, metrics)
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
        seconds[number] = time.perf_counter() - start - (getattr(oracle, "proposing_seconds", 0.0) - before)
    return seconds


def disk_bytes(folder: pathlib.Path) -> int:
    """Of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def ours(sizes: tuple[int, ...]) -> list[dict]:
    """At every size: bookkeeping of random trials, then proposing for as many searched ones."""
    rows, done = [], 0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        oracle = make(folder)
        for size in sizes:
            run(oracle, size - done - 2 * WINDOW)
            bookkeeping = float(np.median(run(oracle, WINDOW)))
            oracle.at_random, oracle.proposing_cpu_seconds = False, 0.0
            run(oracle, WINDOW)
            proposing = oracle.proposing_cpu_seconds / WINDOW
            rows.append({"trials": size, "bookkeeping_ms": 1e3 * bookkeeping, "proposing_ms": 1e3 * proposing})
            rows[-1] |= {"bytes_a_trial": disk_bytes(folder) / size, "reload_seconds": reload_seconds(folder, oracle)}
            oracle.at_random, done = True, size
    return rows


def reload_seconds(folder: pathlib.Path, busy: Timed) -> float:
    """By a second oracle, while the first keeps quiet; the least of three."""
    return min(_reload_seconds(folder, busy) for _ in range(3))


def _reload_seconds(folder: pathlib.Path, busy: Timed) -> float:
    with contextlib.ExitStack() as stack:
        copy = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (copy / "search").mkdir()
        (copy / "search" / "trials.jsonl").write_bytes((folder / "search" / "trials.jsonl").read_bytes())
        again = make(copy)
        start = time.perf_counter()
        again.reload()
        seconds = time.perf_counter() - start
        assert len(again.trials) == len(busy.trials)
    return seconds


def theirs(sizes: tuple[int, ...]) -> list[dict]:
    """The same of the stock oracle, which reloads a file a trial."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        oracle = stock(folder)
        for before, size in itertools.pairwise((0, *sizes)):
            run(oracle, size - before - WINDOW)
            each = float(np.median(run(oracle, WINDOW)))
            again = stock(folder)
            start = time.perf_counter()
            again.reload()
            rows.append({"trials": size, "bookkeeping_ms": 1e3 * each, "bytes_a_trial": disk_bytes(folder) / size})
            rows[-1]["reload_seconds"] = time.perf_counter() - start
    return rows


def table(rows: list[dict], stock_rows: list[dict]) -> dict:
    """For the README."""
    named = [("ParetoOracle", row) for row in rows] + [("KerasTuner RandomSearch", row) for row in stock_rows]
    cells = [
        [
            name,
            f"{row['trials']:,}",
            f"{row['bookkeeping_ms']:.2f}",
            f"{row['proposing_ms']:.1f}" if "proposing_ms" in row else "",
            f"{row['reload_seconds']:.2f}",
            f"{row['bytes_a_trial']:,.0f}",
        ]
        for name, row in named
    ]
    columns = ["oracle", "trials", "bookkeeping, ms a trial", "proposing, CPU ms a trial", "reload, s", "bytes a trial"]
    return {"caption": f"{HYPERPARAMETERS} hyperparameters, three objectives", "columns": columns, "rows": cells}


def main(argv):
    """Measures, and writes the result."""
    del argv
    sizes, stock_sizes = (SIZES[:2], (100, 200)) if _QUICK.value else (SIZES, STOCK_SIZES)
    run(make(pathlib.Path(tempfile.mkdtemp())), 30)  # What is imported late.
    rows, stock_rows = ours(sizes), theirs(stock_sizes)
    reloaded = next((row for row in rows if row["trials"] == RELOADED), rows[-1])
    bars = [
        records.bar(f"bookkeeping at {row['trials']:,} trials", row["bookkeeping_ms"], 2.0, "at_most", "ms a trial") for row in rows
    ]
    bars.append(records.bar(f"reload of {reloaded['trials']:,} trials", reloaded["reload_seconds"], 3.0, "at_most", "s"))
    bars.append(
        records.bar(
            f"bookkeeping at {rows[-1]['trials']:,} trials over that at {rows[0]['trials']:,}",
            rows[-1]["bookkeeping_ms"] / rows[0]["bookkeeping_ms"],
            1.5,
            "at_most",
            "x",
        )
    )
    results = {"ours": rows, "keras_tuner": stock_rows, "tables": [table(rows, stock_rows)]}
    print(records.write("oracle_overhead_quick" if _QUICK.value else "oracle_overhead", [0], results, bars))


if __name__ == "__main__":
    app.run(main)
