import numpy as np
import pytest

from daqu_tf import pareto
from daqu_tf.pareto import acquisition


def test_what_is_certain_is_chosen_by_hypervolume():
    """Three exact candidates: the order is that of a greedy choice by true hypervolume."""
    rng, front = np.random.default_rng(0), np.array([[0.0, 1.0], [1.0, 0.0]])
    candidates = np.array([[0.5, 0.5], [0.3, 0.9], [0.6, 0.25], [0.55, 0.52]])

    def volume(chosen):
        return pareto.hypervolume(np.vstack([front, candidates[chosen]]), np.array([1.1, 1.1]))

    greedy = []
    while len(greedy) < 3:
        greedy.append(max((index for index in range(4) if index not in greedy), key=lambda index: volume([*greedy, index])))
    assert acquisition.choose(candidates, np.zeros((4, 2)), np.ones(4), front, 3, rng) == greedy


def test_the_estimate_is_the_expected_improvement():
    """Against samples of the very definition."""
    rng, front = np.random.default_rng(1), np.array([[0.0, 1.0], [0.4, 0.5], [1.0, 0.0]])
    means, deviations = rng.uniform(0.1, 0.7, (5, 2)), np.tile([0.1, 0.05], (5, 1))
    reference = np.array([1.1, 1.1])

    def improvement(mean, deviation):
        drawn = rng.normal(mean, deviation, (400, 2))
        base = pareto.hypervolume(front, reference)
        return np.mean([pareto.hypervolume(np.vstack([front, point]), reference) - base for point in drawn])

    wanted = [improvement(*candidate) for candidate in zip(means, deviations)]
    best = acquisition.choose(means, deviations, np.ones(5), front, 1, np.random.default_rng(0))[0]
    assert wanted[best] > 0.9 * max(wanted)


def test_a_batch_is_spread():
    """The second of two nearly equal candidates has little left to gain."""
    front = np.array([[0.0, 1.0], [1.0, 0.0]])
    means = np.array([[0.3, 0.3], [0.301, 0.301], [0.05, 0.8]])
    assert acquisition.choose(means, np.full((3, 2), 1e-3), np.ones(3), front, 2, np.random.default_rng(0)) == [0, 2]


def test_a_batch_has_what_is_expected_beside_what_may_be():
    """Many candidates that may be good, all alike, leave a turn to the one that probably is better than the front."""
    front = np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])
    means = np.array([[0.6, 0.6], [0.601, 0.601], [0.602, 0.602], [0.45, 0.45]])
    deviations = np.array([[0.5, 0.5]] * 3 + [[0.01, 0.01]])
    chosen = acquisition.choose(means, deviations, np.ones(4), front, 2, np.random.default_rng(0))
    assert chosen[0] < 3 and chosen[1] == 3


def test_a_large_pool_is_screened_for_both():
    rng, front = np.random.default_rng(0), np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])
    means, deviations = rng.uniform(0.6, 0.9, (3000, 2)), np.full((3000, 2), 0.4)
    means[1234], deviations[1234] = 0.48, 0.001
    assert 1234 in acquisition.choose(means, deviations, np.ones(3000), front, 2, rng)


def test_what_cannot_help_or_may_not_run_is_left_out():
    front = np.array([[0.2, 0.2]])
    means, still = np.array([[0.5, 0.5], [0.1, 0.1], [0.0, 0.15]]), np.zeros((3, 2))
    assert acquisition.choose(means, still, np.array([1.0, 0.0, 1.0]), front, 3, np.random.default_rng(0)) == [2]
    assert acquisition.choose(means[:1], still[:1], np.ones(1), front, 3, np.random.default_rng(0)) == []


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_any_number_of_objectives(objectives):
    rng = np.random.default_rng(0)
    front = np.eye(objectives)
    means = rng.uniform(0, 1, (300, objectives))
    chosen = acquisition.choose(means, np.full_like(means, 0.05), np.ones(300), front, 8, rng)
    assert len(set(chosen)) == 8
