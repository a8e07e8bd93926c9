"""Which space a device gets where the settings leave it open."""

import functools
import types

import numpy as np
import pytest

from daqu_tf import RunConfig, data, spaces, targets
from daqu_tf.devices import HostDevice
from daqu_tf.pipeline import pipeline, suiting
from daqu_tf.pipeline.plan import Plan
from daqu_tf.pipeline.progress import Progress


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "photos.npz"
    np.savez(path, x_train=rng.integers(0, 256, (60, 16, 16, 3), np.uint8), y_train=np.arange(60) % 3)
    return str(path)


class Timing:
    """A device on which a network takes what is told, in the order in which files come."""

    name = "pretended"

    def __init__(self, *us):
        self._us = us

    def measure_many(self, paths, repeats):
        assert [path.read_bytes()[4:8] for path in paths] == [b"TFL3"] * len(self._us)
        return [types.SimpleNamespace(median_us=us) for us in self._us]


@pytest.mark.parametrize(("us", "expected"), [((10.0, 20.0), "resnet"), ((20.0, 10.0), "mobilenet_v2")])
def test_the_fastest_family_is_taken_and_said(photos, us, expected, capsys):
    config = RunConfig(photos, "run", batch_size=8)
    plan = Plan.of(config, space_for=functools.partial(pipeline._space_for, lambda: Timing(*us), Progress()))
    assert plan.space.name == plan.to_json()["space"] == expected
    assert f"{expected}, of which a network takes 10 us on pretended, instead of 20 us of" in capsys.readouterr().err


def test_a_run_keeps_its_space(photos):
    config = RunConfig(photos, "run", batch_size=8)
    known = Plan.of(config, space_for=lambda *_: "resnet").to_json()
    assert Plan.of(config, known, space_for=lambda *_: pytest.fail("it was asked again")).space.name == "resnet"


@pytest.mark.parametrize("settings", [{"target": "accelerator"}, {"space": "mobilenet_v2"}])
def test_no_device_is_asked_where_it_could_not_decide(photos, settings):
    space_for = functools.partial(pipeline._space_for, lambda: pytest.fail("a device was asked"), Progress())
    assert Plan.of(RunConfig(photos, "run", batch_size=8, **settings), space_for=space_for).space.name == "mobilenet_v2"


def test_processes_that_train_together_ask_none(photos, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{}")
    asked = pipeline._space_for(pytest.fail, Progress(), data.load(photos, 0), targets.get("litert_cpu"))
    assert asked == suiting.USUAL


def test_this_machine_times_every_family(photos):
    found = suiting.latencies_us(HostDevice(), data.load(photos, 0), targets.get("litert_cpu"))
    assert found.keys() == suiting.WIDTHS.keys() <= spaces.SPACES.keys()
    assert 0 < min(found.values()) == next(iter(found.values()))
