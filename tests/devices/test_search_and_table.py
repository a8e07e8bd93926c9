"""Searches whose latencies come from a board that is cut off in the middle, and latency tables of boards and phones."""

import os

import board as boards
import fake_benchmark_model
import pytest
from phones import device
from quick_profiles import FEW, QUICK
from search_on_digits import TARGET, DigitsSearch

from daqu_tf import spaces
from daqu_tf.devices import DeviceGroup, HostDevice, Patience, RaspberryPiDevice
from daqu_tf.errors import DaquError
from daqu_tf.latency.profiling import profile
from daqu_tf.latency.store import MeasurementStore
from daqu_tf.search.candidates import SearchStoppedError

pytestmark = pytest.mark.devices


class Quick(RaspberryPiDevice):
    """Times a few calls only: under emulation each takes long."""

    def measure(self, model_path, **settings):
        return super().measure(model_path, min_runs=2, min_seconds=0.0, max_warmup_seconds=0.0)


@pytest.fixture
def board(tmp_path, monkeypatch):
    if not boards.is_usable():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("There is no sshd or no Python for ARM: call `make test-devices`.")
    found = boards.Board(tmp_path)
    monkeypatch.setenv("PATH", f"{found.bin}{os.pathsep}{os.environ['PATH']}")
    yield found
    found.stop()


def test_a_board_that_is_gone_in_the_middle_loses_nothing(board, digits, tmp_path):
    said = []
    pi = Quick(board.address, python=boards.PYTHON.as_posix())
    patient = DeviceGroup([pi], Patience(1, 0.1, said.append))
    search = DigitsSearch(digits.supernet, tmp_path / "search")
    search.tuner("pi", patient, 2).search()
    board.stop()
    with pytest.raises(SearchStoppedError, match="The search stopped, and goes on with the same command: "):
        search.tuner("pi", patient, 4).search()
    assert len(said) == 1 and "trying again" in said[0]
    board.start()
    tuner = search.tuner("pi", patient, 4)
    assert len(tuner.oracle.end_order) == 2
    tuner.search()
    assert [trial.status for trial in tuner.oracle.trials.values()] == ["COMPLETED"] * 4


def test_a_latency_table_of_a_board(board, tmp_path):
    pi = RaspberryPiDevice(board.address, python=boards.PYTHON.as_posix())
    space = TARGET.restrict(spaces.get("digits").restrict(**FEW))
    store = MeasurementStore(tmp_path / "s.sqlite")
    table = profile(DeviceGroup([pi]), space, TARGET.storage, store, QUICK)
    table.check(space, TARGET.storage, pi.identity())
    assert table.device["runtime_version"].startswith("1.4") and min(table.blocks_us.values()) > 0
    with pytest.raises(DaquError, match="another device or runtime"):
        table.check(space, TARGET.storage, HostDevice().identity())


def test_two_phones_make_one_table(plug_in, adb_server, tmp_path):
    program = fake_benchmark_model.program(tmp_path / "benchmark_model")
    both = DeviceGroup([device(plug_in(), program, processes=1) for _ in range(2)])
    space = TARGET.restrict(spaces.get("digits").restrict(**FEW | {"stage2.width": (8,), "head.width": (16,)}))
    table = profile(both, space, TARGET.storage, MeasurementStore(tmp_path / "s.sqlite"), QUICK)
    table.check(space, TARGET.storage, both.devices[1].identity())
    assert table.device["kind"] == "android" and "serial" not in table.device and min(table.blocks_us.values()) > 0
