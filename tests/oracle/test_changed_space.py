"""A search that is gone on with when its space has changed meanwhile: that is said, and the trials stay."""

import resource
import warnings

import keras_tuner
import pytest
from keras_tuner.engine.base_tuner import BaseTuner

from daqu_tf.errors import DaquError
from daqu_tf.oracle.distributed_tuner import DistributedTuner
from daqu_tf.oracle.oracle import ParetoOracle

pytestmark = pytest.mark.filterwarnings("ignore:(currentThread|getName)")


def build(hp, low=1, high=8, step=1, default=None, sampling="linear", values=(3, 5, 7), parent=True, is_whole=True):
    """What stands for a model: a depth, a kernel, and, unless `is_whole` is False, units that act at one value of a switch."""
    hp.Boolean("switch", default=True)
    hp.Int("depth", low, high, step=step, default=default, sampling=sampling)
    hp.Choice("kernel", list(values))
    if is_whole:
        with hp.conditional_scope("switch", [parent]):
            hp.Int("units", 2, 4)
    for layer in range(min(hp.get("depth"), 4)):
        hp.Choice(f"width_{layer}", [16, 32])


class Plain(BaseTuner):
    def run_trial(self, trial):
        if self.hypermodel:
            self.hypermodel.build(trial.hyperparameters)
        return float(sum(map(float, trial.hyperparameters.values.values())))


class Ours(DistributedTuner, Plain):
    pass


CHANGES = [
    ({"high": 9}, r"`space.depth.max_value` is 8 there and 9 here"),
    ({"low": 2}, r"`space.depth.min_value` is 1 there and 2 here"),
    ({"step": 2}, r"`space.depth.step` is 1 there and 2 here"),
    ({"step": 2, "sampling": "log"}, r"`space.depth.(step|sampling)`"),
    ({"default": 3}, r"`space.depth.default` is 1 there and 3 here"),
    ({"values": (3, 5)}, r"`space.kernel.values` is \[3, 5, 7\] there and \[3, 5\] here"),
    ({"values": (5, 3, 7), "default": 1}, r"`space.kernel.values`"),  # The default is what it was.
    ({"parent": False}, r"`space.units.conditions`"),
]
REMOVED = ({"is_whole": False}, r"`space.units` is there and not here")


def search(folder, tuner, most=6, hypermodel=None, **kwargs):
    oracle = ParetoOracle(max_trials=most, initial_random=most, **kwargs)
    made = tuner(oracle, hypermodel, directory=str(folder), project_name="search")
    made.search()
    return oracle


def given(**change):
    space = keras_tuner.HyperParameters()
    build(space, **change)
    return space


def refused(folder, message, tuner=Plain, **kwargs):
    before = (folder / "search" / "trials.jsonl").read_bytes()
    with pytest.raises(DaquError, match=rf"trials.jsonl is of another search: ({message}).*; start in a new directory\.$"):
        search(folder, tuner, 8, **kwargs)
    assert (folder / "search" / "trials.jsonl").read_bytes() == before


@pytest.mark.parametrize(("change", "message"), [*CHANGES, ({"is_whole": False}, "`space.units` is .* there and null here")])
def test_given_hyperparameters_that_have_changed(tmp_path, change, message):
    search(tmp_path, Plain, hyperparameters=given())
    refused(tmp_path, message, hyperparameters=given(**change))
    assert len(search(tmp_path, Plain, 8, hyperparameters=given()).trials) == 8


@pytest.mark.parametrize(("change", "message"), [*CHANGES, REMOVED])
def test_models_that_ask_for_another_space(tmp_path, change, message):
    search(tmp_path, Ours, hypermodel=build)
    refused(tmp_path, message, Ours, hypermodel=lambda hp: build(hp, **change))
    assert len(search(tmp_path, Ours, 8, hypermodel=build).trials) == 8


def test_conditions_that_are_not_registered(tmp_path):
    search(tmp_path, Plain, hyperparameters=given(), conditions={"kernel": [("switch", [True])]})
    refused(tmp_path, "`conditions.kernel` is .* there and null here", hyperparameters=given())
    refused(tmp_path, "`conditions.kernel`", hyperparameters=given(), conditions={"kernel": [("switch", [False])]})
    assert len(search(tmp_path, Plain, 8, hyperparameters=given(), conditions={"kernel": [("switch", [True])]}).trials) == 8


@pytest.mark.parametrize("tuner", [Plain, Ours])
def test_a_space_that_is_the_same_or_has_grown_is_gone_on_with_in_silence(tmp_path, tuner):
    def grown(hp):
        build(hp)
        hp.Choice("late", [1, 2])

    search(tmp_path, tuner, hypermodel=build)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert len(search(tmp_path, tuner, 9, hypermodel=build).trials) == 9
        oracle = search(tmp_path, tuner, 14, hypermodel=grown)
    assert {oracle.trials[f"{number:04d}"].hyperparameters.values.get("late") for number in range(9)} == {None}
    assert {oracle.trials[f"{number:04d}"].hyperparameters.values["late"] for number in range(9, 14)} == {1, 2}


def test_what_was_given_goes_before_what_models_ask_for(tmp_path):
    space = keras_tuner.HyperParameters()
    space.Int("depth", 2, 3)
    new = {"allow_new_entries": True, "tune_new_entries": True}
    search(tmp_path, Ours, hypermodel=build, hyperparameters=space.copy(), **new)
    oracle = search(tmp_path, Ours, 9, hypermodel=build, hyperparameters=space.copy(), **new)
    assert {trial.hyperparameters.values["depth"] for trial in oracle.trials.values()} == {2, 3}


def test_where_no_model_is_built_beforehand_a_trial_tells(tmp_path):
    """KerasTuner's own tuners build none when they go on with a search."""
    search(tmp_path, Plain, hypermodel=build)
    with pytest.warns(UserWarning, match=r"otherwise than this search has it: `space.depth.max_value` is 8 there and 9") as told:
        oracle = search(tmp_path, Plain, 9, hypermodel=lambda hp: build(hp, high=9))
    assert len(told) == 1 and "start in a new directory" in str(told[0].message)
    assert len(oracle.trials) == 9 and {trial.status for trial in oracle.trials.values()} == {"COMPLETED"}


def test_what_was_found_late_is_compared_too(tmp_path):
    class Late(BaseTuner):
        values = (1, 2)

        def run_trial(self, trial):
            return float(trial.hyperparameters.Choice("late", list(self.values)) + trial.hyperparameters.Int("depth", 1, 4))

    class Later(Late):
        values = (1, 2, 3)

    search(tmp_path, Late, 3)
    with pytest.warns(UserWarning, match=r"`space.late.values` is \[1, 2\] there and \[1, 2, 3\] here"):
        assert len(search(tmp_path, Later, 5).trials) == 5


def test_before_any_trial_has_ended_models_are_built_anew(tmp_path):
    """KerasTuner takes it for the first session as long as its own file is missing."""
    search(tmp_path, Plain, hypermodel=build)
    (tmp_path / "search" / "tuner0.json").unlink()
    for change, message in ({"high": 9}, "`space.depth.max_value` is 8 there and 9 here"), REMOVED:
        refused(tmp_path, message, hypermodel=lambda hp, change=change: build(hp, **change))
    assert len(search(tmp_path, Plain, 8, hypermodel=build).trials) == 8


def test_a_name_under_other_conditions_never_reaches_the_journal(tmp_path):
    class Twice(BaseTuner):
        is_twice = True

        def run_trial(self, trial):
            hp = trial.hyperparameters
            for value in (False, True) if self.is_twice and len(self.oracle.trials) > 2 else (True,):
                hp.Int("units", 1, 4, parent_name="switch", parent_values=[value])
            return 1.0 + hp.values["depth"]

    space = keras_tuner.HyperParameters()
    space.Boolean("switch")
    space.Int("depth", 1, 4)
    new = {"allow_new_entries": True, "tune_new_entries": True}
    with pytest.raises(DaquError, match="`units` must be registered once, but is there twice"):
        search(tmp_path, Twice, hyperparameters=space.copy(), **new)
    Twice.is_twice = False
    assert len(search(tmp_path, Twice, hyperparameters=space.copy(), **new).end_order) == 6


def test_the_state_of_a_tuner_is_never_torn(tmp_path):
    """A process that ends while it writes leaves what was there, so that it can be started again."""

    def made(most):
        oracle = ParetoOracle(max_trials=most, initial_random=most, hyperparameters=given())
        return Ours(oracle, None, directory=str(tmp_path), project_name="search")

    tuner = made(3)
    tuner.search()
    state = tmp_path / "search" / "tuner0.json"
    before, limits = state.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, limits[1]))
    try:
        with pytest.raises(OSError):
            tuner.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert state.read_bytes() == before
    again = made(4)
    again.search()
    assert len(again.oracle.trials) == 4
