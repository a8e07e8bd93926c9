"""Constraints as people write them."""

import pytest

from daqu_tf import RunConfig, targets
from daqu_tf.errors import DaquError
from daqu_tf.pareto import Constraint


@pytest.mark.parametrize(
    ("text", "metric", "operator", "limit"),
    [
        ("latency_us<=2000", "latency_us", "<=", 2000),
        ("latency<=2ms", "latency_us", "<=", 2000),
        (" latency <= 2.5 ms ", "latency_us", "<=", 2500),
        ("latency<=1e-3s", "latency_us", "<=", 1000),
        ("latency>=40µs", "latency_us", ">=", 40),
        ("latency<=40", "latency_us", "<=", 40),
        ("size<=100kB", "file_bytes", "<=", 100_000),
        ("size<=100KiB", "file_bytes", "<=", 102_400),
        ("deflated_bytes<=1MB", "deflated_bytes", "<=", 1_000_000),
        ("peak_activation_bytes<=64KiB", "peak_activation_bytes", "<=", 65_536),
        ("macs<=5M", "macs", "<=", 5_000_000),
        ("bitops<=1.5G", "bitops", "<=", 1_500_000_000),
        ("accuracy>=90%", "accuracy", ">=", 0.9),
        ("accuracy>=0.9", "accuracy", ">=", 0.9),
    ],
)
def test_names_and_units(text, metric, operator, limit):
    assert targets.constraints_of([text]) == (Constraint(metric, operator, pytest.approx(limit)),)
    assert RunConfig(dataset="digits", output_dir="run", constraint=[text]).constraints == targets.constraints_of([text])


def test_a_constraint_stays_what_it_is():
    one = Constraint("file_bytes", "<=", 5.0)
    assert targets.constraints_of([one, "size<=5B"]) == (one, one)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("latency<2ms", "METRIC<=NUMBER"),
        ("latency<=two", "METRIC<=NUMBER"),
        ("latency<=2ms later", "METRIC<=NUMBER"),
        ("latency<=1.2.3ms", "METRIC<=NUMBER"),
        ("latency<=2 kB", "'kB', but latency_us is given in us, µs, ms, s"),
        ("size<=2ms", "'ms', but file_bytes is given in B, kB, KB, MB, KiB, MiB"),
        ("accuracy>=9k", "'k', but accuracy is given in %"),
        ("accuracy>=90", "asks for more than all: accuracy is a share, as accuracy>=0.9 or accuracy>=90%"),
        ("accuracy>=900%", "asks for more than all"),
        ("latency_ms<=2", "must name latency, size or one of accuracy, latency_us, .* but received 'latency_ms'"),
    ],
)
def test_what_is_wrong_is_said(text, words):
    with pytest.raises(DaquError, match=words):
        targets.constraints_of([text])
    with pytest.raises(DaquError, match=words):
        RunConfig(dataset="digits", output_dir="run", constraint=[text])
