"""Processes of this package's modules, of one thread each, which do not outlive whoever started them."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import daqu_tf
from daqu_tf.errors import DaquError

_Same = TypeVar("_Same", bound="Processes")
_Result = TypeVar("_Result")
TAIL_BYTES, LINE_LENGTH = 8192, 500


class Child:
    """A process whose output is added to a file, and whose last words are known where the disk has no room for them.

    Args:
        command: The command.
        log: The file.
        how: Further arguments of `subprocess.Popen`.
    """

    def __init__(self, command: list[str], log: pathlib.Path, **how: Any):
        self._log, self._tail = log, b""
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0, **how
        )
        self._reader = threading.Thread(target=self._copy, daemon=True)
        self._reader.start()

    def _copy(self) -> None:
        assert self._process.stdout
        with self._process.stdout as output:
            while chunk := output.read(65536):
                self._tail = (self._tail + chunk)[-TAIL_BYTES:]
                with contextlib.suppress(OSError), self._log.open("ab") as file:
                    file.write(chunk)

    def poll(self) -> int | None:
        """The status with which it has ended; None as long as it runs."""
        return self._process.poll()

    def kill(self) -> None:
        """Ends it at once, and waits for that."""
        self._process.kill()
        self._process.wait()
        self._reader.join(1.0)

    def how_ended(self) -> str:
        """How a process that has ended did so, as a part of a sentence about it."""
        self._reader.join(5.0)
        status = self._process.returncode
        if status < 0:
            hint = ", as it happens where memory runs out" if -status == signal.SIGKILL else ""
            name = signal.Signals(-status).name if -status in signal.valid_signals() else f"signal {-status}"
            return f"was killed by {name}{hint}"
        return f"ended with status {status}: {self.last_line()}"

    def last_line(self) -> str:
        """The last line that it has printed, mostly the sentence of an error."""
        self._reader.join(5.0)
        lines = [line for line in self._tail.decode(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip().removeprefix("Error: ")[:LINE_LENGTH].rstrip(".") if lines else "it printed nothing"


class Processes:
    """Child processes by name; none outlives the `with` block.

    Attributes:
        running: The processes that have been started and not been taken away, by name.
    """

    def __init__(self) -> None:
        self.running: dict[str, Child] = {}

    def __enter__(self: _Same) -> _Same:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.running.values():
            process.kill()

    def last_lines(self, task: str) -> dict[str, str]:
        """The last line that each has printed, by name, when all have ended.

        Args:
            task: What each of them does, as part of a sentence.

        Raises:
            DaquError: One has failed (how is said).
        """
        while any(child.poll() is None for child in self.running.values()):
            time.sleep(0.1)
        for child in self.running.values():
            if child.poll():
                raise DaquError(f"The process that {task} {child.how_ended()}.")
        return {name: child.last_line() for name, child in self.running.items()}


def start(module: str, arguments: list[str], folder: pathlib.Path, log: pathlib.Path, **variables: str) -> Child:
    """Starts `python -m daqu_tf.MODULE`; what it prints is added to a file.

    Args:
        module: The module. Its last argument will be the id of this process, for `die_with`.
        arguments: The arguments before that.
        folder: The folder in which it runs.
        log: The file that it prints to.
        variables: Variables of its environment, beside those of this process.
    """
    package = pathlib.Path(daqu_tf.__file__).parent.parent
    paths = [str(package), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    shared = {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, paths)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", f"daqu_tf.{module}", *arguments, str(os.getpid())]
    # Not where the user stands: a checkout there would be imported instead of what is installed.
    return Child(command, log, cwd=folder, env=os.environ | shared | variables)


def in_sentences(work: Callable[[], _Result], status: Callable[[DaquError], int] = lambda error: 1) -> _Result:
    """Does the work of such a process, and gives its result: what a user can mend is the last line that it prints.

    Args:
        work: The work, a function that is called once.
        status: The status with which the process ends, by the error.
    """
    try:
        return work()
    except DaquError as error:
        print(f"Error: {error}", flush=True)
        sys.exit(status(error))


def die_with(parent: int) -> None:
    """Ends this process when the one that started it is gone, however it went."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def compute_on_one_thread() -> None:
    """Keeps TensorFlow to one thread in this process, of which several share the machine."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
