import csv
import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.summary.summary_iterator import summary_iterator

from daqu_tf import data, spaces, targets
from daqu_tf.errors import DaquError
from daqu_tf.keras import keras
from daqu_tf.supernet.scoring import Scorer
from daqu_tf.supernet.supernet import Supernet
from daqu_tf.targets import costs
from daqu_tf.training.samplers import SAMPLERS
from daqu_tf.training.schedule import DEFAULT_SAMPLER, PrecisionTransfer, Schedule, WarmUp
from daqu_tf.training.training import SupernetTraining

SPACE = targets.get("litert_cpu").restrict(spaces.get("digits")).restrict(kernel=(3,), resolution=(8,))
SCHEDULE = Schedule("epochs", WarmUp(2.0), PrecisionTransfer(3.0, (8, 6, 4, 3, 2)), seed=1)


@pytest.fixture(scope="module")
def dataset():
    return data.load("digits")


@pytest.fixture(scope="module")
def traced(dataset):
    """A supernet, its scorer, and the weights that it began with: a trace takes long."""
    keras.utils.set_random_seed(0)
    supernet = Supernet(SPACE)
    return supernet, Scorer(supernet, dataset.x_train), supernet.arrays()


@pytest.fixture(scope="module")
def optimizers():
    """By their rates: each that has been traced, and the state that it began with."""
    return {}


@pytest.fixture
def training(traced, dataset, optimizers, tmp_path):
    """Makes a training from the very first weights, in the test's folder; with a trace of its own if it is `anew`."""
    supernet, scorer, arrays = traced

    def make(schedule=SCHEDULE, dataset=dataset, warnings=None, anew=False):
        supernet.load_arrays(arrays)
        one = SupernetTraining(supernet, dataset, scorer, schedule, tmp_path, ([] if warnings is None else warnings).append)
        if not anew:
            made = one._optimizer
            rates = float(made._rate[0]), float(made._rate[-1])
            one._optimizer, state = optimizers.setdefault(rates, (made, made.arrays()))
            one._optimizer.load_arrays(state)
            one._optimizer.gradient.assign(tf.zeros_like(one._optimizer.gradient))
        return one

    return make


def rows(folder):
    with (folder / "training.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def progress(*_):
    pass


class Stop(Exception):
    pass


def test_both_phases_in_order_and_a_row_each_epoch(training, traced, dataset, tmp_path):
    seen = []
    state = training().run(lambda phase, done, figures: seen.append((phase, done)))
    per_epoch = len(dataset.x_train) // SCHEDULE.batch_size
    assert state.step == 5 * per_epoch == len(seen) and state.open == SPACE.weight_bits and state.skipped == 0
    assert [phase for phase, _ in seen] == ["warm_up"] * 2 * per_epoch + ["precision_transfer"] * 3 * per_epoch
    assert np.all(np.diff([done for _, done in seen]) > 0) and seen[-1][1] == 1.0
    written = rows(tmp_path)
    assert [float(row["epoch"]) for row in written] == [1, 2, 3, 4, 5]
    assert written[1]["accuracy_w8a8"] == "" and float(written[-1]["accuracy_w2a8"]) > 0.2
    assert float(written[-1]["accuracy_largest"]) > 0.4
    assert float(written[-1]["gap"]) >= 2 * float(written[-1]["gap_std"]) > 0
    (events,) = (tmp_path / "tensorboard").iterdir()
    tags = {value.tag for event in summary_iterator(str(events)) for value in event.summary.value}
    assert {"loss", "learning_rate", "gap", "accuracy_w4a8"} <= tags


def test_a_resumed_training_ends_with_the_same_weights(training, traced, tmp_path):
    schedule = Schedule("epochs", WarmUp(0.5), PrecisionTransfer(1.0, (8, 6, 4, 3, 2)), seed=1)
    alone = training(schedule)
    alone.run(progress)
    expected = traced[0].arrays()
    for path in (tmp_path / "checkpoints").iterdir():
        path.unlink()

    cut = training(schedule)

    def stop(phase, done, figures):
        if done > 0.6:
            cut._save()
            raise Stop

    with pytest.raises(Stop):
        cut.run(stop)
    resumed = training(schedule, anew=True)
    assert 0.6 < resumed.restore() < 0.7
    resumed.run(progress)
    for name, value in traced[0].arrays().items():
        if "moving_" not in name:  # Those of what was scored last; the scorer remembers what it need not score again.
            np.testing.assert_allclose(value, expected[name], atol=1e-3, err_msg=name)  # Bit for bit: `test_resume.py`.


def test_a_precision_that_was_never_trained_has_steps_from_the_weights(training, traced):
    state = training(Schedule("epochs", None, PrecisionTransfer(0.2, (8,)))).run(progress)
    assert state.open == SPACE.weight_bits
    steps = {name: value for name, value in traced[0].arrays().items() if name.endswith("kernel_log_step") and len(value) == 5}
    assert steps and all((np.diff(value, axis=0) < 0).all() for value in steps.values())  # Two bits have the largest step.


def test_a_warm_up_whose_gap_is_stuck_ends_early(training, tmp_path, monkeypatch):
    schedule = Schedule("epochs", WarmUp(8.0, patience=2), PrecisionTransfer(2.0, (8, 4)), batch_size=512)
    one = training(schedule)
    gaps = iter([0.3, 0.2, 0.25, 0.21, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])
    score = one._panel.score
    monkeypatch.setattr(one._panel, "score", lambda bits: score(bits) | {"gap": next(gaps)})
    state = one.run(progress)
    assert state.transfer_from == 0.4
    assert [row["phase"] for row in rows(tmp_path)] == ["warm_up"] * 4 + ["precision_transfer"] * 6


def test_gradients_that_are_not_finite_are_skipped_said_once_and_end_the_training(training, traced, dataset, tmp_path):
    images = dataset.x_train.copy()
    images[:, 0, 0] = np.nan
    broken, warnings = dataclasses.replace(dataset, x_train=images), []
    one = training(dataclasses.replace(SCHEDULE, guard=4), broken, warnings)
    before = traced[0].arrays()
    with pytest.raises(DaquError, match="diverged: 4 steps in a row up to 3 .* Lower --learning_rate"):
        one.run(progress)
    assert len(warnings) == 1 and "step 0 were not finite" in warnings[0]
    for name, value in traced[0].arrays().items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_some_that_are_not_finite_do_no_harm(training, traced, dataset):
    images = dataset.x_train.copy()
    images[200::300, 0, 0] = np.nan
    one = training(Schedule("epochs", WarmUp(1.0), None), dataclasses.replace(dataset, x_train=images), warnings := [])
    state = one.run(progress)
    assert 1 <= state.skipped <= len(images[200::300]) and len(warnings) == 1
    assert all(np.isfinite(variable).all() for variable in traced[0].trainable_variables)


def test_a_checkpoint_of_another_space(training, dataset, tmp_path):
    one = training(Schedule("epochs", WarmUp(0.05), None))
    one.run(progress)
    other = SPACE.restrict(**{"head.width": (16,)})
    supernet = Supernet(other)
    with pytest.raises(DaquError, match="The weights are those of another space"):
        SupernetTraining(supernet, dataset, Scorer(supernet, dataset.x_train), SCHEDULE, tmp_path).restore()


def test_a_schedule_that_does_not_fit(training):
    for schedule, message in (
        (dataclasses.replace(SCHEDULE, batch_size=5000), "`batch_size` must be at most the"),
        (Schedule("epochs", None, PrecisionTransfer(1.0, (8, 5))), "`order` must be among the bits"),
        (Schedule("epochs", None, PrecisionTransfer(1.0, (6, 4))), "`order` must begin with 8"),
    ):
        with pytest.raises(DaquError, match=message):
            training(schedule)


def test_a_training_by_minutes_takes_them(training):
    state = training(Schedule("minutes", WarmUp(0.02), PrecisionTransfer(0.03, (8, 6, 4, 3, 2)))).run(progress)
    assert 3.0 <= state.seconds < 6.0


def test_the_largest_of_a_step_teaches_the_others_at_the_highest_precision(training, traced, monkeypatch):
    supernet = traced[0]
    one = training(Schedule("epochs", None, PrecisionTransfer(0.3, (8, 2), opening=0.0, distillation=0.25)))
    seen, accumulate = [], one._optimizer.accumulate

    def record(images, targets):
        active = dict(zip([gene.name for gene in SPACE.genes], supernet.active.numpy()[1:]))
        loss, logits = accumulate(images, targets)
        seen.append((SPACE.subnet(active), targets.numpy(), logits.numpy()))
        return loss, logits

    monkeypatch.setattr(one._optimizer, "accumulate", record)
    one.run(progress)
    count = SAMPLERS[DEFAULT_SAMPLER].SUBNETS
    assert seen and len(seen) % count == 0
    for (teacher, labels, logits), *students in zip(*(seen[place::count] for place in range(count))):
        assert {value for name, value in teacher.choices if name.endswith("_bits")} == {8}
        assert set(labels.ravel()) == {0.0, 1.0}
        opinion = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        for student, taught, _ in students:
            assert costs.macs(SPACE, student) <= costs.macs(SPACE, teacher)
            np.testing.assert_allclose(taught, 0.75 * labels + 0.25 * opinion, atol=1e-5)
    assert any(value == 2 for student, _, _ in seen for name, value in student.choices if name.endswith("_bits"))
