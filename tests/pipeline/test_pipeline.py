"""The whole job as a user starts it. Killed and resumed, it is in the slow tier; what it refuses is here."""

import csv
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import forked_tools
import numpy as np
import pytest
from latency_tables import table_of

from daqu_tf import pipeline, spaces, targets
from daqu_tf.devices import connect
from daqu_tf.errors import DaquError
from daqu_tf.export.manifest import Manifest
from daqu_tf.pareto import constraints
from daqu_tf.pipeline import budget, front
from daqu_tf.pipeline.finalists import FinalistProcesses
from daqu_tf.runs.config import RunConfig
from daqu_tf.runs.folder import RunFolder

FLAGS = ["--dataset=digits", "--space=digits", "--budget_minutes=3", "--finalists=4", "--architectures=search"]
COMMAND = [sys.executable, "-m", "daqu_tf.tools.run", *FLAGS]


def _started(tmp_path: pathlib.Path) -> RunConfig:
    """A folder in which a run has begun."""
    config = RunConfig("digits", str(tmp_path / "run"), space="digits")
    config.folder.mkdir()
    (config.folder / "config.json").write_text(json.dumps({"flags": config.to_json(), "dataset": {}}))
    (config.folder / "supernet.npz").write_text("precious")
    return config


def test_other_settings_are_refused_and_named(tmp_path):
    config = _started(tmp_path)
    other = RunConfig("digits", config.output_dir, space="digits", seed=5, learning_rate=0.02)
    with pytest.raises(DaquError, match=r"other settings \(--learning_rate was 0.01, --seed was 0\)"):
        pipeline.run(other)
    assert (config.folder / "supernet.npz").read_text() == "precious"


def test_a_schedule_that_has_moved_is_compared_by_its_content(tmp_path):
    before = RunConfig("digits", str(tmp_path / "run"), space="digits", schedule=str(tmp_path / "before.json"))
    moved = dataclasses.replace(before, schedule=str(tmp_path / "moved.json"))
    before.folder.mkdir()
    settings = {"flags": before.to_json(), "dataset": {}, "schedule": {"seed": 1}}
    (before.folder / "config.json").write_text(json.dumps(settings))
    folder = RunFolder(before.folder)
    assert folder.difference(moved, {"schedule": {"seed": 1}}) == ""
    assert "schedule" in folder.difference(moved, {"schedule": {"seed": 2}})
    assert "--schedule" in folder.difference(dataclasses.replace(before, schedule=""))


def test_a_stage_that_is_none_is_refused_before_anything_is_done(tmp_path):
    with pytest.raises(DaquError, match="`last_stage` must be one of supernet, search, report, but received 'typo'"):
        pipeline.run(RunConfig("digits", str(tmp_path / "run"), space="digits"), last_stage="typo")
    assert not (tmp_path / "run").exists()


def test_what_is_not_given_is_what_the_run_was_begun_with(tmp_path):
    begun = RunConfig("digits", str(tmp_path / "run"), space="digits", finalists=3, seed=7)
    begun.folder.mkdir()
    (begun.folder / "config.json").write_text(json.dumps({"flags": begun.to_json(), "dataset": {}}))
    folder = RunFolder(begun.folder)
    again = folder.settled(RunConfig("digits", begun.output_dir, seed=7))
    assert again == begun and folder.difference(again) == ""
    other = folder.settled(RunConfig("digits", begun.output_dir, finalists=8))  # Given, though it is the default.
    assert folder.difference(other) == "--finalists was 3" and other.seed == 7
    assert RunFolder(tmp_path / "new").settled(RunConfig("digits", "new", seed=2)) == RunConfig("digits", "new", seed=2)


def test_a_run_of_a_later_version_is_left_alone(tmp_path):
    config = _started(tmp_path)
    (config.folder / "config.json").write_text(json.dumps({"version": 99, "flags": config.to_json(), "dataset": {}}))
    for overwrite in (False, True):
        with pytest.raises(DaquError, match="config.json has version 99, but this daqu_tf reads 1 to 3: take a later daqu_tf"):
            pipeline.run(config, overwrite)
    assert (config.folder / "supernet.npz").read_text() == "precious"


def test_the_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(DaquError, match="holds other things than a run"):
            pipeline.run(RunConfig("digits", str(tmp_path), space="digits"), overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_output_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DaquError, match="is a file"):
        pipeline.run(RunConfig("digits", str(tmp_path / "file"), space="digits"))


def test_an_output_folder_that_cannot_be_made():
    with pytest.raises(DaquError, match="cannot be written to"):
        pipeline.run(RunConfig("digits", "/proc/nothing/run", space="digits"))


def test_two_at_once_in_one_folder(tmp_path):
    import fcntl

    config = _started(tmp_path)
    with (config.folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DaquError, match="Another process is working"):
            pipeline.run(config)


def test_a_wrong_data_set_leaves_nothing_that_blocks_the_right_one(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(DaquError):
        pipeline.run(RunConfig(str(tmp_path / "missing.npz"), str(out), space="digits"))
    assert not out.exists()


def test_overwriting_with_a_wrong_data_set_loses_nothing(tmp_path):
    config = _started(tmp_path)
    wrong = RunConfig(str(tmp_path / "missing.npz"), config.output_dir, space="digits")
    with pytest.raises(DaquError, match="does not exist"):
        pipeline.run(wrong, overwrite=True)
    assert (config.folder / "supernet.npz").read_text() == "precious"


def test_another_programs_config_is_left_alone(tmp_path):
    (tmp_path / "config.json").write_text('{"model": "theirs"}')
    for overwrite in (False, True):
        with pytest.raises(DaquError, match="holds other things than a run"):
            pipeline.run(RunConfig("digits", str(tmp_path), space="digits"), overwrite)


def test_a_data_set_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = RunConfig("mine.npz", "out")
    assert config.dataset == str(tmp_path / "mine.npz")


def test_a_failing_finalist_ends_the_others_at_once(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    began = time.monotonic()
    with pytest.raises(DaquError, match="ended with status"), FinalistProcesses(tmp_path, workers=2) as processes:
        for _ in processes.run(["m00", "m01", "m02"], lambda name: 600.0):
            pass
    assert time.monotonic() - began < 60
    logs = (tmp_path / "finalists").glob("m0*.log")  # Either of the two that were started may have failed first.
    assert any("holds no run" in log.read_text() for log in logs)


def test_images_too_small_for_the_space(tmp_path):
    np.savez(tmp_path / "tiny.npz", x_train=np.zeros((40, 4, 4), np.uint8), y_train=np.arange(40) % 2)
    with pytest.raises(DaquError, match="too small for space 'mobilenet_v3_cifar'"):
        pipeline.run(RunConfig(str(tmp_path / "tiny.npz"), str(tmp_path / "run"), space="mobilenet_v3_cifar", batch_size=8))


def test_time_is_shared_out_by_size():
    seconds = budget.share_out({"a": 100, "b": 800}, 70.0, 5.0)
    assert seconds == pytest.approx({"a": 20.0, "b": 40.0})
    assert budget.share_out({"a": 100}, 3.0, 5.0) == {"a": 0.0}


@pytest.mark.parametrize(
    ("flag", "keras", "sentence"),
    [
        ("--space=nothing", "1", "`space` must be one of digits"),
        ("--seed=1", "0", "TF_USE_LEGACY_KERAS must be 1"),
        ("--device=fridge", "1", "A device must be given as"),
        ("--device=raspberry_pi:nobody@127.0.0.1:1", "1", "nobody@127.0.0.1:1"),
        ("--latency_table=/nowhere/t.json", "1", "The latency table /nowhere/t.json cannot be read"),
    ],
)
def test_a_tool_says_one_sentence_and_fails(flag, keras, sentence, tmp_path):
    others = [one for one in FLAGS if one.partition("=")[0] != flag.partition("=")[0]]
    flags = [*others, f"--output_dir={tmp_path / 'run'}", flag]
    done = forked_tools.call("run", *flags, environment=os.environ | {"TF_USE_LEGACY_KERAS": keras})
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("Error: ") and sentence in done.stderr
    assert not list((tmp_path / "run").glob("*.json"))


def test_a_table_of_another_space_is_refused_before_anything_is_done(tmp_path):
    path = tmp_path / "table.json"
    table_of(targets.get("litert_cpu").restrict(spaces.get("mobilenet_v2_28"))).save(path)
    with pytest.raises(DaquError, match="of space 'mobilenet_v2_28', has no block"):
        pipeline.run(RunConfig("digits", str(tmp_path / "run"), space="digits", latency_table=str(path)))
    assert not (tmp_path / "run").exists()


def test_a_target_that_counts_no_latency_takes_no_table(tmp_path):
    with pytest.raises(DaquError, match="A latency table has no effect on target accelerator"):
        pipeline.run(RunConfig("digits", str(tmp_path / "run"), space="digits", target="accelerator", latency="table"))


def test_another_kind_of_device_is_another_run(tmp_path):
    config = _started(tmp_path)
    folder = RunFolder(config.folder)
    assert "--device was host" in folder.difference(dataclasses.replace(config, device="raspberry_pi:pi@board"))
    flags = config.to_json() | {"device": "raspberry_pi:pi@here"}
    (config.folder / "config.json").write_text(json.dumps({"flags": flags, "dataset": {}}))
    assert folder.difference(dataclasses.replace(config, device="raspberry_pi:pi@there")) == ""


def test_another_device_of_that_kind_is_refused(tmp_path):
    config = _started(tmp_path)
    here = connect("host")
    (config.folder / "device.json").write_text(json.dumps(here.identity() | {"cpu": "another"}))
    with pytest.raises(DaquError, match="holds latencies of another device or runtime .`cpu` is 'another' there"):
        RunFolder(config.folder).check_device(here.identity(), overwrite=False)
    assert "`cpu`" in RunFolder(config.folder).check_device(here.identity(), overwrite=True)


def test_a_run_of_before_there_were_devices_goes_on(tmp_path):
    config = _started(tmp_path)
    flags = {name: value for name, value in config.to_json().items() if name not in ("device", "threads", "latency", "delegate")}
    (config.folder / "config.json").write_text(json.dumps({"flags": flags, "dataset": {}}))
    folder = RunFolder(config.folder)
    assert folder.difference(config) == "" and folder.run_config() == config


def test_what_misses_a_constraint_in_the_end_is_not_on_the_front():
    target = targets.get("litert_cpu")
    members = [
        Manifest("m", accuracy={"fine_tuned": {"search": accuracy}}, latency={"median_us": us}, file_bytes=9, deflated_bytes=9)
        for accuracy, us in ((0.9, 21.0), (0.8, 19.0), (0.7, 20.0))
    ]
    found = front.front_of(target, members, constraints.parse(["latency_us<=20", "peak_activation_bytes<=1"]))
    assert [member.on_front for member in found] == [False, True, False]
    assert [member.missed_constraints for member in found] == [("latency_us<=20",), (), ()]
    nothing = front.front_of(target, members, constraints.parse(["accuracy>=0.95"]))
    assert not any(member.on_front for member in nothing)


def test_a_table_and_measuring_exclude_each_other(tmp_path):
    with pytest.raises(DaquError, match="`latency_table` has no effect if `latency` is measure"):
        RunConfig("digits", str(tmp_path), space="digits", latency="measure", latency_table="t.json")


def _kill_when(command: list[str], condition, output: pathlib.Path) -> None:
    with output.open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 300
        while process.poll() is None and not condition():
            assert time.monotonic() < deadline, output.read_text()
            time.sleep(0.02)
        assert process.poll() is None, f"ended before it could be killed: {output.read_text()}"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


def _trials(folder: pathlib.Path) -> list[str]:
    path = folder / "search" / "trials.jsonl"
    return path.read_text().splitlines()[1:] if path.exists() else []


def _last_phase(folder: pathlib.Path) -> str:
    path = folder / "training.csv"
    rows = list(csv.DictReader(path.open())) if path.exists() else []
    return rows[-1]["phase"] if rows else ""


@pytest.mark.slow
@pytest.mark.xdist_group("one at a time")
def test_killed_in_every_stage_it_ends_complete(tmp_path):
    folder, log = tmp_path / "run", tmp_path / "log"
    command = [*COMMAND, f"--output_dir={folder}"]
    _kill_when(command, lambda: list((folder / "checkpoints").glob("step-*.npz")), log)
    _kill_when(command, lambda: _last_phase(folder) == "precision_transfer", log)
    _kill_when(command, lambda: len(_trials(folder)) >= 3, log)
    trials = _trials(folder)
    _kill_when(command, lambda: list(folder.glob("finalists/*.json")), log)
    finished = {path: path.stat().st_mtime_ns for path in folder.glob("finalists/*.json")}
    assert subprocess.run(command, capture_output=True).returncode == 0
    _check_complete(folder)
    assert _trials(folder)[: len(trials)] == trials
    ends = [record["trial_id"] for record in map(json.loads, _trials(folder)) if record["status"] != "RUNNING"]
    assert len(ends) == len(set(ends)) >= 3
    assert all(path.stat().st_mtime_ns == before for path, before in finished.items())
    _check_tools(folder, tmp_path)
    report = (folder / "report.html").stat().st_mtime_ns
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert (folder / "report.html").stat().st_mtime_ns == report


def _check_tools(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The other tools on a complete run."""

    def tool(name: str, *arguments: str) -> str:
        done = subprocess.run([sys.executable, "-m", f"daqu_tf.tools.{name}", *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    subnet = tmp_path / "subnet.json"
    subnet.write_text(json.dumps(json.loads((folder / "finalists.json").read_text())["m00"]["values"]))
    for name in ("m00", str(subnet)):
        tool("export", f"--run={folder}", f"--subnet={name}", f"--output={tmp_path / 'inherited.tflite'}")
    models = [str(path) for path in sorted((folder / "models").glob("*.tflite"))]
    printed = tool("benchmark", "--repeats=1", *models, str(tmp_path / "inherited.tflite"))
    assert all(model in printed for model in models)
    assert "subnets" in tool("space", "--space=digits")


def _check_complete(folder: pathlib.Path) -> None:
    members = json.loads((folder / "pareto.json").read_text())["members"]
    assert {member["name"] for member in members} == set(json.loads((folder / "finalists.json").read_text()))
    for member in members:
        path = folder / "models" / member["file"]
        assert path.stat().st_size == member["file_bytes"] and path.read_bytes()[4:8] == b"TFL3"
        assert json.loads(path.with_suffix(".manifest.json").read_text())["sha256"] == member["sha256"]
        assert member["latency"]["median_us"] > 0
        assert abs(member["accuracy"]["file"]["test"] - member["accuracy"]["fine_tuned"]["test"]) <= 0.02
    for name in ("pareto.csv", "pareto.png", "report.html", "training.csv", "config.json"):
        assert (folder / name).stat().st_size > 0
