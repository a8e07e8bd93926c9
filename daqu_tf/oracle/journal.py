"""An append-only file of JSON lines that survives a kill at any moment.

The first line says what the file belongs to, and every other line is one record. A last line without a line feed was cut off by a
kill; it is ignored, and overwritten by the next record.
"""

import json
import math
import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any

from daqu_tf import files
from daqu_tf.errors import DaquError
from daqu_tf.fields import difference

SYNC_SECONDS = 1.0
FORMAT = 2  # Format 1 had no line for a trial that starts.


def _line(value: Any) -> bytes:
    return (json.dumps(value, separators=(",", ":"), allow_nan=False) + "\n").encode()


def header(path: str | os.PathLike) -> dict[str, Any]:
    """The first line of a journal, with `format`, `identity` and `notes`; empty if there is none. The journal may be in use."""
    if not os.path.exists(path):
        return {}
    with open(path, "rb") as file:
        try:
            found = json.loads(file.readline())
        except ValueError:
            return {}
    return found if isinstance(found, dict) else {}


class Journal:
    """Records in a file, in the order in which they were appended.

    The file is created if there is none. One process may write at a time.

    Args:
        path: The path of the file, in a directory that exists.
        identity: A JSON object that says what the records belong to. A file with another identity is refused.
        notes: A JSON object that is written into the first line when the file is created; None writes null.

    Raises:
        DaquError: The file is no journal, is damaged, or has another format or identity.
    """

    def __init__(self, path: str | os.PathLike, identity: Mapping[str, Any], notes: Mapping[str, Any] | None = None):
        self.path = pathlib.Path(path)
        header = json.loads(_line({"format": FORMAT, "identity": identity, "notes": notes}))
        if not self.path.exists() or not self.path.stat().st_size:
            files.write_bytes(self.path, _line(header))
        self._synced = -math.inf
        data = self.path.read_bytes()
        self._size = len(data)
        self._end = data.rfind(b"\n") + 1
        self._check(self._parsed(data[: data.find(b"\n") + 1], 1), header)

    def _check(self, found: Any, header: dict[str, Any]) -> None:
        if not isinstance(found, dict) or "format" not in found or "identity" not in found:
            raise DaquError(f"{self.path} is not a journal: name another directory.")
        if found["format"] != FORMAT:
            raise DaquError(f"{self.path} has format {found['format']}, but this version reads {FORMAT}: start in a new directory.")
        if found["identity"] != header["identity"]:
            where = difference(found["identity"], header["identity"], json.dumps)
            raise DaquError(f"{self.path} is of another search: {where}; start in a new directory.")

    def _parsed(self, line: bytes, number: int) -> Any:
        try:
            return json.loads(line)
        except ValueError:
            raise DaquError(f"{self.path} is damaged in line {number}: restore that line, or start in a new directory.") from None

    def read(self) -> list[dict[str, Any]]:
        """All whole records, in order.

        Raises:
            DaquError: A whole line is no JSON (its number is named).
        """
        with open(self.path, "rb") as file:
            lines = file.read(self._end).splitlines()
        return [self._parsed(line, number) for number, line in enumerate(lines[1:], 2)]

    def append(self, record: Mapping[str, Any], durable: bool = True) -> None:
        """Writes one record, which a kill of this process cannot undo.

        A crash of the machine can undo it until it is on disk. Waiting for that takes milliseconds, so it is done at most once a
        second.

        Args:
            record: The record, a JSON object with finite numbers.
            durable: Whether to wait until all records are on disk, unless that was done within the last second.

        Raises:
            DaquError: Another process has changed or removed the file since this one opened it.
        """
        line = _line(record)
        if not self.path.exists() or self.path.stat().st_size != self._size:
            raise DaquError(f"{self.path} was changed by another process: end that process, then start this one again.")
        with open(self.path, "r+b") as file:
            file.truncate(self._end)
            file.seek(self._end)
            file.write(line)
            file.flush()
            if durable and time.monotonic() - self._synced > SYNC_SECONDS:
                os.fsync(file.fileno())
                self._synced = time.monotonic()
        self._end = self._size = self._end + len(line)
