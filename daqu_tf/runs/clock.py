"""The time that a job has used over all its resumed parts."""

import contextlib
import pathlib
import time

from daqu_tf import files
from daqu_tf.files import read_json


class Clock:
    """The wall-clock seconds that a job has used over all its resumed parts.

    Args:
        path: Where they are kept.
        budget_seconds: What may be used in all.
        began: When this part of the job began, by the monotonic clock; None takes now.
    """

    def __init__(self, path: pathlib.Path, budget_seconds: float, began: float | None = None):
        self._path, self.budget_seconds = path, budget_seconds
        self._before = read_json(path, {"seconds": 0.0})["seconds"]
        self._written = time.monotonic()
        self._began = self._written if began is None else began

    def elapsed(self) -> float:
        """Seconds used until now."""
        return self._before + time.monotonic() - self._began

    def tick(self, now: bool = False) -> None:
        """Writes the seconds down, every few seconds or `now`."""
        if now or time.monotonic() - self._written > 5.0:
            self._written = time.monotonic()
            # A full disk is said by whoever has something to lose.
            with contextlib.suppress(OSError):
                files.write_json(self._path, {"seconds": round(self.elapsed(), 1)})

    def forget(self, seconds: float) -> None:
        """Gives back what was used for something that the budget is not for."""
        self._before -= seconds
