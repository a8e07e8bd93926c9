"""Workers of a search, each a process that scores subnets of a trained supernet for a chief.

`daqu-search --workers=N` starts N of them as `python -m daqu_tf.pipeline.search_workers FOLDER PARENT`; where KerasTuner's
environment variables name a chief, `daqu-search` itself is one of them (`work`).
"""

import dataclasses
import os
import pathlib
import sys

from daqu_tf import data, targets
from daqu_tf.devices import Device
from daqu_tf.errors import DaquError
from daqu_tf.files import read_arrays, read_json
from daqu_tf.latency.table import LatencyTable, difference
from daqu_tf.oracle.chief import Chief
from daqu_tf.pipeline import processes
from daqu_tf.pipeline.plan import DEVICE, SEARCH_IMAGES, TABLE, connect_device, space_for
from daqu_tf.pipeline.progress import Progress
from daqu_tf.runs.config import RunConfig
from daqu_tf.runs.folder import config_of
from daqu_tf.search.timing_turns import TimingTurns
from daqu_tf.search.tuner import DaquTuner

RESTARTS = 3  # Of one worker: what kills it more often is no accident.


class SearchWorkers:
    """The processes on this machine; none outlives the `with` block.

    Args:
        folder: The run.
        address: Of the chief.
        count: How many.
    """

    def __init__(self, folder: pathlib.Path, address: str, count: int):
        self._folder = folder.resolve()
        self._ip, _, self._port = address.rpartition(":")
        self._starts = dict.fromkeys((f"worker{number}" for number in range(count)), 0)
        self._running = {name: self._start(name) for name in self._starts}

    def __enter__(self) -> "SearchWorkers":
        return self

    def __exit__(self, *_) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()

    def _log(self, name: str) -> pathlib.Path:
        return self._folder / "search" / f"{name}.log"

    def _start(self, name: str):
        self._starts[name] += 1
        variables = {"TUNER_ID": name, "ORACLE_IP": self._ip, "ORACLE_PORT": self._port}
        variables = {f"KERASTUNER_{key}": value for key, value in variables.items()}
        return processes.start("pipeline.search_workers", [str(self._folder)], self._folder, self._log(name), **variables)

    def check(self) -> None:
        """Starts again what has died.

        Raises:
            DaquError: It dies again and again.
        """
        for name, process in self._running.items():
            if not process.poll():  # Alive, or at the end of the search.
                continue
            if self._starts[name] > RESTARTS:
                raise DaquError(
                    f"{name} died {self._starts[name]} times: read {self._log(name)}, then run the same command to go on."
                )
            self._running[name] = self._start(name)


def search(tuner: DaquTuner, folder: pathlib.Path, count: int, turns: TimingTurns) -> None:
    """Searches with workers on this machine.

    Args:
        tuner: Has the oracle; evaluates nothing itself.
        folder: The run.
        count: How many workers.
        turns: Of the candidates; proposals make use of the processor too.
    """
    tuner.oracle.while_proposing = turns.computing
    with Chief(tuner.oracle, "127.0.0.1:0") as chief, SearchWorkers(folder, chief.address, count) as workers:

        def on_tick() -> None:
            workers.check()
            tuner.on_tick()

        chief.wait(tuner.patience_seconds, on_tick)
    tuner.on_tick()


def work(folder: pathlib.Path) -> pathlib.Path:
    """Scores subnets for the chief that the environment names, until there are no more.

    Args:
        folder: The run, which the chief sees as well; it has trained the supernet.

    Returns:
        The path of the journal, which the chief writes.

    Raises:
        DaquError: There is no trained supernet, no chief, or another device than the chief's.
    """
    import tensorflow as tf

    from daqu_tf.search.candidates import Candidates
    from daqu_tf.search.search import make_tuner
    from daqu_tf.supernet.scoring import Scorer
    from daqu_tf.supernet.supernet import Supernet

    config = config_of(folder)
    if not (folder / "supernet.npz").exists():
        raise DaquError(f"{folder} holds no trained supernet yet: start the worker when the chief has trained it.")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    dataset = data.load(config.dataset, config.seed)
    space, target = space_for(config, dataset), targets.get(config.target)
    latency = _latency_for(dataclasses.replace(config, output_dir=str(folder)))  # It may be mounted elsewhere here.
    supernet = Supernet(space, None if config.mixed_precision == "none" else config.mixed_precision)
    supernet.load_arrays(read_arrays(folder / "supernet.npz"))
    scorer = Scorer(supernet, dataset.x_train)
    name = os.environ["KERASTUNER_TUNER_ID"]
    files = folder / "search"
    candidates = Candidates(supernet, scorer, dataset, target, files, SEARCH_IMAGES, latency, config.constraints, name)
    make_tuner(candidates, config.max_trials, config.seed, lambda tuner, trial: None, lambda: False).search()
    return folder / "search" / "trials.jsonl"


def _latency_for(config: RunConfig) -> Device | LatencyTable:
    """What a worker takes latencies from: the run's table if there is one, else a device like the chief's.

    Raises:
        DaquError: The device is another, or the chief has not begun to search.
    """
    if (config.folder / TABLE).exists():
        return LatencyTable.load(config.folder / TABLE)
    device = connect_device(config, Progress())
    known = read_json(config.folder / DEVICE, remedy="start the worker when the chief searches")
    if differing := difference(known, device.identity()):
        raise DaquError(
            f"What times files here differs from the chief's ({differing}), and so would its latencies: search on machines that "
            "are alike, or with --latency=table."
        )
    return device


def main(arguments: list[str]) -> None:
    """A process that `SearchWorkers` has started."""
    processes.die_with(int(arguments[1]))
    try:
        work(pathlib.Path(arguments[0]))
    except DaquError as error:
        print(f"Error: {error}")
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
