"""An append-only file of JSON lines that survives a kill at any moment.

The first line says what the file belongs to, and every other line is one record. A last line without a line feed was cut off by a
kill; it is ignored, and overwritten by the next record.

The process that writes holds a lock of the file, which vanishes with the process. Where there are no locks (Windows, some network
file systems), a second writer is not refused but noticed: the next record of the first one raises an error.
"""

import contextlib
import json
import math
import os
import pathlib
import time
import weakref
from collections.abc import Mapping
from typing import Any, BinaryIO

from daqu_tf import files, machine
from daqu_tf.errors import DaquError, WriteError
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


def another_search(path: str | os.PathLike, where: str) -> DaquError:
    """The error of a journal that is gone on with by a search that is not its own.

    Args:
        path: The path of the journal.
        where: A text that says where the searches differ.
    """
    return DaquError(f"{path} is of another search: {where}; start in a new directory.")


class _Hold:
    """That this process alone may write to a file, as long as this lives; without a file where the system has no locks."""

    def __init__(self, file: BinaryIO | None):
        self._file, self._process = file, os.getpid()

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def is_mine(self) -> bool:
        """Whether it was not inherited by a fork."""
        return self._process == os.getpid()


_holds: "weakref.WeakValueDictionary[tuple[int, int], _Hold]" = weakref.WeakValueDictionary()  # By device and inode.


def hold(path: pathlib.Path) -> _Hold:
    """Keeps other processes from writing to a journal; all journals of this process on that file share one.

    Args:
        path: The path of the file, which exists.

    Raises:
        DaquError: Another process writes to it, or this one may not.
    """
    try:
        file = open(path, "r+b", buffering=0)  # noqa: SIM115 - Closed by whoever holds it.
    except OSError as error:
        raise WriteError.of(path, error) from error
    status = os.fstat(file.fileno())
    key = (status.st_dev, status.st_ino)
    found = _holds.get(key)
    if found is not None and found.is_mine:
        file.close()
        return found
    try:
        machine.lock(file, wait=False)
        made = _Hold(file)
    except BlockingIOError as error:
        file.close()
        raise DaquError(
            f"Another process is searching in {path.parent}: wait for it or end it, or choose another folder for this search."
        ) from error
    except (DaquError, OSError):  # There are no locks here.
        file.close()
        made = _Hold(None)
    _holds[key] = made
    return made


def check_free(path: pathlib.Path) -> None:
    """Refuses to go on where another process writes to a journal; all is well where there is none.

    Args:
        path: The path of the file.

    Raises:
        DaquError: Another process writes to it.
    """
    if path.is_file():
        hold(path)


class Journal:
    """Records in a file, in the order in which they were appended.

    The file is created if there is none. One process may write at a time: `claim`, or else the first record, locks the file. Any
    process may read.

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
        self._hold: _Hold | None = None
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
            raise another_search(self.path, difference(found["identity"], header["identity"], json.dumps))

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

    @property
    def is_held(self) -> bool:
        """Whether this process keeps others from writing."""
        return self._hold is not None and self._hold.is_mine

    def claim(self) -> list[dict[str, Any]]:
        """Keeps others from writing until `release`, or until this process is gone.

        Returns:
            What another process has added since this journal was opened.

        Raises:
            DaquError: Another process writes to the file, or what was added is damaged.
        """
        if self.is_held or not self.path.exists():
            return []
        taken = hold(self.path)
        data = self.path.read_bytes()
        added = data[self._end : data.rfind(b"\n") + 1]
        before = data[: self._end].count(b"\n")
        found = [self._parsed(line, number) for number, line in enumerate(added.splitlines(), before + 1)]
        self._hold, self._end, self._size = taken, self._end + len(added), len(data)
        return found

    def release(self) -> None:
        """Others may write from now on."""
        self._hold = None

    def append(self, record: Mapping[str, Any], durable: bool = True) -> None:
        """Writes one record, which a kill of this process cannot undo.

        A crash of the machine can undo it until it is on disk. Waiting for that takes milliseconds, so it is done at most once a
        second. If writing fails, the file is as if it had not been tried, and another record can be appended.

        Args:
            record: The record, a JSON object with finite numbers.
            durable: Whether to wait until all records are on disk, unless that was done within the last second.

        Raises:
            WriteError: There is no room for the record, or the file cannot be written to for another reason of the system.
            DaquError: Another process writes to the file, or has changed or removed it since this one opened it.
        """
        line = _line(record)
        if not self.path.exists() or self.path.stat().st_size != self._size:
            raise DaquError(f"{self.path} was changed by another process: end that process, then start this one again.")
        if not self.is_held:
            self._hold = hold(self.path)
        try:
            with open(self.path, "r+b", buffering=0) as file:
                self._write(file, line, durable)
        except OSError as error:
            raise WriteError.of(self.path, error) from error
        self._end = self._size

    def _write(self, file: Any, line: bytes, durable: bool) -> None:
        """The line in the place of what a kill has left; whatever goes wrong, the size is known that this process has made."""
        try:
            file.truncate(self._end)
            file.seek(self._end)
            left = memoryview(line)
            while left:
                left = left[file.write(left) :]
            if durable and time.monotonic() - self._synced > SYNC_SECONDS:
                os.fsync(file.fileno())
                self._synced = time.monotonic()
        except BaseException:
            with contextlib.suppress(OSError):
                file.truncate(self._end)
            self._size = os.fstat(file.fileno()).st_size
            raise
        self._size = self._end + len(line)
