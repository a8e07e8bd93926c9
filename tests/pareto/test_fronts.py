import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from daqu_tf import pareto
from daqu_tf.errors import DaquError
from daqu_tf.pareto import fronts

# Few distinct values, so that ties and duplicates are common.
POINTS = st.tuples(st.integers(0, 12), st.integers(1, 3)).flatmap(
    lambda shape: arrays.arrays(np.float64, shape, elements=st.integers(-2, 2).map(float))
)


def test_dominates_on_every_pair_of_a_grid():
    for a, b in itertools.product(itertools.product(range(3), repeat=3), repeat=2):
        no_worse = a[0] <= b[0] and a[1] <= b[1] and a[2] <= b[2]
        assert fronts.dominates(np.array(a), np.array(b)) == (no_worse and a != b)


@given(POINTS)
@settings(deadline=None)
def test_ranks_and_mask_agree_with_brute_force(points):
    expected, rank, left = {}, 0, set(range(len(points)))
    while left:
        front = {i for i in left if not any(fronts.dominates(points[j], points[i]) for j in left)}
        expected |= dict.fromkeys(front, rank)
        left, rank = left - front, rank + 1
    ranks = fronts.non_dominated_ranks(points)
    assert ranks.tolist() == [expected[i] for i in range(len(points))]
    assert pareto.non_dominated_mask(points).tolist() == [rank == 0 for rank in ranks]


def test_mask_across_blocks():
    points = np.random.default_rng(0).random((700, 2))
    brute = [not any((other <= point).all() and (other < point).any() for other in points) for point in points]
    assert pareto.non_dominated_mask(points).tolist() == brute


def test_crowding_distance_by_hand():
    points = np.array([[0.0, 10.0], [1.0, 6.0], [3.0, 4.0], [4.0, 0.0]])
    assert pareto.crowding_distance(points) == pytest.approx([np.inf, 3 / 4 + 6 / 10, 3 / 4 + 6 / 10, np.inf])


def test_crowding_distance_gives_copies_of_a_point_nothing():
    points = np.array([[0.0, 4.0], [1.0, 1.0], [1.0, 1.0], [4.0, 0.0], [0.0, 4.0]])
    assert pareto.crowding_distance(points) == pytest.approx([np.inf, 2.0, 0, np.inf, 0])


@pytest.mark.parametrize("points", [np.zeros((1, 2)), np.array([[0.0, 1.0], [1.0, 0.0]])])
def test_crowding_distance_of_few_points_is_infinite(points):
    assert np.isinf(pareto.crowding_distance(points)).all()


def test_crowding_distance_ignores_an_objective_in_which_all_agree():
    points = np.array([[0.0, 7.0], [1.0, 7.0], [2.0, 7.0]])
    assert pareto.crowding_distance(points) == pytest.approx([np.inf, 1.0, np.inf])


@given(POINTS)
@settings(deadline=None)
def test_crowding_distance_does_not_depend_on_the_order_of_distinct_points(points):
    points = np.unique(points, axis=0)
    assert np.array_equal(pareto.crowding_distance(points[::-1]), pareto.crowding_distance(points)[::-1])


@pytest.mark.parametrize(
    ("points", "reference", "volume"),
    [
        ([[0, 0]], [2, 3], 6),
        ([[0, 1], [1, 0]], [2, 2], 3),
        ([[0, 1], [1, 0], [1, 1], [0, 1]], [2, 2], 3),  # Dominated points and copies add nothing.
        ([[3, 0]], [2, 2], 0),  # Beyond the reference.
        ([[2, 0]], [2, 2], 0),  # On its edge.
        ([[0, 0, 0]], [1, 2, 3], 6),
        ([[0, 0, 1], [1, 1, 0]], [2, 2, 2], 4 + 2 - 1),
    ],
)
def test_hypervolume_by_hand(points, reference, volume):
    assert pareto.hypervolume(np.array(points), np.array(reference)) == pytest.approx(volume)


def test_hypervolume_of_nothing_is_zero():
    assert pareto.hypervolume(np.zeros((0, 2)), np.ones(2)) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "function",
    [
        pareto.non_dominated_mask,
        fronts.non_dominated_ranks,
        pareto.crowding_distance,
        lambda points: fronts.dominates(points[0], points[1]),
        lambda points: pareto.hypervolume(points, np.ones(2)),
    ],
)
def test_values_that_are_not_finite_are_refused(function, bad):
    with pytest.raises(DaquError, match="finite"):
        function(np.array([[0.0, 1.0], [bad, 0.0]]))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(DaquError, match="dimension"):
        pareto.non_dominated_mask(np.zeros(3))
    with pytest.raises(DaquError, match="equally many"):
        fronts.dominates(np.zeros(2), np.zeros(3))
    with pytest.raises(DaquError, match="`reference`"):
        pareto.hypervolume(np.zeros((1, 2)), np.ones(3))
