import numpy as np
import pytest

from daqu_tf.pareto import targets

VALUES = np.random.default_rng(0).normal(1.0, 0.2, 90)


@pytest.mark.parametrize(("bad", "is_maximised"), [(1e9, False), (-1e3, True), (1.7e308, False), (-1.7e308, True)])
@pytest.mark.parametrize("count", [1, 10, 40])
def test_what_diverged_lies_on_the_fence_and_the_rest_keeps_its_place(bad, is_maximised, count):
    scale = targets.fitted(np.concatenate([VALUES, np.full(count, bad)]), False, is_maximised)
    assert scale(VALUES) == pytest.approx(VALUES)
    assert abs(scale(np.array(bad)) - 1.0) < 2.0
    assert scale.is_outlier(np.array([bad, 1.0])).tolist() == [True, False]


def test_logarithms_have_fences_too():
    scale = targets.fitted(np.concatenate([np.exp(VALUES), [1e300]]), True, False)
    assert scale(np.exp(VALUES)) == pytest.approx(VALUES)
    assert scale(np.array(1e300)) == scale.high < 3


def test_a_great_find_keeps_its_order():
    scale = targets.fitted(VALUES, False, is_maximised=False)
    found = scale(np.array([0.0, -1.0, -5.0, -1e9]))
    assert (np.diff(found) < 0).all() and found[-1] > -10
    assert scale.is_outlier(np.array([0.9, -1e9, 1e9])).tolist() == [False, True, True]


def test_the_fences_leave_room_for_a_limit():
    """What misses a constraint by far still misses it, though nothing that has run comes near."""
    scale = targets.fitted(VALUES, False, False, limits=(50.0,))
    assert scale(np.array(1e9)) > scale(np.array(50.0)) == 50.0


@pytest.mark.parametrize("values", [np.ones(5), np.array([1.0]), np.array([1.0, 1.0, 1.0, 1.0, 1e9])])
def test_values_that_mostly_agree_are_left(values):
    assert targets.fitted(values, False, False)(values).tolist() == values.tolist()
