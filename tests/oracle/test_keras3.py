"""An ordinary KerasTuner user: Keras 3 models, KerasTuner's tuner, two objectives."""

import json
import os
import subprocess
import sys

import pytest
from places import HELPERS, ROOT
from search_processes import free_port


def start(folder, kind, trials, **variables):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HELPERS), str(ROOT)]), **variables}
    command = [sys.executable, str(HELPERS / "keras3_search.py"), str(folder), kind, str(trials)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    return output


def records(folder):
    lines = [json.loads(line) for line in (folder / "search" / "trials.jsonl").read_text().splitlines()[1:]]
    trials = {line["trial_id"]: line["values"] for line in lines if "values" in line}
    return trials, {line["trial_id"]: line["metrics"] for line in lines if line["status"] == "COMPLETED"}


def test_keras_tuners_own_tuner_searches_keras_3_models_and_resumes(tmp_path):
    finish(start(tmp_path, "own", 4))
    result = json.loads(finish(start(tmp_path, "own", 5)).splitlines()[-1])  # The last is proposed, the first four are random.
    trials, metrics = records(tmp_path)
    assert result["trials"] == len(trials) == len(metrics) == 5
    points = {trial_id: (-metric["val_accuracy"], metric["parameters"]) for trial_id, metric in metrics.items()}
    dominated = {a for a, x in points.items() for y in points.values() if x != y and y[0] <= x[0] and y[1] <= x[1]}
    assert set(result["front"]) == set(points) - dominated
    assert result["best"] == min(points, key=lambda trial_id: points[trial_id])
    assert result["score"] == -points[result["best"]][0]
    assert (tmp_path / "epochs.txt").read_text().split() == ["1", "2"] * 5  # Each trial has a copy of the callback.
    assert (tmp_path / "search" / f"trial_{result['best']}" / "checkpoint.weights.h5").exists()


def test_keras_tuners_guide_runs_as_it_is_written(tmp_path):
    finish(start(tmp_path, "own_guide", 3))
    output = finish(start(tmp_path, "own_guide", 8))
    result = json.loads(output.splitlines()[-1])
    assert result["trials"] == 8 and "Results summary" in output and "units_0: " in output
    values = result["values"]
    assert {f"units_{index}" for index in range(values["num_layers"])} <= values.keys()
    assert result["layers"] == values["num_layers"] + values["dropout"] + 1
    assert result["accuracy"] == pytest.approx(result["score"], abs=1e-6)  # The weights of its best epoch.


@pytest.mark.slow
def test_the_guide_with_two_workers(tmp_path):
    address = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(free_port())}
    names = ("chief", "worker0", "worker1")
    processes = [start(tmp_path, "ours_guide", 8, KERASTUNER_TUNER_ID=name, **address) for name in names]
    outputs = [finish(process) for process in processes]
    trials, metrics = records(tmp_path)
    assert len(trials) == len(metrics) == 8 and "Results summary" in outputs[0]


@pytest.mark.slow
def test_the_same_script_is_chief_and_worker(tmp_path):
    address = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(free_port())}
    processes = [start(tmp_path, "ours", 5, KERASTUNER_TUNER_ID=name, **address) for name in ("chief", "worker0", "worker1")]
    outputs = [finish(process) for process in processes]
    trials, metrics = records(tmp_path)
    assert json.loads(outputs[0].splitlines()[-1])["trials"] == len(trials) == len(metrics) == 5
