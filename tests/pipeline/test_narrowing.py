import dataclasses
import json

import pytest

from daqu_tf import RunConfig, machine, spaces, targets
from daqu_tf.pipeline.narrowing import _seconds_each, held, least_minutes, narrowed, widest
from daqu_tf.pipeline.speed import Speed
from daqu_tf.spaces.hand_scaled import hand_scaled
from daqu_tf.targets import costs

SPEED = Speed((5e5, 2.6e6), (2.4e-4, 6.7e-4))  # Of these networks, on one core of an AMD EPYC.
SPACE = targets.get("litert_cpu").restrict(spaces.get("mobilenet_v2"))


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 2)


def kinds(count, **settings):
    return held(narrowed(SPACE, RunConfig("digits", "run", **settings), count, SPEED), SPACE)


@pytest.mark.parametrize(
    ("minutes", "count", "expected"),
    [
        (10, 50_000, "resolution, depth, expansion"),
        (60, 50_000, "resolution"),
        (600, 50_000, ""),
        (20, 1_000, ""),  # As many steps are many epochs of few images.
    ],
)
def test_what_is_elastic_goes_by_the_images_that_the_supernet_sees(minutes, count, expected):
    assert kinds(count, budget_minutes=minutes) == expected


def test_epochs_count_where_they_are_given():
    assert kinds(50_000, budget_minutes=600, epochs=2) == "resolution, depth, expansion"
    assert kinds(50_000, budget_minutes=2, epochs=200) == ""


def test_where_bits_are_searched_nothing_is_held():
    assert kinds(50_000, budget_minutes=10, precisions="joint") == kinds(50_000, budget_minutes=10, target="accelerator") == ""


def test_what_is_left_holds_the_networks_that_people_scale_by_hand():
    part = narrowed(SPACE, RunConfig("digits", "run", budget_minutes=20), 50_000, SPEED)
    assert hand_scaled(part) == hand_scaled(SPACE) and part.largest().values == hand_scaled(SPACE)[-1].values


def test_a_space_of_ones_own_is_searched_as_it_is(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(SPACE.to_json()))
    assert kinds(50_000, budget_minutes=5, space=str(path)) == ""


@pytest.mark.parametrize(
    ("minutes", "count", "expected"),
    [
        (5, 50_000, "8, 16, 24, 32"),  # Two networks are left to choose between, however short the time.
        (20, 50_000, ""),
        (5, 1_000, ""),
    ],
)
def test_a_network_that_cannot_see_its_images_is_left_out(minutes, count, expected):
    part = narrowed(SPACE, RunConfig("digits", "run", budget_minutes=minutes), count, SPEED)
    assert widest(part, SPACE) == expected
    assert not expected or part.largest().values == hand_scaled(SPACE)[1].values


def test_a_slow_machine_trains_less_of_a_space():
    config, slow = RunConfig("digits", "run", budget_minutes=20), Speed(SPEED.macs, tuple(10 * each for each in SPEED.seconds))
    assert narrowed(SPACE, config, 50_000, slow).cardinality < narrowed(SPACE, config, 50_000, SPEED).cardinality


@pytest.mark.parametrize("architectures", ["search", "hand_scaled"])
def test_the_least_minutes_are_those_from_which_the_smallest_network_sees_its_images(architectures):
    config = RunConfig("digits", "run", architectures=architectures)
    least = least_minutes(SPACE, config, 50_000, SPEED)
    needed = 400_000 * SPEED.seconds_an_image(costs.macs(SPACE, hand_scaled(SPACE)[0]))
    at, before = (_seconds_each(dataclasses.replace(config, budget_minutes=minutes), 50_000) for minutes in (least, least - 1))
    assert before < needed <= at
    slow = Speed(SPEED.macs, tuple(5 * each for each in SPEED.seconds))
    assert least_minutes(SPACE, config, 50_000, slow) > 2 * least
    assert least_minutes(SPACE, config, 1_000, SPEED) <= least
    assert least_minutes(SPACE, RunConfig("digits", "run", finetune_epochs=1.0), 50_000, slow) == 0
