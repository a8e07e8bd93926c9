"""What machines differ in: the cpus and GPUs that a process may use, and locks of files, without which training is refused."""

import importlib.util
import os
import sys
import weakref
from typing import IO, Any

from daqu_tf.errors import DaquError

_locked: "weakref.WeakSet[IO[Any]]" = weakref.WeakSet()


def cpus() -> list[int]:
    """The numbers of the cpus that this process may use, ascending; empty where the system does not tell (macOS, Windows)."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def cores() -> int:
    """The number of cpus that this process may use, at least one; all cpus where the system does not tell."""
    return len(cpus()) or os.cpu_count() or 1


def gpus() -> list[str]:
    """The GPUs that TensorFlow computes on, each as `CUDA_VISIBLE_DEVICES` names it; empty where there are none."""
    import tensorflow as tf

    count = len(tf.config.list_physical_devices("GPU"))
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named[:count] if len(named) >= count else [str(number) for number in range(count)]


def check_training() -> None:
    """Refuses to train and to search on a system where that is impossible, before anything else is done.

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

    Processes that were forked from this one do not keep it locked: there the file is closed.

    Args:
        file: The open file, which other processes lock too; its content does not matter.
        shared: Whether other processes may hold a shared lock at the same time.
        wait: Whether to wait for processes that hold a lock.

    Raises:
        DaquError: This system has no such locks.
        OSError: The file cannot be locked; it is a `BlockingIOError` where another process holds it and `wait` is false.
    """
    check_training()
    import fcntl  # Windows lacks it.

    fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    _locked.add(file)


def _close_in_child() -> None:
    """A lock is its open file's, which a fork shares: a child that outlives its parent would hold it for ever."""
    for file in list(_locked):
        file.close()
    _locked.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
