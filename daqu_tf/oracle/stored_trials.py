"""The trials of a KerasTuner oracle in one append-only file: what an oracle that was killed knows when it is started again."""

import atexit
import collections
import contextlib
import dataclasses
import functools
import json
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner.engine.trial import Trial, TrialStatus

from daqu_tf.errors import DaquError
from daqu_tf.fields import difference
from daqu_tf.oracle.asked import Asked
from daqu_tf.oracle.attempts import MOST, Attempts
from daqu_tf.oracle.hyperparameters import changed
from daqu_tf.oracle.journal import Journal, another_search, header
from daqu_tf.oracle.leases import Leases
from daqu_tf.oracle.objectives import Objectives, direction, objective_point
from daqu_tf.oracle.records import RUNNING, TrialRecord, ended
from daqu_tf.pareto.incoming import number

_writing: "weakref.WeakSet[StoredTrials]" = weakref.WeakSet()  # Those that may hold their journal.


@atexit.register
def _retire_all() -> None:
    """A process that ends in good order says so, whatever tuner it had: its trials are not counted as lost."""
    for oracle in list(_writing):
        oracle.retire()


class StoredTrials(keras_tuner.Oracle):
    """Keeps trials, and what is known of who runs them; their life is `JournaledOracle`'s.

    Args:
        objective: The objectives, at least one; trials are ranked by each for itself.
        lease_seconds: The time for which a worker may be silent before its trial is given to another.
        seed: The seed of everything random; None draws one, or takes that of the search that is gone on with.
        max_deaths_per_trial: The number of times that a trial may begin and come to no end before it has failed.
        kwargs: Further arguments of `keras_tuner.Oracle`, such as `hyperparameters` and `max_trials`.

    Raises:
        DaquError: `lease_seconds` or `max_deaths_per_trial` cannot be used.
    """

    def __init__(
        self,
        objective: list[keras_tuner.Objective],
        lease_seconds: float,
        seed: int | None = None,
        max_deaths_per_trial: int = MOST,
        **kwargs: Any,
    ):
        if not isinstance(max_deaths_per_trial, int) or max_deaths_per_trial < 1:
            raise DaquError(f"`max_deaths_per_trial` must be an integer of at least 1, but received {max_deaths_per_trial!r}.")
        self._lock = threading.RLock()  # Of all that the next lines hold, for moments at a time; populate_space runs without it.
        self._leases, self._attempts = Leases(lease_seconds), Attempts(max_deaths_per_trial)
        self._journal: Journal | None = None
        self._started: dict[str, float] = {}
        self._next_number = self._ended_before = 0
        self._news: collections.deque[Callable[[], None]] = collections.deque()  # What the subclass has not been told yet.
        self._values: dict[str, dict[str, Any]] = {}  # As proposed, of trials that have not ended.
        self._first_known: frozenset[str] = frozenset()  # The hyperparameters that were known before the first trial.
        self._unasked: set[str] = set()  # What models of an earlier session asked for, and none of this one yet.
        self._unwritten: list[Any] = []  # Hyperparameters that no record tells of yet.
        self._processes: dict[str, str] = {}  # By worker, of those that say which process they are.
        super().__init__(objective=objective, seed=seed, **kwargs)
        self._draws_seed = seed is None
        if seed is not None:
            self.seed = seed  # KerasTuner takes 0 for "none given" and draws one.
        self.objective = objective[0] if len(objective) == 1 else Objectives(objective)
        self._given = self.hyperparameters.copy()

    # For subclasses.

    def identity(self) -> dict[str, Any]:
        """What must not change between a search and its continuation, as JSON."""
        return {"objectives": {objective.name: objective.direction for objective in self.objectives}, "seed": self.seed}

    def note_begun(self, values: dict[str, Any]) -> None:
        """A trial with values that were proposed has begun; it will run until it has ended."""

    def note_failed(self, values: dict[str, Any]) -> None:
        """A trial with values that were proposed has failed for good."""

    def note_completed(self, values: dict[str, Any], trial: Trial) -> None:
        """A trial has ended well with these values, which were proposed but for those of hyperparameters that its model added."""

    def note_enlarged(self, hyperparameters: keras_tuner.HyperParameters) -> None:
        """Models have added to the space, which is this from now on; earlier trials may lack what came later."""

    @property
    def objectives(self) -> list[keras_tuner.Objective]:
        """What trials are ranked by, in the order given."""
        return getattr(self.objective, "objectives", [self.objective])

    def notes(self) -> dict[str, Any]:
        """What the space is before the first trial, as JSON, for whoever goes on with the search."""
        return {"hyperparameters": self.hyperparameters.get_config()}

    def prepare(self) -> None:
        """The space is known now, as far as it is before the first trial."""

    # Trials in memory.

    def _trial(self, trial_id: str, values: dict[str, Any], status: str) -> Trial:
        """A trial, which knows nothing of what was added to the space after its values were proposed.

        So its model gets the default of that, if it asks for it too.
        """
        # HyperParameters.copy() rebuilds every hyperparameter, which takes 10 ms for 100 of them; one never changes.
        hyperparameters, space, known = Asked(self._unasked), self.hyperparameters, self._first_known | values.keys()
        hyperparameters._hps.update({name: list(same) for name, same in space._hps.items() if name in known})
        hyperparameters._space = [one for one in space.space if one.name in known]
        hyperparameters.values = dict(values)
        return Trial(hyperparameters, trial_id, status)

    def _add(self, trial: Trial) -> None:
        self._next_number = max(self._next_number, int(trial.trial_id) + 1)
        self.trials[trial.trial_id] = trial
        self.start_order.append(trial.trial_id)
        self._values[trial.trial_id] = dict(trial.hyperparameters.values)
        self._news.append(functools.partial(self.note_begun, self._values[trial.trial_id]))

    def _clean(self, trial_id: str) -> None:
        """Nothing of a failed run stays: KerasTuner would average its NaN into the next one's metrics."""
        self.trials[trial_id] = self._trial(trial_id, self._values[trial_id], TrialStatus.RUNNING)

    def _duplicate(self, values: Mapping[str, Any]) -> bool:
        """Whether a trial has these values, which KerasTuner keeps as a set of hashes for those that propose."""
        return any(trial.hyperparameters.values == values for trial in self.trials.values())

    def _added(self, trial: Trial) -> dict[str, Any]:
        """The values of what the model of a trial has added, as far as it is searched."""
        known, searched = self._first_known | self._values[trial.trial_id].keys(), self.hyperparameters._hps
        return {name: value for name, value in trial.hyperparameters.values.items() if name not in known and name in searched}

    def _enlarge(self, new: list[Any]) -> None:
        """The space has grown, which is news in the order of the journal; the next record tells of it."""
        self._unwritten += new
        self._news.append(functools.partial(self.note_enlarged, self.hyperparameters.copy()))

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
        trial.best_step = trial.metrics.get_best_step(self.objective.name)

    def _judge(self, trial: Trial) -> None:
        """Scores a completed trial; one without finite objectives has failed, as has one that may not be tried again."""
        point = objective_point(trial, self.objectives)
        if trial.status == TrialStatus.COMPLETED and np.isfinite(point).all():
            self.score_trial(trial)
        elif trial.status == TrialStatus.COMPLETED:
            name = self.objectives[int(np.argmin(np.isfinite(point)))].name
            trial.status = TrialStatus.INVALID
            trial.message = f"`{name}` must be finite, but the trial reported no such number."
        if trial.status == TrialStatus.INVALID and self._run_times[trial.trial_id] >= self.max_retries_per_trial:
            trial.status = TrialStatus.FAILED

    def _close(self, trial: Trial) -> None:
        self.end_order.append(trial.trial_id)
        values = self._values[trial.trial_id] | self._added(trial)
        del self._values[trial.trial_id]
        if trial.status == TrialStatus.COMPLETED:
            self._news.append(functools.partial(self.note_completed, values, trial))
        elif trial.status == TrialStatus.FAILED:
            self._news.append(functools.partial(self.note_failed, values))

    # The file.

    def _get_oracle_fname(self) -> str:
        return os.path.join(self._project_dir, "trials.jsonl")

    def save(self) -> None:
        """Does nothing: every trial is on disk as soon as it begins and ends."""

    def _save_trial(self, trial: Trial) -> None:
        """Does nothing, as above."""

    def _record(self, trial: Trial) -> None:
        metrics = {name: trial.metrics.get_last_value(name) for name in trial.metrics.metrics}
        seconds = time.monotonic() - self._started[trial.trial_id]
        added = self._added(trial) or None
        self._write(dataclasses.replace(ended(trial.trial_id, trial.status, metrics, trial.message, seconds), added=added))

    def _write(self, record: TrialRecord, durable: bool = True) -> None:
        assert self._journal, "`reload` comes first"
        if self._unwritten:
            added = keras_tuner.HyperParameters()
            added.merge(self._unwritten)
            record = dataclasses.replace(record, space=added.get_config()["space"])
        self._journal.append(record.to_json(), durable=durable)
        self._unwritten = []

    def _give_back(self, tuner_id: str) -> None:
        """A worker leaves its trial in good order. Where that cannot be written, the trial will count as lost."""
        trial_id = self._leases.trial_of.get(tuner_id)
        if trial_id is None:
            return
        self._attempts.give_back(trial_id)
        with contextlib.suppress(DaquError, OSError):
            self._write(TrialRecord(trial_id, RUNNING, tuner_id, given_back=True), durable=False)

    def retire(self) -> None:
        """This process writes no more for now: others may go on, and begin with the trials that it or its workers have.

        Those are not counted as lost. A search that ends, well or by an error, comes here, as does a process at its end.
        """
        with self._lock:
            if self._journal is None or not self._journal.is_held:
                return
            for tuner_id in list(self._leases.trial_of):
                self._give_back(tuner_id)
            self._leases.leave_all()
            self._journal.release()
            _writing.discard(self)

    def _claim(self) -> None:
        """From now on no other process writes; what one has written since `reload` is taken in.

        Raises:
            DaquError: Another process is searching here.
        """
        assert self._journal, "`reload` comes first"
        added = self._journal.claim()
        _writing.add(self)
        if added:
            self._take_in(added)

    def reload(self) -> None:
        """Reads the trials of an earlier search in this project, once, and takes its seed where none was given.

        While this process searches, no other writes to the file.

        Raises:
            DaquError: The file is damaged, or of a search with another space, objectives, seed or identity; or the project is of
                another oracle, which keeps its trials in other files.
        """
        with self._lock:
            if self._journal is not None:
                return
            path = self._get_oracle_fname()
            self._check_project(path)
            found = header(path)
            if self._draws_seed:
                self.seed = found.get("identity", {}).get("seed", self.seed)
            if notes := found.get("notes"):
                self._go_on_with(notes)
            self.prepare()
            self._first_known = frozenset(self.hyperparameters._hps)
            journal = Journal(path, self.identity(), self.notes())
            self._take_in(journal.read())
            self._journal = journal

    def _check_project(self, path: str) -> None:
        if not os.path.exists(path) and os.path.exists(super()._get_oracle_fname()):
            raise DaquError(
                f"{self._project_dir} has the trials of another oracle: choose another `directory` or `project_name`, or pass "
                "`overwrite=True` to delete them."
            )

    def _go_on_with(self, notes: Mapping[str, Any]) -> None:
        """The space of an earlier search, of which nothing may have changed."""
        known = keras_tuner.HyperParameters.from_config(notes["hyperparameters"])
        was_built = len(self.hyperparameters.space) > len(self._given.space)
        self._check_space(known, self.hyperparameters, known._hps if was_built else ())
        mine = json.loads(json.dumps(self.notes()))
        if where := difference({**mine, **notes, "hyperparameters": None}, {**mine, "hyperparameters": None}, json.dumps):
            raise another_search(self._get_oracle_fname(), where)
        if self.allow_new_entries and self.tune_new_entries:
            # Where it finds a search to go on with, KerasTuner builds no model to learn what the space is.
            self._unasked = {one.name for one in known.space if one.name not in self.hyperparameters._hps}
            self.hyperparameters.merge(known, overwrite=False)

    def _check_space(self, there: keras_tuner.HyperParameters, here: keras_tuner.HyperParameters, needed: Iterable[str]) -> None:
        if where := changed(there, here, needed):
            raise another_search(self._get_oracle_fname(), where)

    def without_trials(self) -> keras_tuner.Oracle:
        """An oracle that knows the given hyperparameters alone, to learn which of them models ask for, and what else."""
        new = {"allow_new_entries": self.allow_new_entries, "tune_new_entries": self.tune_new_entries}
        return keras_tuner.Oracle(self.objective, hyperparameters=self._given.copy(), **new)

    def check_built(self, hyperparameters: keras_tuner.HyperParameters) -> None:
        """Refuses models whose space is another than that of an earlier search, which `reload` has read; it may have grown.

        Args:
            hyperparameters: The space, as models give it that are built before the first trial.

        Raises:
            DaquError: A hyperparameter has changed, or is asked for no more.
        """
        self._check_space(self.hyperparameters, hyperparameters, self._first_known)
        self._unasked -= hyperparameters._hps.keys()

    def _take_in(self, records: list[dict[str, Any]]) -> None:
        for content in records:
            self._restore(TrialRecord.from_json(content))
        self._leases.leave_all()
        self._ended_before = len(self.end_order)

    def _restore(self, record: TrialRecord) -> None:
        trial_id = record.trial_id
        if record.space:
            self._restore_space(record.space)
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
            self._restore_begin(record)
            return
        self._leases.end(trial_id)
        self._attempts.end(trial_id)
        self._run_times[trial_id] += 1
        self._track(trial, record.figures, 0)
        if record.added:
            trial.hyperparameters = self._trial(trial_id, self._values[trial_id] | record.added, record.status).hyperparameters
        if trial.status == TrialStatus.INVALID:
            self._retry_queue.append(trial_id)
            return
        if trial.status == TrialStatus.COMPLETED:
            self.score_trial(trial)
        self._close(trial)

    def _restore_space(self, space: list[dict[str, Any]]) -> None:
        found = keras_tuner.HyperParameters.from_config({"space": space, "values": {}})
        self.hyperparameters.merge(found, overwrite=False)
        self._unasked |= found._hps.keys() - self._given._hps.keys()
        self._enlarge(found.space)
        self._unwritten = []  # It stands in the file.

    def _restore_begin(self, record: TrialRecord) -> None:
        trial_id, tuner_id = record.trial_id, record.tuner_id or ""
        if record.given_back:
            self._attempts.give_back(trial_id)
            return
        self._attempts.begin(trial_id, tuner_id)
        self._leases.take(trial_id, tuner_id)
        self._started[trial_id] = time.monotonic()  # As if its worker had begun now; that it begins anew is not known yet.
        if record.process:
            self._processes[tuner_id] = record.process
