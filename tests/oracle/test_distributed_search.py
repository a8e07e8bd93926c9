"""Searches of a chief and workers, as processes on loopback."""

import json
import threading
import time

import keras_tuner
import opening_search
import pytest
from keras_tuner.engine.trial import Trial
from keras_tuner.src.engine.metrics_tracking import MetricObservation
from search_processes import (
    OBJECTIVES,
    Evaluation,
    Search,
    client_of,
    forked,
    hyperparameters,
    make_oracle,
    measure,
    search_alone,
    until,
)

from daqu_tf.errors import DaquError
from daqu_tf.oracle.chief import Chief, exposure
from daqu_tf.oracle.oracle import ParetoOracle
from daqu_tf.search.timing_turns import TimingTurns

pytestmark = pytest.mark.filterwarnings("ignore:(currentThread|getName)")


def history(oracle):
    return {trial_id: trial.hyperparameters.values for trial_id, trial in oracle.trials.items()}


def reloaded(search, max_trials):
    oracle = make_oracle(max_trials)
    oracle._set_project_dir(search.folder, "search")
    oracle.reload()
    return oracle


def test_workers_find_what_one_process_finds(tmp_path):
    with Search(tmp_path, 20, Evaluation(tmp_path)) as search:
        search.start("chief", "worker0", "worker1", "worker2")
        assert [search.wait(process) for process in search.processes] == [0] * 4, search.log("chief")
    assert sorted(search.ended()) == [f"{index:04d}" for index in range(20)]
    assert len({worker for worker, _ in search.evaluated()}) > 1
    alone = search_alone(tmp_path / "alone", 20)
    oracle = reloaded(search, 20)
    assert history(oracle) == history(alone.oracle)
    assert [t.trial_id for t in oracle.pareto_trials()] == [t.trial_id for t in alone.pareto_trials()]
    for trial_id, trial in oracle.trials.items():  # To the last bit; KerasTuner's messages hold 24 bits.
        assert trial.metrics.get_last_value("accuracy") == alone.oracle.trials[trial_id].metrics.get_last_value("accuracy")


def test_a_space_that_opens_on_workers(tmp_path):
    """Killed in between, too: chief and workers, one after the other."""
    with Search(tmp_path, 24, None, oracle=opening_search.make_oracle, tuner=opening_search.make_tuner) as search:
        search.start("chief", "worker0", "worker1")
        until(lambda: len(search.ended()) >= 6)
        for name in ("worker0", "chief", "worker1"):
            search.kill(name)
            search.start(name)
        assert search.wait("chief") == 0, search.log("chief")
        for name in ("worker0", "worker1"):  # On a busy machine, the search may be over before one is there again.
            assert search.wait(name) == 0 or "unless the search is over" in search.log(name), search.log(name)
    assert sorted(search.ended()) == [f"{index:04d}" for index in range(24)]
    oracle = opening_search.make_oracle(24)
    oracle._set_project_dir(tmp_path, "search")
    oracle.reload()
    assert {"units_1", "units_2", "rate"} <= {one.name for one in oracle.hyperparameters.space}
    assert len({trial.hyperparameters.values.get("units_1") for trial in oracle.trials.values()}) > 2
    for trial in oracle.trials.values():  # As the model was built.
        layers = trial.hyperparameters.values["num_layers"]
        assert {f"units_{layer}" for layer in range(layers)} <= trial.hyperparameters.values.keys()


def test_the_trial_of_a_worker_that_is_gone_is_given_to_another(tmp_path):
    with Search(tmp_path, 8, Evaluation(tmp_path, stuck=["worker0"])) as search:
        search.start("chief", "worker0")
        until(search.evaluated)
        search.kill("worker0")
        search.start("worker1")
        assert search.wait("chief") == search.wait("worker1") == 0, search.log("chief")
    assert sorted(search.ended()) == [f"{index:04d}" for index in range(8)]
    lost = search.evaluated()[0][1]
    assert ("worker1", lost) in search.evaluated()


def test_a_worker_that_is_alive_keeps_a_trial_longer_than_a_lease(tmp_path):
    with Search(tmp_path, 2, Evaluation(tmp_path, seconds=5.0), lease=1.5) as search:
        search.start("chief", "worker0", "worker1", "worker2")
        assert [search.wait(process) for process in search.processes] == [0] * 4
    assert len(search.evaluated()) == 2 and len(search.ended()) == 2


def test_a_worker_that_comes_back_gets_its_trial_again(tmp_path):
    with Search(tmp_path, 6, Evaluation(tmp_path, seconds=0.5), lease=60.0) as search:
        search.start("chief", "worker0")
        until(lambda: len(search.evaluated()) == 2)
        search.kill("worker0")
        search.start("worker0")
        assert search.wait("chief") == 0
    values = [values for _, values in search.evaluated()]
    assert values[1] == values[2] and len(values) == 7
    assert search.ended() == [f"{index:04d}" for index in range(6)]


def test_workers_go_on_when_the_chief_comes_back(tmp_path):
    with Search(tmp_path, 10, Evaluation(tmp_path, seconds=1.0), lease=60.0) as search:
        search.start("chief", "worker0", "worker1")
        until(lambda: len(search.evaluated()) == 4)
        search.kill("chief")
        search.start("chief")
        assert [search.wait(process) for process in search.processes] == [0] * 3, search.log("worker0")
    assert sorted(search.ended()) == [f"{index:04d}" for index in range(10)]
    assert len(search.evaluated()) == 10  # Nothing ran twice.


def test_a_chief_whose_workers_are_all_gone_ends(tmp_path):
    with Search(tmp_path, 6, Evaluation(tmp_path, stuck=["worker0"]), patience=2.0, lease=1.0) as search:
        search.start("chief", "worker0")
        until(search.evaluated)
        search.kill("worker0")
        assert search.wait("chief") == 1
    assert search.log("chief").startswith("Error: The search is not over, but for 2 seconds there was no worker: start")


def test_a_worker_without_a_chief_ends(tmp_path):
    with Search(tmp_path, 6, Evaluation(tmp_path), patience=1.0) as search:
        search.start("worker0")
        assert search.wait("worker0") == 1
    assert search.log("worker0").startswith(f"Error: No chief was heard of at 127.0.0.1:{search.port} for 1 seconds: start it")
    assert search.log("worker0").count("\n") == 1
    assert not list((tmp_path / "search").glob("*"))


def test_a_workers_traceback_reaches_the_chief(tmp_path):
    broken = {"worker0": OSError(f"no device {'x' * 9000} at all\nof this kind")}
    with Search(tmp_path, 6, Evaluation(tmp_path, broken=broken), max_consecutive_failed_trials=2) as search:
        search.start("chief", "worker0")
        assert search.wait("chief") == search.wait("worker0") == 1
    failed = [record for record in search.records() if record["status"] == "FAILED"]
    assert [record["trial_id"] for record in failed] == ["0000", "0001"]
    assert all(record["message"].rstrip().endswith("x at all\nof this kind") for record in failed)
    assert search.log("chief").startswith("Error: The last 2 trials failed, trial 0001 with: of this kind; mend")
    assert search.log("worker0").splitlines()[-1].startswith("Error: The chief has ended the search: The last 2 trials failed")


def test_a_metric_missing_on_a_worker_ends_the_search(tmp_path):
    with Search(tmp_path, 6, Evaluation(tmp_path, silent=["worker0"], seconds=0.5)) as search:
        search.start("chief", "worker0", "worker1")
        assert [search.wait(process) for process in search.processes] == [1] * 3
    sentence = "`objective` must name reported metrics, but `latency_us` is not among ['accuracy']"
    assert search.log("worker0").startswith(f"Error: {sentence}")
    assert search.log("chief").startswith(f"Error: worker0 ended the search: {sentence}")
    assert search.log("worker1").startswith(f"Error: The chief has ended the search: worker0 ended the search: {sentence}")


class Broken(make_oracle(1).__class__):
    """Cannot propose the fourth trial."""

    def populate_space(self, trial_id):
        if trial_id == "0003":
            raise ZeroDivisionError("no fourth")
        return super().populate_space(trial_id)


def broken_oracle(max_trials, **kwargs):
    oracle = make_oracle(max_trials, **kwargs)
    oracle.__class__ = Broken
    return oracle


def test_an_exception_of_the_oracle_ends_the_search(tmp_path):
    with Search(tmp_path, 6, Evaluation(tmp_path), oracle=broken_oracle) as search:
        search.start("chief", "worker0", "worker1")
        assert [search.wait(process) for process in search.processes] == [2, 1, 1]
    assert "no fourth" in search.log("chief") and "Traceback" in search.log("chief")
    for worker in ("worker0", "worker1"):
        assert search.log(worker) == "Error: The chief has ended the search: ZeroDivisionError: no fourth\n"
    assert not {"0003"} & set(search.ended())


def test_a_second_chief_at_the_same_port_is_refused(tmp_path):
    with Search(tmp_path, 6, Evaluation(tmp_path)) as search:
        search.start("chief")
        until((tmp_path / "search" / "trials.jsonl").exists)
        other = tmp_path / "other"
        other.mkdir()
        with Search(other, 6, Evaluation(other)) as second:
            second.port = search.port
            second.start("chief")
            assert second.wait("chief") == 1
    assert second.log("chief").startswith(f"Error: The chief cannot listen at 127.0.0.1:{search.port}: end what does")


def stock_oracle(max_trials, lease_seconds):
    objectives = [keras_tuner.Objective(name, direction) for name, direction in OBJECTIVES.items()]
    return keras_tuner.oracles.RandomSearchOracle(objective=objectives, max_trials=max_trials, hyperparameters=hyperparameters())


@pytest.mark.slow  # KerasTuner's own chief looks every 20 seconds whether all is over.
def test_a_stock_oracle_has_chief_and_workers_too(tmp_path):
    with Search(tmp_path, 8, Evaluation(tmp_path, seconds=0.3), oracle=stock_oracle) as search:
        search.start("chief", "worker0", "worker1")
        assert [search.wait(process) for process in search.processes] == [0] * 3, search.log("worker0")
    assert len(search.evaluated()) == 8 and len(list((tmp_path / "search").glob("trial_*/trial.json"))) == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"KERASTUNER_TUNER_ID": "handkerchief-2"}, '`KERASTUNER_TUNER_ID` must be "chief", or have no "chief" in it'),
        ({"KERASTUNER_TUNER_ID": ""}, "`KERASTUNER_TUNER_ID` must be set"),
        ({"KERASTUNER_ORACLE_PORT": ""}, "`KERASTUNER_ORACLE_PORT` must be set"),
    ],
)
def test_variables_that_do_not_say_who_this_is(tmp_path, monkeypatch, change, message):
    for name, value in ({"TUNER_ID": "worker0", "ORACLE_IP": "127.0.0.1", "ORACLE_PORT": "1"}).items():
        monkeypatch.setenv(f"KERASTUNER_{name}", value)
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DaquError, match=message):
        search_alone(tmp_path, 3)
    assert not list(tmp_path.iterdir())


# One process, without a network.


def create(oracle, tuner_id):
    return oracle.create_trial(tuner_id)


def oracle_in(folder, max_trials=8, **kwargs):
    oracle = make_oracle(max_trials, **kwargs)
    oracle._set_project_dir(folder, "search")
    return oracle


def end(oracle, trial, metrics=None):
    if metrics is not False:
        oracle.update_trial(trial.trial_id, metrics or measure(trial.hyperparameters.values))
    trial.status = "COMPLETED"
    oracle.end_trial(trial)


def copy_of(trial):
    """As a worker sends it."""
    return Trial.from_proto(trial.to_proto())


def test_results_do_not_wait_for_a_slow_proposal(tmp_path):
    oracle = oracle_in(tmp_path)
    running, thinking, go_on = create(oracle, "worker0"), threading.Event(), threading.Event()
    populate = oracle.populate_space

    def slowly(trial_id):
        thinking.set()
        assert go_on.wait(60)
        return populate(trial_id)

    oracle.populate_space = slowly
    proposal = threading.Thread(target=create, args=(oracle, "worker1"))
    proposal.start()
    assert thinking.wait(60)
    oracle.get_trial(running.trial_id)
    end(oracle, running)  # Would wait for ever.
    assert proposal.is_alive() and oracle.end_order == ["0000"]
    go_on.set()
    proposal.join(60)
    assert list(oracle.trials) == ["0000", "0001"] and set(oracle.ongoing_trials) == {"worker1"}


def test_the_first_report_of_a_trial_counts(tmp_path):
    oracle = oracle_in(tmp_path, lease_seconds=0.05)
    first = create(oracle, "worker0")
    late = copy_of(first)
    time.sleep(0.1)
    again = create(oracle, "worker1")
    assert again.trial_id == first.trial_id
    metrics = {"accuracy": 0.5, "latency_us": 7.0}
    end(oracle, copy_of(again), metrics)
    end(oracle, late, {"accuracy": 0.9, "latency_us": 1.0})
    ended = oracle.trials["0000"]
    assert {name: ended.metrics.get_last_value(name) for name in metrics} == metrics
    assert oracle.end_order == ["0000"] and not oracle.ongoing_trials
    lines = (tmp_path / "search" / "trials.jsonl").read_text().splitlines()
    assert [json.loads(line).get("status") for line in lines] == [None, "RUNNING", "RUNNING", "COMPLETED"]


def test_a_late_report_counts_while_nobody_else_has_made_one(tmp_path):
    oracle = oracle_in(tmp_path, lease_seconds=0.05)
    late = copy_of(create(oracle, "worker0"))
    time.sleep(0.1)
    create(oracle, "worker1")
    end(oracle, late)
    assert oracle.end_order == ["0000"]
    assert create(oracle, "worker1").trial_id == "0001"


def test_a_report_to_a_chief_that_has_not_heard_the_metrics_is_made_again(tmp_path):
    trial = create(oracle_in(tmp_path), "worker0")
    restarted = oracle_in(tmp_path)
    restarted.expect_workers()
    end(restarted, copy_of(trial), metrics=False)
    assert restarted.end_order == [] and restarted.trials["0000"].status == "RUNNING"
    assert create(restarted, "worker1").trial_id == "0000"


def test_a_report_of_another_search_is_ignored(tmp_path):
    oracle = oracle_in(tmp_path)
    mine = create(oracle, "worker0")
    other = copy_of(mine)
    other.hyperparameters.values["depth"] = 6
    end(oracle, other)
    unknown = Trial(other.hyperparameters, "0999", "COMPLETED")
    oracle.end_trial(unknown)
    assert oracle.end_order == [] and oracle.ongoing_trials == {"worker0": mine}


def test_a_restarted_chief_that_prints_knows_what_it_has_not_shown(tmp_path, capsys):
    trial = create(oracle_in(tmp_path), "worker0")
    restarted = oracle_in(tmp_path)
    restarted.verbose = 1
    restarted.expect_workers()
    end(restarted, copy_of(trial))
    end(restarted, copy_of(create(restarted, "worker0")))
    assert restarted.end_order == ["0000", "0001"]
    assert "Search: Running Trial #2" in (printed := capsys.readouterr().out) and "Trial 2 Complete" in printed


def test_idle_workers_stay_until_the_last_trial_has_ended(tmp_path):
    oracle = oracle_in(tmp_path, 4)
    trials = [create(oracle, f"worker{index}") for index in range(4)]
    assert create(oracle, "worker4").status == "IDLE"
    for trial in trials:
        assert not oracle.is_over
        end(oracle, trial)
    assert oracle.is_over and oracle.tuner_ids == {f"worker{index}" for index in range(5)}
    assert {create(oracle, f"worker{index}").status for index in range(5)} == {"STOPPED"}
    assert not oracle.tuner_ids


def test_no_trial_begins_after_the_search_was_closed(tmp_path):
    oracle = oracle_in(tmp_path)
    running = create(oracle, "worker0")
    oracle.close()
    assert create(oracle, "worker1").status == "STOPPED" and not oracle.is_over
    end(oracle, running)
    assert oracle.is_over and create(oracle, "worker0").status == "STOPPED"


def test_a_worker_gets_the_values_that_were_proposed_and_no_others(tmp_path, monkeypatch):
    """KerasTuner's message fills in defaults for what is left out."""
    space = keras_tuner.HyperParameters()
    space.Choice("kind", ["plain", "wide"])
    with space.conditional_scope("kind", ["wide"]):
        space.Float("ratio", 0.1, 0.7)
    objectives = [keras_tuner.Objective(name, direction) for name, direction in OBJECTIVES.items()]
    design = [{"kind": "plain"}, {"kind": "wide", "ratio": 0.1}]
    oracle = ParetoOracle(objectives, 6, space, initial_design=design, initial_random=4)
    oracle._set_project_dir(tmp_path, "search")
    with Chief(oracle, "127.0.0.1:0") as chief:
        worker, third = client_of(chief, oracle, monkeypatch), 1 / 3
        for _ in range(6):
            trial = worker.create_trial("worker0")
            assert trial.hyperparameters.values == oracle.trials[trial.trial_id].hyperparameters.values
            assert ("ratio" in trial.hyperparameters.values) == (trial.hyperparameters.values["kind"] == "wide")
            worker.update_trial(trial.trial_id, {"accuracy": third, "latency_us": 2.0**31 + 1})
            trial.status = "COMPLETED"
            worker.end_trial(trial)
            worker.end_trial(trial)  # As if the first answer had been lost.
        assert worker.create_trial("worker0").status == "STOPPED"
        assert [trial.trial_id for trial in worker.get_best_trials(9)] == [trial.trial_id for trial in oracle.get_best_trials(9)]
    assert len(oracle.end_order) == 6
    for trial in oracle.trials.values():
        assert trial.metrics.get_last_value("accuracy") == third and trial.metrics.get_last_value("latency_us") == 2.0**31 + 1


@pytest.mark.parametrize("count", [100, 150_000])
def test_metrics_of_any_length_reach_the_chief(tmp_path, monkeypatch, count):
    """gRPC takes messages of four megabytes by itself, and metadata of much less."""
    oracle = oracle_in(tmp_path)
    with Chief(oracle, "127.0.0.1:0") as chief:
        worker = client_of(chief, oracle, monkeypatch)
        trial = worker.create_trial("worker0")
        worker.update_trial(trial.trial_id, {"accuracy": 0.5, "latency_us": 2.0})
        observations = [MetricObservation(1 / (step + 3), step) for step in range(count)]
        worker._reported[trial.trial_id].set_history("accuracy", observations)
        trial.status = "COMPLETED"
        worker.end_trial(trial)
    kept = oracle.trials[trial.trial_id].metrics.get_history("accuracy")
    assert len(kept) == count and kept[-1].value == [1 / (count + 2)]


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000", "127.8.8.8:1"])
def test_loopback_is_not_warned_of(address):
    assert exposure(address) is None


@pytest.mark.parametrize("address", ["0.0.0.0:8000", "192.168.1.5:8000", "chief.example:8000", "[::]:8000"])
def test_any_other_address_is_warned_of(address):
    assert "no password and no encryption" in exposure(address) and "ssh -L" in exposure(address)


def test_one_process_times_while_none_computes(tmp_path):
    turns = TimingTurns(tmp_path, is_elsewhere=False)
    with turns.computing():
        forked(_take_turns, tmp_path, "computing").join(60)
        timing = forked(_take_turns, tmp_path, "timing")
        time.sleep(1.0)
        assert _turns(tmp_path) == ["computing"]
    timing.join(60)
    assert _turns(tmp_path) == ["computing", "timing"]
    with turns.timing():
        other = forked(_take_turns, tmp_path, "computing")
        time.sleep(1.0)
        assert len(_turns(tmp_path)) == 2
    other.join(60)
    assert len(_turns(tmp_path)) == 3


def test_computing_here_does_not_wait_for_a_device_elsewhere(tmp_path):
    turns = TimingTurns(tmp_path, is_elsewhere=True)
    with turns.timing():
        forked(_take_turns, tmp_path, "computing", True).join(60)
        assert _turns(tmp_path) == ["computing"]


def _take_turns(folder, kind, is_elsewhere=False):
    with getattr(TimingTurns(folder, is_elsewhere), kind)(), (folder / "turns.txt").open("a") as file:
        file.write(f"{kind}\n")


def _turns(folder):
    path = folder / "turns.txt"
    return path.read_text().split() if path.exists() else []
