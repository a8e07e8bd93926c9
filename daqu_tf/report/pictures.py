"""The pictures of a report, as PNG bytes, for light and for dark pages."""

import io
import re
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from daqu_tf.pareto.fronts import non_dominated_mask
from daqu_tf.report.run import Member, Run

# The colours of each theme: page, text, lines and grid, trials, front, and four for curves.
THEMES = {
    "light": ("#ffffff", "#1c2128", "#d4d9e0", "#8b95a3", "#1d5fd1", ("#1d5fd1", "#c2410c", "#0f766e", "#7c3aed", "#be185d")),
    "dark": ("#15181d", "#e3e7ed", "#363d47", "#77828f", "#7fb0ff", ("#7fb0ff", "#ff9c66", "#4fd1c0", "#c4a1ff", "#f58fb8")),
}
AXES = {
    "latency_us": ("latency, µs", 1.0),
    "file_bytes": ("file, kB", 1e-3),
    "deflated_bytes": ("deflated file, kB", 1e-3),
    "bit_packed_bytes": ("bit-packed weights, kB", 1e-3),
    "bitops": ("BitOPs, millions", 1e-6),
}
_LOG_FROM_RATIO = 5.0
_LABELLED_SHARE = 0.15  # A phase with a smaller share of the training has no label.


def front(run: Run, theme: str) -> bytes:
    """The picture of the accuracy on the search split over the first two costs: trials, the front, and its members.

    Args:
        run: The run.
        theme: The theme, one of `THEMES`.

    Returns:
        The PNG bytes.
    """
    known = [name for name in run.costs if any(name in member.costs for member in run.members)][:2]
    with matplotlib.rc_context(_style(theme)):
        figure = Figure(figsize=(5.2 * max(len(known), 1), 4.4), layout="constrained")
        panels = np.atleast_1d(figure.subplots(1, max(len(known), 1), sharey=True))
        for axes, name in zip(panels, known):
            _draw_trials(axes, run, name, theme)
            _draw_members(axes, run, name, theme)
            _finish_cost_axis(axes, name)
        panels[0].set_ylabel("accuracy on the search split, %")
        _limit_accuracy(panels[0], run)
        _legend(figure, panels[0])
        return _png(figure)


def latencies(run: Run, theme: str) -> bytes:
    """The picture of the measured latency of each member over that of the latency table, both with their errors.

    Args:
        run: The run.
        theme: The theme, one of `THEMES`.

    Returns:
        The PNG bytes.
    """
    page, text, lines, _, blue, _ = THEMES[theme]
    timed = [(each, each.predicted_us, each.costs["latency_us"]) for each in run.members if "latency_us" in each.costs]
    known = [(member, predicted, measured) for member, predicted, measured in timed if predicted is not None]
    with matplotlib.rc_context(_style(theme)):
        figure = Figure(figsize=(5.2, 4.2), layout="constrained")
        axes = figure.subplots()
        for member, x, y in known:
            xerr, yerr = x * (member.predicted_error or 0), member.latency_spread_us or 0
            axes.errorbar(x, y, yerr, xerr, fmt="o", color=blue, markeredgecolor=page, elinewidth=1.2, zorder=4)
            _draw_name(axes, member.name, (x, y), text)
        axes.axline((0, 0), slope=1, color=lines, linewidth=1.2, zorder=1)
        axes.set(xlabel="predicted by the latency table, µs", ylabel="measured on the device, µs")
        values = [value for _, predicted, measured in known for value in (predicted, measured)]
        if values:
            low, high = min(values) * 0.9, max(values) * 1.1
            axes.set(xlim=(low, high), ylim=(low, high))
        return _png(figure)


def training(run: Run, theme: str) -> bytes:
    """The picture of the supernet's training: the loss, and the accuracies of architectures and, if known, of precisions.

    Args:
        run: The run.
        theme: The theme, one of `THEMES`.

    Returns:
        The PNG bytes.
    """
    names = [name for name in run.training[0] if name.startswith("accuracy")]
    precisions = [name for name in names if re.fullmatch(r"accuracy_w\d+a\d+", name)]
    curves = [part for part in (["loss"], [name for name in names if name not in precisions], precisions) if part]
    with matplotlib.rc_context(_style(theme)):
        figure = Figure(figsize=(4.4 * len(curves) + 1.6, 3.4), layout="constrained")
        x, label = _progress(run)
        for axes, columns in zip(np.atleast_1d(figure.subplots(1, len(curves), sharex=True)), curves):
            for name, color in zip(columns, THEMES[theme][5] * len(columns)):
                values = _column(run, name) * (1 if name == "loss" else 100)
                axes.plot(*_known(x, values), color=color, label=_plain(name.removeprefix("accuracy_")), marker=".")
            axes.set_ylabel("training loss" if columns == ["loss"] else "accuracy on the search split, %")
            axes.set_xlabel(label)
            _shade_phases(axes, run, x, theme)
            if columns != ["loss"]:
                axes.legend(loc="lower right")
        return _png(figure)


def _style(theme: str) -> dict:
    page, text, lines, _, _, _ = THEMES[theme]
    paints = {"figure.facecolor": page, "axes.facecolor": page, "axes.edgecolor": lines, "grid.color": lines}
    ticks = {"xtick.major.size": 0, "xtick.minor.size": 0, "ytick.major.size": 0}
    texts = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), text)
    shape = {"axes.grid": True, "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False}
    small = {"grid.linewidth": 0.5, "legend.frameon": False, "font.size": 10, "savefig.dpi": 150}
    return paints | ticks | texts | shape | small


def _draw_trials(axes: Axes, run: Run, name: str, theme: str) -> None:
    points = [(trial.get(name), trial.get("accuracy")) for trial in run.trials]
    points = [(cost * AXES.get(name, ("", 1))[1], 100 * accuracy) for cost, accuracy in points if cost and accuracy]
    if points:
        xs, ys = zip(*points)
        axes.scatter(xs, ys, s=9, color=THEMES[theme][3], alpha=0.45, linewidths=0, label="trial")


def _draw_members(axes: Axes, run: Run, name: str, theme: str) -> None:
    page, text, _, grey, blue, _ = THEMES[theme]
    unit = AXES.get(name, ("", 1))[1]
    scored = [(each, each.costs[name] * unit, each.search) for each in run.members if name in each.costs]
    members = [(member, cost, 100 * accuracy) for member, cost, accuracy in scored if accuracy is not None]
    line = _staircase([(cost, accuracy) for member, cost, accuracy in members if member.on_front])
    axes.plot(*line, color=blue, linewidth=1.2, alpha=0.6, drawstyle="steps-post", label="front in this view")
    points = np.array([(x, -y) for _, x, y in members]).reshape(len(members), 2)
    for (member, x, y), is_best_here in zip(members, non_dominated_mask(points)):
        color = blue if member.on_front else grey
        if member.search_inherited is not None:
            _draw_gain(axes, x, 100 * member.search_inherited, y, color)
        axes.scatter(x, y, s=42, color=color, edgecolors=page, linewidths=0.8, zorder=4, label=_role(member))
        # The others lie close behind these, as a sibling does behind its parent, and the page's table names them all.
        if is_best_here:
            _draw_name(axes, member.name, (x, y), text)


def _draw_name(axes: Axes, name: str, at: tuple[float, float], color: str) -> None:
    """Writes a label up and to the left of a point, where nothing lies beside a front."""
    axes.annotate(name, at, (-4, 4), textcoords="offset points", ha="right", fontsize=8, color=color, parse_math=False, zorder=5)


def _role(member: Member) -> str:
    return "member, as it ships" if member.on_front else "dominated member"


def _draw_gain(axes: Axes, x: float, before: float, after: float, color: str) -> None:
    """Draws a pale marker for a member with inherited weights, and an arrow to the fine-tuned one."""
    axes.scatter(x, before, s=26, facecolors="none", edgecolors=color, alpha=0.55, zorder=3, label="inherited weights")
    style = {"arrowstyle": "-|>", "color": color, "alpha": 0.4, "shrinkA": 3, "shrinkB": 4, "mutation_scale": 7}
    axes.annotate("", (x, after), (x, before), arrowprops=style, zorder=2)


def _staircase(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """The points that no cheaper point equals in accuracy, from cheap to expensive."""
    steps: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if not steps or y > steps[-1][1]:
            steps.append((x, y))
    return [x for x, _ in steps], [y for _, y in steps]


def _finish_cost_axis(axes: Axes, name: str) -> None:
    axes.set_xlabel(AXES.get(name, (_plain(name), 1))[0])
    low, high = axes.dataLim.intervalx
    if low > 0 and high / low >= _LOG_FROM_RATIO:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.margins(x=0.1)


def _limit_accuracy(axes: Axes, run: Run) -> None:
    """Cuts off the worst trials, so that a few broken subnets do not flatten the front."""
    members = [value for each in run.members for value in (each.search, each.search_inherited) if value is not None]
    trials = [value for trial in run.trials if (value := trial.get("accuracy")) is not None]
    if not members:
        return
    low = min([*members, *([float(np.percentile(trials, 20))] if trials else [])])
    high = max([*members, *trials])
    pad = max(high - low, 0.01) * 0.08
    axes.set_ylim(100 * (low - pad), min(100 * (high + pad), 100.5))


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles))
    if once:
        figure.legend(once.values(), once.keys(), loc="outside upper center", ncols=len(once))


def _progress(run: Run) -> tuple[np.ndarray, str]:
    for name in ("minutes", "step", "epoch"):
        values = _column(run, name)
        if np.isfinite(values).any():
            return values, name
    return np.arange(len(run.training), dtype=float), "row"


def _column(run: Run, name: str) -> np.ndarray:
    values = [row.get(name) for row in run.training]
    return np.array([value if isinstance(value, float) else np.nan for value in values])


def _known(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points of which both values are known, so that lines join over gaps."""
    known = np.isfinite(x) & np.isfinite(y)
    return x[known], y[known]


def _shade_phases(axes: Axes, run: Run, x: np.ndarray, theme: str) -> None:
    _, text, lines, _, _, _ = THEMES[theme]
    names = [str(row.get("phase") or "") for row in run.training]
    starts = [i for i in range(len(names)) if i == 0 or names[i] != names[i - 1]]
    for order, (start, end) in enumerate(zip(starts, [*starts[1:], len(names) - 1])):
        if not np.isfinite(x[[start, end]]).all():
            continue
        if order % 2:
            axes.axvspan(x[start], x[end], color=lines, alpha=0.35, linewidth=0, zorder=0)
        if x[end] - x[start] < _LABELLED_SHARE * (x[-1] - x[0]):
            continue  # Its label would lie over another.
        axes.annotate(
            names[start].replace("_", " "), (x[start], 1), (3, 3), xycoords=("data", "axes fraction"),
            textcoords="offset points", fontsize=8, color=text, alpha=0.8, parse_math=False,
        )  # fmt: skip


def _plain(text: str) -> str:
    """Keeps matplotlib from reading dollar signs as mathematics."""
    return text.replace("_", " ").replace("$", r"\$")


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
