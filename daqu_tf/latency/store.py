"""The store of measured latencies, one SQLite file, by the hash of a file, the identity of a device, and the way of timing."""

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

# The version changes with the columns; a store of another version is refused rather than misread.
_VERSION = 2
DEFAULT_STORE = "~/.cache/daqu_tf/latencies.sqlite"
_WAIT_SECONDS = 30.0  # The longest wait for another process that writes.
_TABLE = """
CREATE TABLE IF NOT EXISTS measurements (
    sha256 TEXT NOT NULL, device TEXT NOT NULL, settings TEXT NOT NULL,
    median_us REAL NOT NULL, relative_spread REAL NOT NULL, samples INTEGER NOT NULL, flags TEXT NOT NULL, measured_at TEXT NOT NULL
)
"""
_INDEX = "CREATE INDEX IF NOT EXISTS by_model ON measurements (device, settings, sha256)"


@dataclasses.dataclass(frozen=True)
class Turn:
    """One measurement of a file.

    Attributes:
        median_us: The median latency in microseconds.
        is_doubtful: Whether the measurement has a flag.
    """

    median_us: float
    is_doubtful: bool


class MeasurementStore:
    """A store of measurements, with one row each time that a file was timed; a kill of the process loses nothing that was added.

    Args:
        path: The path of the SQLite file, which is created if there is none.

    Raises:
        DaquError: The file cannot be opened, or is no such store.
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
        """Closes the file."""
        self._connection.close()

    def add(self, latencies: Sequence[Latency], device: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """Adds measurements, all or none of them, with one row for each.

        Args:
            latencies: The latencies, each of which counts as one measurement.
            device: The identity of the device.
            settings: The settings of the timing.
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
        """All measurements of one device and one setting, by the sha256 of the file, in the order in which they were taken."""
        found: dict[str, list[Turn]] = {}
        query = "SELECT sha256, median_us, flags FROM measurements WHERE device = ? AND settings = ? ORDER BY rowid"
        with self._sentences():
            for sha256, median_us, flags in self._connection.execute(query, (_text(device), _text(settings))):
                found.setdefault(sha256, []).append(Turn(median_us, bool(flags)))
        return found

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """A transaction, during which other processes wait, and which is done whole or not at all."""
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
    """A text that is the same for equal values."""
    return json.dumps(values, sort_keys=True)
