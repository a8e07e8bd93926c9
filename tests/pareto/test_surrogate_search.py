"""What is found where measurements are bad; `tests/oracle/test_oracle_search.py` has what an oracle proposes in general."""

import functools
import warnings
import zlib

import numpy as np
import pytest

from daqu_tf import pareto
from daqu_tf.pareto.choices import Choices
from daqu_tf.pareto.goal import Goal
from daqu_tf.pareto.surrogate_search import SurrogateSearch

CHOICES = Choices({f"x{index}": tuple(range(6)) for index in range(6)})
REFERENCE = np.array([1.1, 1.1])


def measure(code):
    """ZDT1 on a grid."""
    first, *others = np.array(code) / 5
    slope = 1 + 9 * np.mean(others)
    return np.array([first, slope * (1 - np.sqrt(first / slope))])


def has_diverged(code):
    return zlib.crc32(bytes(code)) % 10 == 0


def search(value, direction="min", trials=50, seed=0, constraints=()):
    """The codes of a search in a tenth of whose trials the second objective is `value`; None leaves it as it is."""
    goal = Goal((("first", "min"), ("second", direction)), constraints)
    one, found = SurrogateSearch(CHOICES, goal, [], 12, seed=seed), []
    for trial in range(trials):
        values = one.propose(np.random.default_rng((seed, trial)))
        one.tried(values)
        found.append(CHOICES.encode(values))
        first, second = measure(found[-1])
        second = -second if direction == "max" else second
        one.learn(values, {"first": first, "second": value if value is not None and has_diverged(found[-1]) else second})
    return found


@functools.cache
def undisturbed():
    return search(None)


def volume(codes):
    """Of what did not diverge."""
    return pareto.hypervolume(np.array([measure(one) for one in codes if not has_diverged(one)]), REFERENCE)


@pytest.mark.parametrize(("value", "direction"), [(1e9, "min"), (-1e3, "min"), (-1.7e308, "max")])
def test_trials_that_diverge_do_not_blind_the_search(value, direction):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = search(value, direction)
    assert any(map(has_diverged, found))
    assert volume(found) > 0.9 * volume(undisturbed())


def test_a_search_is_a_function_of_its_seed():
    assert search(1e9, seed=3, trials=30) == search(1e9, seed=3, trials=30) != search(1e9, seed=4, trials=30)
