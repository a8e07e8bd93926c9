import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from daqu_tf.errors import DaquError
from daqu_tf.oracle.leases import Leases

WORKERS, SECONDS = st.sampled_from(["a", "b", "c"]), 10.0


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_a_silent_worker_loses_its_trial_and_a_heard_one_keeps_it():
    clock = Clock()
    leases = Leases(SECONDS, clock)
    leases.take("0", "silent")
    leases.take("1", "heard")
    clock.now = 6.0
    leases.hear_of("1")
    clock.now = 11.0
    leases.expire()
    assert leases.trial_of == {"heard": "1"} and leases.workers == {"heard"} and leases.open == {"0", "1"}
    assert leases.waiting_for("other") == "0"


def test_a_worker_thought_gone_keeps_its_trial_unless_another_has_it():
    clock = Clock()
    leases = Leases(SECONDS, clock)
    leases.take("0", "slow")
    clock.now = 11.0
    leases.expire()
    leases.hear_of("0")
    assert leases.trial_of == {"slow": "0"}
    clock.now = 22.0
    leases.expire()
    leases.take("0", "other")
    leases.hear_of("0")
    assert leases.trial_of == {"other": "0"} and leases.workers == {"other"}


def test_a_worker_gets_what_it_had_before_whatever_else_waits():
    leases = Leases(SECONDS, Clock())
    for number, worker in enumerate("abc"):
        leases.take(str(number), worker)
    leases.leave_all()
    assert [leases.waiting_for(worker) for worker in ("b", "c", "new")] == ["1", "2", "0"]
    leases.renew()
    assert leases.trial_of == {"a": "0", "b": "1", "c": "2"}


def test_silence_does_not_count_while_nobody_listened():
    clock = Clock()
    leases = Leases(SECONDS, clock)
    leases.is_watched = True
    leases.take("0", "worker")
    for clock.now in (1.0, 2.0, 500.0, 501.0, 506.0, 507.9):
        leases.expire()
    assert leases.trial_of == {"worker": "0"}  # Silent for 2 + 1 + 1.9 seconds, and when all slept.
    for clock.now in (509.5, 511.0, 512.9, 514.8):
        leases.expire()
    assert not leases.trial_of


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan")])
def test_a_lease_takes_time(seconds):
    with pytest.raises(DaquError, match="`lease_seconds` must be above 0"):
        Leases(seconds)


class Workers(RuleBasedStateMachine):
    """Against a plain account of which trials have begun and ended."""

    def __init__(self):
        super().__init__()
        self.clock = Clock()
        self.leases = Leases(SECONDS, self.clock)
        self.begun, self.ended = 0, set()

    @rule(worker=WORKERS)
    def ask(self, worker):
        self.leases.hear(worker)
        self.leases.expire()
        trial = self.leases.trial_of.get(worker) or self.leases.waiting_for(worker)
        if trial is None:
            trial, self.begun = str(self.begun), self.begun + 1
        self.leases.take(trial, worker)
        assert trial not in self.ended

    @rule(number=st.integers(0, 9))
    def end(self, number):
        if str(number) in self.leases.open:
            self.leases.end(str(number))
            self.ended.add(str(number))

    @rule(number=st.integers(0, 9))
    def beat(self, number):
        self.leases.hear_of(str(number))

    @rule(worker=WORKERS)
    def leave(self, worker):
        self.leases.leave(worker)

    @rule(seconds=st.floats(0, 2 * SECONDS))
    def wait(self, seconds):
        self.clock.now += seconds
        self.leases.expire()

    @rule()
    def restart(self):
        self.leases.leave_all()
        self.leases.renew()

    @invariant()
    def no_trial_is_lost_and_none_has_two_workers(self):
        assert self.leases.open == {str(number) for number in range(self.begun)} - self.ended
        held = list(self.leases.trial_of.values())
        assert len(held) == len(set(held))
        assert set(self.leases.trial_of) <= self.leases.workers


TestWorkers = Workers.TestCase
TestWorkers.settings = hypothesis.settings(max_examples=60, stateful_step_count=40, deadline=None)
