"""A KerasTuner oracle that loses no trial: it keeps them in one append-only file, and leases them to workers."""

import threading
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner.engine.trial import Trial, TrialStatus

from daqu_tf.oracle.failures import SearchFailedError, last_line
from daqu_tf.oracle.hyperparameters import check_names, keep_proposed, overwritten
from daqu_tf.oracle.objectives import objective_point
from daqu_tf.oracle.records import RUNNING, TrialRecord
from daqu_tf.oracle.stored_trials import StoredTrials
from daqu_tf.pareto.incoming import named

LEASE_SECONDS = 60.0
IDLE_SECONDS = 0.2  # Between two questions of a worker for whom there is no trial now: KerasTuner's loop asks without a pause.


class JournaledOracle(StoredTrials):
    """Creates, ends and keeps trials; what to try is left to a subclass.

    A trial is two lines of `trials.jsonl` in the project directory, one when it begins and one when it ends, so that its cost
    does not grow with their number. KerasTuner's own `oracle.json` and `trial.json` are not written. An oracle that was killed,
    and is started again, knows all trials: those that had begun keep ids and values, and run again where no worker reports them.
    A trial that was lost so too often has failed: it may be what ends the processes. One process at a time searches in a directory.

    A subclass has `populate_space`, and may have `note_begun` and `note_completed`. These three are called one at a time, in the
    order of the journal, and hold up nothing but other new trials, however long they take.

    Args:
        objective: The objectives, at least one; trials are ranked by each for itself.
        lease_seconds: How long a worker may be silent before its trial is given to another; `DaquTuner`'s workers give a sign of
            life four times as often.
        kwargs: Further arguments of `StoredTrials` and of `keras_tuner.Oracle`, such as `max_deaths_per_trial`, `hyperparameters`
            and `max_trials`.
    """

    def __init__(self, objective: list[keras_tuner.Objective], lease_seconds: float = LEASE_SECONDS, **kwargs: Any):
        self._is_closed = self._is_exhausted = False
        self._turn = threading.Lock()  # Whose turn it is to make a new trial.
        self.lease_seconds = lease_seconds
        self.while_proposing: Callable[[], AbstractContextManager] = nullcontext  # Goes around `populate_space`.
        super().__init__(objective, lease_seconds, **kwargs)
        self.verbose = 0  # At 1, KerasTuner prints every hyperparameter and sorts all trials, twice a trial.

    def update_space(self, hyperparameters: keras_tuner.HyperParameters) -> None:
        """Adds hyperparameters that a model asks for; the trials that have begun go on without them.

        Raises:
            RuntimeError: One is new, and `allow_new_entries` is False.
            DaquError: One has the name of another that acts under other conditions.
        """
        with self._lock:
            new = [one for one in hyperparameters.space if not self.hyperparameters._exists(one.name, one.conditions)]
            if self.tune_new_entries:
                check_names([*self.hyperparameters.space, *new])  # Else what cannot be searched would stand in the journal.
            super().update_space(hyperparameters)
            if new and self._journal is not None and self.tune_new_entries:
                self._enlarge(new)
                self._is_exhausted = False  # There is more to try now.

    # What KerasTuner's chief reads to see whether it may end.

    @property
    def ongoing_trials(self) -> dict[str, Trial]:
        """By worker."""
        with self._lock:
            self._leases.expire()
            return {worker: self.trials[trial_id] for worker, trial_id in self._leases.trial_of.items()}

    @ongoing_trials.setter
    def ongoing_trials(self, value: dict) -> None:
        """Nothing to set: `keras_tuner.Oracle` begins with none."""

    @property
    def tuner_ids(self) -> set[str]:
        """Workers that were heard of lately and were not told that the search is over."""
        with self._lock:
            self._leases.expire()
            return self._leases.workers

    @tuner_ids.setter
    def tuner_ids(self, value: set) -> None:
        """Nothing to set, as above."""

    @property
    def is_over(self) -> bool:
        """Whether all trials that there may be have ended."""
        with self._lock:
            self._leases.expire()
            return self._is_full and not (self._leases.trial_of if self._is_closed else self._leases.open or self._retry_queue)

    @property
    def _is_full(self) -> bool:
        is_full = self.max_trials is not None and len(self.trials) >= self.max_trials
        return is_full or self._is_closed or self._is_exhausted

    def close(self) -> None:
        """From now on no trial begins; those that run may end."""
        self._is_closed = True

    def expect_workers(self) -> None:
        """Leaves the trials that ran when an earlier chief ended to their workers, for as long as a lease lasts.

        From now on somebody looks several times a second whether the search is over.
        """
        with self._lock:
            self.reload()
            self._claim()
            self._leases.is_watched = True
            self._leases.renew()

    def dismiss(self, tuner_id: str) -> None:
        """A worker was told that there is nothing more to do; a trial that it has not ended may run again."""
        with self._lock:
            self._give_back(tuner_id)
            self._leases.leave(tuner_id)

    def meet(self, tuner_id: str, process: str) -> None:
        """A worker says which of its processes asks: what an earlier one had is lost, and waits.

        Args:
            tuner_id: The worker.
            process: Another text for each process.
        """
        with self._lock:
            if self._processes.get(tuner_id, process) != process:
                self._leases.leave(tuner_id)
            self._processes[tuner_id] = process

    def lose(self, tuner_id: str, how: str) -> bool:
        """The process of a worker has ended; its trial waits, and is held responsible.

        Args:
            tuner_id: The worker.
            how: What became of the worker, without its name: "was killed by SIGKILL".

        Returns:
            Whether it had a trial.
        """
        with self._lock:
            trial_id = self._leases.trial_of.get(tuner_id)
            if trial_id is not None:
                self._attempts.explain(trial_id, f"by {tuner_id}, which {how}")
            self._leases.leave(tuner_id)
            return trial_id is not None

    # A trial's life.

    def create_trial(self, tuner_id: str) -> Trial:
        """The next trial to run: the worker's own if it has one, then one that has lost its worker, or runs again, or is new.

        Its status is `IDLE` when there is none until others end, and `STOPPED` when the search is over.
        """
        with self._turn:
            trial = self._old_trial(tuner_id) or self._new_trial(tuner_id)
        if trial.status == TrialStatus.IDLE:
            time.sleep(IDLE_SECONDS)
        return trial

    def _old_trial(self, tuner_id: str) -> Trial | None:
        """One that has begun already; told what is new, so that the next trial can be made."""
        with self._lock:
            self.reload()
            self._claim()
            self._leases.hear(tuner_id)
            self._leases.expire()
            trial_id = self._leases.trial_of.get(tuner_id)
            if trial_id and self._attempts.is_refused(trial_id):  # It has run; that its report was refused does not end it.
                self._leases.release(trial_id)
                trial_id = None
            if trial_id is None and not self._is_closed:
                trial_id = self._waiting_for(tuner_id) or self._to_retry()
                if trial_id:
                    self._begin(self.trials[trial_id], tuner_id)
                    self._display.on_trial_begin(self.trials[trial_id])
            news = [self._news.popleft() for _ in range(len(self._news))]
        for tell in news:
            tell()
        return self.trials[trial_id] if trial_id else None

    def _waiting_for(self, tuner_id: str) -> str | None:
        """One that has lost its worker; those that were lost too often have failed."""
        while (trial_id := self._leases.waiting_for(tuner_id)) and self._attempts.is_hopeless(trial_id):
            self._clean(trial_id)
            trial = self.trials[trial_id]
            trial.status, trial.message = TrialStatus.FAILED, self._attempts.message(trial_id)
            self._record(trial)
            self._conclude(trial)
        return trial_id

    def _to_retry(self) -> str | None:
        if not self._retry_queue:
            return None
        self._clean(self._retry_queue[0])
        return self._retry_queue.pop(0)

    def _new_trial(self, tuner_id: str) -> Trial:
        trial_id = f"{self._next_number:04d}"
        is_full = self._is_full
        with self.while_proposing():
            response = {"status": TrialStatus.STOPPED} if is_full else self.populate_space(trial_id)
        trial = self._trial(trial_id, response.get("values") or {}, response["status"])
        with self._lock:
            if trial.status == TrialStatus.RUNNING:
                self._begin(trial, tuner_id, with_values=True)
                self._add(trial)
                self._display.on_trial_begin(trial)
            elif trial.status == TrialStatus.STOPPED:
                self._is_exhausted |= not is_full  # More may be wanted later.
                trial.status = self._without_trial(tuner_id)
        return trial

    def _without_trial(self, tuner_id: str) -> str:
        """What to tell a worker for whom there is no new trial: as long as others have one, it may have to run again."""
        if not self._is_closed and (self._leases.open or self._retry_queue):
            return TrialStatus.IDLE
        self._leases.leave(tuner_id)
        return TrialStatus.STOPPED

    def _begin(self, trial: Trial, tuner_id: str, with_values: bool = False) -> None:
        """Gives a trial to a worker. Written first: whatever happens now, this id has these values."""
        values = trial.hyperparameters.values if with_values else None
        self._write(TrialRecord(trial.trial_id, RUNNING, tuner_id, values, process=self._processes.get(tuner_id)), durable=False)
        self._attempts.begin(trial.trial_id, tuner_id)
        self._leases.take(trial.trial_id, tuner_id)
        self._started[trial.trial_id] = time.monotonic()

    def get_trial(self, trial_id: str) -> Trial:
        """A trial by its id; that somebody asks for it shows that its worker is alive."""
        with self._lock:
            self._leases.hear_of(trial_id)
            return self.trials[trial_id]

    def update_trial(self, trial_id: str, metrics: Mapping[str, float], step: int = 0) -> Trial:
        """Takes in what a running trial measured; every objective must be among `metrics`. One that has ended stays as it is."""
        with self._lock:
            trial = self.trials[trial_id]
            self._check_objective_found(named("metrics", metrics))
            if trial_id in self._leases.open:
                self._leases.hear_of(trial_id)
                self._track(trial, metrics, step)
            return trial

    def end_trial(self, trial: Trial | str, status: str = TrialStatus.COMPLETED) -> str | None:
        """Records a trial that has run, whoever ran it. The first report counts: at any later one nothing happens.

        Any status but `INVALID` and `FAILED` says that it has completed, as one that the tuner has left at `RUNNING`.

        Args:
            trial: The trial; or its id, as earlier versions of KerasTuner have it, with its status.
            status: The status of a trial that is given by its id.

        Returns:
            Why the report is refused, which is warned of as well; None where it is taken. The trial runs again, unless it is no
            trial of this search, or was refused too often.
        """
        with self._lock:
            trial_id = trial if isinstance(trial, str) else trial.trial_id
            mine = self.trials.get(trial_id)
            if mine is None:
                return self._refuse(trial_id, "this search has no such trial")
            if trial_id not in self._leases.open:
                return None
            if isinstance(trial, str):
                trial, mine.status = mine, status
            if trial.status not in (TrialStatus.INVALID, TrialStatus.FAILED):
                trial.status = TrialStatus.COMPLETED
            if mine is trial:
                keep_proposed(mine, self._values[trial_id])
            elif why := self._merge(mine, trial):
                return self._refuse(trial_id, why)
            self.update_space(trial.hyperparameters)
            if mine is not trial and (added := self._added(trial)):
                mine.hyperparameters = self._trial(trial_id, self._values[trial_id] | added, trial.status).hyperparameters
            mine.status, mine.message = trial.status, trial.message
            self._judge(mine)
            try:
                self._record(mine)
            except BaseException:
                self._clean(trial_id)  # It has not ended: the report may be made again, or the trial.
                raise
            self._conclude(mine)
            return None

    def _refuse(self, trial_id: str, why: str) -> str:
        sentence = f"The report of trial {trial_id} was refused: {why}."
        warnings.warn(sentence, stacklevel=3)
        self._attempts.refuse(trial_id, f"with a report that was refused, since {why}")
        return sentence

    def _merge(self, mine: Trial, theirs: Trial) -> str | None:
        """Takes over what a worker has sent; why not, where that is no report of this trial."""
        if differing := overwritten(theirs, self._values[mine.trial_id]):
            return f"it is of another search, or of values that were changed, {differing}"
        if all(theirs.metrics.exists(objective.name) for objective in self.objectives):
            mine.metrics = theirs.metrics
            for objective in self.objectives:
                mine.metrics.metrics[objective.name].direction = objective.direction
        elif theirs.status == TrialStatus.COMPLETED and np.isnan(objective_point(mine, self.objectives)).all():
            self._leases.release(mine.trial_id)  # Its worker has done with it: any may run it again.
            return "it has no metrics, which were sent to nobody or to a chief that is gone"
        return None

    def _conclude(self, trial: Trial) -> None:
        """What follows when the end of a trial is written."""
        self._attempts.end(trial.trial_id)
        self._run_times[trial.trial_id] += 1
        retried = self._retry(trial)
        self._leases.end(trial.trial_id)
        if trial.trial_id in self._display.trial_start:  # Else an earlier chief has shown it.
            self._display.on_trial_end(trial)
        if not retried:
            self._close(trial)
            self._check_consecutive_failures()

    def _check_consecutive_failures(self) -> None:
        ended = self.end_order[self._ended_before :]  # What failed earlier may be mended now.
        last = [self.trials[trial_id] for trial_id in ended[-self.max_consecutive_failed_trials :]]
        failed = [trial for trial in last if trial.status == TrialStatus.FAILED]
        if len(failed) == self.max_consecutive_failed_trials:
            raise SearchFailedError(
                f"The last {len(failed)} trials failed, trial {failed[-1].trial_id} with: {last_line(failed[-1].message)}; mend "
                f"that and start again (the whole message is in {self._get_oracle_fname()})."
            )
