"""Processes of this package's modules, of one thread each, which do not outlive whoever started them."""

import os
import pathlib
import subprocess
import sys
import threading
import time
from typing import TypeVar

import daqu_tf

_Same = TypeVar("_Same", bound="Processes")


class Processes:
    """Child processes by name; none outlives the `with` block.

    Attributes:
        running: The processes that have been started and not been taken away, by name.
    """

    def __init__(self) -> None:
        self.running: dict[str, subprocess.Popen] = {}

    def __enter__(self: _Same) -> _Same:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()


def start(module: str, arguments: list[str], folder: pathlib.Path, log: pathlib.Path, **variables: str) -> subprocess.Popen:
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
    with log.open("ab") as output:
        # Not where the user stands: a checkout there would be imported instead of what is installed.
        return subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | shared | variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def die_with(parent: int) -> None:
    """Ends this process when the one that started it is gone, however it went."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
