"""Who works on which trial, and whether that worker was heard of lately."""

import time
from collections.abc import Callable

from daqu_tf.errors import DaquError

GAP_SECONDS = 2.0


class Leases:
    """Each worker has at most one trial, for as long as it is heard of; what it had when it fell silent is given out again.

    Args:
        seconds: Of silence after which a worker counts as gone.
        clock: Monotonic seconds.

    Raises:
        DaquError: `seconds` is not above 0.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic):
        if not seconds > 0:
            raise DaquError(f"`lease_seconds` must be above 0, but received {seconds!r}.")
        self._seconds, self._clock = seconds, clock
        self._heard: dict[str, float] = {}
        self._looked = clock()
        self.is_watched = False  # Whether `expire` is called several times a second.
        self._waiting: dict[str, str] = {}  # Trial to the worker that had it last, in the order in which they became free.
        self.trial_of: dict[str, str] = {}  # By worker.

    @property
    def open(self) -> set[str]:
        """Trials that have begun and not ended, whether anyone works on them or not."""
        return {*self.trial_of.values(), *self._waiting}

    @property
    def workers(self) -> set[str]:
        """Those heard of lately."""
        return set(self._heard)

    def hear(self, worker: str) -> None:
        """A worker gives a sign of life."""
        self._heard[worker] = self._clock()

    def hear_of(self, trial: str) -> None:
        """A sign of life from whoever works on a trial; a worker that was thought gone gets it back if nobody has it yet."""
        worker = next((worker for worker, own in self.trial_of.items() if own == trial), self._waiting.get(trial))
        if worker is None:
            return
        self.hear(worker)
        if trial in self._waiting and worker not in self.trial_of:
            self.take(trial, worker)

    def take(self, trial: str, worker: str) -> None:
        """A worker begins a trial, or takes over one that waits; one that it had before waits from now on."""
        self._waiting.pop(trial, None)
        if self.trial_of.get(worker, trial) != trial:
            self._waiting[self.trial_of[worker]] = worker
        self.trial_of[worker] = trial
        self.hear(worker)

    def end(self, trial: str) -> None:
        """Nobody has to work on a trial any more."""
        self._waiting.pop(trial, None)
        self.trial_of = {worker: own for worker, own in self.trial_of.items() if own != trial}

    def waiting_for(self, worker: str) -> str | None:
        """A trial that nobody works on, one that this worker had before if there is one; None where there is none."""
        own = (trial for trial, last in self._waiting.items() if last == worker)
        return next(own, next(iter(self._waiting), None))

    def leave(self, worker: str) -> None:
        """A worker goes, or is gone; its trial waits."""
        self._heard.pop(worker, None)
        if worker in self.trial_of:
            self._waiting[self.trial_of.pop(worker)] = worker

    def release(self, trial: str) -> None:
        """A trial that has not ended waits for a worker."""
        for worker in [worker for worker, own in self.trial_of.items() if own == trial]:
            self._waiting[self.trial_of.pop(worker)] = worker

    def leave_all(self) -> None:
        """No worker is left from an earlier search."""
        for worker in [*self._heard]:
            self.leave(worker)

    def expire(self) -> None:
        """Lets go of those that were silent for too long, not counting when nobody listened: a machine may sleep."""
        now = self._clock()
        gap, self._looked = now - self._looked, now
        if self.is_watched and gap > GAP_SECONDS:
            self._heard = {worker: heard + gap for worker, heard in self._heard.items()}
        latest = now - self._seconds
        for worker in [worker for worker, heard in self._heard.items() if heard < latest]:
            self.leave(worker)

    def renew(self) -> None:
        """Takes every worker for alive that had a trial last: after a restart of the chief, they may work on."""
        for trial, worker in [*self._waiting.items()]:
            if worker not in self.trial_of:
                self.take(trial, worker)
