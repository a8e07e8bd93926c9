import json

import keras_tuner
import opening_search
import pytest
from keras_tuner.engine.trial import Trial
from search_processes import OBJECTIVES, hyperparameters, make_oracle, measure

from daqu_tf.errors import DaquError
from daqu_tf.oracle import keras_tuner_files
from daqu_tf.search.tuner import DaquTuner

pytestmark = pytest.mark.filterwarnings("ignore:(currentThread|getName)")


@pytest.fixture
def search(tmp_path):
    """Nine completed trials, one that failed, and one that runs."""

    def sometimes(values):
        if len(tuner.oracle.trials) == 5:
            raise OSError("device gone")
        return measure(values)

    tuner = DaquTuner(make_oracle(12), sometimes, tmp_path, deadline=lambda: len(tuner.oracle.trials) == 10)
    tuner.search()
    tuner.oracle.create_trial("another")
    return tuner


def test_keras_tuner_reads_every_trial(search, tmp_path):
    assert keras_tuner_files.write(tmp_path / "search" / "trials.jsonl", tmp_path / "view") == 11
    for trial_id, mine in search.oracle.trials.items():
        read = Trial.load(tmp_path / "view" / f"trial_{trial_id}" / "trial.json")
        assert (read.trial_id, read.status, read.message) == (trial_id, mine.status, mine.message)
        assert read.hyperparameters.values == mine.hyperparameters.values
        assert read.hyperparameters.get("depth") == mine.hyperparameters.get("depth")
        for name in OBJECTIVES if mine.status == "COMPLETED" else ():
            assert read.metrics.get_last_value(name) == mine.metrics.get_last_value(name)
            assert read.metrics.metrics[name].direction == OBJECTIVES[name]


def test_a_space_that_has_opened(tmp_path):
    tuner = opening_search.make_tuner(opening_search.make_oracle(6), None, tmp_path)
    tuner.search()
    assert keras_tuner_files.write(tmp_path / "search" / "trials.jsonl", tmp_path / "view") == 6
    for trial_id, mine in tuner.oracle.trials.items():
        read = Trial.load(tmp_path / "view" / f"trial_{trial_id}" / "trial.json").hyperparameters
        assert read.values == mine.hyperparameters.values
        assert {one.name for one in read.space} == {one.name for one in tuner.oracle.hyperparameters.space}


def test_a_stock_oracle_goes_on_from_there(search, tmp_path):
    keras_tuner_files.write(tmp_path / "search" / "trials.jsonl", tmp_path / "view")
    objectives = [keras_tuner.Objective(name, direction) for name, direction in OBJECTIVES.items()]
    stock = keras_tuner.oracles.RandomSearchOracle(objective=objectives, max_trials=14, hyperparameters=hyperparameters())
    stock._set_project_dir(str(tmp_path), "view")
    stock.reload()
    assert stock.start_order == list(search.oracle.trials) and stock.end_order == search.oracle.end_order
    sums = {t.trial_id: measure(t.hyperparameters.values) for t in stock.trials.values() if t.status == "COMPLETED"}
    sums = {trial_id: value["latency_us"] - value["accuracy"] for trial_id, value in sums.items()}
    assert stock.get_best_trials(1)[0].trial_id == min(sums, key=sums.get)

    class Tuner(keras_tuner.engine.base_tuner.BaseTuner):
        def run_trial(self, trial, verbose):
            ran.append((trial.trial_id, trial.hyperparameters.values))
            metrics = measure(trial.hyperparameters.values)
            return {**metrics, "multi_objective": metrics["latency_us"] - metrics["accuracy"]}

    ran = []
    Tuner(stock, directory=str(tmp_path), project_name="view").search(verbose=0)
    assert ran[0] == ("0010", search.oracle.trials["0010"].hyperparameters.values) and len(ran) == 4
    every = [str(sorted(trial.hyperparameters.values.items())) for trial in stock.trials.values()]
    assert len(set(every)) == 14


def test_without_a_journal(tmp_path):
    with pytest.raises(DaquError, match="does not exist: name the folder of a search that has begun"):
        keras_tuner_files.write(tmp_path / "trials.jsonl", tmp_path / "view")
    (tmp_path / "trials.jsonl").write_text(json.dumps([1]) + "\n")
    with pytest.raises(DaquError, match="no journal of a search"):
        keras_tuner_files.write(tmp_path / "trials.jsonl", tmp_path / "view")
