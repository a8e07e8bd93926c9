"""The figures, bars, table and picture of `ablation.py`, from what its parts have left."""

import pathlib

import matplotlib
import numpy as np
import records
from matplotlib.figure import Figure

matplotlib.use("Agg")
DROPS = {"6": 0.005, "4": 0.005, "3": 0.010, "2": 0.040}  # From the same architecture's own 8 bits, at most.
GAP_RATIO, FLOOR_SLACK = 0.7, 0.005
RESAMPLES = 2000
CAPTION = (
    "Accuracies on the search split in percent, with inherited weights: mean of the seeds ± half of what they differ by at most.\n"
    "Gap (most less least), deviation and mean are those of 16 architectures; uniform widths are the mean of three. `full` is the\n"
    "default, `no_warm_up` gives all steps to the precision transfer, and the others change one thing (`ablation.py`, `ARMS`)."
)


def figures_of(scores: dict) -> dict[str, float]:
    """The figures of one arm and seed."""
    found = {}
    for kind, accuracies in scores["panel"].items():
        found |= {
            f"gap, {kind}": np.ptp(accuracies),
            f"deviation, {kind}": np.std(accuracies),
            f"mean, {kind}": np.mean(accuracies),
        }
    found |= {f"uniform {width} bits": np.mean(accuracies) for width, accuracies in scores["precisions"].items()}
    found["mean of precisions"] = np.mean([found[f"uniform {width} bits"] for width in scores["precisions"]])
    return {name: float(value) for name, value in found.items()}


def table_of(arms: dict[str, dict[int, dict]]) -> dict:
    """Mean and spread (largest less least seed) of every figure of every arm, in percent."""
    names = list(figures_of(next(iter(next(iter(arms.values())).values()))))
    rows = []
    for arm, seeds in arms.items():
        values = np.array([list(figures_of(scores).values()) for scores in seeds.values()])
        cells = [f"{100 * mean:.2f} ± {50 * spread:.2f}" for mean, spread in zip(values.mean(0), np.ptp(values, axis=0))]
        rows.append([arm, str(len(seeds)), *cells])
    return {"caption": CAPTION, "columns": ["arm", "seeds", *names], "rows": rows}


def pairs(arms: dict, one: str, other: str, figure: str) -> np.ndarray:
    """The figure of two arms, for each seed that both have: shape (seeds, 2)."""
    both = sorted(arms.get(one, {}).keys() & arms.get(other, {}).keys())
    return np.array([[figures_of(arms[arm][seed])[figure] for arm in (one, other)] for seed in both]).reshape(-1, 2)


def bars_of(arms: dict[str, dict[int, dict]], rankings: dict[str, list[dict]], alone: list[dict]) -> list[dict]:
    """All that can be said yet."""
    bars = [*_warm_up_bars(arms), *_transfer_bars(arms)]
    if alone:
        better = np.mean([row["fine_tuned"] - row["alone"] for row in alone])
        bars.append(records.bar("fine-tuned less alone for three times the steps", 100 * better, 0.0, "at_least", "points"))
        better = np.mean([row["fine_tuned"] - row["same_steps"] for row in alone])
        bars.append(records.bar("fine-tuned less from random weights, equal steps", 100 * better, 0.0, "at_least", "points"))
    if len(rankings) == 2:
        with_it, without = (tau(rows)["mean"] for rows in rankings.values())
        bars.append(records.bar("Kendall's tau with the warm-up less without", with_it - without, 0.0, "at_least", "tau"))
    return bars


def _warm_up_bars(arms: dict) -> list[dict]:
    bars = []
    for kind in ("8 bits", "mixed bits"):
        for figure in ("gap", "deviation"):
            if len(both := pairs(arms, "full", "no_warm_up", f"{figure}, {kind}")):
                ratio = both[:, 0].mean() / both[:, 1].mean()
                bars.append(records.bar(f"{figure} at {kind}, with the warm-up over without", ratio, GAP_RATIO, "at_most", "ratio"))
        if len(both := pairs(arms, "full", "no_warm_up", f"mean, {kind}")):
            bars.append(_points(f"mean at {kind}, with the warm-up less without", both))
    return bars


def _transfer_bars(arms: dict) -> list[dict]:
    bars = []
    for width, limit in DROPS.items():
        if "full" in arms:
            drops = [figures_of(s)["uniform 8 bits"] - figures_of(s)[f"uniform {width} bits"] for s in arms["full"].values()]
            bars.append(records.bar(f"{width} bits below own 8 bits", 100 * np.mean(drops), 100 * limit, "at_most", "points"))
    for figure in ("mean of precisions", "mean, mixed bits", "uniform 8 bits"):
        if len(both := pairs(arms, "full", "all_at_once", figure)):
            bars.append(_points(f"{figure}, progressive less all at once", both))
    if len(both := pairs(arms, "full", "eight_bits", "uniform 8 bits")):
        bars.append(_points("8 bits, less trained at 8 bits only", both, -100 * FLOOR_SLACK))
    return bars


def _points(name: str, both: np.ndarray, limit: float = 0.0) -> dict:
    return records.bar(name, 100 * float(np.mean(both[:, 0] - both[:, 1])), limit, "at_least", "points")


def tau(rows: list[dict]) -> dict:
    """Kendall's tau between both accuracies, averaged over bands of MACs and kinds of precision, and its 95% interval.

    The interval is a bootstrap over the subnets of each band.
    """
    rng = np.random.default_rng(0)
    bands = {}
    for row in rows:
        for band in (("macs", row["macs_band"]), ("precision", row["precision"])):
            bands.setdefault(band, []).append((row["inherited"], row["fine_tuned"]))
    bands = [np.array(values) for values in bands.values()]
    resampled = [np.mean([_tau(values[rng.integers(0, len(values), len(values))]) for values in bands]) for _ in range(RESAMPLES)]
    low, high = np.nanquantile(resampled, (0.025, 0.975))
    overall = _tau(np.array([(row["inherited"], row["fine_tuned"]) for row in rows]))
    return {"mean": float(np.mean([_tau(v) for v in bands])), "interval": [low, high], "overall": overall, "subnets": len(rows)}


def _tau(pairs_of: np.ndarray) -> float:
    """Kendall's tau-b."""
    from scipy.stats import kendalltau

    return float(kendalltau(pairs_of[:, 0], pairs_of[:, 1]).statistic)


def draw(arms: dict[str, dict[int, dict]], path: pathlib.Path) -> None:
    """Left: the panel at 8 bits, seed by seed. Right: uniform precisions."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panel, precisions = figure.subplots(1, 2)
    for place, (arm, seeds) in enumerate(arms.items()):
        for shift, scores in zip(np.linspace(-0.2, 0.2, len(seeds)) if len(seeds) > 1 else [0.0], seeds.values()):
            accuracies = 100 * np.array(scores["panel"]["8 bits"])
            panel.plot([place + shift] * 2, [accuracies.min(), accuracies.max()], color=f"C{place}", linewidth=1)
            panel.scatter([place + shift] * len(accuracies), accuracies, s=10, color=f"C{place}")
        widths = list(next(iter(seeds.values()))["precisions"])
        mean = [100 * np.mean([scores["precisions"][width] for scores in seeds.values()]) for width in widths]
        precisions.plot(range(len(widths)), mean, marker="o", color=f"C{place}", label=arm.replace("_", " "))
        precisions.set_xticks(range(len(widths)), [f"{width} bits" for width in widths])
    panel.set_xticks(range(len(arms)), [arm.replace("_", "\n") for arm in arms], fontsize=8)
    panel.set_title("16 architectures at 8 bits, a line a seed")
    panel.set_ylabel("accuracy on the search split, %")
    precisions.set_title("three architectures, one width throughout, mean of seeds")
    precisions.legend(fontsize=8)
    for axes in (panel, precisions):
        axes.grid(linewidth=0.4, axis="y")
    figure.savefig(path, dpi=130)
