"""Finalists are chosen by accuracies on the whole search split, and only they are looked at on test."""

import numpy as np
import pytest
from latency_tables import table_of
from search_on_digits import TARGET, DigitsSearch

from daqu_tf.export.export import round_biases
from daqu_tf.search.finalists import choose, spread
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


def test_the_front_is_scored_again_exactly_and_test_is_looked_at_once(search, monkeypatch):
    trials = search.made.oracle.get_best_trials(9)
    space, seen = search.supernet.space, []
    accuracy = search.scorer.accuracy

    def note(x, y):
        seen.append(len(x))
        return accuracy(x, y)

    monkeypatch.setattr(search.scorer, "accuracy", note)
    chosen = choose(search.candidates, trials, 3, 1.0)
    counts = {"search": len(search.dataset.x_search), "test": len(search.dataset.x_test)}
    assert len(chosen) == 3 and seen == [counts["search"]] * 9 + [counts["test"]] * 3

    monkeypatch.setattr(search.scorer, "accuracy", accuracy)
    for finalist in chosen:
        for split, value in finalist["inherited"].items():
            assert value == exactly(search, space.subnet(finalist["values"]), split)
    accuracies = np.array([exactly(search, space.subnet(trial.hyperparameters.values), "search") for trial in trials])
    assert list(accuracies) != [trial.metrics.get_last_value("accuracy") for trial in trials]
    order = np.argsort(-accuracies, kind="stable")
    prices = np.array([trial.metrics.get_last_value("latency_us") for trial in trials])
    expected = [trials[index].trial_id for index in order[spread(accuracies[order], prices[order], 3, 1.0)]]
    assert [finalist["trial"] for finalist in chosen] == expected


def test_a_longer_recalibration_takes_more_images(digits, search):
    def statistics(thoroughly):
        search.supernet.activate(search.supernet.space.largest())
        search.scorer.recalibrate(thoroughly)
        return {name: array for name, array in search.supernet.arrays().items() if "moving_mean" in name}

    short, long = statistics(False), statistics(True)
    assert any(not np.array_equal(short[name], long[name]) for name in short)
    assert len(search.scorer._batches) == 1
    assert len(search.scorer._all_batches) == len(search.dataset.x_train) // scoring.RECALIBRATION_BATCH > 1
