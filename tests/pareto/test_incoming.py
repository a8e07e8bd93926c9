import math

import numpy as np
import pytest

from daqu_tf.errors import DaquError
from daqu_tf.pareto import incoming
from daqu_tf.pareto.choices import Choices
from daqu_tf.pareto.goal import Goal
from daqu_tf.pareto.predictor import KnownCosts
from daqu_tf.pareto.surrogate_search import SurrogateSearch

CHOICES = Choices({"a": (1, 2, 4), "b": ("x", "y")})
CODES = np.array([[0, 0], [1, 1], [2, 0]])


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (3, 3.0),
        (True, 1.0),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7.0),
        (np.array([2.5]), 2.5),
        (np.array(2.5), 2.5),
        (1.7e308, 1.7e308),
        (10**400, math.inf),
        (-(10**400), -math.inf),
        (math.inf, math.inf),
    ],
)
def test_numbers_of_any_type(value, wanted):
    assert incoming.number(value) == wanted and type(incoming.number(value)) is float


@pytest.mark.parametrize("value", [None, "0.5", b"1", 1 + 2j, np.complex128(1), np.array([1.0, 2.0]), [], [1, [2]], {}, object()])
def test_what_is_no_number_is_nan(value):
    assert math.isnan(incoming.number(value))


@pytest.mark.parametrize(
    ("returned", "sentence"),
    [
        ({"bytes": [1.0, math.nan, 2.0]}, "`bytes` is nan for {'a': 2, 'b': 'y'}: mend it"),
        ({"bytes": [1.0, 2.0, math.inf]}, "`bytes` is inf for {'a': 4, 'b': 'x'}: mend it"),
        ({"bytes": [1, 10**400, 2]}, "`bytes` is inf for"),
        ({"bytes": [1.0, None, 2.0]}, "`bytes` is nan for"),
        ({"bytes": [1.0, 2.0]}, r"each of the 3 it was asked for, but `bytes` has shape \(2,\)"),
        ({"bytes": 1.0}, r"but `bytes` has shape \(\)"),
        ({"bytes": [[1.0], [2.0], [3.0]]}, r"but `bytes` has shape \(3, 1\)"),
        ({"bytes": [[1.0], [2.0, 3.0], []]}, "`costs` must return"),
        ({"bytes": np.ones(3) * 1j}, "must return real numbers, but `bytes` is array"),
        ({"bytes": ["1", "2", "3"]}, "must return real numbers, but `bytes` is"),
        ({"bytes": []}, r"but `bytes` has shape \(0,\)"),
        ({}, "must return at least one array by name, but returned none: leave `costs` out"),
        (None, "`costs` must give values by name, but received None"),
        ([1.0, 2.0, 3.0], "`costs` must give values by name"),
        ({7: [1.0, 2.0, 3.0]}, "`costs` must give values by name"),
    ],
)
def test_costs_that_cannot_be_used(returned, sentence):
    with pytest.raises(DaquError, match=sentence):
        KnownCosts(CHOICES, lambda many: returned)(CODES)


@pytest.mark.parametrize("column", [[1, 2, 3], (True, False, True), np.float32([1, 2, 3]), np.array([1, 2, 3], dtype=object)])
def test_costs_of_any_type_of_number(column):
    found = KnownCosts(CHOICES, lambda many: {"bytes": column})(CODES)
    assert found["bytes"].tolist() == [float(value) for value in column]


def test_costs_whose_names_change():
    answers = iter([{"bytes": [1.0]}, {"macs": [1.0]}])
    known = KnownCosts(CHOICES, lambda many: next(answers))
    known(CODES[:1])
    with pytest.raises(DaquError, match="must always return the same names"):
        known(CODES[1:2])


GOAL = Goal((("loss", "min"),))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"design": [None]}, "`initial_design` must give values by name, but received None"),
        ({"design": {"a": 1, "b": "x"}}, "`initial_design` must be a list of values by name"),
        ({"design": [{"a": 1}]}, "`b` is missing"),
        ({"design": [{"a": 3, "b": "x"}]}, r"`a` must be one of \[1, 2, 4\], but received 3"),
        ({"design": [{"a": np.array([1, 2]), "b": "x"}]}, "`a` must be one of"),
        ({"design": [{"a": math.nan, "b": "x"}]}, "`a` must be one of"),
        ({"design": [{"a": 10**400, "b": "x"}]}, "`a` must be one of"),
        ({"design": [], "initial_random": -1}, "`initial_random` must be an integer of at least 0, but received -1"),
        ({"design": [], "initial_random": 1.5}, "`initial_random` must be an integer of at least 0"),
        ({"design": [], "sample": lambda rng: None}, "`sample` must give values by name, but received None"),
        ({"design": [], "sample": lambda rng: {"a": 1}}, "`b` is missing"),
        ({"design": [], "canonicalise": lambda values: 3}, "`canonicalise` must give values by name, but received 3"),
    ],
)
def test_values_that_cannot_be_used(arguments, sentence):
    with pytest.raises(DaquError, match=sentence):
        SurrogateSearch(CHOICES, GOAL, **{"initial_random": 2, **arguments}).propose(np.random.default_rng(0))


def test_values_of_numpy_are_those_of_python():
    assert CHOICES.encode({"a": np.int64(2), "b": np.str_("y")}) == (1, 1)


@pytest.mark.parametrize("bad", [None, math.nan, "1", 1j, 10**400, [1.0, 2.0]])
def test_nothing_is_learned_of_what_is_no_number(bad):
    search = SurrogateSearch(CHOICES, GOAL, [], 2)
    search.learn({"a": 1, "b": "x"}, {"loss": bad})
    assert search.propose(np.random.default_rng(0)) is not None
