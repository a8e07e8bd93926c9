"""Finalists are chosen by accuracies on the whole search split, and only they are looked at on test."""

import numpy as np
import pytest
from latency_tables import table_of
from search_on_digits import TARGET, DigitsSearch

from daqu_tf.export.export import round_biases
from daqu_tf.search.finalists import AGAIN, best_of_steps, choose, spread
from daqu_tf.spaces.hand_scaled import hand_scaled
from daqu_tf.supernet import scoring
from daqu_tf.supernet.scoring import top1


@pytest.fixture
def search(digits, tmp_path, monkeypatch):
    """A few trials, scored on 100 images after a recalibration on one batch."""
    monkeypatch.setattr(scoring, "RECALIBRATION_IMAGES", scoring.RECALIBRATION_BATCH)
    search = DigitsSearch(digits.supernet, tmp_path)
    search.made = search.tuner("chosen", table_of(search.supernet.space), 14)
    search.made.search()
    search.candidates = search.made._evaluate.__self__
    return search


def exactly(search, subnet, split):
    """From scratch: all whole batches of the training images, all images of the split, and the biases that ship."""
    x, y = getattr(search.dataset, f"x_{split}"), getattr(search.dataset, f"y_{split}")
    search.supernet.activate(subnet)
    scorer, size = search.scorer, scoring.RECALIBRATION_BATCH
    images = search.dataset.x_train
    for number in range(len(images) // size):
        scorer._recalibrate_on(images[number * size : (number + 1) * size], np.float32(1 / (number + 1)))
    network = search.supernet.extract(subnet)
    round_biases(network, TARGET.storage)
    return top1(network(x).numpy(), y)


def test_the_best_are_scored_again_exactly_and_test_is_looked_at_once(search, monkeypatch):
    trials = search.made.oracle.get_best_trials(14)
    space, seen = search.supernet.space, []
    accuracy = search.scorer.accuracy

    def note(x, y):
        seen.append(len(x))
        return accuracy(x, y)

    monkeypatch.setattr(search.scorer, "accuracy", note)
    chosen = choose(search.candidates, trials, 3)
    subnets = [space.subnet(trial.hyperparameters.values) for trial in trials]
    first = np.array([trial.metrics.get_last_value("accuracy") for trial in trials])
    prices = np.array([trial.metrics.get_last_value("latency_us") for trial in trials])
    is_by_hand = np.array([subnet in hand_scaled(space) for subnet in subnets])
    again = sorted({*best_of_steps(first, prices, 3, AGAIN), *np.flatnonzero(is_by_hand)})
    assert seen == [len(search.dataset.x_search)] * len(again) + [len(search.dataset.x_test)] * len(chosen)
    assert 1 <= len(chosen) <= 3 < len(again)

    monkeypatch.setattr(search.scorer, "accuracy", accuracy)
    for finalist in chosen:
        for split, value in finalist["inherited"].items():
            assert value == exactly(search, space.subnet(finalist["values"]), split)
    exact = np.array([exactly(search, subnets[index], "search") for index in again])
    assert list(exact) != list(first[again])
    expected = [trials[again[place]].trial_id for place in spread(exact, prices[again], 3, is_by_hand[again])]
    assert [finalist["trial"] for finalist in chosen] == expected


def test_a_longer_recalibration_takes_more_images(digits, search):
    def statistics(thoroughly):
        search.supernet.activate(search.supernet.space.largest())
        search.scorer.recalibrate(thoroughly)
        return {name: array for name, array in search.supernet.arrays().items() if "moving_mean" in name}

    short, long = statistics(False), statistics(True)
    assert any(not np.array_equal(short[name], long[name]) for name in short)
    assert len(search.scorer.recalibration_batches(thoroughly=False)) == 1
    all_batches = search.scorer.recalibration_batches(thoroughly=True)
    assert len(all_batches) == len(search.dataset.x_train) // scoring.RECALIBRATION_BATCH > 1
