"""`daqu-search` with workers on this machine, and as chief and worker of several machines."""

import collections
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest
from keras_tuner.engine.trial import Trial
from search_processes import free_port, until

from daqu_tf.errors import DaquError
from daqu_tf.pipeline import processes, search_workers

FLAGS = ["--dataset=digits", "--space=digits", "--budget_minutes=2", "--epochs=1", "--max_trials=20", "--finalists=1"]
FLAGS += ["--finetune_epochs=2"]


def start(tool, folder, *flags, **variables):
    command = [sys.executable, "-m", f"daqu_tf.tools.{tool}", *FLAGS, f"--output_dir={folder}", *flags]
    variables = {f"KERASTUNER_{key}": value for key, value in variables.items()}
    return subprocess.Popen(command, env=os.environ | variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process):
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    return output


def records(folder):
    path = folder / "search" / "trials.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines[1:]]


def statuses(folder):
    """How often each trial had each status."""
    return collections.Counter((record["trial_id"], record["status"]) for record in records(folder))


def worker_processes(folder):
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            arguments = path.read_bytes().decode().split("\0")
            if "daqu_tf.pipeline.search_workers" in arguments and str(folder) in arguments:
                found.append(int(path.parent.name))
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    finish(start("train", folder))
    return folder


def of_its_own(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.slow
@pytest.mark.xdist_group("one at a time")
def test_workers_of_this_machine_one_of_which_is_killed(trained, tmp_path):
    folder = of_its_own(trained, tmp_path)
    process = start("search", folder, "--workers=2", "--export_keras_tuner")
    until(lambda: any(record["status"] == "COMPLETED" for record in records(folder)) or process.poll() is not None, 300)
    workers = worker_processes(folder)
    assert len(workers) == 2, process.communicate()[0]
    os.kill(workers[0], signal.SIGKILL)
    output = finish(process)
    until(lambda: not worker_processes(folder), 30)

    seen = statuses(folder)
    ended = {trial_id for trial_id, status in seen if status == "COMPLETED"}
    assert len(ended) >= 12 and all(seen[trial_id, "COMPLETED"] == 1 for trial_id in ended)
    assert {record["tuner_id"] for record in records(folder) if record["status"] == "RUNNING"} == {"worker0", "worker1"}
    assert (folder / "finalists.json").exists()
    assert f"KerasTuner: {len({trial_id for trial_id, _ in seen})} trials in" in output
    # That of the killed worker may be one that did not run again in time.
    first = Trial.load(str(folder / "search" / "keras_tuner" / f"trial_{min(ended)}" / "trial.json"))
    assert first.status == "COMPLETED" and first.metrics.get_last_value("latency_us") > 0

    finish(start("run", folder, "--workers=2"))
    members = {member["name"]: member for member in json.loads((folder / "pareto.json").read_text())["members"]}
    # Which network is found is a matter of time: some have a sibling of 4 bits, and some do not.
    assert set(members) == set(json.loads((folder / "finalists.json").read_text())) >= {"m00"}
    member = members["m00"]
    assert member["fine_tuning"]["steps"] == round(2 * 1188 / 64)
    assert set(member["accuracy"]["inherited"]) == {"search", "test"}


@pytest.mark.slow
@pytest.mark.xdist_group("one at a time")
@pytest.mark.parametrize("is_shared", [True, False], ids=["a shared folder", "a copy"])
def test_a_chief_and_a_worker_of_several_machines(trained, tmp_path, is_shared):
    folder = of_its_own(trained, tmp_path)
    address = {"ORACLE_IP": "127.0.0.1", "ORACLE_PORT": str(free_port())}
    chief = start("search", folder, TUNER_ID="chief", **address)
    until(lambda: (folder / "search" / "trials.jsonl").exists() or chief.poll() is not None, 200)
    there = folder if is_shared else tmp_path / "there"
    if not is_shared:
        there.mkdir()
        for name in ("config.json", "supernet.npz", "device.json"):
            shutil.copy(folder / name, there)
    worker = start("search", there, TUNER_ID="far away", **address)
    assert "finalists" in finish(chief) and "over for this worker" in finish(worker)
    seen = statuses(folder)
    assert sum(status == "COMPLETED" for _, status in seen) >= 12 and set(seen.values()) == {1}
    assert {record["tuner_id"] for record in records(folder) if record["status"] == "RUNNING"} == {"far away"}


@pytest.mark.slow
@pytest.mark.xdist_group("one at a time")
def test_a_worker_whose_device_is_another_is_refused(trained, tmp_path):
    folder = of_its_own(trained, tmp_path)
    address = {"TUNER_ID": "worker0", "ORACLE_IP": "127.0.0.1", "ORACLE_PORT": str(free_port())}
    worker = start("search", folder, **address)
    assert "start the worker when the chief searches" in worker.communicate(timeout=300)[0] and worker.returncode == 1
    (folder / "device.json").write_text(json.dumps({"kind": "host", "cpu": "another"}))
    worker = start("search", folder, **address)
    assert "differs from the chief's (" in (output := worker.communicate(timeout=300)[0]) and "cpu" in output
    assert worker.returncode == 1


def test_a_worker_without_a_trained_supernet(tmp_path):
    address = {"TUNER_ID": "worker0", "ORACLE_IP": "127.0.0.1", "ORACLE_PORT": "1"}
    worker = start("search", tmp_path / "run", **address)
    assert "holds no run of this version" in worker.communicate(timeout=300)[0] and worker.returncode == 1


@pytest.mark.slow
@pytest.mark.xdist_group("one at a time")
def test_a_worker_that_dies_again_and_again_ends_the_search(tmp_path):
    """In an empty folder none can live."""
    (tmp_path / "search").mkdir()
    began = time.monotonic()
    with (
        search_workers.SearchWorkers(tmp_path, "127.0.0.1:1", 1) as workers,
        pytest.raises(DaquError, match="worker0 died 4 times"),
    ):
        while time.monotonic() - began < 300:
            workers.check()
            time.sleep(0.1)
    assert "holds no run of this version" in (tmp_path / "search" / "worker0.log").read_text()


def test_a_worker_that_dies_of_its_trials_is_started_again(tmp_path, monkeypatch):
    """Of its trials the oracle keeps count; what it dies of without one is its own fault, and said."""

    def start(self, name):
        self.running[name] = processes.Child(
            [sys.executable, "-c", "raise OSError(28, 'No space left on device')"], self._log(name)
        )

    monkeypatch.setattr(search_workers.SearchWorkers, "_start", start)
    (tmp_path / "search").mkdir()
    said, began = [], time.monotonic()

    def lose(name, how):
        said.append(how)
        return len(said) <= 6

    with (
        search_workers.SearchWorkers(tmp_path, "127.0.0.1:1", 1) as workers,
        pytest.raises(DaquError, match=r"worker0 died 4 times, the last time it ended with status 1: OSError: .* No space left"),
    ):
        while time.monotonic() - began < 60:
            workers.check(lose)
    assert len(said) == 10 and set(said) == {"ended with status 1: OSError: [Errno 28] No space left on device"}
