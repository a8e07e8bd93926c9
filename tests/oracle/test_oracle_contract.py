"""What KerasTuner documents of every oracle, of ours: limits, new entries, retries, failures, reload. Callbacks: test_keras3.py."""

import keras_tuner
import pytest
from keras_tuner.engine.base_tuner import BaseTuner
from search_processes import OBJECTIVES, hyperparameters, measure

from daqu_tf.errors import DaquError
from daqu_tf.oracle.oracle import ParetoOracle, SearchFailedError

pytestmark = pytest.mark.filterwarnings("ignore:(currentThread|getName)")


def make(max_trials=10, space=True, **kwargs):
    objectives = [keras_tuner.Objective(name, direction) for name, direction in OBJECTIVES.items()]
    space = hyperparameters() if space is True else space
    return ParetoOracle(objectives, max_trials, space, **{"initial_random": 4, **kwargs})


class Tuner(BaseTuner):
    """KerasTuner's own loop; what happens in the i-th run is in `events`, an exception or metrics."""

    events = ()

    def run_trial(self, trial):
        self.runs = [*getattr(self, "runs", []), (trial.trial_id, dict(trial.hyperparameters.values))]
        event = dict(enumerate(self.events)).get(len(self.runs) - 1)
        if isinstance(event, Exception):
            raise event
        return event or measure(trial.hyperparameters.values)


def search(oracle, directory, events=(), hypermodel=None):
    tuner = Tuner(oracle, hypermodel, directory=str(directory), project_name="search")
    tuner.events = events
    tuner.search()
    return tuner


def test_max_trials_and_how_many_remain(tmp_path):
    oracle = make(10)
    assert oracle.remaining_trials() == 10
    tuner = search(oracle, tmp_path)
    assert len(tuner.runs) == 10 and tuner.remaining_trials == 0
    assert search(make(12), tmp_path).runs[0][0] == "0010"
    assert make(None).remaining_trials() is None


def test_without_max_trials_the_whole_space_is_searched(tmp_path):
    space = keras_tuner.HyperParameters()
    for name in ("depth", "width", "kernel"):
        space.Choice(name, [1, 2])
    assert len(search(make(None, space), tmp_path).runs) == 8


def test_a_crash_is_tried_again_as_often_as_asked(tmp_path):
    oracle = make(6, max_retries_per_trial=2)
    tuner = search(oracle, tmp_path, [OSError("gone"), OSError("gone"), None, OSError("gone"), OSError("gone"), OSError("gone")])
    assert [trial_id for trial_id, _ in tuner.runs[:6]] == ["0000"] * 3 + ["0001"] * 3
    assert len({str(values) for _, values in tuner.runs[:3]}) == 1
    assert [oracle.trials[trial_id].status for trial_id in ("0000", "0001", "0002")] == ["COMPLETED", "FAILED", "COMPLETED"]
    assert "OSError: gone" in oracle.trials["0001"].message


def test_a_trial_that_says_it_has_failed_is_not_tried_again(tmp_path):
    oracle = make(5, max_retries_per_trial=2)
    tuner = search(oracle, tmp_path, [keras_tuner.errors.FailedTrialError("too large")])
    assert [trial_id for trial_id, _ in tuner.runs] == [f"{index:04d}" for index in range(5)]
    assert oracle.trials["0000"].status == "FAILED"


def test_a_fatal_error_ends_the_search_and_leaves_the_trial(tmp_path):
    with pytest.raises(keras_tuner.errors.FatalError, match="wrong labels"):
        search(make(5), tmp_path, [None, keras_tuner.errors.FatalError("wrong labels")])
    again = search(make(5), tmp_path)
    assert [trial_id for trial_id, _ in again.runs] == ["0001", "0002", "0003", "0004"]


def test_retries_outlive_the_process(tmp_path):
    with pytest.raises(keras_tuner.errors.FatalError):
        search(make(5, max_retries_per_trial=1), tmp_path, [OSError("gone"), keras_tuner.errors.FatalError("the end")])
    oracle = make(5, max_retries_per_trial=1)
    search(oracle, tmp_path, [OSError("gone again")])
    assert oracle.trials["0000"].status == "FAILED" and oracle._run_times["0000"] == 2


def test_only_failures_in_a_row_end_the_search(tmp_path):
    failure = OSError("gone")
    search(make(8, max_consecutive_failed_trials=2), tmp_path / "mixed", [failure, None, failure, None, failure])
    with pytest.raises(RuntimeError, match="last 2 trials failed, trial 0003 with: OSError: gone;"):
        search(make(8, max_consecutive_failed_trials=2), tmp_path / "row", [failure, None, failure, failure])
    assert issubclass(SearchFailedError, RuntimeError)


def test_reload_brings_back_trials_metrics_and_order(tmp_path):
    oracle = make(8)
    search(oracle, tmp_path, [None, keras_tuner.errors.FailedTrialError("too large")])
    other = make(8)
    other._set_project_dir(str(tmp_path), "search")
    other.reload()
    assert (other.start_order, other.end_order) == (oracle.start_order, oracle.end_order)
    for trial_id, trial in oracle.trials.items():
        same = other.trials[trial_id]
        assert (same.status, same.score, same.hyperparameters.values) == (trial.status, trial.score, trial.hyperparameters.values)
        for name in OBJECTIVES if trial.status == "COMPLETED" else ():
            assert same.metrics.get_last_value(name) == trial.metrics.get_last_value(name)
    assert [t.trial_id for t in other.get_best_trials(9)] == [t.trial_id for t in oracle.get_best_trials(9)]


# New entries: what a model asks for when it is built, beside or without `hyperparameters`.


def build(hp):
    hp.Choice("depth", [1, 2, 3, 4, 5])
    hp.Choice("width", [1, 2, 4])
    hp.Choice("kernel", [3, 5, 7])


def partial():
    space = keras_tuner.HyperParameters()
    space.Choice("width", [8, 9])
    return space


def test_a_space_is_found_out_by_building_a_model(tmp_path):
    tuner = search(make(9, space=None), tmp_path, hypermodel=build)
    assert all(set(values) == {"depth", "width", "kernel"} for _, values in tuner.runs)
    assert len({values["depth"] for _, values in tuner.runs}) > 1
    resumed = search(make(12, space=None), tmp_path, hypermodel=build)  # KerasTuner builds none here.
    assert [trial_id for trial_id, _ in resumed.runs] == ["0009", "0010", "0011"]


def test_given_hyperparameters_override_and_new_entries_join(tmp_path):
    oracle = make(9, space=partial(), allow_new_entries=True, tune_new_entries=True)
    tuner = search(oracle, tmp_path, hypermodel=build)
    assert {values["width"] for _, values in tuner.runs} == {8, 9}
    assert len({values["depth"] for _, values in tuner.runs}) > 1
    oracle = make(11, space=partial(), allow_new_entries=True, tune_new_entries=True)
    assert len(search(oracle, tmp_path, hypermodel=build).runs) == 2


def test_new_entries_that_are_not_tuned_keep_their_default(tmp_path):
    oracle = make(2, space=partial(), initial_random=1, allow_new_entries=True, tune_new_entries=False)
    seen = []

    class Builds(Tuner):
        def run_trial(self, trial):
            self.hypermodel.build(trial.hyperparameters)
            seen.append(dict(trial.hyperparameters.values))
            return measure(trial.hyperparameters.values)

    Builds(oracle, build, directory=str(tmp_path), project_name="search").search()
    assert [(values["depth"], values["kernel"]) for values in seen] == [(1, 3)] * 2
    assert sorted(values["width"] for values in seen) == [8, 9]


def test_new_entries_are_refused_where_they_are_not_allowed(tmp_path):
    with pytest.raises(RuntimeError, match=r"`allow_new_entries` is `False`, but found new entries .*depth"):
        search(make(9, space=partial()), tmp_path, hypermodel=build)


def test_an_entry_that_comes_too_late_is_said(tmp_path):
    class Late(Tuner):
        def run_trial(self, trial):
            trial.hyperparameters.Choice("late", [1, 2])
            return super().run_trial(trial)

    tuner = Late(make(9, space=None), build, directory=str(tmp_path), project_name="search")
    with pytest.raises(DaquError, match="`late` must be registered before the first trial"):
        tuner.search()


def test_a_space_that_nobody_names(tmp_path):
    with pytest.raises(DaquError, match="`hyperparameters` must hold the whole search space, but received none"):
        search(make(9, space=None), tmp_path)
    with pytest.raises(DaquError, match="`max_trials` must be at least 4"):
        search(make(3, space=None), tmp_path, hypermodel=build)
