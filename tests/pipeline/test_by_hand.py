"""Jobs without a supernet: when they are, which networks they take, and that they end in files."""

import dataclasses
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daqu_tf import RunConfig, files, machine, spaces, targets
from daqu_tf.errors import DaquError
from daqu_tf.export.manifest import Manifest
from daqu_tf.pipeline import budget, by_hand, finalist, finalists, pipeline, stages
from daqu_tf.pipeline.narrowing import supernet_pays
from daqu_tf.pipeline.plan import Plan
from daqu_tf.pipeline.speed import USUAL
from daqu_tf.pipeline.trained_run import TrainedRun
from daqu_tf.runs.clock import Clock
from daqu_tf.runs.folder import RunFolder
from daqu_tf.spaces.hand_scaled import finely_scaled, hand_scaled
from daqu_tf.training import fine_tuning
from daqu_tf.training.batches import Batches

SPACE = targets.get("litert_cpu").restrict(spaces.get("resnet"))


def plan_of(tmp_path, **settings):
    return Plan.of(RunConfig("digits", str(tmp_path), space="digits", **settings))


@given(st.lists(st.floats(1.0, 1e6), min_size=1, max_size=12, unique=True), st.integers(1, 8))
def test_the_ends_are_taken_and_what_lies_nearest_to_equal_steps_between(prices, count):
    prices = np.array(prices)
    found = by_hand.spread(prices, count)
    assert 1 <= len(found) == len(set(found)) <= count
    assert list(prices[found]) == sorted(prices[found]) and prices[found[-1]] == prices.max()
    if count > 1:
        assert prices[found[0]] == prices.min()


def test_equal_steps_of_the_logarithm():
    assert by_hand.spread(np.array([1.0, 9.0, 12.0, 50.0, 100.0]), 3) == [0, 1, 4]


def test_of_networks_that_are_as_fast_the_largest_is_taken(job, monkeypatch):
    def timed(device, target, networks):  # The largest is timed as faster than the one before it.
        return [100.0 + index if index < len(networks) - 1 else 50.0 for index in range(len(networks))]

    monkeypatch.setattr(by_hand, "untrained_latencies_us", timed)
    (found,) = by_hand.choose(job(), 1)
    assert found["values"] == finely_scaled(job().plan.searched)[-1].to_json() and found["search"]["latency_us"] == 50.0


def test_the_grid_goes_from_the_smallest_to_the_largest_that_people_scale_by_hand():
    for name in ("resnet", "mobilenet_v2", "digits"):
        space = spaces.get(name)
        small, *_, large = hand_scaled(space)
        found = finely_scaled(space)
        assert (found[0], found[-1]) == (small, large) and len(set(found)) == len(found) >= len(hand_scaled(space))


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 2)


@pytest.mark.parametrize(
    ("minutes", "count", "expected"), [(60, 50_000, False), (600, 50_000, True), (60, 8_000, False), (20, 1_400, True)]
)
def test_a_supernet_pays_where_it_sees_very_many_images(two_cores, minutes, count, expected):
    assert supernet_pays(SPACE, RunConfig("digits", "run", budget_minutes=minutes), count, USUAL) == expected


def test_a_job_decides_for_itself_and_a_run_keeps_what_was_decided(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 1)
    slow = dataclasses.replace(USUAL, seconds=tuple(1000 * each for each in USUAL.seconds))
    plan = plan_of(tmp_path, budget_minutes=2).at(slow)
    assert plan.config.architectures == "hand_scaled" and plan.forecast.supernet_images == 0
    assert plan.forecast.minutes["supernet"] == plan.forecast.minutes["search"] == 0.0
    assert "supernet" not in plan.text and "search" not in plan.text and "finalists" in plan.text
    files.write_json(plan.folder.config, plan.to_json())
    again = RunConfig("digits", str(tmp_path), space="digits", budget_minutes=2, architectures="auto")
    assert RunFolder(tmp_path).settled(again) == plan.config
    assert plan_of(tmp_path / "other", budget_minutes=60).at(USUAL).config.architectures == "search"


@pytest.mark.parametrize("asked", [{"architectures": "search"}, {"precisions": "joint"}, {"epochs": 3.0}, {"supernet_from": "run"}])
def test_who_asks_for_a_supernet_gets_one(tmp_path, asked):
    config = RunConfig("digits", str(tmp_path), **asked)
    assert config.searches_architectures and not config.may_do_without_supernet


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"precisions": "joint"}, "a search of bits"),
        ({"target": "accelerator"}, "a search of bits"),
        ({"epochs": 2.0}, "epochs"),
        ({"supernet_from": "run"}, "supernet_from"),
    ],
)
def test_what_needs_a_supernet_does_not_go_with_hand_scaled_networks(settings, what):
    with pytest.raises(DaquError, match=f"hand_scaled trains no supernet, which {what} needs"):
        RunConfig("digits", "run", architectures="hand_scaled", **settings)


def test_tools_that_end_with_supernet_or_search_refuse_them_before_anything_is_done(tmp_path):
    config = RunConfig("digits", str(tmp_path / "run"), architectures="hand_scaled")
    for stage in ("supernet", "search"):
        with pytest.raises(DaquError, match="give it to daqu-run alone"):
            pipeline.run(config, last_stage=stage)
    assert not (tmp_path / "run").exists()


class Pretended:
    """A job whose networks take a microsecond for each thousand multiplications."""

    table = None

    def __init__(self, plan):
        self.plan, self.folder = plan, plan.folder
        self.progress = types.SimpleNamespace(end=lambda text: None)

    @property
    def device(self):
        return None


@pytest.fixture
def job(tmp_path, monkeypatch):
    def timed(device, target, networks):
        from daqu_tf.targets import costs

        return [costs.macs(space, subnet) / 1000 for space, subnet in networks]

    monkeypatch.setattr(by_hand, "untrained_latencies_us", timed)
    return lambda **settings: Pretended(plan_of(tmp_path, architectures="hand_scaled", **settings))


def test_constraints_hold_but_for_the_accuracy_which_nobody_knows_yet(job):
    everything = by_hand.choose(job(), 20)
    limit = everything[len(everything) // 2]["search"]["latency_us"]
    found = by_hand.choose(job(constraint=[f"latency_us<={limit}", "accuracy>=0.99"]), 20)
    assert found == [one for one in everything if one["search"]["latency_us"] <= limit]
    with pytest.raises(DaquError, match="the nearest of .* has latency_us of"):
        by_hand.choose(job(constraint=["latency_us<=0.001"]), 3)


def test_further_finalists_are_others(job):
    pretended = job()
    first = by_hand.choose(pretended, 2)
    taken = [pretended.plan.space.subnet(one["values"]) for one in first]
    others = by_hand.choose(pretended, 50, taken)
    assert others and not [one for one in others if one["values"] in [each["values"] for each in first]]
    everything = [pretended.plan.space.subnet(one["values"]) for one in by_hand.choose(pretended, 50)]
    assert by_hand.choose(pretended, 3, everything) == []
    limit = first[0]["search"]["latency_us"]
    assert by_hand.choose(job(constraint=[f"latency_us<={limit}"]), 3, taken) == []


def begun(pretended):
    """The plan of a job whose finalists are chosen."""
    plan = pretended.plan
    files.write_json(plan.folder.config, plan.to_json())
    stages.choose_by_hand(pretended)
    plan.folder.models.mkdir()
    plan.folder.finished.mkdir()
    return plan


@pytest.mark.slow
def test_a_finalist_without_a_supernet_is_trained_from_random_weights(job):
    plan = begun(job(finetune_epochs=4))
    finalist._finish(plan, "m00", 1.0)
    manifest = Manifest.read(plan.folder.figures("m00"))
    assert manifest.fine_tuning["float_share"] > 0.5 and "inherited" not in manifest.accuracy
    assert manifest.accuracy["file"]["search"] > 0.3  # By chance, it would be a tenth.
    assert not plan.folder.supernet.exists() and not plan.folder.finalist_checkpoints("m00").exists()
    run, again = TrainedRun(plan.folder.path), plan.folder.path / "again.tflite"
    assert run.export("m00", None, again).accuracy["file"] == manifest.accuracy["file"]
    assert again.read_bytes() == (plan.folder.models / "m00.tflite").read_bytes()
    with pytest.raises(DaquError, match="has no supernet, since its networks were trained each from random weights"):
        run.export("m00", False, again, overwrite=True)
    with pytest.raises(DaquError, match="must be one of front, m00"):
        run.subnets("largest")


@pytest.mark.slow
def test_a_finalist_that_was_cut_off_goes_on_where_it_was(job, monkeypatch):
    plan = begun(job(finetune_epochs=4))
    starts, starting_at, export = [], Batches.starting_at, finalist._export

    def cut_off(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(fine_tuning, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(Batches, "starting_at", lambda self, step: starts.append(step) or starting_at(self, step))
    monkeypatch.setattr(finalist, "_export", cut_off)
    with pytest.raises(KeyboardInterrupt):
        finalist._finish(plan, "m00", 1.0)
    monkeypatch.setattr(finalist, "_export", export)
    finalist._finish(plan, "m00", 1.0)
    steps = Manifest.read(plan.folder.figures("m00")).fine_tuning["steps"]
    assert starts[0] == 0 and starts[-1] >= steps - 2  # The phase in float, that of 8 bits, and that again.
    assert len(starts) == 3 and not plan.folder.finalist_checkpoints("m00").exists()


@pytest.fixture
def taught(job):
    """A plan with two finalists, of which the larger teaches."""
    pretended = job(finetune_epochs=2)
    forecast = dataclasses.replace(pretended.plan.forecast, finalists=2, has_teacher=True)
    pretended.plan = dataclasses.replace(pretended.plan, begun_with=forecast)
    return begun(pretended)


def test_the_teacher_is_trained_before_all_others(taught):
    job = types.SimpleNamespace(plan=taught, folder=taught.folder, clock=Clock(taught.folder.clock, 600.0))
    (first, seconds), (others, _) = finalists._groups(job, ["m01", "m00"], 2)
    assert (first, others) == (["m01"], ["m00"])
    assert seconds("m01") == pytest.approx(budget.TEACHER_SHARE * budget.left(job.clock, 4), rel=0.01)
    ((left, _),) = finalists._groups(job, ["m00"], 2)  # The teacher is done.
    assert left == ["m00"]


@pytest.mark.parametrize("late", [0.0, 90.0])
def test_what_the_teacher_takes_beside_its_training_the_others_are_thought_to_take(taught, monkeypatch, late):
    now = [0.0]
    monkeypatch.setattr(Clock, "elapsed", lambda self: now[0])
    job = types.SimpleNamespace(plan=taught, folder=taught.folder, clock=Clock(taught.folder.clock, 600.0))
    groups = finalists._groups(job, ["m01", "m00"], 1)
    _, seconds = next(groups)
    now[0] = seconds("m01") + late
    _, shares = next(groups)
    usual, models = budget.overhead(len(taught.dataset.x_train)), len(files.read_json(taught.folder.finalists))
    assert shares("m00") == pytest.approx(budget.left(job.clock, models) - max(usual, late), abs=0.1)


@pytest.mark.slow
def test_the_others_are_taught_unless_their_teacher_failed(taught):
    finalist._finish(taught, "m00", 1.0)
    assert Manifest.read(taught.folder.figures("m00")).fine_tuning["distillation"] == 0.0
    for path in (taught.folder.figures("m00"), *taught.folder.finished.glob("m00_w4.json")):
        path.unlink()
    finalist._finish(taught, "m01", 1.0)
    finalist._finish(taught, "m00", 1.0)
    shares = {name: Manifest.read(taught.folder.figures(name)).fine_tuning["distillation"] for name in ("m00", "m01")}
    assert shares == {"m00": finalist.TAUGHT_SHARE, "m01": 0.0}


@pytest.mark.slow
def test_the_others_begin_with_the_weights_of_their_teacher(taught, monkeypatch):
    assert finalist._of_teacher(taught, "m00") is None  # They are not there yet.
    finalist._finish(taught, "m01", 1.0)
    assert finalist._of_teacher(taught, "m01") is None
    large, given = files.read_arrays(taught.folder.weights("m01")), []
    tune = fine_tuning.FineTuner.tune
    monkeypatch.setattr(
        fine_tuning.FineTuner, "tune", lambda self, *args, **more: (given.append(self._arrays), tune(self, *args, **more))[1]
    )
    finalist._finish(taught, "m00", 1.0)
    assert set(given[0]) == set(large)
    for name, array in given[0].items():
        if name.endswith("_log_step"):
            assert not array.any()
        else:
            np.testing.assert_array_equal(np.sort(array, axis=None), np.sort(large[name], axis=None))
    known = files.read_json(taught.folder.finalists)
    known["m00"]["values"]["stem.width"] = 10**6  # The teacher has not as much.
    files.write_json(taught.folder.finalists, known)
    assert finalist._of_teacher(taught, "m00") is None
