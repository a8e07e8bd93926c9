"""The processes that finish members of the front, and what becomes of them."""

import pathlib
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence

from daqu_tf.errors import DaquError
from daqu_tf.pipeline.processes import start


class FinalistProcesses:
    """Processes that finish members of the front, a few at a time; none outlives the `with` block.

    Args:
        folder: The run.
        workers: How many at once.
    """

    def __init__(self, folder: pathlib.Path, workers: int):
        self._folder, self._workers = folder.resolve(), workers
        self._running: dict[str, subprocess.Popen] = {}
        for name in ("models", "finalists"):
            (folder / name).mkdir(exist_ok=True)

    def __enter__(self) -> "FinalistProcesses":
        return self

    def __exit__(self, *_) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()

    def run(self, names: Sequence[str], seconds: Callable[[str], float]) -> Iterator[int]:
        """Finishes all of `names`; yields how many are done, about once a second.

        Args:
            names: In the order in which they are started.
            seconds: Asked for each one's seconds of fine-tuning when it starts.

        Raises:
            DaquError: One failed; what it printed is in `finalists/NAME.log`.
        """
        waiting = list(names)
        while waiting or self._running:
            while waiting and len(self._running) < self._workers:
                name = waiting.pop(0)
                self._running[name] = self._start(name, seconds(name))
            time.sleep(0.5)
            for name, process in list(self._running.items()):
                if process.poll() is not None:
                    del self._running[name]
                    self._check(name, process.returncode)
            yield len(names) - len(waiting) - len(self._running)

    def _start(self, name: str, seconds: float) -> subprocess.Popen:
        log = self._folder / "finalists" / f"{name}.log"
        log.unlink(missing_ok=True)
        return start("pipeline.finalist", [str(self._folder), name, f"{seconds:.1f}"], self._folder, log)

    def _check(self, name: str, status: int) -> None:
        if status:
            log = self._folder / "finalists" / f"{name}.log"
            raise DaquError(f"Finalist {name} ended with status {status}: read {log}, then run the same command to go on.")
