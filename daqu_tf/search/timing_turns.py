"""Lets processes of one machine compute side by side, and one alone while it times: the others would make its file look slower."""

import contextlib
import fcntl
import pathlib
import socket
from collections.abc import Iterator


class TimingTurns:
    """A lock in a file, shared by those that compute; whoever is killed gives it back.

    Nobody waits for ever: who wants to time does not compute meanwhile, so that in the end all want to.

    Args:
        folder: Of the search, which several machines may share: each has a file of its own.
        is_elsewhere: Whether what times is another machine, whom computing here does not disturb.
    """

    def __init__(self, folder: pathlib.Path, is_elsewhere: bool):
        self._path = folder / (".timing" if is_elsewhere else f".timing-{socket.gethostname()}")
        self._is_elsewhere = is_elsewhere

    def computing(self) -> contextlib.AbstractContextManager:
        """A block that makes use of the processor."""
        return contextlib.nullcontext() if self._is_elsewhere else self._held(fcntl.LOCK_SH)

    def timing(self) -> contextlib.AbstractContextManager:
        """A block that times."""
        return self._held(fcntl.LOCK_EX)

    @contextlib.contextmanager
    def _held(self, how: int) -> Iterator[None]:
        with self._path.open("a") as file:
            fcntl.flock(file, how)
            yield
