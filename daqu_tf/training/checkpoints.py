"""The checkpoints of a training, each one file that is whole or absent; the CRC finds a damaged one, and the one before is kept."""

import contextlib
import json
import pathlib
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from daqu_tf import files

KEPT = 2
CHECKPOINT_SECONDS = 30.0  # From one checkpoint of a training to the next.
_STATE = "state.json"
# The errors of NumPy and zipfile on damaged files: NotImplementedError for a changed version or method, RuntimeError for
# encryption.
_DAMAGED = (ValueError, KeyError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error)


class Checkpoints:
    """The newest checkpoints in a folder.

    Args:
        folder: The folder of the checkpoints, which need not exist.
        on_warning: Is called with a sentence when a checkpoint cannot be written or read.
    """

    def __init__(self, folder: pathlib.Path, on_warning: Callable[[str], None]):
        self._folder, self._warn, self._said = folder, on_warning, False
        for left in folder.glob(".step-*"):  # They come from a process that was killed during a save.
            left.unlink(missing_ok=True)

    def save(self, step: int, arrays: Mapping[str, np.ndarray], state: dict[str, Any]) -> None:
        """Writes a checkpoint, then deletes all but the newest `KEPT`.

        If there is no room, the earlier ones stay as they are, and one warning is given, since a full disk must not end a training.

        Args:
            step: The step, by which the checkpoint is named; a higher one is newer.
            arrays: The arrays by name.
            state: A JSON object, which goes into the same file, so that both always fit each other.
        """
        path = self._folder / f"step-{step:09d}.npz"
        content = {**arrays, _STATE: np.frombuffer(json.dumps(state).encode(), np.uint8)}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            files.write_arrays(path, content)
        except OSError as error:
            if not self._said:
                self._warn(
                    f"{path} could not be written ({error.strerror}): training goes on, and would resume from the one before."
                )
            self._said = True
            return
        self._said = False
        for old in self._paths()[KEPT:]:
            old.unlink(missing_ok=True)

    def newest(self) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """The arrays and the state of the newest checkpoint that can be read; None where there is none.

        Damaged checkpoints are renamed, with a warning.
        """
        for path in self._paths():
            try:
                with np.load(path, allow_pickle=False) as file:
                    arrays = dict(file)  # Reading checks the CRC of each array.
                return arrays, json.loads(bytes(arrays.pop(_STATE)))
            except OSError as error:
                self._warn(f"{path} cannot be read ({error}): an older one is used, if there is one.")
            except _DAMAGED as error:
                self._warn(f"{path} is damaged ({error}): an older one is used, if there is one.")
                with contextlib.suppress(OSError):
                    path.rename(path.with_suffix(".damaged"))
        return None

    def _paths(self) -> list[pathlib.Path]:
        found = [path for path in self._folder.glob("step-*.npz") if re.fullmatch(r"step-\d{9}\.npz", path.name)]
        return sorted(found, reverse=True)


def part(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
