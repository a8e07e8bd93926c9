"""A search whose processes are killed at random moments loses nothing and runs nothing twice into the journal."""

import collections
import time

import numpy as np
import pytest
from search_processes import OBJECTIVES, Evaluation, Search, make_oracle, search_alone

pytestmark = pytest.mark.filterwarnings("ignore:(currentThread|getName)")
PROCESSES = ("chief", "worker0", "worker1", "worker2")
SECONDS = 240.0  # After which a search of some 20 seconds counts as hung; the machine may be busy.


def harass(search: Search, kills: int, rng: np.random.Generator) -> collections.Counter:
    """Kills one process after the other and starts it again, some of them a while later, until the chief has ended.

    Returns:
        How often each was killed while it ran.
    """
    killed, absent, deadline = collections.Counter(), {}, time.monotonic() + SECONDS
    search.start(*PROCESSES)
    while search.processes["chief"].is_alive() or "chief" in absent:
        assert time.monotonic() < deadline, f"hangs after {killed}: {search.log('chief')}"
        time.sleep(rng.uniform(0.05, 0.4))
        for name in [name for name, back in absent.items() if back < time.monotonic()]:
            del absent[name]
            search.start(name)
        victim = str(rng.choice(PROCESSES))
        if victim not in absent and killed.total() < kills and search.kill(victim):
            killed[victim] += 1
            absent[victim] = time.monotonic() + rng.choice((0.0, 0.3, 3.0), p=(0.5, 0.4, 0.1))
    search.start(*absent)  # Those that were killed last come back too.
    return killed


def described(oracle):
    """The front: ids, values and metrics."""
    return [
        (trial.trial_id, trial.hyperparameters.values, {name: trial.metrics.get_last_value(name) for name in OBJECTIVES})
        for trial in oracle.pareto_trials()
    ]


@pytest.mark.parametrize(
    ("trials", "kills", "seed", "by_chance"),
    [
        (24, 10, 0, True),
        *(pytest.param(60, 25, seed, True, marks=pytest.mark.slow) for seed in range(4)),
        *(pytest.param(60, 25, seed, False, marks=pytest.mark.slow) for seed in range(2)),
    ],
)
def test_a_search_survives_kills_at_any_moment(tmp_path, trials, kills, seed, by_chance):
    """Proposals by chance do not depend on the order in which trials end; others do."""
    # So many kills from outside may meet one trial three times, which would otherwise be held responsible.
    initial = {"initial_random": trials if by_chance else 8, "max_deaths_per_trial": kills}
    with Search(tmp_path, trials, Evaluation(tmp_path, seconds=0.4), patience=20.0, lease=1.5, **initial) as search:
        killed = harass(search, kills, np.random.default_rng(seed))
        assert search.processes["chief"].exitcode == 0, search.log("chief")
        # A worker that comes back when all is over finds no chief.
        assert {search.wait(worker) for worker in PROCESSES[1:]} <= {0, 1}
    assert killed.total() == kills and killed["chief"] >= 1, "The search was over too soon: it has to take longer."

    ids = [f"{index:04d}" for index in range(trials)]
    assert sorted(search.ended()) == ids
    assert {record["status"] for record in search.records()} == {"RUNNING", "COMPLETED"}
    values = {record["trial_id"]: record["values"] for record in search.records() if "values" in record}
    assert sorted(values) == ids and len({str(each) for each in values.values()}) == trials
    assert all(each in values.values() for _, each in search.evaluated())

    oracle = make_oracle(trials, **initial)
    oracle._set_project_dir(tmp_path, "search")
    oracle.reload()
    front = described(oracle)
    assert front and all(values[trial_id] == each for trial_id, each, _ in front)
    if by_chance:
        alone = search_alone(tmp_path / "alone", trials)
        assert front == described(alone.oracle)
        assert values == {trial_id: trial.hyperparameters.values for trial_id, trial in alone.oracle.trials.items()}
