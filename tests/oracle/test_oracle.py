import itertools
import json
import math
import os

import keras_tuner
import numpy as np
import pytest

from daqu_tf import pareto
from daqu_tf.errors import DaquError
from daqu_tf.oracle.oracle import ParetoOracle, SearchFailedError, objective_point
from daqu_tf.pareto.choices import ABSENT, Choices
from daqu_tf.pareto.evolution import crossover, mutate

pytestmark = pytest.mark.filterwarnings("ignore:(currentThread|getName)")
OBJECTIVES = [keras_tuner.Objective("accuracy", "max"), keras_tuner.Objective("latency_us", "min")]
GENES = 12


def hyperparameters(genes=GENES, values=(0, 1, 2, 3, 4)):
    space = keras_tuner.HyperParameters()
    for gene in range(genes):
        space.Choice(f"g{gene}", list(values))
    return space


def measure(values):
    """A discrete ZDT1: the first two genes place a point on its front, the others must be 0 to reach it."""
    x = np.array(list(values.values())) / 4
    latency, distance = (4 * x[0] + 16 * x[1]) / 20, 1 + 9 * x[2:].mean()
    return {"accuracy": -distance * (1 - math.sqrt(latency / distance)), "latency_us": latency}


def make(directory, max_trials=40, genes=GENES, **kwargs):
    kwargs = {"initial_random": 8, **kwargs}
    oracle = ParetoOracle(list(OBJECTIVES), max_trials, hyperparameters(genes), **kwargs)
    oracle._set_project_dir(directory, "search")
    return oracle


def end(oracle, trial, metrics=None, status="COMPLETED", message=None):
    if metrics:
        oracle.update_trial(trial.trial_id, metrics)
    trial.status, trial.message = status, message
    oracle.end_trial(trial)


def run(oracle, trials=10**6, measure=measure):
    for _ in range(trials):
        trial = oracle.create_trial("tuner0")
        if trial.status == "STOPPED":
            return
        end(oracle, trial, measure(trial.hyperparameters.values))


def history(oracle):
    return {trial_id: trial.hyperparameters.values for trial_id, trial in oracle.trials.items()}


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A whole search, which no test goes on with."""
    oracle = make(tmp_path_factory.mktemp("undisturbed"))
    run(oracle)
    return oracle


# Operators.


def test_crossover_takes_each_entry_from_a_parent_that_has_it():
    child = crossover((0, 1, ABSENT, 3), (5, ABSENT, ABSENT, 3), np.random.default_rng(0))
    assert child[0] in (0, 5)
    assert child[1:].tolist() == [1, ABSENT, 3]


def test_mutate_stays_among_the_choices_and_changes_one_entry_on_average():
    choices = Choices({f"g{gene}": tuple(range(size)) for gene, size in enumerate((1, 2, 5, 5, 9))})
    rng = np.random.default_rng(0)
    code = np.array([0, 1, 2, 4, ABSENT])
    children = np.array([mutate(code, choices, rng) for _ in range(4000)])
    assert (children >= 0).all() and (children < choices.sizes).all()
    assert (children[:, :4] != code[:4]).sum(1).mean() == pytest.approx(3 / 4 * 0.6, rel=0.25)  # Some moves end at home.
    assert set(children[:, 4]) == set(range(9))


# Proposals.


def test_the_given_design_runs_first_and_equal_ones_once(tmp_path):
    low, high = ({f"g{gene}": value for gene in range(GENES)} for value in (0, 4))
    oracle = make(tmp_path, max_trials=12, initial_design=[high, low, dict(high)])
    run(oracle)
    assert list(history(oracle).values())[:2] == [high, low]
    assert list(oracle.trials) == [f"{index:04d}" for index in range(12)]


def test_no_duplicates_and_the_whole_of_a_small_space(tmp_path):
    oracle = make(tmp_path, max_trials=None, genes=3)
    run(oracle)
    assert sorted(tuple(values.values()) for values in history(oracle).values()) == sorted(itertools.product(range(5), repeat=3))
    assert oracle.create_trial("tuner1").status == "STOPPED"
    assert not oracle.tuner_ids


def test_equal_networks_run_once(tmp_path):
    def canonicalise(values):
        """The other genes act only where g0 is 1."""
        return values if values["g0"] else {"g0": 0}

    oracle = ParetoOracle(list(OBJECTIVES), None, hyperparameters(3, (0, 1)), initial_random=2, canonicalise=canonicalise)
    oracle._set_project_dir(tmp_path, "search")
    run(oracle, measure=lambda values: {"accuracy": sum(values.values()), "latency_us": len(values)})
    expected = [{"g0": 0}, *({"g0": 1, "g1": a, "g2": b} for a in (0, 1) for b in (0, 1))]
    assert sorted(map(str, history(oracle).values())) == sorted(map(str, expected))


def test_random_subnets_come_from_the_given_sampler(tmp_path):
    oracle = make(tmp_path, max_trials=8, sample=lambda rng: {f"g{gene}": 4 - int(rng.integers(2)) for gene in range(GENES)})
    run(oracle)
    assert {value for values in history(oracle).values() for value in values.values()} == {3, 4}


def test_the_seed_decides_everything(tmp_path, undisturbed):
    same, other = (make(tmp_path / str(seed), seed=seed) for seed in (0, 1))
    run(same)
    run(other, 1)
    assert history(same) == history(undisturbed)
    assert history(other)["0000"] != history(undisturbed)["0000"]


@pytest.mark.parametrize("seeds", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_the_search_beats_random_search(tmp_path, seeds):
    """The share of the known front's hypervolume, after 70 trials against 200."""
    reference = np.array([11.0, 1.1])
    latency = np.arange(21) / 20
    best = pareto.hypervolume(np.column_stack([1 - np.sqrt(latency), latency]), reference)

    def share(seed, trials, initial_random):
        oracle = make(tmp_path / f"{seed}-{initial_random}", trials, seed=seed, initial_random=initial_random)
        run(oracle)
        points = [objective_point(trial, OBJECTIVES) for trial in oracle.trials.values()]
        return pareto.hypervolume(np.array(points), reference) / best

    searched = [share(seed, 70, 16) for seed in range(seeds)]
    drawn = [share(seed, 200, 200) for seed in range(seeds)]
    assert min(searched) > max(drawn)
    assert np.mean(searched) > 0.97


# Results.


def test_ranking_uses_each_objective_and_never_their_sum(tmp_path):
    points = [(0.9, 900.0), (0.5, 100.0), (0.7, 300.0), (0.6, 800.0), (0.71, 310.0), (0.4, 2000.0)]
    oracle = make(tmp_path, max_trials=None)
    for accuracy, latency_us in points:
        end(oracle, oracle.create_trial("tuner0"), {"accuracy": accuracy, "latency_us": latency_us})
    front = [trial.trial_id for trial in oracle.pareto_trials()]
    assert front[:2] == ["0000", "0001"] and sorted(front) == ["0000", "0001", "0002", "0004"]
    assert [trial.trial_id for trial in oracle.get_best_trials(9)] == [*front, "0003", "0005"]
    assert [trial.trial_id for trial in oracle.get_best_trials()] == ["0000"]


def test_no_results_without_trials(tmp_path):
    assert make(tmp_path).pareto_trials() == [] == make(tmp_path).get_best_trials(3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None, "0.5", 1j, 10**400, [1.0, 2.0]])
def test_a_metric_that_is_not_finite_fails_the_trial(tmp_path, bad):
    oracle = make(tmp_path)
    run(oracle, 1)
    failed = oracle.create_trial("tuner0")
    end(oracle, failed, {"accuracy": 0.5, "latency_us": bad})
    assert failed.status == "FAILED" and "`latency_us` must be finite" in failed.message
    run(oracle, 30)
    assert failed not in oracle.get_best_trials(99) and len(oracle.get_best_trials(99)) == 31
    reloaded = make(tmp_path)
    reloaded.reload()
    assert reloaded.trials[failed.trial_id].status == "FAILED"
    assert [t.trial_id for t in reloaded.get_best_trials(99)] == [t.trial_id for t in oracle.get_best_trials(99)]


def test_metrics_of_any_type_of_number_and_size_are_taken(tmp_path):
    oracle = make(tmp_path)
    for accuracy, latency_us in [(np.float32(0.5), np.int64(7)), (True, np.array([1.7e308])), (np.float64(-1.7e308), 1)]:
        end(oracle, oracle.create_trial("tuner0"), {"accuracy": accuracy, "latency_us": latency_us})
    assert [trial.status for trial in oracle.trials.values()] == ["COMPLETED"] * 3
    assert [trial.trial_id for trial in oracle.get_best_trials(3)] == ["0001", "0002", "0000"]


def test_metrics_that_have_no_names(tmp_path):
    oracle = make(tmp_path)
    trial = oracle.create_trial("tuner0")
    with pytest.raises(DaquError, match="`metrics` must give values by name, but received 0.5"):
        oracle.update_trial(trial.trial_id, 0.5)


def test_a_retry_starts_clean_with_the_same_values(tmp_path):
    oracle = make(tmp_path, max_retries_per_trial=1)
    first = oracle.create_trial("tuner0")
    end(oracle, first, {"accuracy": math.nan, "latency_us": 1.0})
    again = oracle.create_trial("tuner0")
    assert (again.trial_id, again.status) == (first.trial_id, "RUNNING")
    assert again.hyperparameters.values == first.hyperparameters.values
    end(oracle, again, {"accuracy": 0.5, "latency_us": 1.0})
    assert oracle.pareto_trials() == [again] and again.score == pytest.approx(0.5)
    assert oracle.create_trial("tuner0").trial_id == "0001"


def test_failures_in_a_row_end_the_search_with_the_reason(tmp_path):
    oracle = make(tmp_path)
    for _ in range(2):
        end(oracle, oracle.create_trial("tuner0"), status="FAILED", message="Traceback\nOSError: no device\n")
    run(oracle, 1)
    for _ in range(2):
        end(oracle, oracle.create_trial("tuner0"), status="FAILED", message="Traceback\nOSError: no device\n")
    last = oracle.create_trial("tuner0")
    with pytest.raises(SearchFailedError, match="last 3 trials failed, trial 0005 with: OSError: no device;"):
        end(oracle, last, status="FAILED", message="Traceback\nOSError: no device\n")
    reloaded = make(tmp_path)
    run(reloaded, 1)  # One good trial clears the count.
    assert len(reloaded.trials) == 7


def test_a_trial_ends_once(tmp_path):
    oracle = make(tmp_path)
    trial = oracle.create_trial("tuner0")
    assert oracle.create_trial("tuner0") is trial
    end(oracle, trial, measure(trial.hyperparameters.values))
    end(oracle, trial, status="FAILED")
    assert oracle.end_order == ["0000"] and not oracle.ongoing_trials
    statuses = [json.loads(line).get("status") for line in (tmp_path / "search" / "trials.jsonl").read_text().splitlines()]
    assert statuses == [None, "RUNNING", "COMPLETED"]


def test_an_exception_does_not_hold_the_lock(tmp_path):
    oracle = make(tmp_path, canonicalise=lambda values: {"unknown": 1})
    for _ in range(2):  # The second call would hang.
        with pytest.raises(DaquError, match="`unknown` is no hyperparameter"):
            oracle.create_trial("tuner0")
    with pytest.raises(KeyError):
        oracle.update_trial("9999", {})


def test_new_hyperparameters_are_refused(tmp_path):
    oracle = make(tmp_path)
    trial = oracle.create_trial("tuner0")
    trial.hyperparameters.Choice("late", [1, 2])
    assert "late" not in oracle.hyperparameters
    with pytest.raises(RuntimeError, match="late"):
        end(oracle, trial, {"accuracy": 1.0, "latency_us": 1.0})


# Storage.


def test_one_file_with_two_lines_a_trial(tmp_path):
    oracle = make(tmp_path, 10)
    run(oracle)
    assert [path.name for path in (tmp_path / "search").iterdir()] == ["trials.jsonl"]
    lines = [json.loads(line) for line in (tmp_path / "search" / "trials.jsonl").read_text().splitlines()]
    assert len(lines) == 21
    assert set(lines[1]) == {"trial_id", "status", "tuner_id", "values"}
    assert set(lines[2]) == {"trial_id", "status", "metrics", "message", "seconds"}


@pytest.mark.parametrize("killed_after", [0, 3, 8, 25])
def test_a_killed_search_goes_on_as_if_undisturbed(tmp_path, undisturbed, killed_after):
    killed = make(tmp_path / "killed")
    run(killed, killed_after)
    lost = killed.create_trial("tuner0")
    resumed = make(tmp_path / "killed")
    again = resumed.create_trial("tuner0")
    assert (again.trial_id, again.hyperparameters.values) == (lost.trial_id, lost.hyperparameters.values)
    end(resumed, again, measure(again.hyperparameters.values))
    run(resumed)
    assert history(resumed) == history(undisturbed)
    assert [t.trial_id for t in resumed.pareto_trials()] == [t.trial_id for t in undisturbed.pareto_trials()]


def test_ids_lost_by_parallel_workers_are_given_out_again(tmp_path):
    oracle = make(tmp_path)
    trials = [oracle.create_trial(f"tuner{number}") for number in range(4)]
    for trial in (trials[1], trials[3]):
        end(oracle, trial, measure(trial.hyperparameters.values))
    resumed = make(tmp_path)
    assert [resumed.create_trial(f"tuner{number}").trial_id for number in range(3)] == ["0000", "0002", "0004"]
    assert len({str(values) for values in history(resumed).values()}) == 5


def test_a_longer_search_continues_a_shorter_one(tmp_path):
    run(make(tmp_path, 9))
    oracle = make(tmp_path, 120)
    run(oracle)
    assert len(oracle.trials) == 120 and sorted(oracle.trials)[-1] == "0119"


@pytest.mark.parametrize(
    ("change", "difference"),
    [({"seed": 1}, "`seed`"), ({"genes": 4}, "`space.g4`"), ({"identity": {"target": "b"}}, "`target`")],
)
def test_a_journal_of_another_search_is_refused(tmp_path, change, difference):
    make(tmp_path, identity={"target": "a"}).reload()
    with pytest.raises(DaquError, match=f"another search: {difference}"):
        make(tmp_path, **{"identity": {"target": "a"}, **change}).reload()


def test_a_damaged_journal_is_refused_each_time(tmp_path):
    run(make(tmp_path, 8))
    path = tmp_path / "search" / "trials.jsonl"
    path.write_text(path.read_text().replace('"trial_id"', "trial_id", 1))
    oracle = make(tmp_path)
    for _ in range(2):
        with pytest.raises(DaquError, match="damaged in line 2"):
            oracle.create_trial("tuner0")


def test_a_trial_that_was_cut_out_of_the_journal_is_not_mistaken_for_another(tmp_path):
    run(make(tmp_path, 12))
    path = tmp_path / "search" / "trials.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if '"0005"' not in line))
    oracle = make(tmp_path, 14)
    run(oracle)
    assert len(oracle.trials) == 14 and sorted(oracle.trials)[-1] == "0014"
    begins = [line for line in lines if '"0005"' in line and '"values"' in line]
    path.write_text("".join(line for line in lines if line not in begins))
    with pytest.raises(DaquError, match="says how trial 0005 ended, not how it began"):
        make(tmp_path, 14).reload()


def test_failures_of_before_do_not_end_the_search_again(tmp_path):
    oracle = make(tmp_path, 20)
    for _ in range(2):
        end(oracle, oracle.create_trial("tuner0"), status="FAILED", message="broken")
    with pytest.raises(SearchFailedError):
        end(oracle, oracle.create_trial("tuner0"), status="FAILED", message="broken")
    again = make(tmp_path, 20)
    end(again, again.create_trial("tuner0"), status="FAILED", message="once more")
    run(again)
    assert len(again.end_order) == 20


# Bad arguments.


def _with(parameter):
    space = hyperparameters(1)
    parameter(space)
    return space


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"objective": 7}, "`objective` must be metrics with a direction, but received 7"),
        ({"objective": []}, r"`objective` must be metrics with a direction, but received \[\] \(an empty list\): write"),
        ({"objective": "latency_us"}, "`objective` must be metrics with a direction, but received 'latency_us' .*: write"),
        ({"objective": [OBJECTIVES[0], OBJECTIVES[0]]}, "name each metric once"),
        ({"objective": [OBJECTIVES[0], "latency_us"]}, "`objective` must be metrics with a direction, but received .*'latency_us'"),
        ({"objective": [keras_tuner.Objective("size", None)]}, "with a direction, min or max, but received 'size' with None"),
        ({"hyperparameters": keras_tuner.HyperParameters()}, "`hyperparameters` must hold"),
        (
            {
                "hyperparameters": _with(
                    lambda space: [space.Choice("n", [1], parent_name="g0", parent_values=[value]) for value in (0, 1)]
                )
            },
            "`n` must be registered once",
        ),
        ({"conditions": {"g0": (("g1", (1,)),)}}, "`conditions` must name parents that are registered first"),
        ({"constraints": ["latency_us<2"]}, "`constraints` must have the form METRIC<=NUMBER"),
        ({"constraints": "latency_us<=2"}, "`constraints` must be a list"),
        ({"seed": -1}, "`seed`"),
        ({"seed": 1.5}, "`seed`"),
        ({"max_trials": 15, "initial_random": 16}, "`max_trials` must be at least 16"),
        ({"initial_design": [{"g0": 1}]}, "`g1` is missing"),
        ({"initial_design": [{"g0": 1, "g1": 7}]}, r"`g1` must be one of \[0, 1, 2, 3, 4\], but received 7"),
    ],
)
def test_arguments_that_cannot_be_used(arguments, message):
    arguments = {"objective": list(OBJECTIVES), "max_trials": 99, "hyperparameters": hyperparameters(2), **arguments}
    with pytest.raises(DaquError, match=message):
        ParetoOracle(**arguments)
