import itertools
import warnings

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


# Several blocks of what is compared at once, a zero that is negative, and sums that are equal by rounding alone.
MANY = [
    np.random.default_rng(0).random((700, 2)),
    np.random.default_rng(1).integers(0, 9, (500, 4)).astype(float),
    np.stack([np.arange(100.0), -np.arange(100.0)], axis=1),
    np.array([[0.0, 1.0], [-0.0, 1.0], [0.0, 0.0], [-0.0, -0.0]]),
    np.array([[1e17, 1.0], [1e17, 0.0], [1e17, 2.0]]),
    np.zeros((0, 2)),
]


def non_dominated(points: np.ndarray) -> list[bool]:
    """The definition."""
    return [not any((other <= point).all() and (other < point).any() for other in points) for point in points]


@given(POINTS)
@settings(deadline=None)
def test_mask_agrees_with_brute_force(points):
    assert pareto.non_dominated_mask(points).tolist() == non_dominated(points)


@pytest.mark.parametrize("points", MANY)
def test_mask_of_many_and_of_odd_points(points):
    assert pareto.non_dominated_mask(points).tolist() == non_dominated(points)


@pytest.mark.parametrize("points", MANY)
def test_the_first_front_has_each_non_dominated_point_once_by_rising_sum(points):
    front = fronts.first_front(points)
    first = {tuple(point): index for index, point in reversed(list(enumerate(points)))}  # A zero equals a negative one.
    wanted = {first[tuple(point)] for point in points[np.array(non_dominated(points), dtype=bool)]}
    sums = points.sum(axis=1)
    assert front.tolist() == sorted(wanted, key=lambda index: (sums[index], index))


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


def cells(points: np.ndarray, reference: np.ndarray) -> int:
    """How many cells of the grid of integers lie between a point and the reference."""
    corners = np.array(list(itertools.product(*(range(-3, int(each)) for each in reference))))
    return int((points[:, None] <= corners).all(axis=2).any(axis=0).sum())


def included(points: np.ndarray, reference: np.ndarray) -> float:
    """By inclusion and exclusion: what each dominates, less what two do, plus what three do."""
    volume = 0.0
    for size in range(1, len(points) + 1):
        for chosen in itertools.combinations(points, size):
            volume -= (-1) ** size * np.prod(np.maximum(reference - np.max(chosen, axis=0), 0))
    return volume


@given(
    st.tuples(st.integers(0, 14), st.integers(1, 5)).flatmap(
        lambda shape: arrays.arrays(np.float64, shape, elements=st.integers(-3, 1).map(float))
    )
)
@settings(deadline=None)
def test_hypervolume_counts_cells(points):
    reference = np.arange(points.shape[1]) % 2 + 0.0  # Copies, points on its edge, and points beyond it too.
    assert pareto.hypervolume(points, reference) == cells(points, reference)


@pytest.mark.parametrize("objectives", range(1, 7))
def test_hypervolume_by_inclusion_and_exclusion(objectives):
    points = np.random.default_rng(objectives).random((9, objectives))
    reference = np.linspace(0.9, 1.1, objectives)
    assert pareto.hypervolume(points, reference) == pytest.approx(included(points, reference), rel=1e-12)


# Points on a sphere, all of them on the front, and what pymoo 0.6.2 finds for them.
SPHERES = [
    (300, 2, 0.9928425239794175),
    (300, 3, 0.7431397501003292),
    (100, 4, 0.3974608090420395),
    (50, 5, 0.14998271420853138),
]


def sphere(count: int, objectives: int) -> np.ndarray:
    points = np.abs(np.random.default_rng(0).normal(size=(count, objectives)))
    return 1 - points / np.linalg.norm(points, axis=1, keepdims=True)


@pytest.mark.parametrize(("count", "objectives", "volume"), SPHERES)
def test_hypervolume_is_what_pymoo_found(count, objectives, volume):
    assert pareto.hypervolume(sphere(count, objectives), np.full(objectives, 1.1)) == pytest.approx(volume, rel=1e-9)


@pytest.mark.parametrize(("count", "objectives", "volume"), SPHERES)
def test_hypervolume_is_what_pymoo_finds(count, objectives, volume):
    hv = pytest.importorskip("pymoo.indicators.hv", reason="pymoo is in the extra of the benchmarks")
    found = hv.HV(ref_point=np.full(objectives, 1.1))(sphere(count, objectives))
    assert pareto.hypervolume(sphere(count, objectives), np.full(objectives, 1.1)) == pytest.approx(found, rel=1e-12)
    assert found == pytest.approx(volume, rel=1e-9)


def test_hypervolume_of_nothing_is_zero():
    assert pareto.hypervolume(np.zeros((0, 2)), np.ones(2)) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "function",
    [
        pareto.non_dominated_mask,
        pareto.crowding_distance,
        lambda points: pareto.hypervolume(points, np.ones(2)),
    ],
)
def test_values_that_are_not_finite_are_refused(function, bad):
    with pytest.raises(DaquError, match="finite"):
        function(np.array([[0.0, 1.0], [bad, 0.0]]))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(DaquError, match="dimension"):
        pareto.non_dominated_mask(np.zeros(3))
    with pytest.raises(DaquError, match="`reference`"):
        pareto.hypervolume(np.zeros((1, 2)), np.ones(3))


LARGEST = np.finfo(float).max


@pytest.mark.parametrize("size", [1e154, 1e200, 1e308, LARGEST])
def test_points_up_to_the_range_of_floats_have_a_front(size):
    points = np.array([[1.0, 1.0, -1.0], [size, size, size], [-size, size, 0.0], [size, -size, 0.0], [size, -size, size]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sorted(fronts.first_front(points)) == [0, 2, 3]
        assert pareto.non_dominated_mask(points).tolist() == [True, False, True, True, False]
        assert not np.isnan(pareto.crowding_distance(points)).any()


def test_a_volume_beyond_the_range_of_floats():
    with pytest.raises(DaquError, match="within the range of floats"):
        pareto.hypervolume(np.array([[-LARGEST, -LARGEST]]), np.array([1.0, 1.0]))
    assert pareto.hypervolume(np.array([[-1e300, 0.0]]), np.ones(2)) == pytest.approx(1e300)


@pytest.mark.parametrize("bad", [[[1.0, "a"]], [[1.0], [1.0, 2.0]], [[1j, 1.0]], [[10**400, 1.0]], [[{}, 1.0]]])
def test_points_that_are_no_numbers(bad):
    with pytest.raises(DaquError, match="Points must be an array of real numbers"):
        pareto.non_dominated_mask(bad)
