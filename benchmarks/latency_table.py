"""How well a latency table of this machine predicts whole subnets that it was not fitted to.

    python benchmarks/latency_table.py

For each space and each way to store a file, a table is made as `daqu-profile` makes it: every distinct block, and 24 whole subnets
for the correction. Then 60 other subnets, evenly spread over the logarithm of the latency, are timed in four turns, each in a new
random order. The table is compared with the median of the turns; the control, a latency measured twice, is the first turn against
the median of the others. `auto` is what `litert_cpu` exports, where each layer is INT4 or INT8 by its bits: a third of the subnets
are INT8 throughout, a third INT4 wherever that may be, and a third mixed. The others are one container throughout.
"""

import dataclasses
import os
import pathlib
import time

import numpy as np
import records
from absl import app, flags

from daqu_tf import latency, spaces, targets
from daqu_tf.devices import HostDevice
from daqu_tf.latency import profiling
from daqu_tf.latency.store import MeasurementStore
from daqu_tf.latency.table import LatencyTable
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.targets.storage import Storage

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
LEAST_ERROR, CONTROLS, TAU_BELOW, LEAST_RANGE = 0.05, 1.5, 0.03, 4.0
TURNS = 4

_SPACES = flags.DEFINE_list("spaces", ["mobilenet_v3_cifar", "mobilenet_v2_28"], "Which search spaces.")
_CONTAINERS = flags.DEFINE_list("containers", ["auto", "int4", "float32", "float16", "dynamic"], "How files are stored.")
_SUBNETS = flags.DEFINE_integer("subnets", 60, "Held-out subnets of each.", lower_bound=8)
_FOLDER = flags.DEFINE_string(
    "folder", "runs/latency_table", "What was timed so far, and the tables; the command goes on from there."
)
_SEED = flags.DEFINE_integer("seed", 0, "Of orders and subnets.")
_QUICK = flags.DEFINE_bool("quick", False, "The digits space in INT8 and INT4 alone: the same figures in a minute.")


def held_out(space: SearchSpace, table: LatencyTable, count: int) -> np.ndarray:
    """Genomes (count, genes) of subnets that the table has not seen."""
    seen = {space.subnet(values) for values in table.evidence["subnets"]}
    chosen = profiling.stratified(table, space, count + len(seen), np.random.default_rng(_SEED.value + 1))
    unseen = [genome for genome in chosen if space.from_genome(genome) not in seen]
    return np.array([unseen[index] for index in np.linspace(0, len(unseen) - 1, count).astype(int)])


def minutes_to_build(evidence: dict) -> float:
    """Of a table of which nothing is in the store: every block and subnet timed twice, at the pace that was seen."""
    times = evidence["settings"]["repeats"] * (evidence["blocks"] + len(evidence["subnets"]))
    return evidence["minutes"] * times / evidence["timed"]


def measure(name: str, container: str, store: MeasurementStore, folder: pathlib.Path) -> dict:
    """The figures of one space and container."""
    space, storage, device = targets.get("litert_cpu").restrict(spaces.get(name)), Storage(container), HostDevice()
    settings = profiling.Settings(seed=_SEED.value)
    began = time.monotonic()
    path = folder / f"{name}_{container}.json"
    if path.exists():
        table = LatencyTable.load(path)
    else:
        table = latency.profile(device, space, storage, store, settings)
        table.save(path)
    genomes = held_out(space, table, _SUBNETS.value)
    turns = dataclasses.replace(settings, repeats=TURNS, most_repeats=TURNS)
    turns_us = profiling.time_subnets(device, space, storage, store, turns, genomes)
    predicted = table.predict_many(space, genomes)
    figures = profiling.compared(predicted, turns_us)
    return {
        "space": name,
        "container": container,
        "table": {name: value for name, value in table.evidence.items() if name != "subnets"},
        "minutes_to_build": round(minutes_to_build(table.evidence), 2),
        "correction": dataclasses.asdict(table.correction),
        "held_out": figures,
        "held_out_seconds": round(time.monotonic() - began, 1),
        # As text, which JSON does not spread over many lines.
        "subnets": [
            {"genome": _text(genome), "predicted_us": _text([guess]), "turns_us": _text(turns)}
            for genome, guess, turns in zip(genomes, predicted, turns_us)
        ],
    }


def _text(numbers: np.ndarray) -> str:
    return " ".join(f"{number:.6g}" for number in numbers)


def bars_of(row: dict) -> list[dict]:
    """What one table must show."""
    figures, name = row["held_out"], f"{row['space']}, {row['container']}"
    limit = max(LEAST_ERROR, CONTROLS * figures["control_median_error"])
    low, high = figures["range_us"]
    tau = figures["control_kendall_tau"] - TAU_BELOW
    return [
        records.bar(f"{name}: median error", figures["median_error"], limit, "at_most", "share"),
        records.bar(f"{name}: Kendall's tau", figures["kendall_tau"], tau, "at_least", "tau"),
        records.bar(f"{name}: slowest over fastest subnet", high / low, LEAST_RANGE, "at_least", "ratio"),
    ]


def table_of(rows: list[dict]) -> dict:
    """The figures for people."""
    columns = ["space", "container", "subnets", "us", "blocks", "minutes", "median error", "p90", "max", "tau"]
    columns += ["control: median", "p90", "tau"]
    lines = []
    for row in rows:
        figures, evidence = row["held_out"], row["table"]
        errors = [f"{figures[key]:.2%}" for key in ("median_error", "p90_error", "max_error")]
        control = [f"{figures[key]:.2%}" for key in ("control_median_error", "control_p90_error")]
        span = "{:.1f} to {:.1f}".format(*figures["range_us"])
        taus = [f"{figures[key]:.3f}" for key in ("kendall_tau", "control_kendall_tau")]
        head = [row["space"], row["container"], str(figures["subnets"]), span]
        lines.append([*head, str(evidence["blocks"]), f"{row['minutes_to_build']:.1f}", *errors, taus[0], *control, taus[1]])
    caption = (
        "Latency tables of this machine (one thread) on held-out subnets. Minutes are those of making the table: blocks, and\n"
        "48 subnets for its correction and its own check. Control: the first turn against the median of the three others."
    )
    return {"caption": caption, "columns": columns, "rows": lines}


def main(argv: list[str]) -> None:
    """Measures what is left and writes `results/latency_table.json`."""
    del argv
    name = "latency_table_quick" if _QUICK.value else "latency_table"
    folder = pathlib.Path(_FOLDER.value)
    folder.mkdir(parents=True, exist_ok=True)
    store, rows = MeasurementStore(folder / "measurements.sqlite"), []
    pairs = [("digits", "auto")] if _QUICK.value else [(s, c) for c in _CONTAINERS.value for s in _SPACES.value]
    for space, container in pairs:
        rows.append(measure(space, container, store, folder))
        figures = rows[-1]["held_out"]
        error, control = figures["median_error"], figures["control_median_error"]
        print(
            f"{space}, {container}: median error {error:.2%}, control {control:.2%}, tau {figures['kendall_tau']:.3f}", flush=True
        )
    bars = [bar for row in rows for bar in bars_of(row)]
    print(f"Wrote {records.write(name, [_SEED.value], {'tables': [table_of(rows)], 'measured': rows}, bars)}")


if __name__ == "__main__":
    app.run(main)
