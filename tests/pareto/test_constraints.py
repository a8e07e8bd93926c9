import math

import numpy as np
import pytest

from daqu_tf.errors import DaquError
from daqu_tf.pareto.constraints import Constraint, parse, total_violation


@pytest.mark.parametrize(
    ("text", "metric", "operator", "limit"),
    [
        ("latency_us<=2000", "latency_us", "<=", 2000.0),
        (" accuracy >= 0.9 ", "accuracy", ">=", 0.9),
        ("file_bytes<=6e4", "file_bytes", "<=", 60000.0),
        ("val_loss>=-1", "val_loss", ">=", -1.0),
    ],
)
def test_forms(text, metric, operator, limit):
    assert parse([text]) == (Constraint(metric, operator, limit),)


@pytest.mark.parametrize("text", ["latency_us", "latency_us<2000", "latency_us<=", "<=3", "a<=b", "a<=nan", "a<=inf", "a<=1<=2", 7])
def test_what_does_not_parse(text):
    with pytest.raises(DaquError, match=r"`constraints` must have the form METRIC<=NUMBER or METRIC>=NUMBER, but received"):
        parse([text])


def test_a_single_text():
    with pytest.raises(DaquError, match="must be a list"):
        parse("latency_us<=3")


def test_violation_is_a_share_of_the_limit():
    assert parse(["a<=10"])[0].violation(np.array([5.0, 10.0, 15.0])).tolist() == [0, 0, 0.5]
    assert parse(["a>=10"])[0].violation(np.array([5.0, 10.0, 15.0])).tolist() == [0.5, 0, 0]
    assert parse(["a<=0"])[0].violation(np.array([2.0])).tolist() == [2.0]


def test_the_sum_over_constraints():
    constraints = parse(["a<=10", "b>=1"])
    assert total_violation(constraints, {"a": 20.0, "b": 0.5}) == 1.5
    assert total_violation(constraints, {"a": 1.0, "b": 2.0}) == 0
    assert total_violation(constraints, {"a": 1.0}) == math.inf
