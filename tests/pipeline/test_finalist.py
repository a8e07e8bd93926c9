"""Finalists whose processes fail: which are left out, which are tried again, and what ends the job."""

import dataclasses
import sys
import types

import pytest

from daqu_tf import RunConfig, files, machine
from daqu_tf.errors import DaquError, WriteError
from daqu_tf.pipeline import budget, finalist, finalists, processes
from daqu_tf.pipeline.finalist import REFUSED, RefusedError
from daqu_tf.pipeline.finalists import FinalistProcesses, Shares
from daqu_tf.runs.folder import RunFolder

REFUSES = f"print('Error: m00 was not written: its outputs are far off.'); raise SystemExit({REFUSED})"
CRASHES = "import os; os.abort()"
CRASHES_ONCE = "import os, pathlib; path = pathlib.Path('crashed'); path.exists() or (path.touch(), os.abort())"
FULL = "print('Error: m00.npz cannot be written (No space left on device): make room.'); raise SystemExit(1)"


class Pretended(FinalistProcesses):
    """Each finalist's process runs some code."""

    def __init__(self, folder, codes):
        super().__init__(folder, workers=2)
        self.codes, self.started = codes, []

    def _start(self, name, seconds):
        self.started.append(name)
        return processes.Child([sys.executable, "-c", self.codes[name]], self._log(name), cwd=self._folder.path)


@pytest.mark.parametrize(
    ("code", "reason", "starts"),
    [
        (REFUSES, "m00 was not written: its outputs are far off", 1),
        (CRASHES, "its process was killed by SIGABRT, twice", 2),
        (CRASHES_ONCE, None, 2),
    ],
)
def test_a_bad_finalist_is_left_out_and_the_others_are_finished(tmp_path, code, reason, starts):
    with Pretended(tmp_path, {"m00": code, "m01": "", "m02": ""}) as started:
        assert list(started.run(["m00", "m01", "m02"], lambda name: 1.0))[-1] == 3
    assert started.left_out == ({"m00": reason} if reason else {})
    assert sorted(started.started) == ["m00"] * starts + ["m01", "m02"]


def test_a_full_disk_is_no_finalists_fault_and_is_said(tmp_path):
    with (
        Pretended(tmp_path, {"m00": FULL}) as started,
        pytest.raises(DaquError, match=r"Finalist m00 ended with status 1: m00.npz cannot be written \(No space left on device\)"),
    ):
        list(started.run(["m00"], lambda name: 1.0))


@pytest.mark.parametrize(
    ("error", "raised"),
    [(DaquError("not written"), RefusedError), (MemoryError("no"), RefusedError), (WriteError(28, "full", "x"), WriteError)],
)
def test_what_is_a_finalists_own_fault(tmp_path, monkeypatch, error, raised):
    def fails(plan, name, seconds):
        raise error

    monkeypatch.setattr(finalist, "_finish", fails)
    monkeypatch.setattr(processes, "compute_on_one_thread", lambda: None)
    plan = types.SimpleNamespace(config=RunConfig("digits", str(tmp_path)))
    monkeypatch.setattr(finalist.Plan, "in_folder", lambda path: plan)
    monkeypatch.setattr(finalist, "_teacher_of", lambda plan: None)
    with pytest.raises(raised):
        finalist.finish(tmp_path, "m00", 1.0)


@pytest.mark.parametrize(
    ("name", "deterministic", "expected"), [("m00", False, 1), ("m01", False, 0), ("m00", True, 1), ("m01", True, 1)]
)
def test_a_teacher_has_all_cores_unless_sums_must_repeat(tmp_path, monkeypatch, name, deterministic, expected):
    plan, limited = types.SimpleNamespace(config=types.SimpleNamespace(deterministic=deterministic)), []
    monkeypatch.setattr(finalist, "_finish", lambda *arguments: None)
    monkeypatch.setattr(processes, "compute_on_one_thread", lambda: limited.append(name))
    monkeypatch.setattr(finalist.Plan, "in_folder", lambda path: plan)
    monkeypatch.setattr(finalist, "_teacher_of", lambda plan: "m01")
    finalist.finish(tmp_path, name, 1.0)
    assert len(limited) == expected


def test_a_parent_that_is_whole_stays_where_its_sibling_fails(tmp_path):
    folder = RunFolder(tmp_path)
    folder.finished.mkdir()
    files.write_json(folder.figures("m00"), {})
    finalists._leave_out(folder, {"m00": "it crashed", "m00_w4": "it crashed"})
    assert (folder.left_out("m00"), folder.left_out("m00_w4")) == ("", "it crashed")


@pytest.mark.parametrize(
    ("seconds", "seconds_an_image", "expected"),
    [
        (60.0, 1e-3, 3),  # Fewer are no front.
        (2000.0, 1e-3, 7),  # 480 seconds each, and 50 beside them.
        (1000.0, 1e-6, 20),  # Forty epochs are over soon.
    ],
)
def test_as_many_finalists_as_are_worth_their_start(seconds, seconds_an_image, expected):
    config = RunConfig("digits", "run", finalists=20, workers=2)
    assert budget.affordable(config, seconds, 60_000, seconds_an_image) == expected


def test_from_random_weights_a_finalist_needs_more_epochs():
    alone = RunConfig("digits", "run", finalists=20, workers=2, architectures="hand_scaled")
    searched = dataclasses.replace(alone, architectures="search")
    assert budget.affordable(alone, 1000.0, 1000, 2e-3) < budget.affordable(searched, 1000.0, 1000, 2e-3)
    assert budget.affordable(alone, 2000.0, 60_000, 1e-3) == budget.affordable(searched, 2000.0, 60_000, 1e-3) == 7


@pytest.mark.parametrize(("gpus", "expected"), [([], [None] * 3), (["2", "GPU-7"], ["2", "GPU-7", "2"])])
def test_each_process_has_a_gpu_of_its_own_where_there_are_some(tmp_path, monkeypatch, gpus, expected):
    monkeypatch.setattr(machine, "gpus", lambda: gpus)
    given = {}
    monkeypatch.setattr(processes, "start", lambda module, arguments, *where, **variables: given.update({arguments[1]: variables}))
    with FinalistProcesses(tmp_path, workers=2) as started:
        started._start("m00", 1.0)
        started.running = {"m00": types.SimpleNamespace(kill=lambda: None)}
        started._start("m01", 1.0)
        started.running = {"m01": started.running["m00"]}
        started._start("m02", 1.0)
    assert [given[name].get("CUDA_VISIBLE_DEVICES") for name in ("m00", "m01", "m02")] == expected
    assert budget.workers(RunConfig("digits", "run")) == (len(gpus) or machine.cores())


# How the seconds that are left are shared out among finalists that start one after another.


class PretendedClock:
    budget_seconds = 1000.0

    def __init__(self):
        self.seconds = 0.0

    def elapsed(self):
        return self.seconds


@pytest.fixture
def shares(tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "left", lambda clock, models: 1000.0 - clock.elapsed())
    folder = RunFolder(tmp_path)
    files.write_json(folder.finalists, {name: {} for name in "abcd"})
    job = types.SimpleNamespace(clock=PretendedClock(), folder=folder)
    return job.clock, Shares(job, dict.fromkeys("abcd", 1000), workers=2, overhead=20.0)


def test_two_at_once_use_all_the_time_that_there_is(shares):
    clock, shares = shares
    first = [shares.seconds("a"), shares.seconds("b")]
    assert first == pytest.approx([480.0, 480.0])
    clock.seconds = 500.0
    assert [shares.seconds("c"), shares.seconds("d")] == pytest.approx([480.0, 480.0])


def test_what_one_takes_too_long_is_taken_from_all_that_come_after_it(shares):
    clock, shares = shares
    shares.seconds("a")
    shares.seconds("b")
    clock.seconds = 600.0  # Each was 100 seconds late.
    assert [shares.seconds("c"), shares.seconds("d")] == pytest.approx([380.0, 380.0])


def test_of_three_on_two_workers_the_first_has_one_for_itself(shares):
    clock, shares = shares
    shares._macs.pop("d")
    assert [shares.seconds("a"), shares.seconds("b")] == pytest.approx([980.0, 480.0])
    clock.seconds = 500.0
    assert shares.seconds("c") == pytest.approx(480.0)


def test_one_that_has_crashed_gets_what_is_left(shares):
    clock, shares = shares
    for name in "abcd":
        shares.seconds(name)
    clock.seconds = 700.0
    assert shares.seconds("a") == pytest.approx(280.0)


def test_where_no_time_is_left_each_is_trained_for_some_seconds(shares):
    clock, shares = shares
    clock.seconds = 2000.0
    assert shares.seconds("a") == budget.LEAST_FINE_TUNING_SECONDS
