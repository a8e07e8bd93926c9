"""The writer of a run's report: `pareto.csv`, `pareto.png`, `report.html` and the models' card."""

import csv
import io
import os
import pathlib

from daqu_tf import files
from daqu_tf.report import card, page, pictures
from daqu_tf.report.run import Run, read

_FIGURES = (
    "search_inherited", "search_fine_tuned", "search_file", "test_inherited", "test_fine_tuned", "test_file", "top1_agreement",
)  # fmt: skip


def write_report(output_dir: str | os.PathLike) -> pathlib.Path:
    """Writes `pareto.csv`, `pareto.png` and `report.html` into the output folder of a run, and `README.md` beside its models.

    Args:
        output_dir: The output folder, which must hold `config.json` and `pareto.json`; other files of a run are shown if they are
            there.

    Returns:
        The path of `report.html`, which needs no other file.

    Raises:
        DaquError: The folder is not the output folder of a run, or one of its files is damaged.
    """
    folder = pathlib.Path(output_dir)
    run = read(folder)
    fronts = {theme: pictures.front(run, theme) for theme in pictures.THEMES}
    curves = {theme: pictures.training(run, theme) for theme in pictures.THEMES} if run.training else {}
    is_predicted = any(member.predicted_us is not None for member in run.members)
    latencies = {theme: pictures.latencies(run, theme) for theme in pictures.THEMES} if is_predicted else {}
    text = page.write(run, fronts, latencies, curves)
    files.write_bytes(folder / "pareto.csv", _csv(run).encode())
    files.write_bytes(folder / "pareto.png", fronts["light"])
    if (folder / "models").is_dir():
        files.write_bytes(folder / "models" / "README.md", card.write(run).encode())
    files.write_bytes(folder / "report.html", text.encode())
    return folder / "report.html"


def _csv(run: Run) -> str:
    """A table with one row for each member; accuracies are in [0, 1], and unknown figures are empty."""
    costs = list(dict.fromkeys(name for member in run.members for name in member.costs))
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    tail = ["int4_layers", "mean_weight_bits", "sha256", "genome", "subnet"]
    table.writerow(["name", "file", "on_front", *(f"accuracy_{name}" for name in _FIGURES[:-1]), _FIGURES[-1], *costs, *tail])
    for member in run.members:
        table.writerow(
            [member.name, member.file, int(member.on_front)]
            + [getattr(member, name) for name in _FIGURES]
            + [member.costs.get(name) for name in costs]
            + [member.int4_layers, member.mean_weight_bits, member.sha256, member.genome, member.subnet_text]
        )
    return text.getvalue()
