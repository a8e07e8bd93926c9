"""What minutes are worth, by hand-made speeds."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daqu_tf import RunConfig, machine, spaces, targets
from daqu_tf.pipeline import forecast
from daqu_tf.pipeline.forecast import Forecast
from daqu_tf.pipeline.narrowing import narrowed
from daqu_tf.pipeline.plan import Plan
from daqu_tf.pipeline.speed import USUAL, Speed

SPACE = targets.get("litert_cpu").restrict(spaces.get("resnet"))


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 2)


def forecast_of(count=50_000, speed=USUAL, **settings):
    config = RunConfig("digits", "run", **settings)
    return forecast.of(config, narrowed(SPACE, config, count, speed), count, speed)


@pytest.mark.parametrize("minutes", [4, 10, 20, 60, 180, 1440])
def test_the_minutes_of_all_stages_are_the_budget(minutes):
    assert sum(forecast_of(budget_minutes=minutes).minutes.values()) == pytest.approx(minutes, abs=0.05)


def test_more_minutes_are_more_images_and_more_finalists():
    found = [forecast_of(budget_minutes=minutes) for minutes in (10, 20, 60, 180)]
    assert [one.finalists for one in found] == sorted(one.finalists for one in found)
    assert [one.supernet_images for one in found] == sorted(one.supernet_images for one in found)
    assert all(one.images[0] > one.images[1] for one in found)


def test_a_machine_of_half_the_speed_shows_a_network_half_the_images():
    slow = Speed(USUAL.macs, tuple(2 * each for each in USUAL.seconds))
    before, after = forecast_of(budget_minutes=180), forecast_of(budget_minutes=180, speed=slow)
    assert after.supernet_images == pytest.approx(before.supernet_images / 2, rel=1e-3)
    assert after.images[1] == pytest.approx(before.images[1] / 2, rel=1e-3) or after.finalists < before.finalists


def test_epochs_say_the_images_and_the_minutes_follow():
    once, twice = (forecast_of(epochs=some, finetune_epochs=some) for some in (5.0, 10.0))
    assert once.images == (250_000, 250_000)
    assert twice.minutes["supernet"] == pytest.approx(2 * once.minutes["supernet"], rel=0.01)


@given(
    st.tuples(st.floats(1e3, 1e6), st.floats(1.1e6, 1e9)),
    st.tuples(st.floats(1e-6, 1e-3), st.floats(1e-3, 1.0)),
    st.floats(0, 1e10),
)
def test_a_speed_goes_through_what_was_timed_and_never_below(macs, seconds, at):
    speed = Speed(macs, seconds)
    for one, taken in zip(macs, seconds):
        assert math.isclose(speed.seconds_an_image(one), taken, rel_tol=1e-6)
    assert speed.seconds_an_image(at) >= min(seconds)
    assert Speed.from_json(json.loads(json.dumps(speed.to_json()))) == speed


def test_a_run_that_goes_on_keeps_the_forecast_that_it_was_begun_with(monkeypatch):
    config = RunConfig("digits", "run", space="digits", budget_minutes=30)
    begun = Plan.of(config).at(Speed(USUAL.macs, tuple(3 * each for each in USUAL.seconds)))
    monkeypatch.setattr(machine, "cores", lambda: 64)
    assert Plan.of(config, json.loads(json.dumps(begun.to_json()))).forecast == begun.forecast


def test_a_forecast_comes_back_from_json_and_reads_well():
    found = forecast_of(budget_minutes=20)
    assert Forecast.from_json(json.loads(json.dumps(found.to_json()))) == found
    text = forecast.text(found, 50_000, 100, 2, 10**8, 10**6)
    assert text.splitlines()[0] == "plan: 20.0 minutes" and len(text.splitlines()) == 6
    assert "3 networks at most" in text and "2.4 GB of memory in 3 processes, and 21 MB in the output folder" in text


@pytest.mark.parametrize("start", [{"init_from": "network.keras"}, {}])
def test_the_largest_teaches_its_smaller_forms_where_images_are_seen_often(start):
    settings = {"budget_minutes": 20, "architectures": "hand_scaled"} | start
    few, many = forecast_of(count=2_000, **settings), forecast_of(count=500_000, **settings)
    assert few.has_teacher and not many.has_teacher
    assert min(few.images) >= forecast.TAUGHT_EPOCHS * 2_000 / 3  # A teacher's opinion takes its time, too.
    assert "and teaches the others" in forecast.text(few, 2_000, 100, 2, 10**8, 10**6)
    for change in ({"architectures": "search"}, {"init_from": "", "begin_with": "random"}, {"teacher": "network.keras"}):
        assert not forecast_of(count=2_000, **settings | change).has_teacher
    old = {name: value for name, value in few.to_json().items() if name != "has_teacher"}
    assert not Forecast.from_json(old).has_teacher  # A run that was begun without goes on without.
