"""One model of a run's front, chosen by limits and a preference, in a folder of its own, with the reasons."""

import dataclasses
import math
import os
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from daqu_tf import files
from daqu_tf.errors import DaquError
from daqu_tf.export.manifest import ENDING
from daqu_tf.pareto.constraints import Constraint, total_violation
from daqu_tf.report import card
from daqu_tf.report.run import Member, Run, read
from daqu_tf.report.text import duration, percent, size
from daqu_tf.runs.commands import from_here
from daqu_tf.targets import constraints_of

# What each preference looks at first, and how that is called.
PREFERENCES = {"accuracy": ("accuracy", "most accurate"), "latency": ("latency_us", "fastest"), "size": ("file_bytes", "smallest")}
_WORDS = {"latency_us": "time", "file_bytes": "bytes"}
CARD, LABELS, EXAMPLE = "README.md", "labels.txt", "classify.py"


@dataclasses.dataclass(frozen=True)
class Choice:
    """The model of a front that was chosen.

    Attributes:
        name: The name of the model, such as `m03`.
        model: The path of the copied file, beside which lie manifest, labels, card and example.
        why: Why this model was chosen, a sentence.
        neighbours: What the next less and the next more accurate model of the front would give, a sentence.
        figures: The accuracy in [0, 1] of the file on the search split, and the costs, by the names of the metrics.
    """

    name: str
    model: pathlib.Path
    why: str
    neighbours: str
    figures: dict[str, float]

    def __str__(self) -> str:
        return f"{self.why} {self.neighbours}"

    def __fspath__(self) -> str:
        return str(self.model)

    def to_json(self) -> dict[str, Any]:
        """The choice as a JSON object."""
        return dataclasses.asdict(self) | {"model": str(self.model)}


def choose(
    run: str | os.PathLike,
    constraint: Sequence[str | Constraint] = (),
    prefer: str = "accuracy",
    output_dir: str | os.PathLike | None = None,
) -> Choice:
    """Chooses one model of a run's front, and copies what an application needs of it into one folder.

    Accuracies are those that the files have on the search split, since nothing is to be chosen on the test split.

    Args:
        run: The output folder of the run.
        constraint: What the model must meet, such as `latency<=2ms`, `size<=100kB` or `accuracy>=90%`.
        prefer: What counts among those that meet it: `accuracy`, `latency` or `size`.
        output_dir: The folder for the model, its manifest, labels, card and example; by default `chosen/NAME` in that of the run.

    Raises:
        DaquError: The folder holds no run, no model meets the constraints (the nearest is named), or the output folder is another
            model's.
    """
    if prefer not in PREFERENCES:
        raise DaquError(f"`prefer` must be one of {', '.join(PREFERENCES)}, but received {prefer!r}.")
    folder, limits = pathlib.Path(run), constraints_of(constraint)
    found = read(folder)
    front = sorted((one for one in found.front if one.search is not None), key=lambda one: figures_of(one)["accuracy"])
    if not front:
        raise DaquError(f"{folder} has no model on its front: give the output folder of a run that has ended.")
    fitting = [one for one in front if total_violation(limits, figures_of(one)) == 0]
    if not fitting:
        raise DaquError(_nothing_fits(front, limits, folder))
    metric, _ = PREFERENCES[prefer]
    member = min(fitting, key=lambda one: (_wanted(one, metric), -figures_of(one)["accuracy"], _wanted(one, "latency_us")))
    target = pathlib.Path(output_dir) if output_dir else folder / "chosen" / member.name
    choice = Choice(
        member.name,
        target / pathlib.PurePath(member.file).name,  # Whatever a strange run has there, it stays in the folder.
        _why(member, fitting, front, limits, prefer),
        _neighbours(member, front),
        figures_of(member),
    )
    _copy(found, member, folder, choice)
    return choice


def outline(run: str | os.PathLike) -> str:
    """The most accurate, the balanced, the fastest and the smallest model of a run's front, a line each, and how to choose one.

    The balanced model is the nearest to the best accuracy at the best latency, where each goes from 0 to 1 along the front, and
    latency by its logarithm (ours).

    Args:
        run: The output folder of the run.
    """
    folder = pathlib.Path(run)
    front = [one for one in read(folder).front if one.search is not None and "latency_us" in one.costs]
    if not front:
        return ""
    named = {most: min(front, key=lambda one: _wanted(one, metric)) for metric, most in PREFERENCES.values()}
    named["balanced"] = min(front, key=lambda one: math.hypot(*_away(one, front)))
    words: dict[str, list[str]] = {}
    for most, member in named.items():
        words.setdefault(member.name, []).append(most)
    members = sorted((one for one in front if one.name in words), key=lambda one: -figures_of(one)["accuracy"])
    lines = [
        f"{one.name} ({', '.join(words[one.name])}): {_described(one)}; {from_here(folder / 'models' / one.file)}"
        for one in members
    ]
    limit = math.ceil(named["balanced"].costs["latency_us"])
    return "\n".join([*lines, f"To take one: daqu-choose {from_here(folder)} --constraint='latency<={limit}us'"])


def _away(member: Member, front: Sequence[Member]) -> tuple[float, float]:
    """How far accuracy and log latency of a model are from the best of a front, each as a share of the front's extent."""

    def share(figure: Callable[[Member], float]) -> float:
        values = [figure(one) for one in front]
        return (figure(member) - min(values)) / ((max(values) - min(values)) or 1.0)

    return share(lambda one: _wanted(one, "accuracy")), share(lambda one: math.log(one.costs["latency_us"]))


def figures_of(member: Member) -> dict[str, float]:
    """What constraints on a model are about: its accuracy on the search split, and its costs."""
    return member.costs | {"accuracy": member.search or 0.0}


def _wanted(member: Member, metric: str) -> float:
    """A figure of a model, the less the better; infinite where it is not known."""
    value = figures_of(member).get(metric, math.inf)
    return -value if metric == "accuracy" else value


def _why(member: Member, fitting: Sequence[Member], front: Sequence[Member], limits: Sequence[Constraint], prefer: str) -> str:
    _, most = PREFERENCES[prefer]
    asked = f" that meet {_all_of(limits)}" if limits else ""
    if limits and len(fitting) == 1:
        return f"{member.name} alone of the {len(front)} models on the front meets {_all_of(limits)}: {_described(member)}."
    if len(front) == 1:
        return f"{member.name} is the only model on the front: {_described(member)}."
    return f"{member.name} is the {most} of the {len(fitting)} models on the front{asked}: {_described(member)}."


def _all_of(limits: Sequence[Constraint]) -> str:
    return " and ".join(map(str, limits))


def _described(member: Member) -> str:
    test = f" (test {percent(member.test, 1)})" if member.test is not None else ""
    words = [f"{percent(member.search, 1)} of the search split right{test}"]
    words += [text(member.costs[name]) for name, text in (("latency_us", duration), ("file_bytes", size)) if name in member.costs]
    return ", ".join(words)


def _neighbours(member: Member, front: Sequence[Member]) -> str:
    """What the models beside one give, of a front from the least to the most accurate."""
    place = front.index(member)
    below = _beside(front[place - 1], member) if place else "No model is less accurate"
    above = _beside(front[place + 1], member) if place + 1 < len(front) else "no model is more accurate"
    return f"{below}; {above}."


def _beside(other: Member, member: Member) -> str:
    points = 100 * ((other.search or 0.0) - (member.search or 0.0))
    costs = [
        f"{other.costs[name] / member.costs[name]:.2f} of its {word}"
        for name, word in _WORDS.items()
        if member.costs.get(name) and name in other.costs
    ]
    gain = f"{other.name} has {abs(points):.1f} points {'more' if points >= 0 else 'less'}"
    return gain + (f" for {' and '.join(costs)}" if costs else "")


def _nothing_fits(front: Sequence[Member], limits: Sequence[Constraint], folder: pathlib.Path) -> str:
    nearest = min(front, key=lambda one: float(total_violation(limits, figures_of(one))))
    of_costs = [str(one) for one in limits if one.metric != "accuracy"]
    under = " and ".join(f"--constraint='{one}'" for one in of_costs)
    longer = f"a new job with {under} looks among such networks alone" if under else "a longer job may get there"
    return (
        f"None of the {len(front)} models on the front meets {_all_of(limits)}: {nearest.name} comes nearest, with "
        f"{_described(nearest)}. Loosen a limit; {longer} (daqu-run --add_minutes goes on with {from_here(folder)})."
    )


def _copy(run: Run, member: Member, folder: pathlib.Path, choice: Choice) -> None:
    """Writes the folder of a choice; a model that it held before stays, unless it is this one."""
    source, target = folder / "models" / choice.model.name, choice.model.parent
    if not source.exists():
        raise DaquError(f"{source} is not there any more: run daqu-run with this output folder again.")
    others = sorted(path.name for path in target.glob("*.tflite") if path.name != choice.model.name)
    if others:
        raise DaquError(f"{target} holds {others[0]} already: give another --output_dir, or empty this one.")
    try:
        target.mkdir(parents=True, exist_ok=True)
        files.write_bytes(choice.model, source.read_bytes())
        manifest = source.with_suffix(ENDING)
        if manifest.exists():
            shutil.copyfile(manifest, target / manifest.name)
        alone = dataclasses.replace(run, members=(member,))
        text = card.write(alone, pathlib.Path(os.path.relpath(folder, target)).as_posix(), str(choice))
        written: Mapping[str, str] = {CARD: text, LABELS: "".join(f"{name}\n" for name in member.class_names)}
        if member.preprocessing:
            written = {**written, EXAMPLE: card.example(member, member.preprocessing)}
        for name, content in written.items():
            files.write_bytes(target / name, content.encode())
    except OSError as error:
        raise DaquError(f"{target} cannot be written to ({error.strerror}): give another --output_dir.") from error
