"""A KerasTuner oracle that loses no trial: it keeps them in one append-only file, and leases them to workers."""

import collections
import functools
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner.engine.trial import Trial, TrialStatus

from daqu_tf.errors import DaquError
from daqu_tf.oracle.failures import NewEntryError, SearchFailedError, last_line
from daqu_tf.oracle.journal import Journal, header
from daqu_tf.oracle.leases import Leases
from daqu_tf.oracle.objectives import Objectives, direction, objective_point
from daqu_tf.oracle.records import RUNNING, TrialRecord, ended
from daqu_tf.pareto.incoming import named, number

LEASE_SECONDS = 60.0
IDLE_SECONDS = 0.2  # Between two questions of a worker for whom there is no trial now: KerasTuner's loop asks without a pause.


class JournaledOracle(keras_tuner.Oracle):
    """Creates, ends and keeps trials; what to try is left to a subclass.

    A trial is two lines of `trials.jsonl` in the project directory, one when it begins and one when it ends, so that its cost
    does not grow with their number. KerasTuner's own `oracle.json` and `trial.json` are not written. An oracle that was killed,
    and is started again, knows all trials: those that had begun keep ids and values, and run again where no worker reports them.

    A subclass has `populate_space`, and may have `note_begun` and `note_completed`. These three are called one at a time, in the
    order of the journal, and hold up nothing but other new trials, however long they take.

    Args:
        objective: As ParetoOracle's.
        lease_seconds: How long a worker may be silent before its trial is given to another; `DaquTuner`'s workers give a sign of
            life four times as often.
        kwargs: Of `keras_tuner.Oracle`.
    """

    def __init__(self, objective: list[keras_tuner.Objective], lease_seconds: float = LEASE_SECONDS, **kwargs: Any):
        self._lock = threading.RLock()  # Of all that the next lines hold, for moments at a time; populate_space runs without it.
        self._leases = Leases(lease_seconds)
        self._journal: Journal | None = None
        self._started: dict[str, float] = {}
        self._next_number = self._ended_before = 0
        self._is_closed = self._is_exhausted = False
        self._turn = threading.Lock()  # Whose turn it is to make a new trial.
        self._news: collections.deque[Callable[[], None]] = collections.deque()  # What the subclass has not been told yet.
        self._values: dict[str, dict[str, Any]] = {}  # As proposed, of trials that have not ended.
        self.lease_seconds = lease_seconds
        self.while_proposing: Callable[[], AbstractContextManager] = nullcontext  # Goes around `populate_space`.
        super().__init__(objective=objective, **kwargs)
        self.objective: Objectives = Objectives(self.objective.objectives)
        self.verbose = 0  # At 1, KerasTuner prints every hyperparameter and sorts all trials, twice a trial.

    # For subclasses.

    def identity(self) -> dict[str, Any]:
        """What must not change between a search and its continuation, as JSON."""
        return {"objectives": {objective.name: objective.direction for objective in self.objectives}, "seed": self.seed}

    def note_begun(self, values: dict[str, Any]) -> None:
        """A trial with values that were proposed has begun; it will run until it has ended."""

    def note_failed(self, values: dict[str, Any]) -> None:
        """A trial with values that were proposed has failed for good."""

    def note_completed(self, values: dict[str, Any], trial: Trial) -> None:
        """A trial with values that were proposed has ended well; a model may have added others to its hyperparameters."""

    @property
    def objectives(self) -> list[keras_tuner.Objective]:
        """What trials are ranked by, in the order given."""
        return self.objective.objectives

    def prepare(self) -> None:
        """The space is known now, and does not grow any more."""

    def update_space(self, hyperparameters: keras_tuner.HyperParameters) -> None:
        """Adds hyperparameters that a model asks for, until the first trial is made.

        Raises:
            NewEntryError: One is new after that.
            RuntimeError: One is new, and `allow_new_entries` is False.
        """
        new = [one.name for one in hyperparameters.space if not self.hyperparameters._exists(one.name, one.conditions)]
        if new and self._journal is not None and self.allow_new_entries and self.tune_new_entries:
            raise NewEntryError(
                f"`{new[0]}` must be registered before the first trial, but a trial asked for it first: register it in "
                "`hyperparameters`, or give tune_new_entries=False, which leaves it at its default."
            )
        super().update_space(hyperparameters)

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
            self._leases.is_watched = True
            self._leases.renew()

    def dismiss(self, tuner_id: str) -> None:
        """A worker was told that there is nothing more to do; a trial that it has not ended may run again."""
        with self._lock:
            self._leases.leave(tuner_id)

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
            self._leases.hear(tuner_id)
            self._leases.expire()
            news = [self._news.popleft() for _ in range(len(self._news))]
            trial_id = self._leases.trial_of.get(tuner_id)
            if trial_id is None and not self._is_closed:
                trial_id = self._leases.waiting_for(tuner_id) or self._to_retry()
                if trial_id:
                    self._begin(self.trials[trial_id], tuner_id)
                    self._display.on_trial_begin(self.trials[trial_id])
        for tell in news:
            tell()
        return self.trials[trial_id] if trial_id else None

    def _to_retry(self) -> str | None:
        if not self._retry_queue:
            return None
        self._clean(self._retry_queue[0])
        return self._retry_queue.pop(0)

    def _clean(self, trial_id: str) -> None:
        """Nothing of a failed run stays: KerasTuner would average its NaN into the next one's metrics."""
        self.trials[trial_id] = self._trial(trial_id, self._values[trial_id], TrialStatus.RUNNING)

    def _new_trial(self, tuner_id: str) -> Trial:
        trial_id = f"{self._next_number:04d}"
        with self.while_proposing():
            response = {"status": TrialStatus.STOPPED} if self._is_full else self.populate_space(trial_id)
        trial = self._trial(trial_id, response.get("values") or {}, response["status"])
        with self._lock:
            if trial.status == TrialStatus.RUNNING:
                self._begin(trial, tuner_id, with_values=True)
                self._add(trial)
                self._display.on_trial_begin(trial)
            elif trial.status == TrialStatus.STOPPED:
                self._is_exhausted = True
                trial.status = self._without_trial(tuner_id)
        return trial

    def _without_trial(self, tuner_id: str) -> str:
        """What to tell a worker for whom there is no new trial: as long as others have one, it may have to run again."""
        if not self._is_closed and (self._leases.open or self._retry_queue):
            return TrialStatus.IDLE
        self._leases.leave(tuner_id)
        return TrialStatus.STOPPED

    def _trial(self, trial_id: str, values: dict[str, Any], status: str) -> Trial:
        # HyperParameters.copy() rebuilds every hyperparameter, which takes 10 ms for 100 of them; one never changes.
        hyperparameters = keras_tuner.HyperParameters()
        hyperparameters._hps.update({name: list(same) for name, same in self.hyperparameters._hps.items()})
        hyperparameters._space = list(self.hyperparameters.space)
        hyperparameters.values = dict(values)
        return Trial(hyperparameters, trial_id, status)

    def _add(self, trial: Trial) -> None:
        self._next_number = max(self._next_number, int(trial.trial_id) + 1)
        self.trials[trial.trial_id] = trial
        self.start_order.append(trial.trial_id)
        self._values[trial.trial_id] = dict(trial.hyperparameters.values)
        self._news.append(functools.partial(self.note_begun, self._values[trial.trial_id]))

    def _begin(self, trial: Trial, tuner_id: str, with_values: bool = False) -> None:
        """Gives a trial to a worker. Written first: whatever happens now, this id has these values."""
        values = trial.hyperparameters.values if with_values else None
        self._write(TrialRecord(trial.trial_id, RUNNING, tuner_id, values), durable=False)
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

    def _track(self, trial: Trial, metrics: Mapping[str, float], step: int) -> None:
        directions = {objective.name: objective.direction for objective in self.objectives}
        for name, value in metrics.items():
            if not trial.metrics.exists(name):
                trial.metrics.register(name, directions.get(name) or direction(name))
            # MetricsTracker.update computes what was best before and after, which nobody asks for.
            trial.metrics.metrics[name].update(number(value), step)

    def score_trial(self, trial: Trial) -> None:
        """Sets KerasTuner's score, the first objective's value; it ranks nothing here."""
        trial.score = float(trial.metrics.get_last_value(self.objective.name))

    def end_trial(self, trial: Trial) -> None:
        """Records a trial that has run, whoever ran it. The first report counts: at any later one nothing happens."""
        with self._lock:
            mine = self.trials.get(trial.trial_id)
            if mine is None or trial.trial_id not in self._leases.open:
                return
            if mine is not trial and not self._merge(mine, trial):
                return
            self.update_space(trial.hyperparameters)
            mine.status, mine.message = trial.status, trial.message
            self._judge(mine)
            self._run_times[mine.trial_id] += 1
            retried = self._retry(mine)
            self._record(mine)
            self._leases.end(mine.trial_id)
            if mine.trial_id in self._display.trial_start:  # Else an earlier chief has shown it.
                self._display.on_trial_end(mine)
            if not retried:
                self._close(mine)
                self._check_consecutive_failures()

    def _merge(self, mine: Trial, theirs: Trial) -> bool:
        """Takes over what a worker has sent; False where that is no report of this trial."""
        sent = theirs.hyperparameters.values  # With what a worker has added, whose default is not searched.
        if any(name not in sent or sent[name] != value for name, value in self._values[mine.trial_id].items()):
            return False  # Of another search.
        if all(theirs.metrics.exists(objective.name) for objective in self.objectives):
            mine.metrics = theirs.metrics
            for objective in self.objectives:
                mine.metrics.metrics[objective.name].direction = objective.direction
        elif theirs.status == TrialStatus.COMPLETED and np.isnan(objective_point(mine, self.objectives)).all():
            self._leases.release(mine.trial_id)
            return False  # It was reported to a chief that is gone: it has to run again.
        return True

    def _judge(self, trial: Trial) -> None:
        """Scores a completed trial; one without finite objectives has failed."""
        if trial.status != TrialStatus.COMPLETED:
            return
        point = objective_point(trial, self.objectives)
        if np.isfinite(point).all():
            self.score_trial(trial)
            return
        name = self.objectives[int(np.argmin(np.isfinite(point)))].name
        trial.status = TrialStatus.INVALID
        trial.message = f"`{name}` must be finite, but the trial reported no such number."

    def _close(self, trial: Trial) -> None:
        self.end_order.append(trial.trial_id)
        values = self._values.pop(trial.trial_id)
        if trial.status == TrialStatus.COMPLETED:
            self._news.append(functools.partial(self.note_completed, values, trial))
        elif trial.status == TrialStatus.FAILED:
            self._news.append(functools.partial(self.note_failed, values))

    def _check_consecutive_failures(self) -> None:
        ended = self.end_order[self._ended_before :]  # What failed earlier may be mended now.
        last = [self.trials[trial_id] for trial_id in ended[-self.max_consecutive_failed_trials :]]
        failed = [trial for trial in last if trial.status == TrialStatus.FAILED]
        if len(failed) == self.max_consecutive_failed_trials:
            raise SearchFailedError(
                f"The last {len(failed)} trials failed, trial {failed[-1].trial_id} with: {last_line(failed[-1].message)}; mend "
                f"that and start again (the whole message is in {self._get_oracle_fname()})."
            )

    # Storage.

    def _get_oracle_fname(self) -> str:
        return os.path.join(self._project_dir, "trials.jsonl")

    def save(self) -> None:
        """Does nothing: every trial is on disk as soon as it begins and ends."""

    def _save_trial(self, trial: Trial) -> None:
        """Does nothing, as above."""

    def _record(self, trial: Trial) -> None:
        metrics = {name: trial.metrics.get_last_value(name) for name in trial.metrics.metrics}
        seconds = time.monotonic() - self._started[trial.trial_id]
        self._write(ended(trial.trial_id, trial.status, metrics, trial.message, seconds))

    def _write(self, record: TrialRecord, durable: bool = True) -> None:
        assert self._journal, "`reload` comes first"
        self._journal.append(record.to_json(), durable=durable)

    def reload(self) -> None:
        """Reads the trials of an earlier search in this project, once; memory is never behind the file after that.

        Raises:
            DaquError: The file is damaged, or of a search with another space, objectives, seed or identity.
        """
        with self._lock:
            if self._journal is not None:
                return
            path = self._get_oracle_fname()
            notes = header(path).get("notes")
            if notes and self.allow_new_entries and self.tune_new_entries:
                # Where it finds a search to go on with, KerasTuner builds no model to learn what the space is.
                known = keras_tuner.HyperParameters.from_config(notes["hyperparameters"])
                self.hyperparameters.merge(known, overwrite=False)
            self.prepare()
            journal = Journal(path, self.identity(), {"hyperparameters": self.hyperparameters.get_config()})
            for content in journal.read():
                self._restore(TrialRecord.from_json(content))
            self._leases.leave_all()
            self._journal = journal
            self._ended_before = len(self.end_order)

    def _restore(self, record: TrialRecord) -> None:
        trial_id = record.trial_id
        if record.values is not None:
            self._add(self._trial(trial_id, record.values, TrialStatus.RUNNING))
        if trial_id in self._retry_queue:
            self._retry_queue.remove(trial_id)
            self._clean(trial_id)
        if trial_id not in self.trials:
            raise DaquError(
                f"{self._get_oracle_fname()} says how trial {trial_id} ended, not how it began: restore that line, or start in a "
                "new directory."
            )
        trial = self.trials[trial_id]
        trial.status, trial.message = record.status, record.message
        if record.is_running:
            self._leases.take(trial_id, record.tuner_id or "")
            self._started[trial_id] = time.monotonic()  # As if its worker had begun now; that it begins anew is not known yet.
            return
        self._leases.end(trial_id)
        self._run_times[trial_id] += 1
        self._track(trial, record.figures, 0)
        if trial.status == TrialStatus.INVALID:
            self._retry_queue.append(trial_id)
            return
        if trial.status == TrialStatus.COMPLETED:
            self.score_trial(trial)
        self._close(trial)
