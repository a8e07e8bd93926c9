"""What makes timings doubtful, and that they are taken again."""

import numpy as np
import pytest
from faults import refused
from hypothesis import given
from hypothesis import strategies as st

from daqu_tf.devices import Device, DeviceLostError, DeviceSetupError, Latency, base, runner, steadiness

STEADY = (10.0, 10.1, 9.9, 10.0)
WIDE = (10.0, 10.0, 15.0, 15.0)


class Scripted(Device):
    """Gives the latencies of a list of samples, one after the other, and the last one from then on."""

    name = "scripted"

    def __init__(self, *runs, **flags):
        self.runs, self.taken, self.flags = list(runs), 0, flags

    def identity(self):
        return {}

    def outputs(self, model_path, images=None):
        raise NotImplementedError

    def measure(self, model_path):
        samples = self.runs[min(self.taken, len(self.runs) - 1)]
        flags = ("spread",) if steadiness.relative_spread(samples) > steadiness.SPREAD else self.flags.get(f"run{self.taken}", ())
        self.taken += 1
        return Latency(tuple(samples), (float(np.median(samples)),), 1, 1, "none", "r", "1", {}, model_path, flags=flags)


def scaled(factor):
    return tuple(factor * sample for sample in STEADY)


@pytest.fixture
def rests(monkeypatch):
    found = []
    monkeypatch.setattr(base.time, "sleep", found.append)
    return found


def test_steady_runs_are_taken_once(rests):
    device = Scripted(STEADY)
    (latency,) = device.measure_many(["x"])
    assert device.taken == 3 and latency.flags == () and latency.dropped_runs == 0 and latency.outliers == () and not rests


def test_a_wide_run_is_taken_again_and_counted():
    device = Scripted(STEADY, WIDE, STEADY)
    (latency,) = device.measure_many(["x"])
    assert device.taken == 4 and latency.flags == () and latency.dropped_runs == 1
    assert latency.run_medians_us == (10.0,) * 3 and latency.to_json()["dropped_runs"] == 1


def test_what_stays_wide_is_flagged_and_kept_whole():
    device = Scripted(WIDE)
    (latency,) = device.measure_many(["x"], repeats=2, retries=3)
    assert device.taken == 5 and latency.flags == ("spread",) and len(latency.run_medians_us) == 5 and latency.dropped_runs == 0
    assert latency.to_json()["flags"] == ("spread",)


def test_processes_that_differ_are_taken_again_and_then_flagged():
    device = Scripted(STEADY, scaled(1.5), STEADY, scaled(1.02))
    (latency,) = device.measure_many(["x"])
    assert device.taken == 5 and latency.flags == () and len(latency.run_medians_us) == 5  # One in five is an outlier, and stays.
    device = Scripted(STEADY, scaled(1.5), STEADY, scaled(1.5), STEADY, scaled(1.5))
    (latency,) = device.measure_many(["x"])
    assert device.taken == 5 and latency.flags == ("run_spread",)


def test_only_what_is_doubtful_is_taken_again():
    class Two(Device):
        name, seen = "two", ""

        def identity(self):
            return {}

        outputs = identity

        def measure(self, model_path):
            self.seen += model_path
            samples = WIDE if model_path == "b" else STEADY
            return Latency(samples, (10.0,), 1, 1, "none", "r", "1", {}, "", flags=("spread",) if model_path == "b" else ())

    device = Two()
    device.measure_many("abc", repeats=2, retries=2)
    assert sorted(device.seen[:6]) == sorted("abc" * 2) and device.seen[6:] == "bb"


def test_a_device_that_gets_slower_and_slower_rests(rests):
    device = Scripted(STEADY, scaled(1.04), scaled(1.08), STEADY)
    (latency,) = device.measure_many(["x"])
    assert rests == [base._REST_SECONDS] and device.taken == 4 and latency.flags == () and latency.dropped_runs == 1


def test_one_that_does_not_recover_is_flagged(rests):
    (latency,) = Scripted(*(scaled(1.04**power) for power in range(9))).measure_many(["x"])
    assert latency.flags == ("run_spread", "throttled") or latency.flags == ("throttled",)
    assert rests[:2] == [base._REST_SECONDS] * 2


def test_retries_out_of_range():
    refused(lambda: Scripted(STEADY).measure_many(["x"], retries=-1), "`repeats`", kind=DeviceSetupError)


@pytest.mark.parametrize(
    "medians, drifting",
    [
        ([], False),
        ([[10, 11]], False),
        ([[10, 11, 12]], True),
        ([[10, 10.1, 10.2]], False),
        ([[10, 12, 11]], False),
        ([[9, 10, 11, 12], [5, 6, 7, 8], [7, 7, 7, 7]], True),
        ([[9, 10, 11, 12], [7, 7, 7, 7], [7, 7, 7, 7]], False),
    ],
)
def test_drift(medians, drifting):
    assert steadiness.is_drifting(medians) == drifting


def test_outliers_are_named_and_kept():
    samples = [10.0, 10.2, 9.8, 50.0, 10.1, 9.9, 1.0, 10.0, 12.0]
    latency = Latency(tuple(samples), (10.0,), 1, 1, "none", "r", "1", {}, "")
    assert latency.outliers == (3, 8) and len(latency.samples_us) == 9 and latency.to_json()["outlier_count"] == 2
    assert Latency((10.0,) * 9 + (10.4, 11.0), (10.0,), 1, 1, "none", "r", "1", {}, "").outliers == (10,)  # Of a coarse clock.


@given(st.lists(st.floats(1, 1e6), min_size=3, max_size=50), st.floats(0.01, 1e4))
def test_outliers_do_not_depend_on_the_unit_and_are_fewer_than_half(samples, unit):
    found = steadiness.outliers(samples)
    assert 2 * len(found) < len(samples) and set(found) <= set(np.flatnonzero(samples > np.median(samples)))
    limit = np.median(samples) + 5 * max(1.4826 * np.median(np.abs(samples - np.median(samples))), 0.01 * np.median(samples))
    if not np.any(np.isclose(samples, limit)):
        np.testing.assert_array_equal(steadiness.outliers(np.multiply(samples, unit)), found)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=30), st.floats(1, 1e9))
def test_what_is_kept_of_samples_could_be(samples, elapsed_us):
    try:
        kept = steadiness.possible(samples, elapsed_us, "d")
    except DeviceLostError as error:
        assert str(error).startswith("The clock of d jumped or is wrong") and "\n" not in str(error)
    else:
        assert sum(kept) <= elapsed_us and min(kept) > 0 and 2 * len(kept) > len(samples)


MOMENT = {"governor": "schedutil", "frequency_hz": 1_800_000_000, "temperature_celsius": 60.0, "throttled": None}


@pytest.mark.parametrize(
    "before, after, throttled",
    [
        ({}, {}, False),
        ({}, {"temperature_celsius": 80.0}, True),
        ({"temperature_celsius": 80.0}, {"temperature_celsius": 79.0}, True),
        ({}, {"temperature_celsius": 79.9}, False),
        ({"temperature_celsius": None}, {"temperature_celsius": None}, False),
        ({"frequency_hz": 1_800_000_000}, {"frequency_hz": 1_500_000_000}, True),
        ({"frequency_hz": 1_800_000_000}, {"frequency_hz": 1_700_000_000}, False),
        ({"frequency_hz": 600_000_000}, {"frequency_hz": 1_800_000_000}, False),  # The governor has woken up.
        ({"frequency_hz": 1_800_000_000}, {"frequency_hz": None}, False),
        ({"throttled": False}, {"throttled": True}, True),
        ({"throttled": False}, {"throttled": False}, False),
    ],
)
def test_throttling(before, after, throttled):
    assert steadiness.is_throttled(MOMENT | before, MOMENT | after, 80.0) == throttled


@pytest.mark.parametrize("text, said", [("50000", False), ("50005", True), ("0", False), ("8", True), ("x", None), (None, None)])
def test_what_the_firmware_of_a_raspberry_pi_says(monkeypatch, text, said):
    monkeypatch.setattr(runner, "read", lambda path: text if path.endswith("get_throttled") else None)
    assert runner.throttled() is said and runner.conditions()["throttled"] is said
