"""Searches of a chief and workers, as processes on loopback."""

import pytest
from search_processes import Evaluation, Search, make_oracle, search_alone, until

from daqu_tf.errors import DaquError

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
