"""What `ParetoOracle` proposes: any user's hyperparameters, known costs, constraints."""

import math

import keras_tuner
import numpy as np
import pytest

from daqu_tf.errors import DaquError
from daqu_tf.oracle.hyperparameters import choices_of
from daqu_tf.oracle.oracle import ParetoOracle, best_trials
from daqu_tf.pareto.predictor import CostColumns
from daqu_tf.pareto.surrogate_search import fit_count, kernel_count

OBJECTIVES = [keras_tuner.Objective("val_accuracy", "max"), keras_tuner.Objective("seconds", "min")]


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda handle: None)


def any_space():
    """What an ordinary user of KerasTuner has."""
    space = keras_tuner.HyperParameters()
    space.Choice("optimizer", ["adam", "sgd"])
    space.Int("layers", 1, 4)
    space.Int("units", 16, 512, step=16)
    space.Float("rate", 1e-4, 1e-1, sampling="log")
    space.Boolean("pool")
    with space.conditional_scope("optimizer", ["sgd"]):
        space.Float("momentum", 0.0, 0.99)
    return space


def train(values):
    """A stand-in for a training: best at a rate of 0.01, better and slower with more units."""
    size = values["layers"] * values["units"]
    off = abs(math.log10(values["rate"]) + 2) + (0.3 * abs(values["momentum"] - 0.9) if values["optimizer"] == "sgd" else 0.2)
    return {"val_accuracy": 1 - 0.3 * off / 3 - 20 / (size + 40), "seconds": 1 + size / 50 + values["pool"], "loss": off}


def make(directory, max_trials=40, space=None, **kwargs):
    oracle = ParetoOracle(list(OBJECTIVES), max_trials, space or any_space(), **{"initial_random": 12, **kwargs})
    oracle._set_project_dir(directory, "search")
    return oracle


def run(oracle, trials=10**6, measure=train):
    for _ in range(trials):
        trial = oracle.create_trial("tuner0")
        if trial.status == "STOPPED":
            return
        oracle.update_trial(trial.trial_id, measure(trial.hyperparameters.values))
        trial.status = "COMPLETED"
        oracle.end_trial(trial)


def every(oracle):
    return [trial.hyperparameters.values for trial in oracle.trials.values()]


# Any hyperparameters.


def test_an_ordinary_users_space(tmp_path):
    oracle = make(tmp_path)
    run(oracle)
    assert len({str(values) for values in every(oracle)}) == 40
    for values in every(oracle):
        assert ("momentum" in values) == (values["optimizer"] == "sgd")
        assert type(values["units"]) is int and values["units"] % 16 == 0
    late = [values["rate"] for values in every(oracle)[-16:]]
    assert np.median(np.abs(np.log10(late) + 2)) < 0.5  # Of a range of -2 to 1 about the best.


def test_a_resumed_search_goes_on_as_if_undisturbed(tmp_path):
    run(whole := make(tmp_path / "whole"))
    run(make(tmp_path / "cut"), 21)
    run(resumed := make(tmp_path / "cut"))
    assert every(resumed) == every(whole)


def test_reloading_fits_nothing(tmp_path, monkeypatch):
    run(make(tmp_path))
    monkeypatch.setattr("daqu_tf.pareto.predictor.GaussianProcess.fit", lambda *arguments: pytest.fail("fitted"))
    make(tmp_path, max_trials=40).reload()


def test_conditions_that_are_not_registered(tmp_path):
    space = keras_tuner.HyperParameters()
    space.Choice("depth", [1, 2])
    for name in ("first", "second"):
        space.Choice(name, [2, 4, 8])
    oracle = make(tmp_path, None, space, initial_random=4, conditions={"second": (("depth", (2,)),)})
    run(oracle, measure=lambda values: {"val_accuracy": sum(values.values()), "seconds": float(len(values))})
    assert len(every(oracle)) == 3 + 9
    assert all(("second" in values) == (values["depth"] == 2) for values in every(oracle))
    with pytest.raises(DaquError, match="must name parents that are registered first, but received `second` of `depth`"):
        choices_of(space, {"depth": (("second", (2,)),)})


@pytest.mark.parametrize("bad", [{"b": ("a", (1,))}, {"b": 3}, {"b": [("a", "1")]}, {"b": [(1, [1])]}, {"b": [("a",)]}])
def test_conditions_of_another_form(bad):
    space = keras_tuner.HyperParameters()
    space.Choice("a", [1, 2])
    space.Choice("b", [1, 2])
    with pytest.raises(DaquError, match="`conditions` must have the form"):
        choices_of(space, bad)


# Costs.


def costs_of(many):
    return {"seconds": np.array([train(values)["seconds"] for values in many])}


def front_volume(oracle):
    from daqu_tf import pareto

    points = [(-train(values)["val_accuracy"], np.log(train(values)["seconds"])) for values in every(oracle)]
    return pareto.hypervolume(np.array(points), np.array([0.0, 4.0]))


def test_known_costs_are_asked_for_and_never_learned(tmp_path, monkeypatch):
    from daqu_tf.pareto.predictor import GaussianProcess

    learned, fit = [], GaussianProcess.fit
    monkeypatch.setattr(GaussianProcess, "fit", lambda self, rows, *others: learned.append(others) or fit(self, rows, *others))
    run(make(tmp_path / "with", 20, costs=costs_of))
    count = len(learned)
    run(make(tmp_path / "without", 20))
    assert len(learned) - count > 2 * count > 0  # With logarithms and without, whenever a kernel is found.


def test_costs_that_are_a_little_off_are_mended(tmp_path):
    """They are half of what is measured, and the front is found all the same."""
    run(off := make(tmp_path / "off", costs=lambda many: {"seconds": costs_of(many)["seconds"] / 2}))
    run(exact := make(tmp_path / "exact", costs=costs_of))
    assert front_volume(off) > 0.98 * front_volume(exact)


# Constraints.


def test_what_misses_a_constraint_by_its_costs_never_runs(tmp_path):
    slow = {"optimizer": "adam", "layers": 4, "units": 512, "rate": 0.01, "pool": True}
    oracle = make(tmp_path, costs=costs_of, constraints=["seconds<=4"], initial_design=[slow])
    run(oracle)
    assert len(every(oracle)) == 40
    assert max(train(values)["seconds"] for values in every(oracle)) <= 4


def test_what_hardly_anything_meets_is_bred(tmp_path):
    """One in 256: 16 units in a single layer, without pooling."""
    oracle = make(tmp_path, 30, costs=costs_of, constraints=["seconds<=1.33"])
    run(oracle)
    assert len(every(oracle)) == 30 and all(values["layers"] * values["units"] == 16 for values in every(oracle))


def test_what_nothing_meets(tmp_path):
    oracle = make(tmp_path, costs=costs_of, constraints=["seconds<=1"])
    with pytest.raises(DaquError, match=r"`constraints` must be met by something, but the nearest found has seconds of 1.32"):
        oracle.create_trial("tuner0")


def test_constraints_that_must_be_learned(tmp_path):
    """Without costs, the search soon stays where they are met."""
    oracle = make(tmp_path, 60, constraints=["seconds<=4", "loss<=1"])
    run(oracle)
    good = [train(values)["seconds"] <= 4 and train(values)["loss"] <= 1 for values in every(oracle)]
    assert np.mean(good[-30:]) > np.mean(good[:12]) and np.mean(good[-30:]) > 0.6
    assert all(trial.metrics.get_last_value("seconds") <= 4 for trial in oracle.pareto_trials())


def test_a_constraint_on_what_no_trial_reports(tmp_path):
    oracle = make(tmp_path, constraints=["latency_us<=4"])
    with pytest.raises(DaquError, match="`constraints` must name reported metrics, but `latency_us` is not among"):
        run(oracle, 2)


def test_trials_that_miss_a_constraint_stand_behind_all_others(tmp_path):
    oracle = make(tmp_path, constraints=["seconds<=100"])
    for accuracy, seconds in [(0.9, 300.0), (0.5, 50.0), (0.95, 150.0), (0.4, 60.0)]:
        run(oracle, 1, lambda values, one=(accuracy, seconds): {"val_accuracy": one[0], "seconds": one[1], "loss": 0.0})
    assert [trial.trial_id for trial in oracle.get_best_trials(9)] == ["0001", "0003", "0002", "0000"]
    assert [trial.trial_id for trial in oracle.pareto_trials()] == ["0001"]
    missing = [trial for trial in oracle.trials.values() if trial.trial_id in ("0000", "0002")]
    assert [trial.trial_id for trial in best_trials(missing, OBJECTIVES, constraints=oracle.constraints)] == ["0002"]


# How often anything is fitted.


def test_fits_grow_rare():
    counts = [fit_count(ended) for ended in range(3000)]
    assert all(count <= ended for ended, count in enumerate(counts))
    assert counts == sorted(counts) and len(set(counts[:100])) > 20
    assert len(set(counts[1000:2000])) < 25
    assert [kernel_count(count) for count in (4, 8, 11, 12, 18, 1000)] == [4, 8, 8, 12, 18, 710]


def fails_where_it_looks_best(values):
    """What runs out of memory: a network that is best, and never runs."""
    return values["layers"] * values["units"] > 600


def test_trials_that_fail_are_avoided_and_a_search_that_goes_on_avoids_them_alike(tmp_path):
    def proposed(directory, parts, seed=0):
        for _ in parts:
            oracle = make(directory, 60, max_consecutive_failed_trials=1000, seed=seed)
            for _ in range(60 // len(parts)):
                trial = oracle.create_trial("tuner0")
                failed = fails_where_it_looks_best(trial.hyperparameters.values)
                if not failed:
                    oracle.update_trial(trial.trial_id, train(trial.hyperparameters.values))
                trial.status = "FAILED" if failed else "COMPLETED"
                oracle.end_trial(trial)
        return every(oracle)

    for name in "abc":
        (tmp_path / name).mkdir()
    values, others = proposed(tmp_path / "a", [1]), proposed(tmp_path / "c", [1], seed=1)
    # Of 60; a search that is not told of failures has 33 to 40.
    assert sum(map(fails_where_it_looks_best, values[30:] + others[30:])) <= 18
    assert proposed(tmp_path / "b", [1, 2, 3]) == values


def test_the_ends_of_numbers_are_searched(tmp_path):
    space = keras_tuner.HyperParameters()
    space.Float("x", 0.0, 1.0)
    space.Float("y", 0.0, 1.0, step=0.1)
    choices = choices_of(space)
    assert choices.options["x"][0] == 0.0 and choices.options["x"][-1] == 1.0
    assert choices.decode(choices.encode({"x": 1.0, "y": 0.3}))["y"] == pytest.approx(0.3)


def test_costs_that_may_be_zero_are_on_one_scale():
    columns = CostColumns({"positive": np.array([1.0, 4.0]), "other": np.array([0.0, 2.0])})
    found = columns({"positive": np.array([4.0, 0.0]), "other": np.array([1.0, 2.0])})
    assert np.allclose(found, [[math.log(4), 1], [0, 2]])
