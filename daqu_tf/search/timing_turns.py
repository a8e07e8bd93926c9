"""Turns of processes on one machine, which compute side by side, but not while one of them times a file, to keep it exact."""

import contextlib
import pathlib
import socket
from collections.abc import Iterator

from daqu_tf import machine


class TimingTurns:
    """A lock in a file, which processes that compute share, and which a process that is killed gives back.

    No process waits for ever: one that wants to time does not compute meanwhile, so that in the end all want to time.

    Args:
        folder: The folder of the search. Several machines may share it, and each has a file of its own in it.
        is_elsewhere: Whether another machine times the files, so that computing here does not disturb it.

    Raises:
        DaquError: This system cannot search; see `machine.check_training`.
    """

    def __init__(self, folder: pathlib.Path, is_elsewhere: bool):
        machine.check_training()
        self._path = folder / (".timing" if is_elsewhere else f".timing-{socket.gethostname()}")
        self._is_elsewhere = is_elsewhere

    def computing(self) -> contextlib.AbstractContextManager:
        """A context manager for a block that computes."""
        return contextlib.nullcontext() if self._is_elsewhere else self._held(shared=True)

    def timing(self) -> contextlib.AbstractContextManager:
        """A context manager for a block that times."""
        return self._held(shared=False)

    @contextlib.contextmanager
    def _held(self, shared: bool) -> Iterator[None]:
        with self._path.open("a") as file:
            machine.lock(file, shared)
            yield
