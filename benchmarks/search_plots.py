"""The picture of `search_quality.py`: what share of the true hypervolume is reached after so many evaluations."""

import pathlib

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

_COLORS = ("tab:red", "salmon", "grey", "tab:brown", "tab:blue", "tab:cyan", "tab:green", "tab:purple")


def draw(path: pathlib.Path, problems: dict[str, dict[str, dict[int, list[float]]]]) -> None:
    """One panel a problem, one line a method: the median, and the middle half of the seeds.

    Args:
        path: Of the PNG.
        problems: Name to method to evaluations to (median, lower and upper quartile).
    """
    columns = min(2, len(problems))
    rows = -(-len(problems) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(6.5 * columns, 4.5 * rows), squeeze=False, layout="constrained")
    colors = dict(zip(dict.fromkeys(method for shares in problems.values() for method in shares), _COLORS))
    for axis, (name, methods) in zip(axes.flat, problems.items()):
        for method, shares in methods.items():
            counts, (middle, low, high) = list(shares), zip(*shares.values())
            axis.plot(
                counts,
                middle,
                color=colors[method],
                label=method,
                marker=".",
                linewidth=2.5 if method == next(iter(methods)) else 1.2,
            )
            axis.fill_between(counts, low, high, color=colors[method], alpha=0.12, linewidth=0)
        axis.set(title=name, xscale="log", xlabel="evaluations", ylabel="share of the true hypervolume", ylim=(0.75, 1.005))
        ticks = [count for count in (20, 50, 100, 200, 400) if count <= max(counts)]
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes.flat[0].legend(fontsize="small", loc="lower right")
    figure.savefig(path, dpi=110)
    plt.close(figure)
