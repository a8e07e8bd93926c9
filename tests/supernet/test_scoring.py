import numpy as np
import pytest
import tensorflow as tf
from families import FAMILIES, smooth_images
from family_supernets import family_supernet

from daqu_tf.supernet.scoring import Scorer, top1


@pytest.fixture(scope="module")
def scorer():
    supernet, _ = family_supernet("inverted_residual")
    return Scorer(supernet, smooth_images(supernet.space, 256, seed=3))


@pytest.fixture(scope="module")
def labelled():
    """Images, and labels that some of the subnets get right."""
    images = smooth_images(FAMILIES["inverted_residual"], 200, seed=4)
    return images, np.random.default_rng(0).integers(0, 5, 200)


def subnets(count):
    rng = np.random.default_rng(7)
    return [FAMILIES["inverted_residual"].sample_by_gene(rng) for _ in range(count)]


def test_evaluate_is_recalibration_and_accuracy_of_each(scorer, labelled):
    accuracies = scorer.evaluate(subnets(4), *labelled)
    supernet, _ = family_supernet("inverted_residual")
    for subnet, accuracy in zip(subnets(4), accuracies):
        network = supernet.extract(subnet)
        network(smooth_images(supernet.space, 256, seed=3), training=True, statistics_rate=1.0)  # One batch.
        assert accuracy == pytest.approx(top1(network(labelled[0]).numpy(), labelled[1]), abs=0.011)
    assert len(set(accuracies)) > 1


def test_what_is_known_is_not_computed_again(scorer, labelled, monkeypatch):
    first = scorer.evaluate(subnets(3), *labelled)
    monkeypatch.setattr(scorer, "recalibrate", lambda: pytest.fail("It was known."))
    assert scorer.evaluate(list(reversed(subnets(3))), *labelled) == list(reversed(first))
    x, y = labelled
    for other in ((x[::-1], y), (x, y[::-1])):
        with pytest.raises(pytest.fail.Exception, match="It was known"):
            scorer.evaluate(subnets(3), *other)


def test_other_weights_have_other_scores(scorer, labelled):
    supernet, _ = family_supernet("inverted_residual")
    before, arrays = scorer.evaluate(subnets(1), *labelled), supernet.arrays()
    try:
        supernet.load_arrays(arrays | {"classifier/bias": np.float32([-99, -99, -99, -99, 99])})
        assert scorer.evaluate(subnets(1), *labelled) == [np.mean(labelled[1] == 4)] != before
    finally:
        supernet.load_arrays(arrays)
    assert scorer.evaluate(subnets(1), *labelled) == before


def test_other_steps_have_other_scores(scorer, labelled, monkeypatch):
    supernet, _ = family_supernet("inverted_residual")
    scorer.evaluate(subnets(1), *labelled)
    monkeypatch.setattr(scorer, "recalibrate", lambda: pytest.fail("It was not known."))
    step = supernet.variables_by_name["head/kernel_log_step"]
    step.assign_add(tf.ones_like(step))
    try:
        with pytest.raises(pytest.fail.Exception, match="It was not known"):
            scorer.evaluate(subnets(1), *labelled)
    finally:
        step.assign_sub(tf.ones_like(step))
