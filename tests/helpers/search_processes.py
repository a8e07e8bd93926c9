"""A chief and workers as processes of their own, for searches in which some of them are killed."""

import contextlib
import json
import multiprocessing
import os
import pathlib
import signal
import socket
import sys
import time
import traceback
from multiprocessing import forkserver

import keras_tuner
import pytest

from daqu_tf.errors import DaquError
from daqu_tf.oracle.client import ChiefClient
from daqu_tf.oracle.oracle import ParetoOracle
from daqu_tf.search.tuner import DaquTuner

# Forked from a process that has imported all of it, which takes some seconds, and done nothing else. There is one for a process of
# tests, so it has what `forked_tools` need as well.
_CONTEXT = multiprocessing.get_context("forkserver")
LIBRARIES = ["keras_tuner", "daqu_tf.search.tuner", "daqu_tf.oracle.chief", "daqu_tf.oracle.client"]
SEARCHES = [*LIBRARIES, "search_processes", "opening_search"]
TOOLS = ["daqu_tf.pipeline.pipeline", "daqu_tf.pipeline.trained_run", "daqu_tf.devices", "forked_tools"]
_CONTEXT.set_forkserver_preload([*SEARCHES, *TOOLS])

OBJECTIVES = {"accuracy": "max", "latency_us": "min"}


def forked(target, *arguments) -> multiprocessing.Process:
    """A process that has been started. TensorFlow keeps the level of messages that it finds first: theirs are not of any test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
        forkserver.ensure_running()
    process = _CONTEXT.Process(target=target, args=arguments)
    process.start()
    return process


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def hyperparameters() -> keras_tuner.HyperParameters:
    space = keras_tuner.HyperParameters()
    for name, values in {"depth": range(1, 6), "width": range(1, 9), "kernel": (3, 5, 7)}.items():
        space.Choice(name, list(values))
    return space


def measure(values) -> dict[str, float]:
    depth, width = values["depth"], values["width"]
    return {"accuracy": 1 - 1 / (depth * width), "latency_us": 10.0 * depth + width**2 + values["kernel"]}


def make_oracle(max_trials: int, **kwargs) -> ParetoOracle:
    """Random proposals alone: they depend on no result, and so not on the order in which trials end."""
    objectives = [keras_tuner.Objective(name, direction) for name, direction in OBJECTIVES.items()]
    return ParetoOracle(objectives, max_trials, hyperparameters(), **{"seed": 3, "initial_random": max_trials, **kwargs})


def search_alone(folder: pathlib.Path, max_trials: int) -> DaquTuner:
    tuner = DaquTuner(make_oracle(max_trials), measure, folder)
    tuner.search()
    return tuner


class Evaluation:
    """Takes its time; writes down what was evaluated by whom.

    Args:
        folder: Of the search.
        seconds: Of one evaluation.
        stuck: Ids of workers that never come to an end.
        broken: Raised by a worker, by its id.
    """

    def __init__(self, folder, seconds=0.05, stuck=(), broken=None, silent=()):
        self.path, self.seconds = pathlib.Path(folder) / "evaluated.txt", seconds
        self.stuck, self.broken, self.silent = stuck, broken or {}, silent

    def __call__(self, values):
        worker = os.environ["KERASTUNER_TUNER_ID"]
        with self.path.open("a") as file:
            file.write(json.dumps([worker, values]) + "\n")
        if worker in self.stuck:
            time.sleep(1000)
        if worker in self.broken:
            raise self.broken[worker]
        time.sleep(self.seconds)
        return {"accuracy": 1.0} if worker in self.silent else measure(values)


def _main(tuner_id, port, folder, evaluation, patience, oracle_arguments, oracle, tuner):
    os.environ.update(KERASTUNER_TUNER_ID=tuner_id, KERASTUNER_ORACLE_IP="127.0.0.1", KERASTUNER_ORACLE_PORT=str(port))
    with (folder / f"{tuner_id}.log").open("a", buffering=1) as log:
        sys.stdout = sys.stderr = log
        try:
            tuner(oracle(**oracle_arguments), evaluation, folder, patience_seconds=patience).search()
        except DaquError as error:
            print(f"Error: {error}")
            sys.exit(1)
        except Exception:
            traceback.print_exc()
            sys.exit(2)


class Search:
    """Starts and kills the processes of one search; none outlives the `with` block.

    Args:
        folder: Of the search.
        max_trials: Of the oracle.
        evaluation: What a trial is.
        patience: Seconds that chief and workers wait for each other.
        lease: Seconds.
        oracle: Makes the oracle.
        tuner: Makes the tuner.
    """

    def __init__(
        self, folder, max_trials, evaluation, patience=30.0, lease=2.0, oracle=make_oracle, tuner=DaquTuner, **oracle_arguments
    ):
        self.folder, self.port = pathlib.Path(folder), free_port()
        self._arguments = {"max_trials": max_trials, "lease_seconds": lease, **oracle_arguments}
        self._rest = (evaluation, patience, self._arguments, oracle, tuner)
        self.processes: dict[str, multiprocessing.Process] = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for tuner_id in self.processes:
            self.kill(tuner_id)

    def start(self, *tuner_ids):
        for tuner_id in tuner_ids:
            self.processes[tuner_id] = forked(_main, tuner_id, self.port, self.folder, *self._rest)

    def kill(self, tuner_id):
        """Whether it was alive."""
        process = self.processes[tuner_id]
        was_alive = process.is_alive()
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        return was_alive

    def wait(self, tuner_id, seconds=90.0):
        """The exit code; fails where it does not end."""
        process = self.processes[tuner_id]
        process.join(seconds)
        assert process.exitcode is not None, f"{tuner_id} hangs: {self.log(tuner_id)}"
        return process.exitcode

    def log(self, tuner_id):
        path = self.folder / f"{tuner_id}.log"
        return path.read_text() if path.exists() else ""

    def records(self):
        path = self.folder / "search" / "trials.jsonl"
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        return [json.loads(line) for line in lines[1:]]

    def ended(self):
        return [record["trial_id"] for record in self.records() if record["status"] == "COMPLETED"]

    def evaluated(self):
        """Pairs of worker and values."""
        path = self.folder / "evaluated.txt"
        return [tuple(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "It did not happen in time."
        time.sleep(0.02)


def client_of(chief, oracle, monkeypatch):
    """The client of a worker in this process."""
    ip, port = chief.address.split(":")
    for name, value in {"TUNER_ID": "worker0", "ORACLE_IP": ip, "ORACLE_PORT": port}.items():
        monkeypatch.setenv(f"KERASTUNER_{name}", value)
    return ChiefClient(oracle, 10.0)
