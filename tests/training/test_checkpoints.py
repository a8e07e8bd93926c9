import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daqu_tf.training.checkpoints import KEPT, Checkpoints

STATE = {"step": 3, "seconds": 1.5, "transfer_from": None, "open": [4, 8], "samplers": {"gap_aware": [0.25, 1e-7]}}


def arrays(number):
    """Arrays that say which checkpoint they are of."""
    rng = np.random.default_rng(number)
    return {
        "supernet/stem/kernel": rng.random((3, 3, 1, 4), np.float32),
        "supernet/active": np.arange(5, dtype=np.int32) + number,
        "optimizer/updates": np.float32(number),
        "optimizer/none": np.zeros((0, 2), np.float64),
    }


def assert_is(found, number):
    got, state = found
    assert state == STATE | {"step": number}
    assert got.keys() == arrays(number).keys()
    for name, array in arrays(number).items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)
        assert got[name].dtype == array.dtype and got[name].shape == array.shape


class Folder:
    """Checkpoints of a folder, the warnings, and how to do damage."""

    def __init__(self, path):
        self.path, self.warnings = path, []
        self.checkpoints = Checkpoints(path, self.warnings.append)

    def save(self, *steps):
        for step in steps:
            self.checkpoints.save(step, arrays(step), STATE | {"step": step})

    def newest(self):
        """As another process would find it."""
        return Checkpoints(self.path, self.warnings.append).newest()

    def file(self, step):
        return self.path / f"step-{step:09d}.npz"

    @property
    def steps(self):
        return [path.name for path in sorted(self.path.iterdir())]


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "run" / "checkpoints")


def test_without_any(folder):
    assert folder.newest() is None and folder.warnings == []


def test_what_was_saved_is_restored(folder):
    folder.save(7)
    assert_is(folder.newest(), 7)
    assert folder.warnings == []


def test_the_newest_stay_and_nothing_else(folder):
    folder.save(1, 20, 300, 999_999_999)
    assert folder.steps == ["step-000000300.npz", "step-999999999.npz"] and len(folder.steps) == KEPT
    assert_is(folder.newest(), 999_999_999)


def test_the_same_step_again_replaces_it(folder):
    folder.save(1, 2)
    folder.checkpoints.save(2, arrays(5), STATE | {"step": 5})
    assert len(folder.steps) == 2
    assert_is(folder.newest(), 5)


def test_other_files_of_the_folder_are_left_alone(folder):
    folder.save(1)
    others = ["notes.txt", "step-000000002.npz.bak", "step-2.npz", ".hidden.npz", "step-last.npz"]
    for name in others:
        (folder.path / name).write_text("mine")
    folder.save(2, 3)
    assert_is(folder.newest(), 3)
    assert all((folder.path / name).read_text() == "mine" for name in others) and folder.warnings == []


def truncated(data):
    return data[: len(data) // 2]


def flipped(data):
    """One bit in the middle of the kernel's values."""
    place = data.index(arrays(2)["supernet/stem/kernel"].tobytes()) + 70
    return data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :]


def empty(data):
    return b""


def zeros(data):
    """What some file systems leave of a file after the power went."""
    return bytes(len(data))


def text(data):
    return b"not a checkpoint"


@pytest.mark.parametrize("damage", [truncated, flipped, empty, zeros, text], ids=lambda damage: damage.__name__)
def test_a_damaged_newest_is_named_and_the_one_before_is_used(folder, damage):
    folder.save(1, 2)
    folder.file(2).write_bytes(damaged := damage(folder.file(2).read_bytes()))
    assert_is(folder.newest(), 1)
    (warning,) = folder.warnings
    assert str(folder.file(2)) in warning and "damaged" in warning
    assert folder.file(2).with_suffix(".damaged").read_bytes() == damaged and not folder.file(2).exists()


@pytest.mark.parametrize("damage", [truncated, flipped, empty], ids=lambda damage: damage.__name__)
def test_where_all_are_damaged_there_is_none(folder, damage):
    folder.save(2, 3)
    whole = folder.file(2).read_bytes()
    for step in (2, 3):
        folder.file(step).write_bytes(damage(whole))
    assert folder.newest() is None
    assert [str(folder.file(step)) in warning for step, warning in zip((3, 2), folder.warnings)] == [True, True]


def test_a_file_without_state_is_damaged(folder):
    folder.save(1)
    np.savez(folder.file(2), **arrays(2))
    assert_is(folder.newest(), 1)
    assert len(folder.warnings) == 1


def test_nothing_is_unpickled(folder):
    folder.save(1)
    state = np.frombuffer(b"{}", np.uint8)
    np.savez(folder.file(2), **arrays(2) | {"supernet/evil": np.array([Unpickled()], object), "state.json": state})
    assert_is(folder.newest(), 1)
    assert str(folder.file(2)) in folder.warnings[0] and not Unpickled.happened


class Unpickled:
    happened = False

    def __reduce__(self):
        return setattr, (Unpickled, "happened", True)


@given(st.data())
@settings(deadline=None, max_examples=300, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_byte_flips_a_whole_checkpoint_is_found(tmp_path, data):
    folder = Folder(tmp_path)
    if not folder.file(2).exists():
        folder.save(1, 2)
        (tmp_path / "whole").write_bytes(folder.file(2).read_bytes())
    content = bytearray((tmp_path / "whole").read_bytes())
    # Every other place is in the directory at the end, where there is more to misread.
    start = data.draw(st.sampled_from((0, content.index(b"PK\x01\x02"))))
    content[data.draw(st.integers(start, len(content) - 1))] ^= data.draw(st.sampled_from((1, 8, 128, 255)))
    folder.file(2).write_bytes(content)
    found = folder.newest()
    assert_is(found, found[1]["step"])
    assert (found[1]["step"] == 1) == len(folder.warnings)


def test_damaged_ones_do_not_crowd_out_what_is_saved_later(folder):
    folder.save(500, 530)
    for step in (500, 530):
        folder.file(step).write_bytes(b"")
    again = Folder(folder.path)
    assert again.newest() is None
    again.save(30)
    assert_is(again.newest(), 30)


def test_a_damaged_newest_costs_nothing_later(folder):
    folder.save(400, 500)
    folder.file(500).write_bytes(b"")
    again = Folder(folder.path)
    assert_is(again.newest(), 400)
    again.save(430)
    assert_is(again.newest(), 430)


DISK_FULL = """
import json, pathlib, resource, signal, sys
import numpy as np
from daqu_tf.training.checkpoints import Checkpoints

folder, warnings = pathlib.Path(sys.argv[1]), []
checkpoints = Checkpoints(folder, warnings.append)
arrays = {"a": np.arange(20_000, dtype=np.float32), "b": np.ones(3)}

def save(step, limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    checkpoints.save(step, arrays, {"step": step})
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return [len(warnings), sorted(path.name for path in folder.iterdir()), checkpoints.newest()[1]["step"]]

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # Writing beyond the limit is then an OSError, as on a full disk.
unlimited = resource.RLIM_INFINITY
save(1, unlimited)
save(2, unlimited)
size = (folder / "step-000000002.npz").stat().st_size
# In the first header, in the data, at the end of it, and in the directory.
full = [save(step, limit) for step, limit in enumerate((0, 50, 4096, size - 700, size - 300, size - 1), 3)]
again = save(9, unlimited)
print(json.dumps({"full": full, "again": again, "second": save(10, 100), "warnings": warnings}))
"""


def test_a_full_disk_is_said_once_and_costs_no_checkpoint(tmp_path):
    run = subprocess.run([sys.executable, "-c", DISK_FULL, tmp_path], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    got = json.loads(run.stdout)
    old = ["step-000000001.npz", "step-000000002.npz"]
    assert got["full"] == [[1, old, 2]] * 6
    new = ["step-000000002.npz", "step-000000009.npz"]
    assert got["again"] == [1, new, 9]
    assert got["second"] == [2, new, 9]  # Said again, after one that succeeded.
    assert "step-000000003.npz could not be written (File too large)" in got["warnings"][0]
    assert "step-000000010.npz" in got["warnings"][1]
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":  # Before, NumPy left a file behind whose end complained again.
        assert "Traceback" not in run.stderr and "Exception ignored" not in run.stderr


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "checkpoints").write_text("a file is in the way")
    folder = Folder(tmp_path / "checkpoints")
    folder.save(1, 2)
    assert len(folder.warnings) == 1 and "could not be written" in folder.warnings[0]


def test_a_kill_while_writing_leaves_the_ones_before(folder):
    folder.save(1, 2)
    code = """
import os, pathlib, sys
import numpy as np
from daqu_tf.training.checkpoints import Checkpoints
np.savez = lambda path, **arrays: (pathlib.Path(path).write_bytes(b"half"), os.kill(os.getpid(), 9))
Checkpoints(pathlib.Path(sys.argv[1]), print).save(3, {"a": np.ones(3)}, {})
"""
    assert subprocess.run([sys.executable, "-c", code, folder.path]).returncode == -9
    assert_is(folder.newest(), 2)
    assert folder.warnings == []
    folder.save(3)
    assert_is(folder.newest(), 3)
