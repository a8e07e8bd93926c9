"""Checkpoints of a training: one file each, whole or absent; a damaged one is found by its CRC, and the one before is kept."""

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
_STATE = "state.json"
# What NumPy and zipfile raise on damaged files: a changed version or method says NotImplementedError, an encryption RuntimeError.
_DAMAGED = (ValueError, KeyError, EOFError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error)


class Checkpoints:
    """The newest checkpoints of a folder.

    Args:
        folder: Where they are.
        on_warning: Called with a sentence when one cannot be written or read.
    """

    def __init__(self, folder: pathlib.Path, on_warning: Callable[[str], None]):
        self._folder, self._warn, self._said = folder, on_warning, False
        for left in folder.glob(".step-*"):  # By a process that was killed amid a save.
            left.unlink(missing_ok=True)

    def save(self, step: int, arrays: Mapping[str, np.ndarray], state: dict[str, Any]) -> None:
        """Writes one, then deletes those beyond the newest `KEPT`.

        Where there is no room, the ones before stay as they are and that is said, once: a full disk must not end a training.

        Args:
            step: Its number; a higher one is newer.
            arrays: By name.
            state: Goes into the same file as JSON, so that the two always fit.
        """
        path = self._folder / f"step-{step:09d}.npz"
        content: dict[str, Any] = {**arrays, _STATE: np.frombuffer(json.dumps(state).encode(), np.uint8)}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with files.replacing(path) as temporary:
                np.savez(temporary, **content)
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
        """Arrays and state of the newest one that can be read; None where there is none. Damaged ones are said and put aside."""
        for path in self._paths():
            try:
                with np.load(path, allow_pickle=False) as file:
                    arrays = dict(file)  # Reading checks each array's CRC.
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
