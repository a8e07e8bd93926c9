"""The figures, bars, table and picture of `ablation.py`, from what its parts have left."""

import pathlib

import matplotlib
import numpy as np
import records
from matplotlib.figure import Figure

from daqu_tf.training.samplers import SAMPLERS

matplotlib.use("Agg")
DROPS = {"6": 0.005, "4": 0.005, "3": 0.010, "2": 0.040}  # From the same architecture's own 8 bits, at most.
GAP_RATIO, FLOOR_SLACK = 0.7, 0.005
RESAMPLES = 2000
SHOWN_POINTS = 25  # Bits that were never trained may lie far below; that would flatten all else.
TAU_ARMS = ("full", "no_warm_up")
DIVERGED = 0.5  # A run with an architecture of the panel below that, at 8 bits.
CAPTION = (
    "Accuracies on the search split in percent, with inherited weights: mean of the seeds ± half of what they differ by at most.\n"
    "Gap (most less least), deviation and mean are those of 16 architectures; uniform widths are the mean of three. `full` is the\n"
    "default; what the others change is in `ablation.py`, `ARMS`. The bars compare `full` with `no_warm_up`, which differ in two\n"
    "things: the warm-up phase, and the sampler of the precision transfer, since that is the warm-up's (`--warmup=none` means the\n"
    "sandwich rule throughout). `no_warm_up_gap_aware` (only the phase is missing) and `warm_up_only` (only the sampler of the\n"
    "precision transfer is the sandwich rule) separate the two."
)
STABILITY = (
    "Stability and cost of the trainings. Skipped: steps whose gradients were not finite, of all seeds. Diverged: runs with an\n"
    "architecture of the panel below 50% at 8 bits; one that gives up has no scores, and fails the command. Minutes, images\n"
    "a second (each subnet of a step counted: six, or four with the sandwich rule) and the wait for input are those of one core,\n"
    "with other work beside it, tracing included; memory is the peak of the process, scoring included."
)
FINE_TUNING = (
    "Accuracies in percent after a fine-tuning, mean of three architectures, first seed: from inherited weights; the same with\n"
    "half of what is taught from the largest subnet; from random weights for as many steps; and for three times as many."
)
RANKING = (
    "Kendall's tau between the accuracy of subnets as inherited and after an equal fine-tuning, first seed: mean within bands of\n"
    "MACs and precision, its 95% interval (bootstrap over the subnets, the same ones for both arms), and over all subnets at once."
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
    found |= {f"uniform {bits} bits": np.mean(accuracies) for bits, accuracies in scores["precisions"].items()}
    found["mean of precisions"] = np.mean([found[f"uniform {bits} bits"] for bits in scores["precisions"]])
    return {name: float(value) for name, value in found.items()}


def stability_of(seeds: dict[int, dict]) -> dict[str, float]:
    """What the runs of one arm went through, and what they cost."""
    runs = list(seeds.values())
    return {
        "runs": len(runs),
        "skipped": sum(scores["skipped"] for scores in runs),
        "diverged": sum(min(scores["panel"]["8 bits"]) < DIVERGED for scores in runs),
        "minutes": float(np.mean([scores["seconds"] for scores in runs])) / 60,
        "images_a_second": float(np.mean([subnets_a_step(scores) * scores["images_a_second"] for scores in runs])),
        "input_share": float(np.mean([scores["input_share"] for scores in runs])),
        "peak_bytes": max(scores["peak_bytes"] for scores in runs),
    }


def subnets_a_step(scores: dict) -> int:
    """Of the precision transfer."""
    return SAMPLERS[scores["schedule"]["precision_transfer"]["sampler"]].SUBNETS


def tables_of(arms: dict[str, dict[int, dict]], taus: dict[str, dict], alone: list[dict]) -> list[dict]:
    """Those that can be filled yet."""
    return [_accuracies(arms), _stability(arms), *([_ranking(taus)] if taus else []), *([_fine_tuning(alone)] if alone else [])]


def _accuracies(arms: dict) -> dict:
    """Mean and spread (largest less least seed) of every figure of every arm, in percent."""
    names = list(figures_of(next(iter(next(iter(arms.values())).values()))))
    rows = []
    for arm, seeds in arms.items():
        values = 100 * np.array([list(figures_of(scores).values()) for scores in seeds.values()])
        spreads = [f" ± {spread / 2:.2f}" if len(seeds) > 1 else "" for spread in np.ptp(values, axis=0)]
        rows.append([arm, str(len(seeds)), *(f"{mean:.2f}{spread}" for mean, spread in zip(values.mean(0), spreads))])
    return {"caption": CAPTION, "columns": ["arm", "seeds", *names], "rows": rows}


def _stability(arms: dict) -> dict:
    rows = []
    for arm, found in ((arm, stability_of(seeds)) for arm, seeds in arms.items()):
        speed = [f"{found['minutes']:.1f}", f"{found['images_a_second']:.0f}"]
        cost = [*speed, f"{100 * found['input_share']:.1f}%", f"{found['peak_bytes'] / 1e9:.2f} GB"]
        rows.append([arm, str(found["skipped"]), f"{found['diverged']} of {found['runs']}", *cost])
    columns = ["arm", "skipped steps", "diverged", "minutes", "images a second", "waiting for input", "peak memory"]
    return {"caption": STABILITY, "columns": columns, "rows": rows}


def _ranking(taus: dict) -> dict:
    rows = []
    for name, found in taus.items():
        low, high = found["interval"]
        rows.append([name, f"{found['mean']:.3f}", f"{low:.3f} to {high:.3f}", f"{found['overall']:.3f}"])
    return {"caption": RANKING, "columns": ["arm", "tau", "95% interval", "overall"], "rows": rows}


def _fine_tuning(alone: list[dict]) -> dict:
    kinds = ("fine_tuned", "distilled", "same_steps", "alone")
    means = [
        [f"{bits} bits", *(f"{100 * np.mean([row[kind] for row in alone if row['width'] == bits]):.2f}" for kind in kinds)]
        for bits in dict.fromkeys(row["width"] for row in alone)
    ]
    overall = ["all", *(f"{100 * np.mean([row[kind] for row in alone]):.2f}" for kind in kinds)]
    columns = ["width", "fine-tuned", "distilled", "random, same steps", "random, three times the steps"]
    return {"caption": FINE_TUNING, "columns": columns, "rows": [*means, overall]}


def pairs(arms: dict, one: str, other: str, figure: str) -> np.ndarray:
    """The figure of two arms, for each seed that both have: shape (seeds, 2)."""
    both = sorted(arms.get(one, {}).keys() & arms.get(other, {}).keys())
    return np.array([[figures_of(arms[arm][seed])[figure] for arm in (one, other)] for seed in both]).reshape(-1, 2)


def bars_of(arms: dict[str, dict[int, dict]], taus: dict[str, dict], alone: list[dict]) -> list[dict]:
    """All that can be said yet."""
    bars = [*_warm_up_bars(arms), *_transfer_bars(arms)]
    if alone:
        better = np.mean([row["fine_tuned"] - row["alone"] for row in alone])
        bars.append(records.bar("fine-tuned less alone for three times the steps", 100 * better, 0.0, "at_least", "points"))
        better = np.mean([row["fine_tuned"] - row["same_steps"] for row in alone])
        bars.append(records.bar("fine-tuned less from random weights, equal steps", 100 * better, 0.0, "at_least", "points"))
    if taus:
        difference = taus["difference"]["mean"]
        bars.append(records.bar("Kendall's tau with the warm-up less without", difference, 0.0, "at_least", "tau"))
    return bars


def _warm_up_bars(arms: dict) -> list[dict]:
    bars = []
    for kind in ("8 bits", "mixed bits"):
        for figure in ("gap", "deviation"):
            both = pairs(arms, "full", "no_warm_up", f"{figure}, {kind}")
            if both[:, 1].sum() > 0:
                ratio = both[:, 0].mean() / both[:, 1].mean()
                bars.append(records.bar(f"{figure} at {kind}, with the warm-up over without", ratio, GAP_RATIO, "at_most", "ratio"))
        if len(both := pairs(arms, "full", "no_warm_up", f"mean, {kind}")):
            bars.append(_points(f"mean at {kind}, with the warm-up less without", both))
    return bars


def _transfer_bars(arms: dict) -> list[dict]:
    bars = []
    for bits, limit in DROPS.items():
        if "full" in arms:
            drops = [figures_of(s)["uniform 8 bits"] - figures_of(s)[f"uniform {bits} bits"] for s in arms["full"].values()]
            bars.append(records.bar(f"{bits} bits below own 8 bits", 100 * np.mean(drops), 100 * limit, "at_most", "points"))
    for figure in ("mean of precisions", "mean, mixed bits", "uniform 8 bits"):
        if len(both := pairs(arms, "full", "all_at_once", figure)):
            bars.append(_points(f"{figure}, progressive less all at once", both))
    if len(both := pairs(arms, "full", "eight_bits", "uniform 8 bits")):
        bars.append(_points("8 bits, less trained at 8 bits only", both, -100 * FLOOR_SLACK))
    return bars


def _points(name: str, both: np.ndarray, limit: float = 0.0) -> dict:
    return records.bar(name, 100 * float(np.mean(both[:, 0] - both[:, 1])), limit, "at_least", "points")


def taus_of(rankings: dict[str, list[dict]]) -> dict[str, dict]:
    """Kendall's tau between both accuracies, within bands of MACs and kinds of precision, of both arms and their difference.

    Args:
        rankings: The rows of each arm whose ranking is complete; all arms rank the same subnets.

    Returns:
        For each arm, and for `difference` (first less second): `mean` of the bands; `interval`, 95%, by a bootstrap over the
        subnets, the same draws for both arms; `overall`, of all subnets at once. Empty unless both arms are there, and neither's
        accuracies are all alike.
    """
    if not set(TAU_ARMS) <= rankings.keys():
        return {}
    values = np.array([[(row["inherited"], row["fine_tuned"]) for row in rankings[arm]] for arm in TAU_ARMS])  # (2, subnets, 2)
    labels = [label for row in rankings[TAU_ARMS[0]] for label in [("macs", row["macs_band"]), ("precision", row["precision"])]]
    bands = np.array([[label in pair for pair in zip(labels[::2], labels[1::2])] for label in dict.fromkeys(labels)])
    draws = np.random.default_rng(0).integers(0, values.shape[1], (RESAMPLES, values.shape[1]))
    means, overall = _band_means(values, bands), np.array([_tau(arm) for arm in values])
    resampled = np.array([_band_means(values[:, draw], bands[:, draw]) for draw in draws])
    if not np.isfinite([means, overall]).all():
        return {}
    columns = zip(
        [*means, means[0] - means[1]], [*resampled.T, resampled[:, 0] - resampled[:, 1]], [*overall, overall[0] - overall[1]]
    )
    return {
        name: {"mean": float(mean), "interval": np.nanquantile(drawn, (0.025, 0.975)).tolist(), "overall": float(whole)}
        for name, (mean, drawn, whole) in zip((*TAU_ARMS, "difference"), columns)
    }


def _band_means(values: np.ndarray, bands: np.ndarray) -> np.ndarray:
    """Each arm's mean tau over the bands that have one; NaN where none has."""
    taus = np.array([[_tau(arm[band]) for band in bands] for arm in values])
    known = np.isfinite(taus).sum(1)
    return np.where(known, np.nansum(taus, 1) / np.maximum(known, 1), np.nan)


def _tau(pairs_of: np.ndarray) -> float:
    """Kendall's tau-b of pairs, shape (count, 2); NaN where one side is constant."""
    one, other = (np.sign(side[:, None] - side[None]) for side in pairs_of.T)
    untied = np.sqrt((one**2).sum() * (other**2).sum())
    return float((one * other).sum() / untied) if untied else float("nan")


def draw(arms: dict[str, dict[int, dict]], path: pathlib.Path) -> None:
    """Left: the panel at 8 bits, seed by seed. Right: uniform precisions."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panel, precisions = figure.subplots(1, 2)
    for place, (arm, seeds) in enumerate(arms.items()):
        for shift, scores in zip(np.linspace(-0.2, 0.2, len(seeds)) if len(seeds) > 1 else [0.0], seeds.values()):
            accuracies = 100 * np.array(scores["panel"]["8 bits"])
            panel.plot([place + shift] * 2, [accuracies.min(), accuracies.max()], color=f"C{place}", linewidth=1)
            panel.scatter([place + shift] * len(accuracies), accuracies, s=10, color=f"C{place}")
        all_bits = list(next(iter(seeds.values()))["precisions"])
        mean = [100 * np.mean([scores["precisions"][bits] for scores in seeds.values()]) for bits in all_bits]
        precisions.plot(range(len(all_bits)), mean, marker="o", color=f"C{place}", label=arm.replace("_", " "))
        precisions.set_xticks(range(len(all_bits)), [f"{bits} bits" for bits in all_bits])
    top = precisions.get_ylim()[1]
    precisions.set_ylim(max(precisions.get_ylim()[0], top - SHOWN_POINTS), top)
    panel.set_xlim(-0.6, len(arms) - 0.4)
    panel.set_xticks(range(len(arms)), [arm.replace("_", "\n") for arm in arms], fontsize=8)
    panel.set_title("16 architectures at 8 bits, a line a seed")
    panel.set_ylabel("accuracy on the search split, %")
    precisions.set_title("three architectures, one width throughout, mean of seeds")
    precisions.legend(fontsize=8)
    for axes in (panel, precisions):
        axes.grid(linewidth=0.4, axis="y")
    figure.savefig(path, dpi=130)
