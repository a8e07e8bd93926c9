"""What some operating systems lack: the cpus that a process may use, locks of files, and with them whether one can train here."""

import importlib.util
import os
import sys
from typing import IO, Any

from daqu_tf.errors import DaquError


def cpus() -> list[int]:
    """The numbers of the cpus that this process may use, ascending; empty where the system does not tell (macOS, Windows)."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def cores() -> int:
    """How many cpus this process may use, at least one; all there are where the system does not tell."""
    return len(cpus()) or os.cpu_count() or 1


def check_training() -> None:
    """Refuses to train and to search where that cannot be done, before anything else is done.

    Raises:
        DaquError: This is Windows, where processes that work together cannot lock files as they need to.
    """
    if sys.platform == "win32" or importlib.util.find_spec("fcntl") is None:
        raise DaquError(
            f"Training and searching need Linux or macOS, but this is {sys.platform}: on Windows, install daqu_tf in WSL2 "
            "(`wsl --install`) and run the same command there."
        )


def lock(file: IO[Any], shared: bool = False, wait: bool = True) -> None:
    """Locks an open file until it is closed, or until this process is gone, however it went.

    Args:
        file: Which other processes lock as well; its content does not matter.
        shared: Whether others may hold a shared lock meanwhile.
        wait: Whether to wait for those that hold it.

    Raises:
        DaquError: This system has no such locks; see `check_training`.
        OSError: The file cannot be locked; it is a `BlockingIOError` where another process holds it and `wait` is false.
    """
    check_training()
    import fcntl  # Which Windows lacks.

    fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
