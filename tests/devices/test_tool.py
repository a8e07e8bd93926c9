"""`daqu-benchmark` on this machine, a board and a phone from one command line."""

import json
import os

import board as boards
import fake_benchmark_model
import pytest
import tflite_networks
from crashing_models import crashing
from phones import ADB
from test_connect import benchmark

from daqu_tf import targets
from daqu_tf.export import encoding

pytestmark = pytest.mark.devices


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.tflite"
    encoding.write(encoding.encode(tflite_networks.mobile_network(size=8, width=4), targets.Storage()), path)
    return path


@pytest.fixture
def flags(board, plug_in, tmp_path, monkeypatch):
    """Of three devices, and the names of the last two."""
    monkeypatch.setenv("PATH", str(ADB.parent), prepend=os.pathsep)
    names = f"raspberry_pi:{board.address}", f"android:{plug_in().serial}"
    program = fake_benchmark_model.program(tmp_path / "benchmark_model")
    devices = [f"--device={name}" for name in ("host", *names)]
    return [*devices, f"--python={boards.PYTHON}", f"--benchmark_model={program}", f"--json={tmp_path}/all.json"], names


def test_three_devices_give_rows_of_one_shape_and_the_same_outputs(flags, model, tmp_path):
    flags, names = flags
    done = benchmark(*flags, str(model))
    assert done.returncode == 0, done.stderr
    head, *lines = done.stdout.splitlines()
    assert head.split() == ["median", "us", "p90", "us", "spread", "kB", "device", "file"] and len(lines) == 5
    assert lines[3:] == [f"{name}: {model} gives the very outputs of the host." for name in names]
    rows = json.loads((tmp_path / "all.json").read_text())
    assert [row["device_name"] for row in rows] == ["host", *names]
    for row in rows:
        assert row.keys() == rows[0].keys() and row["file"] == str(model) and row["sha256"] == rows[0]["sha256"]
        assert row["median_us"] > 0 and row["sample_count"] >= 1 and row["threads"] == 1 and row["delegate"] == "xnnpack"
        moments = {"governor", "frequency_hz", "temperature_celsius", "throttled"}
        assert all(each["before"].keys() == each["after"].keys() == moments for each in row["conditions"])
        assert isinstance(row["flags"], list) and row["dropped_runs"] >= 0 and row["outlier_count"] >= 0
    assert rows[0]["parity_with_host"] is None
    assert all(row["parity_with_host"] == {"largest_difference": 0.0, "unit": "steps"} for row in rows[1:])


def test_a_bad_model_costs_the_others_nothing(flags, model, tmp_path):
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(crashing(model.read_bytes(), "SIGSEGV"))
    done = benchmark(*flags[0], str(bad), str(model))
    assert done.returncode == 1 and len(done.stdout.splitlines()) == 1 + 3 + 2
    assert done.stderr.count("SIGSEGV") == 3 and done.stderr.startswith(f"Error: host: {bad} could not be run")
    assert [row["file"] for row in json.loads((tmp_path / "all.json").read_text())] == [str(model)] * 3


def test_two_phones_share_the_work_and_flags_are_named(plug_in, program, model, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(ADB.parent), prepend=os.pathsep)
    phones = [plug_in() for _ in range(2)]
    name = ",".join(f"android:{phone.serial}" for phone in phones)
    for phone in phones:
        (phone.root / "sys/class/thermal/thermal_zone1/temp").write_text("79000")
    heat = program(then="echo 81000 >$ROOT/sys/class/thermal/thermal_zone1/temp", name="heats")
    flags = [f"--device={name}", f"--benchmark_model={heat}", f"--json={tmp_path}/all.json", "--cool_seconds=0"]
    done = benchmark(*flags, str(model))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].endswith(f"{model}  (throttled)") and "gives no outputs" in done.stdout
    (row,) = json.loads((tmp_path / "all.json").read_text())
    assert row["device_name"] == name and row["flags"] == ["throttled"]
