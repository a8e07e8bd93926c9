"""Finalists whose processes fail: which are left out, which are tried again, and what ends the job."""

import sys

import pytest

from daqu_tf.errors import DaquError, WriteError
from daqu_tf.pipeline import finalist, processes
from daqu_tf.pipeline.finalist import REFUSED, RefusedError
from daqu_tf.pipeline.finalists import FinalistProcesses

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
    monkeypatch.setattr(finalist, "compute_on_one_thread", lambda: None)
    monkeypatch.setattr(finalist.Plan, "in_folder", lambda path: None)
    with pytest.raises(raised):
        finalist.finish(tmp_path, "m00", 1.0)
