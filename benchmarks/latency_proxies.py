"""How well what is counted ranks subnets by their measured latency, beside the latency table.

    python benchmarks/latency_table.py
    python benchmarks/latency_proxies.py

Takes the measurements of `results/latency_table.json`, of held-out subnets, and asks in which order MACs, BitOPs, parameters, the
file's bytes and the table would put them: Kendall's tau with the measured latency, within each container and over all of a space's.
"""

import json
import pathlib

import matplotlib
import numpy as np
import records
from absl import app, flags
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from scipy.stats import kendalltau, spearmanr

from daqu_tf import spaces, targets, tflite
from daqu_tf.errors import DaquError
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.targets import costs
from daqu_tf.targets.storage import Storage

PROXIES = ("macs", "bitops", "parameters", "file_bytes", "predicted_us")
TITLES = ("MACs", "BitOPs", "parameters", "file bytes", "latency table")
_WIDTHS = {"FLOAT32": 32, "FLOAT16": 16, "INT8": 8, "INT4": 4}

_QUICK = flags.DEFINE_bool("quick", False, "From `results/latency_table_quick.json`: the digits space alone.")


def bitops(space: SearchSpace, genome: list[int], storage: Storage) -> int:
    """MACs times the trained bits of the weights, 16 or 32 of real ones, times those of the activations that they meet."""
    total = 0
    for layer in space.layers(space.from_genome(genome)):
        container = storage.of(layer)
        # What a `dynamic` file rounds as it goes has 8 bits there.
        bits = layer.input_bits if not storage.in_float or (storage.container == "dynamic" and container == "INT8") else 32
        weights = min(layer.weight_bits, 8) if container in ("INT8", "INT4") else _WIDTHS[container]
        total += layer.macs * weights * bits
    return total


def file_bytes(space: SearchSpace, genome: list[int], storage: Storage) -> int:
    """Of the very file that was timed."""
    from daqu_tf.latency import block_graph

    return len(tflite.write(block_graph.of_subnet(space, space.from_genome(genome), storage)))


def figures_of(row: dict) -> dict[str, np.ndarray]:
    """Each proxy and the measured latency of the subnets of one table."""
    space, storage = targets.get("litert_cpu").restrict(spaces.get(row["space"])), Storage(row["container"])
    genomes = [[int(index) for index in subnet["genome"].split()] for subnet in row["subnets"]]
    counted = costs.of_many(space, np.array(genomes), targets.get("litert_cpu"))
    return {
        "macs": counted["macs"],
        "parameters": counted["parameters"],
        "bitops": np.array([bitops(space, genome, storage) for genome in genomes]),
        "file_bytes": np.array([file_bytes(space, genome, storage) for genome in genomes]),
        "predicted_us": np.array([float(subnet["predicted_us"]) for subnet in row["subnets"]]),
        "measured_us": np.array([np.median([float(us) for us in subnet["turns_us"].split()]) for subnet in row["subnets"]]),
    }


def correlations(figures: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Rank correlations of each proxy with the measured latency."""
    measured = figures["measured_us"]
    return {
        name: {
            "kendall_tau": float(kendalltau(figures[name], measured).statistic),
            "spearman": float(spearmanr(figures[name], measured).statistic),
        }
        for name in PROXIES
    }


def joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The figures of several tables together."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def picture(groups: dict[tuple[str, str], dict[str, np.ndarray]], path: pathlib.Path) -> None:
    """Measured latency over each proxy, a colour a container, a row a space."""
    names = list(dict.fromkeys(space for space, _ in groups))
    colours = dict(zip(dict.fromkeys(container for _, container in groups), matplotlib.color_sequences["tab10"]))
    figure = Figure(figsize=(3 * len(PROXIES), 2.8 * len(names) + 0.4), layout="constrained")
    panels = np.atleast_2d(figure.subplots(len(names), len(PROXIES)))
    for space, line in zip(names, panels):
        for proxy, title, axes in zip(PROXIES, TITLES, line):
            for (of, container), figures in groups.items():
                if of == space:
                    axes.scatter(figures[proxy], figures["measured_us"], s=8, color=colours[container], label=container)
            axes.set(xscale="log", yscale="log", xlabel=title)
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_minor_formatter(NullFormatter())
        line[0].set_ylabel(f"{space}\nmeasured, µs")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    figure.savefig(path, dpi=120)


def main(argv: list[str]) -> None:
    """Writes `results/latency_proxies.json` and a picture."""
    del argv
    suffix = "_quick" if _QUICK.value else ""
    source = records.RESULTS / f"latency_table{suffix}.json"
    if not source.exists():
        raise DaquError(f"{source} is missing: run benchmarks/latency_table.py first.")
    rows = json.loads(source.read_text())["results"]["measured"]
    groups = {(row["space"], row["container"]): figures_of(row) for row in rows}
    found = {f"{space}, {container}": correlations(figures) for (space, container), figures in groups.items()}
    names = list(dict.fromkeys(space for space, _ in groups))
    pooled = {name: joined([figures for (space, _), figures in groups.items() if space == name]) for name in names}
    found |= {f"{name}, all containers": correlations(figures) for name, figures in pooled.items()}
    bars, lines = [], []
    for name, taus in found.items():
        best = max(taus[proxy]["kendall_tau"] for proxy in PROXIES[:-1])
        bars.append(
            records.bar(
                f"{name}: the table's tau, and the best proxy's", taus["predicted_us"]["kendall_tau"], best, "at_least", "tau"
            )
        )
        lines.append([name, *(f"{taus[proxy]['kendall_tau']:.3f}" for proxy in PROXIES)])
    caption = (
        "Kendall's tau with the measured latency of held-out subnets: 1 is the same order, 0 none. BitOPs are those that a file\n"
        "computes with: weights at their trained bits, or at 16 or 32 in a float file, and activations at 8 or 32."
    )
    tables = [{"caption": caption, "columns": ["subnets", *TITLES], "rows": lines}]
    path = records.RESULTS / f"latency_proxies{suffix}.png"
    picture(groups, path)
    results = {"tables": tables, "correlations": found, "picture": f"results/{path.name}"}
    print(f"Wrote {records.write(f'latency_proxies{suffix}', [], results, bars)}")


if __name__ == "__main__":
    app.run(main)
