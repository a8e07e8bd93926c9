"""What KerasTuner documents of every oracle, of ours: limits, new entries, retries, failures, reload. Callbacks: test_keras3.py."""

import keras_tuner
import opening_search
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


def all_of(oracle):
    return {trial_id: (trial.status, trial.hyperparameters.values, trial.score) for trial_id, trial in oracle.trials.items()}


def opening(folder, max_trials=20, **kwargs):
    tuner = opening_search.make_tuner(opening_search.make_oracle(max_trials, **kwargs), None, folder)
    tuner.search()
    return tuner


def test_a_space_may_open_while_models_are_built(tmp_path):
    """KerasTuner's guide: a loop over hp.Int(f"units_{i}")."""
    oracle = opening(tmp_path, 30).oracle
    names = {frozenset(trial.hyperparameters.values) for trial in oracle.trials.values()}
    assert frozenset({"num_layers", "units_0", "units_1", "units_2", "dropout", "rate"}) in names
    # Found late, and searched like any other from then on.
    assert len({trial.hyperparameters.values.get("units_2") for trial in oracle.trials.values()}) > 4
    for trial in oracle.trials.values():
        known = trial.hyperparameters.values
        layers = range(known["num_layers"])
        assert {f"units_{layer}" for layer in layers} <= known.keys()
        assert trial.best_step == 0 and len(trial.hyperparameters.space) >= len(known)
    best = oracle.pareto_trials()
    assert best[-1].score <= best[0].score and oracle.get_best_trials(3)[0] is best[0]
    values = [tuple(sorted(trial.hyperparameters.values.items())) for trial in oracle.trials.values()]
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("times", [[3, 8, 20], [1, 2, 20], [19, 20]])
def test_a_search_whose_space_opens_is_resumed(times, tmp_path):
    for most in times:
        oracle = opening(tmp_path / "parts", most, initial_random=1).oracle
    assert all_of(oracle) == all_of(opening(tmp_path / "whole", 20, initial_random=1).oracle)


def test_a_space_that_seemed_exhausted_may_open(tmp_path):
    """A second worker finds nothing to do until the first has shown that there is more."""
    space = keras_tuner.HyperParameters()
    space.Choice("depth", [1])
    oracle = make(4, space, initial_random=1, allow_new_entries=True, tune_new_entries=True)
    oracle._set_project_dir(tmp_path, "search")
    first = oracle.create_trial("tuner0")
    assert oracle.create_trial("tuner1").status == "IDLE"
    first.hyperparameters.Choice("width", [1, 2, 3])
    oracle.update_trial(first.trial_id, {"accuracy": 0.5, "latency_us": 1.0})
    first.status = "COMPLETED"
    oracle.end_trial(first)
    assert not oracle.is_over and oracle.create_trial("tuner1").hyperparameters.values["width"] in (2, 3)


def test_a_design_goes_on_where_the_space_has_opened(tmp_path):
    design = [{"num_layers": layers, "units_0": 64, "dropout": False} for layers in (1, 3, 2)]
    trials = list(opening(tmp_path, 8, initial_design=design).oracle.trials.values())
    for trial, values in zip(trials, design):
        assert trial.hyperparameters.values.items() >= values.items()


def test_the_defaults_are_those_of_keras_tuner(tmp_path):
    oracle = ParetoOracle("val_accuracy", hyperparameters=hyperparameters(), seed=None)
    assert oracle.max_trials == 10 and [(one.name, one.direction) for one in oracle.objectives] == [("val_accuracy", "max")]
    tuner = search(oracle, tmp_path, [{"val_accuracy": 0.1 * index} for index in range(10)])
    assert len(tuner.runs) == 10 and oracle.get_best_trials()[0].trial_id == "0009"
    oracle = ParetoOracle("val_accuracy", 12, hyperparameters(), seed=None)  # Goes on with the seed that was drawn.
    assert len(search(oracle, tmp_path, [{"val_accuracy": 0.5}] * 2).runs) == 2
    single = ParetoOracle(hyperparameters=hyperparameters())
    assert len(search(single, tmp_path / "single", [float(index + 1) for index in range(10)]).runs) == 10
    assert single.get_best_trials()[0].score == 1.0


def test_more_trials_in_one_session(tmp_path):
    oracle = make(6)
    tuner = search(oracle, tmp_path)
    oracle.max_trials = 9
    tuner.search()
    assert len(oracle.trials) == len(tuner.runs) == 9


def test_a_trial_is_ended_by_its_id(tmp_path):
    oracle = make(6)
    oracle._set_project_dir(tmp_path, "search")
    for status in ("COMPLETED", "FAILED"):
        trial = oracle.create_trial("tuner0")
        if status == "COMPLETED":
            oracle.update_trial(trial.trial_id, measure(trial.hyperparameters.values))
        oracle.end_trial(trial.trial_id, status)
        assert oracle.trials[trial.trial_id].status == status


def test_numbers_with_many_values(tmp_path):
    space = keras_tuner.HyperParameters()
    space.Int("seed", 0, 2**31 - 1)
    space.Float("rate", 1e-4, 1e-1, sampling="log")
    given = [{"seed": 1_234_567, "rate": 0.0314}, {"seed": 2**31 - 1, "rate": 1e-4}]
    oracle = make(6, space, initial_design=given, initial_random=2)
    tuner = search(oracle, tmp_path, [{"accuracy": 0.5, "latency_us": float(index)} for index in range(6)])
    assert [values for _, values in tuner.runs[:2]] == given
    assert all(0 <= values["seed"] < 2**31 for _, values in tuner.runs)


def test_a_space_that_nobody_names(tmp_path):
    with pytest.raises(DaquError, match="`hyperparameters` must hold the whole search space, but received none"):
        search(make(9, space=None), tmp_path)
    with pytest.raises(DaquError, match="`max_trials` must be at least 4"):
        search(make(3, space=None), tmp_path, hypermodel=build)
