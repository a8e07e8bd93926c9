"""The log of a training, in `training.csv` and for TensorBoard."""

import csv
import pathlib
from collections.abc import Sequence

import tensorflow as tf

from daqu_tf import files


class TrainingLog:
    """A log with one row for each scoring of the panel.

    Args:
        folder: The folder of `training.csv` and `tensorboard/`.
        names: The names of the columns, in order; a row need not have all of them.
        step: The step of the checkpoint. Rows of later steps are dropped from `training.csv`, since these steps are taken again.
    """

    def __init__(self, folder: pathlib.Path, names: Sequence[str], step: int):
        self._path, self._names = folder / "training.csv", list(names)
        self._rows = [row for row in self._read() if int(row["step"]) <= step]
        self._writer = tf.summary.create_file_writer(str(folder / "tensorboard"))

    def _read(self) -> list[dict]:
        if not self._path.exists():
            return []
        with self._path.open(newline="") as file:
            return list(csv.DictReader(file))

    def add(self, row: dict) -> None:
        """Writes a row, a dict with `step` and other columns, to `training.csv`, and its real numbers to TensorBoard."""
        self._rows.append({name: row.get(name, "") for name in self._names})
        with files.replacing(self._path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._names, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(self._rows)
        with self._writer.as_default(step=row["step"]):
            for name, value in row.items():
                if isinstance(value, float):
                    tf.summary.scalar(name, value)
        self._writer.flush()
