"""What KerasTuner's own tests check of any oracle and the tuners around it, of ours; more of it is in test_oracle_contract.py."""

import threading

import keras_tuner
import pytest
from keras_tuner.engine.base_tuner import BaseTuner

from daqu_tf.errors import DaquError
from daqu_tf.oracle.journaled_oracle import JournaledOracle
from daqu_tf.oracle.oracle import ParetoOracle

pytestmark = pytest.mark.filterwarnings("ignore:(currentThread|getName)")
LOSS, SCORE = keras_tuner.Objective("loss", "min"), keras_tuner.Objective("score", "max")


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda handle: None)


def tuner_of(run, folder, hypermodel=None, objective=None, max_trials=10, kind=ParetoOracle, overwrite=False, **kwargs):
    """A tuner whose trials are `run(hp)`; `tuner.runs` counts them."""

    class Tuner(BaseTuner):
        runs = 0

        def run_trial(self, trial):
            self.runs += 1
            return run(trial.hyperparameters)

    oracle = kind(objective, max_trials, **kwargs)
    return Tuner(oracle, hypermodel, directory=str(folder), project_name="search", overwrite=overwrite)


def values_of(oracle):
    return [trial.hyperparameters.values for trial in oracle.trials.values()]


def distinct(oracle):
    return len({str(sorted(values.items())) for values in values_of(oracle)})


def end(oracle, trial, metrics=None, **attributes):
    if metrics:
        oracle.update_trial(trial.trial_id, metrics)
    for name, value in attributes.items():
        setattr(trial, name, value)
    oracle.end_trial(trial)


def oracle_in(folder, objective="loss", max_trials=10, space=None, **kwargs):
    oracle = ParetoOracle(objective, max_trials, space, **kwargs)
    oracle._set_project_dir(folder, "search")
    return oracle


# A space that nobody knows before `run_trial` asks for it.


def test_run_trial_alone_makes_the_space(tmp_path):
    tuner = tuner_of(lambda hp: {"loss": abs(hp.Float("x", -1, 1))}, tmp_path, objective="loss")
    tuner.search()
    assert len(values_of(tuner.oracle)) == distinct(tuner.oracle) == 10
    assert tuner.get_best_hyperparameters()[0]["x"] == min((values["x"] for values in values_of(tuner.oracle)), key=abs)
    assert tuner_of(lambda hp: {"loss": hp["x"]}, tmp_path, objective="loss", max_trials=12).oracle.remaining_trials() == 2


@pytest.mark.parametrize("most", [None, 99])
def test_a_space_that_trials_make_is_searched_to_its_end(tmp_path, most):
    def run(hp):
        hp.Fixed("loss", "mse")
        return float(hp.Choice("a", [2, 4]) + hp.Boolean("b", default=True) + hp.Choice("c", [1, 3, 5]))

    tuner = tuner_of(run, tmp_path, max_trials=most)
    tuner.search()
    assert len(values_of(tuner.oracle)) == distinct(tuner.oracle) == 12
    assert all(values.keys() == {"loss", "a", "b", "c"} for values in values_of(tuner.oracle))
    assert {one.name for one in tuner.oracle.get_space().space} == {"loss", "a", "b", "c"}


def test_branches_that_the_model_and_the_trial_open(tmp_path):
    """All of four switches' branches, two of which are not known before the first trial."""

    def branch(hp, name):
        is_on = hp.Boolean(name)
        for value in (True, False):
            with hp.conditional_scope(name, [value]):
                if is_on == value:
                    hp.Choice(f"{name}_{value}", [1, 2])

    tuner = tuner_of(lambda hp: float(branch(hp, "fit") or len(hp.values)), tmp_path, lambda hp: branch(hp, "build"), None, None)
    assert {one.name for one in tuner.oracle.hyperparameters.space} == {"build", "build_True", "build_False"}
    tuner.search()
    assert len(values_of(tuner.oracle)) == distinct(tuner.oracle) == 16
    assert all(len(values) == 4 for values in values_of(tuner.oracle))


def test_a_trial_that_fails_has_shown_the_space_too(tmp_path):
    def run(hp):
        for name in "abcd":
            hp.Boolean(name)
        if len(tuner.oracle.trials) == 1:
            raise keras_tuner.errors.FailedTrialError
        return 1.0

    tuner = tuner_of(run, tmp_path, max_trials=99)
    tuner.search()
    assert [trial.status for trial in tuner.oracle.trials.values()] == ["FAILED"] + ["COMPLETED"] * 15
    assert distinct(tuner.oracle) == 16


@pytest.mark.parametrize(("error", "runs"), [(OSError, 5 + 2 * 2), (keras_tuner.errors.FailedTrialError, 5)])
def test_what_crashes_is_tried_again_and_what_failed_is_not(tmp_path, error, runs):
    def run(hp):
        if (value := hp.Int("value", 1, 5)) in (2, 3):
            raise error("wrong")
        return value

    tuner = tuner_of(run, tmp_path, max_trials=None, max_retries_per_trial=2)
    tuner.search()
    assert tuner.runs == runs and len(tuner.oracle.trials) == 5


def test_a_second_worker_waits_until_the_first_has_shown_the_space(tmp_path):
    oracle = oracle_in(tmp_path)
    first = oracle.create_trial("a")
    assert first.hyperparameters.values == {} and oracle.create_trial("b").status == "IDLE"
    first.hyperparameters.Boolean("x")
    end(oracle, first, {"loss": 1.0}, status="COMPLETED")
    second = oracle.create_trial("b")
    assert second.hyperparameters.values == {"x": True} and oracle.create_trial("a").status == "IDLE"
    end(oracle, second, {"loss": 2.0}, status="COMPLETED")
    assert {oracle.create_trial(worker).status for worker in "ab"} == {"STOPPED"}


def test_what_runs_with_a_default_that_is_not_known_yet_does_not_run_twice(tmp_path):
    tuner = tuner_of(lambda hp: 1.0, tmp_path, lambda hp: hp.Boolean("known"), "loss", None)
    oracle, workers = tuner.oracle, iter("abcdefgh")

    def finish(trial):
        trial.hyperparameters.Boolean("late")
        end(oracle, trial, {"loss": 1.0}, status="COMPLETED")

    one, two = oracle.create_trial(next(workers)), oracle.create_trial(next(workers))
    assert oracle.create_trial(next(workers)).status == "IDLE"
    finish(one)
    three, four = oracle.create_trial(next(workers)), oracle.create_trial(next(workers))
    assert three.status == four.status == "RUNNING" and oracle.create_trial(next(workers)).status == "IDLE"
    for trial in (two, three, four):
        finish(trial)
    assert oracle.create_trial(next(workers)).status == "STOPPED" and len(oracle.trials) == distinct(oracle) == 4


def test_trials_that_ask_for_nothing_end_with_a_sentence(tmp_path):
    with pytest.raises(DaquError, match=r"`hyperparameters` must hold .* none, and trial 0000 failed with: KeyError: .*ask for it"):
        tuner_of(lambda hp: hp["units"], tmp_path / "failed").search()
    with pytest.raises(DaquError, match=r"`hyperparameters` must hold the whole search space, but received none: register"):
        tuner_of(lambda hp: 1.0, tmp_path / "completed").search()


# What `run_trial` may return.


@pytest.mark.parametrize("returned", [lambda x: {"loss": x}, float, int, lambda x: [x] * 3, lambda x: [{"loss": x}] * 2])
def test_results_of_every_form(tmp_path, returned):
    tuner = tuner_of(lambda hp: returned(hp.Choice("x", [7, 3, 11])), tmp_path, objective="loss", max_trials=3)
    tuner.search()
    assert [trial.score for trial in tuner.oracle.get_best_trials(3)] == [3, 7, 11]


@pytest.mark.parametrize(
    ("objective", "returned", "error", "message"),
    [
        ("loss", "text", TypeError, "to be one of"),
        ("loss", None, TypeError, "Did you forget to return"),
        ("loss", {"accuracy": 1.0}, ValueError, "the specified objective, loss"),
        (None, {"loss": 1.0}, TypeError, "a single float when `objective` is left unspecified"),
        ([LOSS, SCORE], {"loss": 1.0}, None, "Objective value missing"),
    ],
)
def test_results_that_cannot_be_used(tmp_path, objective, returned, error, message):
    tuner = tuner_of(lambda hp: (hp.Boolean("x"), returned)[1], tmp_path, objective=objective, max_trials=2)
    if error:
        with pytest.raises(error, match=message):
            tuner.search()
        assert tuner.oracle.trials["0000"].status == "RUNNING"  # It is the program that must be mended.
    else:
        tuner.search()
        assert all(message in trial.message for trial in tuner.oracle.trials.values())


def test_metrics_that_a_trial_reports_by_itself(tmp_path):
    def run(hp):
        tuner.oracle.update_trial(list(tuner.oracle.trials)[-1], {"loss": hp.Choice("x", [3, 11])})

    tuner = tuner_of(run, tmp_path, objective="loss", max_trials=2)
    with pytest.warns(DeprecationWarning, match="remove the call"):
        tuner.search()
    assert [trial.score for trial in tuner.oracle.get_best_trials(2)] == [3, 11]


def test_a_single_objective_is_known_by_its_name(tmp_path, capsys):
    tuner = tuner_of(lambda hp: hp.Float("x", 0, 1), tmp_path, objective=SCORE, max_trials=2)
    assert tuner.oracle.objective is SCORE and tuner.oracle.objectives == [SCORE]
    tuner.search()
    tuner.search_space_summary()
    tuner.results_summary()
    assert 'Objective(name="score", direction="max")' in capsys.readouterr().out
    assert tuner.oracle.trials["0000"].metrics.get_direction("score") == "max"


# Trials that are ended in other ways.


def test_a_status_that_names_no_failure(tmp_path):
    space = keras_tuner.HyperParameters()
    space.Int("x", 0, 9)
    oracle = oracle_in(tmp_path, space=space)
    end(oracle, oracle.create_trial("a"), {"loss": 1.0})  # At RUNNING, as it was given out.
    end(oracle, oracle.create_trial("a"), {"loss": 2.0}, status="STOPPED")
    oracle.update_trial(oracle.create_trial("a").trial_id, {"loss": 3.0})
    oracle.end_trial("0002", "COMPLETE")
    end(oracle, oracle.create_trial("a"))
    other = oracle_in(tmp_path, space=space)
    other.reload()
    for one in (oracle, other):
        assert [trial.status for trial in one.trials.values()] == ["COMPLETED"] * 3 + ["FAILED"]
        assert [trial.trial_id for trial in one.get_best_trials(9)] == ["0000", "0001", "0002"]


def test_an_oracle_that_stops_a_trial_when_it_reports(tmp_path):
    class Stops(ParetoOracle):
        def update_trial(self, trial_id, metrics, step=0):
            trial = super().update_trial(trial_id, metrics, step)
            trial.status = "STOPPED"
            return trial

    tuner = tuner_of(lambda hp: hp.Float("x", 0, 1), tmp_path, objective="loss", max_trials=3, kind=Stops)
    tuner.search()
    assert [trial.status for trial in tuner.oracle.trials.values()] == ["COMPLETED"] * 3


@pytest.mark.parametrize("status", ["IDLE", "STOPPED"])
def test_an_oracle_that_keeps_its_tuner_waiting(tmp_path, status):
    class Waits(ParetoOracle):
        asked = 0

        def create_trial(self, tuner_id):
            trial = super().create_trial(tuner_id)
            self.asked += 1
            trial.status = status if self.asked == 1 else "STOPPED"
            return trial

    tuner = tuner_of(lambda hp: 1.0, tmp_path, lambda hp: hp.Boolean("x"), kind=Waits)
    tuner.search()
    assert tuner.runs == 0 and tuner.oracle.asked == (2 if status == "IDLE" else 1)


# Oracles of one's own on ours.


class Own(JournaledOracle):
    """Proposes what it likes, with KerasTuner's help."""

    def populate_space(self, trial_id):
        values = {"x": 0}
        while self._duplicate(values):
            values["x"] += 1
        return {"values": values, "status": "RUNNING"} if values["x"] < 4 else {"status": "STOPPED"}


def own_in(folder):
    oracle = Own([LOSS], max_trials=99)
    oracle._set_project_dir(folder, "search")
    return oracle


def test_values_that_were_tried_are_known_and_a_drawn_seed_is_kept(tmp_path):
    oracle = own_in(tmp_path)
    end(oracle, oracle.create_trial("a"), {"loss": 1.0}, status="COMPLETED")
    assert [oracle.create_trial(worker).hyperparameters.values for worker in "ab"] == [{"x": 1}, {"x": 2}]
    oracle = own_in(tmp_path)  # It knows what was tried, and goes on with the seed that KerasTuner drew.
    assert [oracle.create_trial(worker).hyperparameters.values for worker in "abc"] == [{"x": 1}, {"x": 2}, {"x": 3}]
    assert oracle.create_trial("d").status == "IDLE"


def test_a_subclass_may_change_what_is_proposed(tmp_path):
    class Fixed(ParetoOracle):
        def populate_space(self, trial_id):
            found = super().populate_space(trial_id)
            found.get("values", {})["layers"] = 2
            return found

    def build(hp):
        return [hp.Int(f"units_{layer}", 2, 4, 2) for layer in range(hp.Int("layers", 0, 2))]

    tuner = tuner_of(lambda hp: float(len(build(hp))), tmp_path, build, "loss", 1, Fixed)
    assert {one.name for one in tuner.oracle.get_space().space} == {"layers"}
    tuner.search()
    assert {one.name for one in tuner.oracle.get_space().space} == {"layers", "units_0", "units_1"}


def test_methods_that_a_subclass_synchronizes_come_one_after_the_other(tmp_path):
    log, both = [], threading.Barrier(2)

    class Synchronized(Own):
        @keras_tuner.synchronized
        def create_trial(self, tuner_id):
            log.append("create")
            trial = super().create_trial(tuner_id)
            log.append("create")
            return trial

        @keras_tuner.synchronized
        def end_trial(self, trial):
            log.append("end")
            super().end_trial(trial)
            log.append("end")

    oracle = Synchronized([LOSS], max_trials=99)
    oracle._set_project_dir(tmp_path, "search")
    trial = oracle.create_trial("a")
    oracle.update_trial(trial.trial_id, {"loss": 1.0})
    calls = [(oracle.create_trial, "b"), (oracle.end_trial, trial)]
    threads = [threading.Thread(target=lambda call=call: both.wait(9) + 1 and call[0](call[1]), daemon=True) for call in calls]
    for step in (threading.Thread.start, threading.Thread.join):
        for thread in threads:
            step(thread)
    assert log[2:] in (["create", "create", "end", "end"], ["end", "end", "create", "create"])


def test_earlier_names_of_methods(tmp_path):
    oracle = own_in(tmp_path)
    with pytest.warns(DeprecationWarning, match="populate_space"):
        assert oracle._populate_space("0000")["values"] == {"x": 0}
    trial = oracle.create_trial("a")
    oracle.update_trial(trial.trial_id, {"loss": 0.5})
    with pytest.warns(DeprecationWarning, match="score_trial"):
        oracle._score_trial(trial)
    assert trial.score == 0.5


# The project, and what is shown.


def test_a_proposal_that_is_asked_for_before_anything_else(tmp_path):
    assert oracle_in(tmp_path).populate_space("0000") == {"status": "RUNNING", "values": {}}


def test_a_project_of_another_oracle_is_left_alone(tmp_path):
    theirs = tuner_of(lambda hp: hp.Float("x", 0, 1), tmp_path, max_trials=2, kind=keras_tuner.oracles.RandomSearchOracle)
    theirs.search()
    with pytest.raises(DaquError, match="has the trials of another oracle: choose .* or pass `overwrite=True` to delete them"):
        tuner_of(lambda hp: 1.0, tmp_path)
    assert not (tmp_path / "search" / "trials.jsonl").exists()
    ours = tuner_of(lambda hp: hp.Float("x", 0, 1), tmp_path, max_trials=2, overwrite=True)
    ours.search()
    assert len(ours.oracle.trials) == ours.runs == 2


def test_numbers_of_trials_are_shown_on_when_a_search_goes_on(tmp_path, capsys):
    for most in (2, 4):
        tuner = tuner_of(lambda hp: hp.Float("x", 0, 1), tmp_path, max_trials=most)
        tuner.oracle.verbose = 1
        tuner.search()
    shown = [line for line in capsys.readouterr().out.splitlines() if "Running Trial" in line]
    assert shown == [f"Search: Running Trial #{number}" for number in (1, 2, 3, 4)]


# How it searches.


def test_steps_are_kept_and_the_best_end_of_a_range_is_found(tmp_path):
    space = keras_tuner.HyperParameters()
    space.Float("x", 0, 10, step=3)
    oracle, seen = oracle_in(tmp_path / "steps", SCORE, None, space, initial_random=2), []
    while (trial := oracle.create_trial("a")).status == "RUNNING":
        seen.append(trial.hyperparameters["x"])
        end(oracle, trial, {"score": 1.0}, status="COMPLETED")  # All equally good.
    assert sorted(seen) == [0, 3, 6, 9]
    space = keras_tuner.HyperParameters()
    space.Int("x", -100, 100)
    oracle = oracle_in(tmp_path / "end", SCORE, 14, space, initial_random=10)
    while (trial := oracle.create_trial("a")).status == "RUNNING":
        end(oracle, trial, {"score": float(trial.hyperparameters["x"])}, status="COMPLETED")
    assert oracle.get_best_trials()[0].hyperparameters["x"] == 100


def test_several_workers_find_a_minimum(tmp_path):
    space = keras_tuner.HyperParameters()
    space.Int("a", 0, 10)
    space.Float("b", -1, 1, step=0.1)
    oracle = oracle_in(tmp_path, "loss", 40, space)
    for _ in range(10):
        trials = [oracle.create_trial(worker) for worker in "abcd"]
        for trial in trials:
            values = trial.hyperparameters
            end(oracle, trial, {"loss": abs(values["a"] - 4) - values["b"]}, status="COMPLETED")
    assert oracle.get_best_trials()[0].score < -0.85  # Of -1 at best; KerasTuner wants -0.8 of its own.
