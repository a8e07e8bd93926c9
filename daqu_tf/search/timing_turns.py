"""Lets processes of one machine compute side by side, and one alone while it times: the others would make its file look slower."""

import contextlib
import pathlib
import socket
from collections.abc import Iterator

from daqu_tf import machine


class TimingTurns:
    """A lock in a file, shared by those that compute; whoever is killed gives it back.

    Nobody waits for ever: who wants to time does not compute meanwhile, so that in the end all want to.

    Args:
        folder: Of the search, which several machines may share: each has a file of its own.
        is_elsewhere: Whether what times is another machine, whom computing here does not disturb.

    Raises:
        DaquError: This system cannot search; see `machine.check_training`.
    """

    def __init__(self, folder: pathlib.Path, is_elsewhere: bool):
        machine.check_training()
        self._path = folder / (".timing" if is_elsewhere else f".timing-{socket.gethostname()}")
        self._is_elsewhere = is_elsewhere

    def computing(self) -> contextlib.AbstractContextManager:
        """A block that makes use of the processor."""
        return contextlib.nullcontext() if self._is_elsewhere else self._held(shared=True)

    def timing(self) -> contextlib.AbstractContextManager:
        """A block that times."""
        return self._held(shared=False)

    @contextlib.contextmanager
    def _held(self, shared: bool) -> Iterator[None]:
        with self._path.open("a") as file:
            machine.lock(file, shared)
            yield
