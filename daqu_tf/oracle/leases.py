"""Leases: which worker has which trial, and whether the worker has given a sign of life lately."""

import time
from collections.abc import Callable

from daqu_tf.errors import DaquError

GAP_SECONDS = 2.0


class Leases:
    """Gives each worker at most one trial, as long as it gives signs of life; the trial of a silent worker is given out again.

    Args:
        seconds: The seconds of silence after which a worker counts as gone.
        clock: A clock that gives monotonic seconds.

    Attributes:
        is_watched: Whether `expire` is called several times a second.
        trial_of: The trial of each worker that has one.

    Raises:
        DaquError: `seconds` is not above 0.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic):
        if not seconds > 0:
            raise DaquError(f"`lease_seconds` must be above 0, but received {seconds!r}.")
        self._seconds, self._clock = seconds, clock
        self._heard: dict[str, float] = {}
        self._looked = clock()
        self.is_watched = False
        self._waiting: dict[str, str] = {}  # By free trial, the worker that had it last; in the order in which they became free.
        self.trial_of: dict[str, str] = {}

    @property
    def open(self) -> set[str]:
        """The trials that have begun and not ended, whether a worker has them or not."""
        return {*self.trial_of.values(), *self._waiting}

    @property
    def workers(self) -> set[str]:
        """The workers that have given a sign of life lately."""
        return set(self._heard)

    def hear(self, worker: str) -> None:
        """Notes a sign of life from a worker."""
        self._heard[worker] = self._clock()

    def hear_of(self, trial: str) -> None:
        """Notes a sign of life from the worker of a trial; one that counted as gone gets the trial back if no other has it."""
        worker = next((worker for worker, own in self.trial_of.items() if own == trial), self._waiting.get(trial))
        if worker is None:
            return
        self.hear(worker)
        if trial in self._waiting and worker not in self.trial_of:
            self.take(trial, worker)

    def take(self, trial: str, worker: str) -> None:
        """Gives a trial, which is new or free, to a worker; a trial that the worker had before becomes free."""
        self._waiting.pop(trial, None)
        if self.trial_of.get(worker, trial) != trial:
            self._waiting[self.trial_of[worker]] = worker
        self.trial_of[worker] = trial
        self.hear(worker)

    def end(self, trial: str) -> None:
        """Notes that a trial has ended, so that no worker has it."""
        self._waiting.pop(trial, None)
        self.trial_of = {worker: own for worker, own in self.trial_of.items() if own != trial}

    def waiting_for(self, worker: str) -> str | None:
        """A free trial for a worker, if possible one that it had before; None if no trial is free."""
        own = (trial for trial, last in self._waiting.items() if last == worker)
        return next(own, next(iter(self._waiting), None))

    def leave(self, worker: str) -> None:
        """Notes that a worker is gone; its trial becomes free."""
        self._heard.pop(worker, None)
        if worker in self.trial_of:
            self._waiting[self.trial_of.pop(worker)] = worker

    def release(self, trial: str) -> None:
        """Takes a trial that has not ended from its worker, so that it becomes free."""
        for worker in [worker for worker, own in self.trial_of.items() if own == trial]:
            self._waiting[self.trial_of.pop(worker)] = worker

    def leave_all(self) -> None:
        """Notes that all workers are gone."""
        for worker in [*self._heard]:
            self.leave(worker)

    def expire(self) -> None:
        """Lets go of workers that were silent for too long. Time in which nobody listened does not count: a machine may sleep."""
        now = self._clock()
        gap, self._looked = now - self._looked, now
        if self.is_watched and gap > GAP_SECONDS:
            self._heard = {worker: heard + gap for worker, heard in self._heard.items()}
        latest = now - self._seconds
        for worker in [worker for worker, heard in self._heard.items() if heard < latest]:
            self.leave(worker)

    def renew(self) -> None:
        """Gives every free trial back to the worker that had it last, which may go on after the chief was started again."""
        for trial, worker in [*self._waiting.items()]:
            if worker not in self.trial_of:
                self.take(trial, worker)
