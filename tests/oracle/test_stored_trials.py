"""What an oracle makes of its journal: of trials that came to nothing, of other processes in its folder, of a disk that is full."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys

import pytest
from keras_tuner.engine.trial import Trial
from search_processes import Evaluation, Search, client_of, forked, make_oracle, measure, search_alone

from daqu_tf.errors import DaquError, WriteError
from daqu_tf.oracle.chief import Chief
from daqu_tf.oracle.failures import SearchFailedError
from daqu_tf.search.tuner import DaquTuner

pytestmark = pytest.mark.filterwarnings("ignore:(currentThread|getName)")
HOLD = "import fcntl, sys; file = open(sys.argv[1], 'r+b'); fcntl.flock(file, fcntl.LOCK_EX); print('held', flush=True); input()"


def oracle_in(folder, max_trials=8, **kwargs):
    oracle = make_oracle(max_trials, **kwargs)
    oracle._set_project_dir(folder, "search")
    return oracle


def end(oracle, trial):
    oracle.update_trial(trial.trial_id, measure(trial.hyperparameters.values))
    trial.status = "COMPLETED"
    return oracle.end_trial(trial)


def records(folder):
    return [json.loads(line) for line in (folder / "search" / "trials.jsonl").read_text().splitlines()[1:]]


# Trials that end their process.


class Deadly(Evaluation):
    """One subnet ends the process that runs it."""

    def __init__(self, folder, values, how=signal.SIGKILL):
        super().__init__(folder)
        self.values, self.how = values, how

    def __call__(self, values):
        metrics = super().__call__(values)
        if values == self.values:
            os.kill(os.getpid(), self.how)
        return metrics


def _search(folder, evaluation):
    os.environ["KERASTUNER_TUNER_ID"] = "tuner0"
    DaquTuner(make_oracle(6), evaluation, folder).search()


def deadly_values(tmp_path):
    return search_alone(tmp_path / "alone", 6).oracle.trials["0002"].hyperparameters.values


def check_deadly(folder, values, evaluation):
    failed = [record for record in records(folder) if record["status"] == "FAILED"]
    assert [record["trial_id"] for record in failed] == ["0002"]
    assert "was begun 3 times and never came to an end" in failed[0]["message"]
    assert len({record["trial_id"] for record in records(folder) if record["status"] == "COMPLETED"}) == 5
    evaluated = [json.loads(line)[1] for line in evaluation.path.read_text().splitlines()]
    assert evaluated.count(values) == 3 and len(evaluated) == 8


def test_alone_a_trial_that_kills_its_process_is_not_run_a_fourth_time(tmp_path):
    values = deadly_values(tmp_path)
    evaluation, statuses = Deadly(tmp_path, values), []
    while 0 not in statuses and len(statuses) < 9:
        process = forked(_search, tmp_path, evaluation)
        process.join(120)
        statuses.append(process.exitcode)
    assert statuses == [-signal.SIGKILL] * 3 + [0]
    check_deadly(tmp_path, values, evaluation)


@pytest.mark.parametrize(("names", "lease"), [(["worker0"] * 4, 60.0), ([f"worker{number}" for number in range(4)], 1.0)])
def test_workers_are_not_killed_one_after_the_other(tmp_path, names, lease):
    """Neither one that comes back at once under its id, whose lease has not run out, nor others."""
    values = deadly_values(tmp_path)
    evaluation = Deadly(tmp_path, values, signal.SIGSEGV)
    with Search(tmp_path, 6, evaluation, lease=lease) as search:
        search.start("chief")
        for name in names:
            search.start(name)
            status = search.wait(name)
        assert status == 0 and search.wait("chief") == 0, search.log("chief")
    check_deadly(tmp_path, values, evaluation)


def test_a_user_may_kill_a_search_twice_in_the_same_trial(tmp_path):
    for _ in range(3):
        oracle = oracle_in(tmp_path)
        trial = oracle.create_trial("tuner0")
        assert trial.trial_id == "0000"
    end(oracle, trial)
    assert oracle.trials["0000"].status == "COMPLETED"
    for number in range(5):
        trial = oracle_in(tmp_path, max_deaths_per_trial=5).create_trial("tuner0")
        assert trial.trial_id == "0001", number
    assert oracle_in(tmp_path, max_deaths_per_trial=5).create_trial("tuner0").trial_id == "0002"


def test_a_search_that_ends_in_good_order_loses_nothing(tmp_path):
    def interrupted(values):
        raise KeyboardInterrupt

    for _ in range(5):
        with pytest.raises(KeyboardInterrupt):
            DaquTuner(make_oracle(4), interrupted, tmp_path).search()
    assert [record["trial_id"] for record in records(tmp_path)] == ["0000"] * 10
    assert {trial.status for trial in search_alone(tmp_path, 4).oracle.trials.values()} == {"COMPLETED"}


def test_trials_that_end_their_processes_are_failures_in_a_row(tmp_path):
    oracle = oracle_in(tmp_path)
    for _ in range(9):
        oracle.create_trial("worker0")
        assert oracle.lose("worker0", "was killed by SIGSEGV")
    with pytest.raises(SearchFailedError, match="trial 0002 with: .* by worker0, which was killed by SIGSEGV"):
        oracle.create_trial("worker0")
    assert not oracle.lose("worker1", "was killed by SIGSEGV")


@pytest.mark.parametrize("number", [0, -1, None, 2.5])
def test_how_often_is_a_number(number):
    with pytest.raises(DaquError, match="`max_deaths_per_trial` must be an integer of at least 1, but received"):
        make_oracle(4, max_deaths_per_trial=number)


# Reports that are not believed.


def test_a_worker_that_writes_into_a_trials_values_is_told_and_its_report_counts(tmp_path, monkeypatch):
    oracle = oracle_in(tmp_path, 3)
    with Chief(oracle, "127.0.0.1:0") as chief:
        worker = client_of(chief, oracle, monkeypatch)
        trial = worker.create_trial("worker0")
        proposed = dict(trial.hyperparameters.values)
        trial.hyperparameters.values["depth"] = 77
        worker.update_trial(trial.trial_id, {"accuracy": 0.5, "latency_us": 1.0})
        trial.status = "COMPLETED"
        with pytest.warns(UserWarning, match="Trial 0000 was changed while it ran: `depth` is 77, but . was proposed"):
            worker.end_trial(trial)
        assert oracle.end_order == ["0000"] and oracle.trials["0000"].hyperparameters.values == proposed
        trial.trial_id = "0999"
        with pytest.warns(UserWarning, match="The report of trial 0999 was refused: this search has no such trial"):
            worker.end_trial(trial)
        assert worker.create_trial("worker0").trial_id == "0001"


def test_alone_a_changed_value_is_said_too_and_memory_is_what_the_journal_is(tmp_path):
    oracle = oracle_in(tmp_path)
    trial = oracle.create_trial("tuner0")
    proposed = dict(trial.hyperparameters.values)
    oracle.update_trial("0000", measure(proposed))
    del trial.hyperparameters.values["width"]
    trial.hyperparameters.values |= {"kernel": 11, "epochs": 5}
    trial.status = "COMPLETED"
    with pytest.warns(UserWarning, match="`width`, proposed as ., is missing"):
        oracle.end_trial(trial)
    assert oracle.trials["0000"].hyperparameters.values == {**proposed, "epochs": 5}


@pytest.mark.parametrize("what", ["another search", "no metrics"])
def test_a_trial_whose_reports_are_refused_runs_three_times(tmp_path, what):
    """As a worker sends them that is not ours."""
    oracle = oracle_in(tmp_path)
    for _ in range(3):
        trial = Trial.from_proto(oracle.create_trial("worker0").to_proto())
        assert trial.trial_id == "0000"
        trial.status = "COMPLETED"
        if what == "another search":
            trial.hyperparameters.values["depth"] = 77
        with pytest.warns(UserWarning, match=f"The report of trial 0000 was refused: it .*{what}"):
            assert oracle.end_trial(trial)
    assert oracle.create_trial("worker0").trial_id == "0001"
    assert oracle.trials["0000"].status == "FAILED" and what in oracle.trials["0000"].message


# Whose the folder is.


@contextlib.contextmanager
def another_process(folder):
    path = folder / "search" / "trials.jsonl"
    process = subprocess.Popen([sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    with process:
        yield
        process.kill()


def _overwrite(folder):
    DaquTuner(make_oracle(8), measure, folder, overwrite=True)


@pytest.mark.parametrize(
    "work",
    [lambda folder: oracle_in(folder).create_trial("tuner0"), lambda folder: Chief(oracle_in(folder), "127.0.0.1:0"), _overwrite],
    ids=["a search", "a chief", "another search in its place"],
)
def test_a_second_process_is_refused_and_the_first_loses_nothing(tmp_path, work):
    first = oracle_in(tmp_path)
    end(first, first.create_trial("tuner0"))
    first.retire()
    before = records(tmp_path)
    with another_process(tmp_path):
        with pytest.raises(DaquError, match=r"Another process is searching in .*: wait for it or end it"):
            work(tmp_path)
        assert records(tmp_path) == before
        looking = oracle_in(tmp_path)
        looking.reload()  # Whoever only looks is let in.
        assert looking.end_order == ["0000"]


def test_what_the_other_has_found_meanwhile_is_taken_in(tmp_path):
    first, second = oracle_in(tmp_path), oracle_in(tmp_path)
    second.reload()
    end(first, first.create_trial("tuner0"))
    lost = first.create_trial("tuner0")
    assert second.create_trial("tuner0").trial_id == lost.trial_id == "0001"
    assert second.end_order == ["0000"]


def test_without_locks_a_search_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    oracle = oracle_in(tmp_path)
    trial = oracle.create_trial("tuner0")
    other = oracle_in(tmp_path)
    end(other, other.create_trial("tuner0"))
    with pytest.raises(DaquError, match="was changed by another process"):
        end(oracle, trial)


# A full disk.


@contextlib.contextmanager
def full_disk(path, bytes_left):
    """No file may grow beyond that one's size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + bytes_left, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_search_goes_on_when_there_is_room_again(tmp_path):
    oracle = oracle_in(tmp_path)
    trial = oracle.create_trial("tuner0")
    path = tmp_path / "search" / "trials.jsonl"
    with full_disk(path, 10), pytest.raises(WriteError, match=r"trials.jsonl cannot be written \(File too large\): raise "):
        end(oracle, trial)
    assert oracle.end_order == []
    oracle.end_trial(trial)
    assert oracle.end_order == ["0000"] and oracle.trials["0000"].metrics.get_last_value("accuracy") > 0
    with full_disk(path, 10), pytest.raises(WriteError):
        oracle.create_trial("tuner0")
    trial = oracle.create_trial("tuner0")
    assert trial.trial_id == "0001"
    end(oracle, trial)
    again = oracle_in(tmp_path)
    again.reload()
    assert again.end_order == ["0000", "0001"] and all(trial.status == "COMPLETED" for trial in again.trials.values())


def test_a_full_disk_under_a_tuner_is_said_in_a_sentence(tmp_path):
    def evaluate(values):
        limit = (tmp_path / "search" / "trials.jsonl").stat().st_size + 1
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        return measure(values)

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(WriteError, match="cannot be written"):
            DaquTuner(make_oracle(4), evaluate, tmp_path).search()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(search_alone(tmp_path, 4).oracle.end_order) == 4
