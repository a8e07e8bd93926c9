"""Measured latencies on disk: by the file's hash, the device's identity, and how it was timed. One SQLite file for all of them."""

import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from daqu_tf.devices import Latency
from daqu_tf.errors import DaquError

# Raised when the columns change; such a store is refused rather than misread.
_VERSION = 2
DEFAULT_STORE = "~/.cache/daqu_tf/latencies.sqlite"
_WAIT_SECONDS = 30.0  # For another process that writes.
_TABLE = """
CREATE TABLE IF NOT EXISTS measurements (
    sha256 TEXT NOT NULL, device TEXT NOT NULL, settings TEXT NOT NULL,
    median_us REAL NOT NULL, relative_spread REAL NOT NULL, samples INTEGER NOT NULL, flags TEXT NOT NULL, measured_at TEXT NOT NULL
)
"""
_INDEX = "CREATE INDEX IF NOT EXISTS by_model ON measurements (device, settings, sha256)"


@dataclasses.dataclass(frozen=True)
class Turn:
    """One time that a file was timed: its median in microseconds, and whether a flag makes it doubtful."""

    median_us: float
    is_doubtful: bool


class MeasurementStore:
    """Times of files, a row each time that one was timed. What was added is on disk, whatever kills the process after that.

    Args:
        path: Of the SQLite file; made where there is none.

    Raises:
        DaquError: It cannot be opened, or is something else.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)
        with self._sentences():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self.path, timeout=_WAIT_SECONDS, isolation_level=None)
            with self._transaction():
                self._prepare()

    def _prepare(self) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        (tables,) = self._connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if version not in (0, _VERSION) or (version == 0 and tables):
            raise DaquError(f"{self.path} is no store of measurements of this version: name another file.")
        self._connection.execute(_TABLE)
        self._connection.execute(_INDEX)
        self._connection.execute(f"PRAGMA user_version = {_VERSION}")

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()

    def add(self, latencies: Sequence[Latency], device: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """Writes measurements, all or none of them, a row for each.

        Args:
            latencies: Of one or more processes each, which count as one.
            device: The identity of the device that took them.
            settings: How they were timed.
        """
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        key = _text(device), _text(settings)
        rows = [
            (each.sha256, *key, each.median_us, each.relative_spread, len(each.samples_us), " ".join(each.flags), now)
            for each in latencies
        ]
        with self._sentences(), self._transaction():
            self._connection.executemany("INSERT INTO measurements VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def turns(self, device: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, list[Turn]]:
        """All times of one device and way of timing, by the file's sha256, in the order in which they were taken."""
        found: dict[str, list[Turn]] = {}
        query = "SELECT sha256, median_us, flags FROM measurements WHERE device = ? AND settings = ? ORDER BY rowid"
        with self._sentences():
            for sha256, median_us, flags in self._connection.execute(query, (_text(device), _text(settings))):
                found.setdefault(sha256, []).append(Turn(median_us, bool(flags)))
        return found

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Others wait; all is done or nothing."""
        self._connection.execute("BEGIN IMMEDIATE")
        with self._connection:
            yield

    @contextlib.contextmanager
    def _sentences(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise DaquError(f"The store of measurements {self.path} cannot be used ({error}): name another file.") from error


def _text(values: Mapping[str, Any]) -> str:
    """The same text for equal values."""
    return json.dumps(values, sort_keys=True)
