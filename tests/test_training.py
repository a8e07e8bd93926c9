import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf

from daqu_tf import data, spaces, targets, training
from daqu_tf.errors import DaquError
from daqu_tf.evaluation import Scorer
from daqu_tf.keras import keras
from daqu_tf.space import FLOAT_BITS
from daqu_tf.supernet import StaticNetwork
from daqu_tf.training import (
    CLIP_NORM,
    STEP_RATE,
    WEIGHT_DECAY,
    Batches,
    Optimizer,
    Schedule,
    augment,
    fine_tune,
    flips,
    sandwich,
)

SPACE = targets.get("litert_cpu").restrict(spaces.get("digits"))
SCHEDULE = Schedule(seconds=10, batch_size=32, learning_rate=1e-3, warmup=True, precision_transfer="progressive", seed=0)
ALPHABET = (2, 3, 4, 6, 8)


def test_widths_open_from_high_to_low_and_stay_open():
    opened = [SCHEDULE.open_widths(ALPHABET, done) for done in np.linspace(0, 1, 101)]
    assert opened[0] == () and opened[-1] == ALPHABET
    for before, after in itertools.pairwise(opened):
        assert set(before) <= set(after) and after == ALPHABET[len(ALPHABET) - len(after) :]
    assert {len(widths) for widths in opened} == {0, 1, 2, 3, 4, 5}


def test_switches():
    at_once = dataclasses.replace(SCHEDULE, precision_transfer="all_at_once")
    assert at_once.open_widths(ALPHABET, 0.41) == ALPHABET and at_once.open_widths(ALPHABET, 0.39) == ()
    without = dataclasses.replace(SCHEDULE, warmup=False)
    assert without.phase(0.0) == "precision_transfer" and without.open_widths(ALPHABET, 0.0) == (8,)


def test_sandwich_has_the_ends_and_only_open_widths():
    rng = np.random.default_rng(0)
    for widths in ((8,), (4, 6, 8)):
        for _ in range(20):
            subnets = sandwich(SPACE, widths, rng)
            assert subnets[0] == SPACE.restrict(weight_bits=widths).largest() and len(subnets) == 4
            assert {v for s in subnets for name, v in s.choices if name.endswith("weight_bits")} <= set(widths)
            assert subnets[1]["stage1.width"] == 4 and subnets[1]["stage2.depth"] == 1
    warm = sandwich(SPACE, (), rng)
    assert {value for s in warm for name, value in s.choices if name.endswith("_bits")} == {FLOAT_BITS}


def test_augment_shifts_and_mirrors_only():
    images = np.random.default_rng(0).random((64, 8, 8, 1), np.float32)
    shifted = augment(images, np.random.default_rng(1), flip=False)
    mirrored = augment(images, np.random.default_rng(1), flip=True)
    assert shifted.shape == images.shape and shifted.dtype == np.float32
    inner = images[:, 2:6, 2:6]
    windows = [[shifted[i, r : r + 4, c : c + 4] for r in range(1, 4) for c in range(1, 4)] for i in range(64)]
    assert all(any(np.array_equal(inner[i], window) for window in windows[i]) for i in range(64))
    flipped = [not np.array_equal(a, b) for a, b in zip(shifted, mirrored)]
    assert 16 < sum(flipped) < 48
    assert all(np.array_equal(shifted[i][:, ::-1], mirrored[i]) for i in range(64) if flipped[i])


def test_only_known_data_is_mirrored():
    assert flips("fashion_mnist") and flips("some/cifar10.npz") and not flips("digits") and not flips("mnist")


def test_batches_depend_on_the_step_alone():
    dataset = data.load("digits")
    batches, again = Batches(dataset, 64, seed=3), Batches(dataset, 64, seed=3)
    first = [batches[step] for step in range(3 * batches.per_epoch)]
    for step in (40, 0, 41, 7):
        for a, b in zip(first[step], again[step]):
            np.testing.assert_array_equal(a, b)
    assert batches.per_epoch == len(dataset.x_train) // 64


def test_a_batch_larger_than_the_data():
    with pytest.raises(DaquError, match="`batch_size` must be at most the"):
        Batches(data.load("digits"), 5000, seed=0)


def test_the_flat_optimizer_moves_variables_as_stock_keras_does():
    dataset = data.load("digits")
    ours, stock = (StaticNetwork(SPACE, SPACE.smallest()) for _ in range(2))
    ours.initialise_steps(dataset.x_train[:64], (8,))
    stock.load_arrays(ours.arrays())
    steps = [v for v in stock.trainable_variables if "log_step" in v.name]
    weights = [v for v in stock.trainable_variables if "log_step" not in v.name]
    adam = keras.optimizers.Adam(0.5 * STEP_RATE)
    adamw = keras.optimizers.AdamW(0.5 * 1e-3, weight_decay=WEIGHT_DECAY, global_clipnorm=CLIP_NORM)
    adamw.exclude_from_weight_decay([v for v in weights if "kernel" not in v.name])
    optimizer = Optimizer(ours, 1e-3)
    for step in range(3):
        chosen = slice(64 * step, 64 * step + 64)
        images, targets = dataset.x_train[chosen], np.eye(10, dtype=np.float32)[dataset.y_train[chosen]] * 30
        optimizer.accumulate(images, targets)
        ends = np.cumsum([np.prod(v.shape) for v in weights + steps])
        flat = np.split(optimizer.gradient.numpy(), ends[:-1].astype(int))
        gradients = [tf.reshape(part, v.shape) for part, v in zip(flat, weights + steps)]
        norm = np.linalg.norm(np.concatenate(flat[: len(weights)]))
        optimizer._apply(0.5)
        adamw.apply_gradients(zip(gradients[: len(weights)], weights))
        adam.apply_gradients(zip(gradients[len(weights) :], steps))
        assert norm > CLIP_NORM  # Else clipping would go untested.
    for name, value in stock.arrays().items():
        np.testing.assert_allclose(ours.arrays()[name], value, atol=2e-5, err_msg=name)


def test_a_batch_that_is_not_finite_moves_no_weight_to_nan():
    network = StaticNetwork(SPACE, SPACE.smallest())
    optimizer = Optimizer(network, 1e-3)
    optimizer.accumulate(np.full((4, 8, 8, 1), np.nan, np.float32), np.full((4, 10), 0.1, np.float32))
    optimizer.apply(0.5)
    assert all(np.all(np.isfinite(value)) for value in network.arrays().values())


@pytest.mark.parametrize("least_float_seconds", [0.1, 60.0])
def test_fine_tuning_ends_in_a_trained_network_of_the_subnet_s_own_bits(least_float_seconds, digits, monkeypatch):
    monkeypatch.setattr(training, "LEAST_FLOAT_SECONDS", least_float_seconds)
    dataset, space = data.load("digits"), digits.supernet.space
    subnet = space.restrict(weight_bits=(3, 4), activation_bits=(6,)).sample(np.random.default_rng(1))
    network, steps = fine_tune(space, subnet, digits.supernet.arrays(), dataset, 4.0, 64, 8e-3, seed=0)
    assert network.subnet == subnet and steps > 20
    assert Scorer(network, dataset.x_train).accuracy(dataset.x_search, dataset.y_search) > 0.6
    again, _ = fine_tune(space, subnet, digits.supernet.arrays(), dataset, 0.01, 64, 8e-3, seed=0)
    assert Scorer(again, dataset.x_train).accuracy(dataset.x_search, dataset.y_search) < 0.4  # Random weights, one step.
