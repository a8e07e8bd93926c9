import csv

import numpy as np
import pytest
import tensorflow as tf

from daqu_tf.training.log import TrainingLog

NAMES = ["phase", "step", "loss", "gap", "accuracy_w4a8"]


def rows(folder):
    with (folder / "training.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def steps(folder):
    return [int(row["step"]) for row in rows(folder)]


def scalars(folder):
    """What TensorBoard has: (name, step) to values, of all files."""
    found = {}
    for path in sorted((folder / "tensorboard").iterdir()):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                found.setdefault((value.tag, event.step), []).append(float(tf.make_ndarray(value.tensor)))
    return found


def logged(folder, last, step=0, **figures):
    log = TrainingLog(folder, NAMES, step)
    for number in range(step + 10, last + 1, 10):
        log.add({"phase": "warm_up", "step": number, "loss": 1 / number} | figures)
    return log


def test_nothing_is_written_before_the_first_row(tmp_path):
    TrainingLog(tmp_path, NAMES, 0)
    assert not (tmp_path / "training.csv").exists()


def test_header_and_rows(tmp_path):
    log = TrainingLog(tmp_path, NAMES, 0)
    log.add({"phase": "warm_up", "step": 10, "loss": 0.25, "gap": 0.5})
    log.add({"gap": 0.125, "step": 20, "phase": "precision, transfer", "accuracy_w4a8": 0.75, "unknown": 3.0})
    text = (tmp_path / "training.csv").read_text()
    assert text.splitlines() == [
        "phase,step,loss,gap,accuracy_w4a8",
        "warm_up,10,0.25,0.5,",
        '"precision, transfer",20,,0.125,0.75',
    ]


def test_rows_after_the_restored_step_are_dropped(tmp_path):
    logged(tmp_path, 50)
    assert steps(tmp_path) == [10, 20, 30, 40, 50]
    logged(tmp_path, 60, step=30, gap=0.5)
    assert steps(tmp_path) == [10, 20, 30, 40, 50, 60]
    assert [row["gap"] for row in rows(tmp_path)] == ["", "", "", "0.5", "0.5", "0.5"]
    assert rows(tmp_path)[0]["loss"] == "0.1"


def test_without_a_checkpoint_all_rows_are_dropped(tmp_path):
    logged(tmp_path, 50)
    logged(tmp_path, 10, step=0)
    assert steps(tmp_path) == [10]


def test_the_row_of_the_restored_step_stays(tmp_path):
    logged(tmp_path, 40)
    TrainingLog(tmp_path, NAMES, 40).add({"step": 50})
    assert steps(tmp_path) == [10, 20, 30, 40, 50]


def test_no_temporary_file_is_left(tmp_path):
    logged(tmp_path, 30)
    assert {path.name for path in tmp_path.iterdir()} == {"training.csv", "tensorboard"}


def test_tensorboard_has_the_figures(tmp_path):
    log = TrainingLog(tmp_path, NAMES, 0)
    log.add({"phase": "warm_up", "step": 10, "loss": 0.25, "gap": 0.5})
    log.add({"phase": "warm_up", "step": 20, "loss": np.float64(0.125), "accuracy_w4a8": 0.75})
    assert scalars(tmp_path) == {
        ("loss", 10): [0.25],
        ("gap", 10): [0.5],
        ("loss", 20): [0.125],
        ("accuracy_w4a8", 20): [0.75],
    }


def test_a_row_is_in_both_as_soon_as_it_is_added(tmp_path):
    log = TrainingLog(tmp_path, NAMES, 0)
    for step in (1, 2):
        log.add({"step": step, "loss": 0.5})
        assert steps(tmp_path)[-1] == step and ("loss", step) in scalars(tmp_path)


def test_a_resumed_training_goes_on_in_tensorboard(tmp_path):
    logged(tmp_path, 20)
    logged(tmp_path, 40, step=20)
    assert {step: values for (_, step), values in scalars(tmp_path).items()} == {
        step: [pytest.approx(1 / step)] for step in (10, 20, 30, 40)
    }


def test_columns_of_an_older_file_that_are_not_known_are_left_out(tmp_path):
    TrainingLog(tmp_path, ["step", "loss", "old"], 0).add({"step": 10, "loss": 0.5, "old": 1.0})
    TrainingLog(tmp_path, ["step", "loss", "new"], 10).add({"step": 20, "loss": 0.25, "new": 2.0})
    assert rows(tmp_path) == [{"step": "10", "loss": "0.5", "new": ""}, {"step": "20", "loss": "0.25", "new": "2.0"}]
