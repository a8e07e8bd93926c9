"""Workers of a search, each a process that scores subnets of a trained supernet for a chief.

`daqu-search --workers=N` starts N of them as `python -m daqu_tf.pipeline.search_workers FOLDER PARENT`; where KerasTuner's
environment variables name a chief, `daqu-search` itself is one of them (`work`).
"""

import os
import pathlib
import sys
from collections.abc import Callable

from daqu_tf import files
from daqu_tf.devices import Device
from daqu_tf.errors import DaquError
from daqu_tf.fields import difference
from daqu_tf.latency.table import LatencyTable
from daqu_tf.oracle.chief import Chief
from daqu_tf.pipeline import processes
from daqu_tf.pipeline.job import Job, connect_device
from daqu_tf.pipeline.plan import Plan
from daqu_tf.pipeline.progress import Progress
from daqu_tf.runs.folder import RunFolder
from daqu_tf.search.timing_turns import TimingTurns
from daqu_tf.search.tuner import DaquTuner

RESTARTS = 3  # Of one worker that had no trial: what kills it more often is no accident.


class SearchWorkers(processes.Processes):
    """The workers of a search on this machine; none outlives the `with` block.

    Args:
        folder: The folder of the run.
        address: Where the chief listens, as `host:port`.
        count: How many workers there are.
    """

    def __init__(self, folder: pathlib.Path, address: str, count: int):
        super().__init__()
        self._folder = RunFolder(folder.resolve())
        self._ip, _, self._port = address.rpartition(":")
        self._deaths = dict.fromkeys((f"worker{number}" for number in range(count)), 0)
        for name in self._deaths:
            self._start(name)

    def _log(self, name: str) -> pathlib.Path:
        return self._folder.search / f"{name}.log"

    def _start(self, name: str) -> None:
        variables = {"TUNER_ID": name, "ORACLE_IP": self._ip, "ORACLE_PORT": self._port}
        variables = {f"KERASTUNER_{key}": value for key, value in variables.items()}
        path = self._folder.path
        self.running[name] = processes.start("pipeline.search_workers", [str(path)], path, self._log(name), **variables)

    def check(self, lose: Callable[[str, str], bool] = lambda name, how: False) -> None:
        """Starts again what has died.

        Args:
            lose: Told which worker has died, and how; whether it had a trial, which is held responsible then.

        Raises:
            DaquError: A worker dies again and again, without a trial.
        """
        for name, process in list(self.running.items()):
            if not process.poll():  # Alive, or at the end of the search.
                continue
            how = process.how_ended()
            if not lose(name, how):
                self._deaths[name] += 1
            if self._deaths[name] > RESTARTS:
                raise DaquError(
                    f"{name} died {self._deaths[name]} times, the last time it {how}: read {self._log(name)}, then run the same "
                    "command to go on."
                )
            self._start(name)


def search(tuner: DaquTuner, folder: pathlib.Path, count: int, turns: TimingTurns) -> None:
    """Searches with workers on this machine.

    Args:
        tuner: The tuner whose oracle the workers ask; it evaluates nothing itself.
        folder: The folder of the run.
        count: How many workers there are.
        turns: Who may compute and who may time; proposals make use of the processor too.
    """
    tuner.oracle.while_proposing = turns.computing
    try:
        with Chief(tuner.oracle, "127.0.0.1:0") as chief, SearchWorkers(folder, chief.address, count) as workers:

            def on_tick() -> None:
                workers.check(tuner.oracle.lose)
                tuner.on_tick()

            chief.wait(tuner.patience_seconds, on_tick)
        tuner.on_tick()
    finally:
        tuner.oracle.retire()


def work(path: pathlib.Path) -> pathlib.Path:
    """Scores subnets for the chief that the environment names, until there are no more.

    Args:
        path: The folder of the run, which the chief sees as well; it has trained the supernet.

    Returns:
        The path of the journal, which the chief writes.

    Raises:
        DaquError: There is no trained supernet, no chief, or another device than the chief's.
    """
    from daqu_tf.search.search import make_tuner

    folder = RunFolder(path)
    config = folder.run_config()
    if not folder.supernet.exists():
        raise DaquError(f"{path} holds no trained supernet yet: start the worker when the chief has trained it.")
    processes.compute_on_one_thread()
    plan = Plan.in_folder(path)
    latency = _latency_for(plan)
    candidates = Job(plan, None, None, Progress()).candidates(latency, os.environ["KERASTUNER_TUNER_ID"])
    make_tuner(candidates, config.max_trials, config.seed).search()
    return folder.journal


def _latency_for(plan: Plan) -> Device | LatencyTable:
    """What a worker takes latencies from: the run's table if there is one, else a device like the chief's.

    Raises:
        DaquError: The device is another, or the chief has not begun to search.
    """
    if plan.folder.table.exists():
        return LatencyTable.load(plan.folder.table)
    device = connect_device(plan.config, Progress())
    known = files.read_json(plan.folder.device, remedy="start the worker when the chief searches")
    if differing := difference(known, device.identity()):
        raise DaquError(
            f"What times files here differs from the chief's ({differing}), and so would its latencies: search on machines that "
            "are alike, or with --latency=table."
        )
    return device


def main(arguments: list[str]) -> None:
    """A process that `SearchWorkers` has started."""
    processes.die_with(int(arguments[1]))
    processes.in_sentences(lambda: work(pathlib.Path(arguments[0])))


if __name__ == "__main__":
    main(sys.argv[1:])
