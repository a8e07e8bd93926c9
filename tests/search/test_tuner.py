import os
import signal
import subprocess
import sys

import keras_tuner
import pytest
from families import FAMILIES
from places import HELPERS, ROOT

from daqu_tf.errors import DaquError
from daqu_tf.oracle.oracle import ParetoOracle, SearchFailedError
from daqu_tf.search.tuner import DaquTuner
from daqu_tf.targets import costs

pytestmark = pytest.mark.filterwarnings("ignore:(currentThread|getName)")
TRIALS = 24
KILLED_AT = 17  # Well after the first design, so that the proposal depends on what was reloaded.


def evaluate(values):
    depth, width = values["depth"], values["width"]
    return {"accuracy": 1 - 1 / (depth * width), "latency_us": 10.0 * depth + width**2 + values["kernel"], "flops": 7}


def hyperparameters():
    space = keras_tuner.HyperParameters()
    for name, values in {"depth": range(1, 6), "width": range(1, 9), "kernel": (3, 5, 7)}.items():
        space.Choice(name, list(values))
    return space


def make(directory, evaluate=evaluate, max_trials=TRIALS, oracle=None, **kwargs):
    objectives = [keras_tuner.Objective("accuracy", "max"), keras_tuner.Objective("latency_us", "min")]
    oracle = oracle or ParetoOracle(objectives, max_trials, hyperparameters(), seed=3, initial_random=6)
    return DaquTuner(oracle, evaluate, directory, **kwargs)


def history(tuner):
    return {trial_id: trial.hyperparameters.values for trial_id, trial in tuner.oracle.trials.items()}


def killed_search(directory):
    """Runs in a process of its own, which dies in the middle of a trial."""
    started = []

    def evaluate_or_die(values):
        started.append(values)
        if len(started) == KILLED_AT:
            os.kill(os.getpid(), signal.SIGKILL)
        return evaluate(values)

    make(directory, evaluate_or_die).search()


def test_kill_and_resume(tmp_path, capsys):
    code = f"import test_tuner; test_tuner.killed_search({str(tmp_path / 'killed')!r})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), str(HELPERS), str(ROOT)])}
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, timeout=300)
    assert process.returncode == -signal.SIGKILL, process.stderr

    evaluated = []
    resumed = make(tmp_path / "killed", lambda values: evaluated.append(values) or evaluate(values))
    assert [trial.status for trial in resumed.oracle.trials.values()] == ["COMPLETED"] * (KILLED_AT - 1) + ["RUNNING"]
    resumed.search()
    assert len(evaluated) == TRIALS - KILLED_AT + 1
    assert "Reloading" not in capsys.readouterr().out

    undisturbed = make(tmp_path / "undisturbed")
    undisturbed.search()
    assert history(resumed) == history(undisturbed)
    assert [t.trial_id for t in resumed.pareto_trials()] == [t.trial_id for t in undisturbed.pareto_trials()]
    make(tmp_path / "killed", lambda values: pytest.fail("the search was over")).search()


def test_progress_is_told_of_every_trial(tmp_path):
    told = []
    make(tmp_path, on_progress=lambda tuner, trial: told.append((tuner.remaining_trials, trial.status))).search()
    assert told == [(TRIALS - 1 - index, "COMPLETED") for index in range(TRIALS)]


def test_the_deadline_ends_the_search_between_trials(tmp_path):
    evaluated = []

    def note(values):
        evaluated.append(values)
        return evaluate(values)

    tuner = make(tmp_path, note, deadline=lambda: len(evaluated) >= 7)
    tuner.search()
    assert [trial.status for trial in tuner.oracle.trials.values()] == ["COMPLETED"] * 7
    make(tmp_path, note).search()
    assert len(evaluated) == TRIALS


def test_an_exception_fails_the_trial_alone(tmp_path):
    def sometimes(values):
        if values["kernel"] == 5:
            raise OSError("device gone")
        return evaluate(values)

    oracle = ParetoOracle(
        [keras_tuner.Objective("accuracy", "max"), keras_tuner.Objective("latency_us", "min")],
        TRIALS,
        hyperparameters(),
        max_consecutive_failed_trials=TRIALS,
    )
    tuner = make(tmp_path, sometimes, oracle=oracle)
    tuner.search()
    for trial in tuner.oracle.trials.values():
        failed = trial.hyperparameters.values["kernel"] == 5
        assert trial.status == ("FAILED" if failed else "COMPLETED")
        assert ("device gone" in (trial.message or "")) == failed
    assert all(trial.status == "COMPLETED" for trial in tuner.pareto_trials())


def test_a_search_in_which_all_fails_ends(tmp_path):
    def broken(values):
        raise OSError("device gone")

    with pytest.raises(SearchFailedError, match="device gone"):
        make(tmp_path, broken).search()


def test_an_objective_that_is_not_reported_ends_the_search(tmp_path):
    with pytest.raises(DaquError, match=r"`latency_us` is not among \['accuracy'\]"):
        make(tmp_path, lambda values: {"accuracy": 0.5}).search()


def test_a_constraint_on_what_is_not_reported_ends_the_search_and_leaves_the_folder_usable(tmp_path):
    def constrained(evaluate):
        objectives = [keras_tuner.Objective("accuracy", "max"), keras_tuner.Objective("latency_us", "min")]
        oracle = ParetoOracle(objectives, 8, hyperparameters(), initial_random=6, constraints=["size<=3"])
        return make(tmp_path, evaluate, oracle=oracle)

    with pytest.raises(DaquError, match=r"`constraints` must name reported metrics, but `size` is not among"):
        constrained(evaluate).search()
    mended = constrained(lambda values: evaluate(values) | {"size": 2.0})
    mended.search()
    assert all(trial.status == "COMPLETED" for trial in mended.oracle.trials.values())


def test_overwrite_begins_anew(tmp_path):
    make(tmp_path).search()
    assert not make(tmp_path, overwrite=True).oracle.trials


def test_results_summary_shows_the_front(tmp_path, capsys):
    tuner = make(tmp_path)
    tuner.results_summary()
    tuner.search()
    tuner.results_summary(num_trials=4)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "0 trials, 0 failed; 0 on the Pareto front, 0 shown"
    assert lines[2].startswith(f"{TRIALS} trials, 0 failed;") and lines[2].endswith("4 shown")
    assert lines[3].split() == ["trial", "accuracy", "(max)", "latency_us", "(min)", "depth", "width", "kernel"]
    rows = [line.split() for line in lines[4:]]
    assert rows[0][0] == tuner.pareto_trials()[0].trial_id
    accuracies = [float(row[1]) for row in rows]
    assert len(rows) == 4 and accuracies == sorted(accuracies, reverse=True)
    values = tuner.pareto_trials()[0].hyperparameters.values
    assert rows[0][3:] == [str(values[name]) for name in ("depth", "width", "kernel")]


def test_results_summary_says_what_a_trial_died_of(tmp_path, capsys):
    def broken(values):
        raise OSError("device gone")

    tuner = make(tmp_path, broken)
    with pytest.raises(SearchFailedError):
        tuner.search()
    tuner.results_summary()
    assert "3 trials, 3 failed (the last with: OSError: device gone); 0 on the Pareto front" in capsys.readouterr().out


def test_the_subnets_of_the_front(tmp_path):
    space = FAMILIES["squeeze_excite"]

    def evaluate(values):
        subnet = space.subnet(values)
        return {"accuracy": costs.macs(space, subnet) / 1e9, "latency_us": costs.bitops(space, subnet)}

    objectives = [keras_tuner.Objective("accuracy", "max"), keras_tuner.Objective("latency_us", "min")]
    oracle = ParetoOracle(
        objectives, 12, space.to_hyperparameters(), initial_random=12, canonicalise=lambda values: space.subnet(values).to_json()
    )
    tuner = DaquTuner(oracle, evaluate, tmp_path, space=space)
    tuner.search()
    subnets = tuner.pareto_subnets()
    assert [subnet.to_json() for subnet in subnets] == [trial.hyperparameters.values for trial in tuner.pareto_trials()]
    assert space.to_hyperparameters() and len(subnets) >= 1
    with pytest.raises(DaquError, match="`space` must be given to the tuner"):
        make(tmp_path / "other").pareto_subnets()


@pytest.mark.parametrize("several", [False, True])
def test_a_stock_oracle_runs_and_resumes(tmp_path, capsys, several):
    def oracle(max_trials):
        objectives = [keras_tuner.Objective("accuracy", "max"), keras_tuner.Objective("latency_us", "min")]
        return keras_tuner.oracles.RandomSearchOracle(
            objective=objectives if several else objectives[0],
            max_trials=max_trials,
            hyperparameters=hyperparameters(),
            seed=1,
        )

    make(tmp_path, oracle=oracle(4)).search(verbose=0)
    tuner = make(tmp_path, oracle=oracle(6))
    tuner.search(verbose=0)
    assert len(tuner.oracle.trials) == 6
    tuner.results_summary()
    assert "on the Pareto front" in capsys.readouterr().out
    assert tuner.pareto_trials()[0].metrics.get_last_value("accuracy") == max(
        trial.metrics.get_last_value("accuracy") for trial in tuner.oracle.trials.values()
    )


def test_a_stock_tuner_resumes_from_the_journal(tmp_path):
    class Tuner(keras_tuner.engine.base_tuner.BaseTuner):
        def run_trial(self, trial):
            return evaluate(trial.hyperparameters.values)

    for trials in (8, 12):
        tuner = Tuner(make(tmp_path / "other", max_trials=trials).oracle, directory=str(tmp_path), project_name="stock")
        tuner.search()
        assert len(tuner.oracle.trials) == trials


@pytest.mark.parametrize("kind", [keras_tuner.oracles.RandomSearchOracle, keras_tuner.oracles.BayesianOptimizationOracle])
def test_a_stock_oracle_searches_a_space(kind, tmp_path):
    space, subnets = FAMILIES["squeeze_excite"], []

    def evaluate(values):
        hyperparameters = keras_tuner.HyperParameters()
        hyperparameters.values = values
        subnets.append(space.from_hyperparameters(hyperparameters))
        return {"macs": costs.macs(space, subnets[-1])}

    objective = keras_tuner.Objective("macs", "min")
    oracle = kind(objective=objective, max_trials=6, hyperparameters=space.to_hyperparameters(), seed=0)
    tuner = DaquTuner(oracle, evaluate, directory=tmp_path)
    tuner.search(verbose=0)
    assert len(set(subnets)) == 6
    best = tuner.oracle.get_best_trials(1)[0]
    assert best.metrics.get_best_value("macs") == min(costs.macs(space, subnet) for subnet in subnets)
