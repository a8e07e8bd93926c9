"""What runs on which system. There is Linux alone to test on: the calls that others lack are hidden, in processes of their own."""

import errno
import json
import os
import signal
import subprocess
import sys

import numpy as np
import other_systems
import pytest
from places import ROOT

from daqu_tf import RunConfig, machine, pipeline
from daqu_tf.devices.ssh import SshConnection
from daqu_tf.errors import DaquError
from daqu_tf.runs.folder import RunFolder
from daqu_tf.search.timing_turns import TimingTurns

MODEL = ROOT / "tflite_models" / "digits_w8.tflite"
EVERY_MODULE = """
import importlib, pkgutil, sys, daqu_tf
names = [each.name for each in pkgutil.walk_packages(daqu_tf.__path__, "daqu_tf.") if ".tools" not in each.name]
for name in names:  # Tools have flags of the same names, and are called below.
    importlib.import_module(name)
print(len(names), sys.modules["fcntl"], daqu_tf.machine.cpus())
"""
PREDICT = """
import sys, numpy as np
from daqu_tf.devices import HostDevice
raw, scale, zero_point = HostDevice().outputs(sys.argv[1], np.load(sys.argv[2]))
np.save(sys.argv[3], raw)
"""
REFUSED = "Training and searching need Linux or macOS, but this is win32: on Windows, install daqu_tf in WSL2"


def test_cpus_are_those_of_this_process():
    assert machine.cpus() == sorted(os.sched_getaffinity(0)) and machine.cores() == len(machine.cpus())


def test_cores_where_the_system_does_not_tell(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    assert machine.cpus() == [] and machine.cores() == os.cpu_count()
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert machine.cores() == 1


def _is_free(path, shared: bool) -> bool:
    """As another process finds it."""
    code = "import sys; from daqu_tf import machine; machine.lock(open(sys.argv[1]), shared=bool(sys.argv[2]), wait=False)"
    done = subprocess.run([sys.executable, "-c", code, str(path), "yes" if shared else ""], capture_output=True, text=True)
    assert done.returncode == 0 or "BlockingIOError" in done.stderr, done.stderr
    return done.returncode == 0


def test_a_lock_keeps_others_out_until_the_file_is_closed(tmp_path):
    path = tmp_path / "lock"
    with path.open("w") as file:
        machine.lock(file, shared=True)
        assert _is_free(path, shared=True) and not _is_free(path, shared=False)
        machine.lock(file)
        assert not _is_free(path, shared=True)
    assert _is_free(path, shared=False)


@pytest.mark.parametrize("table, name, value", [(vars(sys), "platform", "win32"), (sys.modules, "fcntl", None)])
def test_training_is_refused_before_any_work_where_files_cannot_be_locked(table, name, value, monkeypatch, tmp_path):
    run = pipeline.run  # And all that it imports, while this is still the system that it is.
    monkeypatch.setitem(table, name, value)
    sentence = f"need Linux or macOS, but this is {sys.platform}: on Windows, install daqu_tf in WSL2"
    with pytest.raises(DaquError, match=sentence):
        run(RunConfig("digits", str(tmp_path / "run"), space="digits"))
    with pytest.raises(DaquError, match=sentence):
        TimingTurns(tmp_path, is_elsewhere=False)
    with (tmp_path / "lock").open("w") as file, pytest.raises(DaquError, match=sentence):
        machine.lock(file)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


@pytest.mark.parametrize("flags", [["run"], ["search"], ["train"], ["train", "--subnet=largest"]], ids=" ".join)
def test_the_tools_say_it_in_one_sentence(flags, tmp_path):
    tool, *flags = flags
    flags += [] if flags else ["--dataset=digits", "--space=digits"]
    code = f"import sys, daqu_tf.pipeline.pipeline; from daqu_tf.tools import {tool}; sys.platform = 'win32'; {tool}.main()"
    done = subprocess.run([sys.executable, "-c", code, *flags, f"--output_dir={tmp_path / 'run'}"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith(f"Error: {REFUSED}") and done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_every_module_can_be_imported(tmp_path):
    done = other_systems.call(tmp_path, "-c", EVERY_MODULE)
    assert done.returncode == 0, done.stderr
    count, *others = done.stdout.split()
    assert int(count) > 100 and others == ["None", "[]"]


def test_files_are_timed(tmp_path):
    report = tmp_path / "latency.json"
    done = other_systems.call(tmp_path, "-m", "daqu_tf.tools.benchmark", str(MODEL), f"--json={report}")
    assert done.returncode == 0 and MODEL.name in done.stdout, done.stderr
    (latency,) = json.loads(report.read_text())
    assert latency["median_us"] > 0 and latency["device"]["pinned_to"] is latency["device"]["memory_bytes"] is None


def test_files_predict_the_same(tmp_path):
    from daqu_tf.devices import HostDevice

    images = np.random.default_rng(0).random((5, 8, 8, 1), np.float32)
    np.save(tmp_path / "images.npy", images)
    done = other_systems.call(tmp_path, "-c", PREDICT, str(MODEL), str(tmp_path / "images.npy"), str(tmp_path / "found.npy"))
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(tmp_path / "found.npy"), HostDevice().outputs(MODEL, images)[0])


@pytest.mark.parametrize("tool, argument", [("space", "--space=digits"), ("verify_models", str(ROOT / "tflite_models"))])
def test_other_tools_work(tool, argument, tmp_path):
    done = other_systems.call(tmp_path, "-m", f"daqu_tf.tools.{tool}", argument)
    assert done.returncode == 0 and "digits" in done.stdout, done.stderr


@pytest.mark.parametrize("platform, shared", [("linux", True), ("darwin", True), ("win32", False)])
def test_boards_are_called_by_each_systems_own_ssh(platform, shared, monkeypatch, tmp_path):
    (tmp_path / "ssh").write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/called\n')
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(sys, "platform", platform)
    SshConnection("pi@board").run("true")
    assert ("ControlMaster=auto" in (tmp_path / "called").read_text()) == shared


def test_a_lock_goes_with_its_process_though_a_fork_of_it_lives_on(tmp_path):
    code = (
        "import os, sys, time; from daqu_tf import machine; file = open(sys.argv[1], 'w'); machine.lock(file)\n"
        "if os.fork() == 0: print(os.getpid(), flush=True); time.sleep(60)"
    )
    path = tmp_path / "lock"
    parent = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    assert parent.wait(30) == 0
    try:
        os.kill(child, 0)
        assert _is_free(path, shared=False)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_folder_that_cannot_be_locked_is_not_said_to_be_anothers(tmp_path, monkeypatch):
    def no_locks(file, wait):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(machine, "lock", no_locks)
    with pytest.raises(DaquError, match=r"cannot be locked \(No locks available\): choose"), RunFolder(tmp_path).lock():
        pass
