"""Runs that an earlier version left: they are read, and the command that began them goes on with them.

The folders of `old_runs` were written by daqu_tf at the commit before its modules became packages. `training` was killed after a
checkpoint, `search` after seven trials, `done` is complete; the table and the store are of the space in `space.json`.
"""

import hashlib
import json
import pathlib
import shutil
import sqlite3
import subprocess
import sys

import pytest

from daqu_tf.devices import HostDevice
from daqu_tf.export.manifest import Manifest
from daqu_tf.files import read_json, write_json
from daqu_tf.latency.store import MeasurementStore
from daqu_tf.latency.table import LatencyTable
from daqu_tf.oracle.records import COMPLETED, RUNNING, last_records
from daqu_tf.pipeline.plan import Plan
from daqu_tf.pipeline.trained_run import TrainedRun
from daqu_tf.report import write_report
from daqu_tf.runs.config import RunConfig
from daqu_tf.runs.folder import RunFolder
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.training.checkpoints import Checkpoints

OLD = pathlib.Path(__file__).parent / "old_runs"
FLAGS = ["--dataset=digits", "--space=digits", "--budget_minutes=1.5", "--max_trials=20", "--finalists=2", "--seed=3"]


@pytest.fixture
def folder(tmp_path):
    """Copies an old run, as of this machine."""

    def copy(name: str) -> RunFolder:
        run = RunFolder(shutil.copytree(OLD / name, tmp_path / name))
        write_json(run.device, HostDevice().identity())
        return run

    return copy


def goes_on(tool: str, folder: RunFolder, *flags: str) -> None:
    command = [sys.executable, "-m", f"daqu_tf.tools.{tool}", *FLAGS, *flags, f"--output_dir={folder.path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert "goes on with antialiasing: networks of fewer than 8 pixels" in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["training", "search", "done"])
def test_its_settings_its_space_and_its_schedule_are_the_ones_it_was_begun_with(name):
    folder = RunFolder(OLD / name)
    settings = folder.settings()
    assert "version" not in settings and folder.skipped_pixels
    config = folder.settled(RunConfig("digits", str(folder.path), space="digits"))
    assert config.seed == 3 and config.max_trials == 20 and folder.difference(config) == ""
    plan = Plan.of(config, settings)
    assert json.loads(json.dumps(plan.space.to_json())) == settings["search_space"]
    assert json.loads(json.dumps(plan.schedule.to_json())) == settings["schedule"]
    assert folder.difference(config, plan.to_json()) == ""


def test_a_checkpoint_is_read():
    arrays, state = Checkpoints(OLD / "training" / "checkpoints", pytest.fail).newest()
    assert state["step"] == 18 and any(name.startswith("supernet/") for name in arrays)


def test_a_journal_is_read():
    found = list(last_records(OLD / "search" / "search" / "trials.jsonl"))
    assert [record.trial_id for record in found] == [f"{number:04d}" for number in range(len(found))] and len(found) >= 6
    assert {record.status for record in found} <= {COMPLETED, RUNNING}
    assert all(record.metrics["latency_us"] > 0 for record in found if record.status == COMPLETED)


def test_a_latency_table_and_a_store_are_read(tmp_path):
    space = SearchSpace.from_json(read_json(OLD / "space.json"))
    table = LatencyTable.load(OLD / "table.json")
    assert table.predict(space, space.largest()) == pytest.approx(5.495550913534682, rel=1e-12)
    assert table.predict(space, space.smallest()) == pytest.approx(3.59960346038851, rel=1e-12)
    path = shutil.copy(OLD / "store.sqlite", tmp_path)
    keys = sqlite3.connect(path).execute("SELECT DISTINCT device, settings FROM measurements").fetchall()
    found = [MeasurementStore(path).turns(json.loads(device), json.loads(settings)) for device, settings in keys]
    assert sum(len(turns) for each in found for turns in each.values()) == 82


def test_manifests_are_read_and_a_report_is_written(folder):
    run = folder("done")
    members = [Manifest.read(path) for path in sorted(run.models.glob("*.manifest.json"))]
    for member in members:
        assert member.sha256 == hashlib.sha256((run.models / member.file).read_bytes()).hexdigest()
        assert member.search_accuracy > 0.5 and member.latency["median_us"] > 0
        assert member.subnet == read_json(run.finalists)[member.name]["values"]
        assert Manifest.from_json(json.loads(json.dumps(member.to_json()))) == member
    assert "m01" in write_report(run.path).read_text()


def test_a_finalist_is_exported_again_as_it_was(folder, tmp_path):
    run = TrainedRun(folder("done").path)
    manifest = run.export("m00", fine_tuned=True, path=tmp_path / "again.tflite")
    before = Manifest.read(OLD / "done" / "models" / "m00.manifest.json")
    assert manifest.subnet == before.subnet and manifest.layers == before.layers
    # It was trained with images of which pixels were skipped where they became smaller, and that is said.
    smaller = manifest.input["height"] < run.space.input_shape[0]
    assert manifest.accuracy["fine_tuned"] == pytest.approx(before.accuracy["fine_tuned"], abs=0.1 if smaller else 0.01)
    assert ("trains it on" in run.note(manifest)) == smaller and manifest.preprocessing["filter"] == "antialiased triangle"


@pytest.mark.slow
def test_a_training_goes_on_from_its_checkpoint(folder):
    run = folder("training")
    before = run.log.read_text().splitlines()
    goes_on("train", run, "--epochs=6")
    after = run.log.read_text().splitlines()
    assert after[: len(before)] == before and len(after) > len(before) and run.supernet.exists()


@pytest.mark.slow
def test_a_search_goes_on_after_its_trials(folder):
    run = folder("search")
    before, weights = run.journal.read_text().splitlines(), run.supernet.read_bytes()
    goes_on("search", run, "--epochs=1", "--finetune_epochs=1")
    assert run.journal.read_text().splitlines()[: len(before)] == before and run.supernet.read_bytes() == weights
    ended = [record for record in last_records(run.journal) if record.status == COMPLETED]
    assert len(ended) >= 12 and len(read_json(run.finalists)) == 2


@pytest.mark.slow
def test_a_complete_run_only_gets_its_report(folder):
    run = folder("done")
    kept = {path: path.read_bytes() for path in (run.supernet, run.journal, run.front, *run.models.glob("*"))}
    goes_on("run", run, "--epochs=1", "--finetune_epochs=1")
    assert run.report.exists()
    assert all(path.read_bytes() == content for path, content in kept.items() if path.name != "README.md")
