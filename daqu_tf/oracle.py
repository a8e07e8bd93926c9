"""A KerasTuner oracle that searches for a Pareto front, and keeps its trials in one append-only file."""

import functools
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner.engine.metrics_tracking import infer_metric_direction
from keras_tuner.engine.trial import Trial, TrialStatus

from daqu_tf import pareto
from daqu_tf.alphabet import alphabet_of
from daqu_tf.constraints import Constraint, parse, total_violation
from daqu_tf.errors import DaquError
from daqu_tf.journal import Journal
from daqu_tf.outlook import Goal
from daqu_tf.predictor import Costs
from daqu_tf.surrogate_search import SurrogateSearch


class SearchFailedError(DaquError, RuntimeError):
    """Too many trials failed in a row; KerasTuner's contract is a `RuntimeError`."""


def _synchronized(method: Callable) -> Callable:
    """`keras_tuner.synchronized`, whose lock an exception would hold for ever: it is raised after the release."""

    @functools.wraps(method)
    def outcome(*args, **kwargs):
        try:
            return method(*args, **kwargs), None
        except BaseException as error:
            return None, error

    locked = keras_tuner.synchronized(outcome)

    @functools.wraps(method)
    def wrapper(*args, **kwargs):
        result, error = locked(*args, **kwargs)
        if error is not None:
            raise error
        return result

    return wrapper


@functools.cache
def _direction(name: str) -> str:
    return infer_metric_direction(name) or "min"


def metrics_of(trial: Trial) -> dict[str, float]:
    """What the trial reported last, by name."""
    return {name: float(trial.metrics.get_last_value(name)) for name in trial.metrics.metrics}


def objective_point(trial: Trial, objectives: Sequence[keras_tuner.Objective]) -> np.ndarray:
    """What the trial reported last for each objective, all to be minimised.

    Returns:
        (m,) values in the metrics' units, negated where the direction is `max`; NaN where nothing was reported.
    """
    values = [
        trial.metrics.get_last_value(objective.name) if trial.metrics.exists(objective.name) else None for objective in objectives
    ]
    signs = [-1.0 if objective.direction == "max" else 1.0 for objective in objectives]
    return np.array([math.nan if value is None else sign * value for value, sign in zip(values, signs)])


def best_trials(trials: Sequence[Trial], objectives: Sequence[keras_tuner.Objective], at_least: int | None = None) -> list[Trial]:
    """Completed trials front by front, each front by falling crowding distance.

    The first one is the best by the first objective, ties going to the next objectives, then to the order of `trials`.

    Args:
        trials: Trials of any status.
        objectives: What to rank by.
        at_least: Stop after the front that reaches this many; None stops after the first, the Pareto front.
    """
    left = [trial for trial in trials if trial.status == TrialStatus.COMPLETED]
    points = np.array([objective_point(trial, objectives) for trial in left]).reshape(len(left), len(objectives))
    order: list[Trial] = []
    while left and (not order or len(order) < (at_least or 0)):
        mask = pareto.non_dominated_mask(points)
        front = np.flatnonzero(mask)
        keys = (*points[front].T[::-1], -pareto.crowding_distance(points[front]))
        order += [left[index] for index in front[np.lexsort(keys)]]
        left, points = [left[index] for index in np.flatnonzero(~mask)], points[~mask]
    return order


def _check_objectives(objective: Any) -> None:
    if not isinstance(objective, list) or not objective:
        raise DaquError(f"`objective` must be a list of `keras_tuner.Objective`, but received {objective!r}.")
    names = [getattr(item, "name", item) for item in objective]
    if len(set(names)) < len(names):
        raise DaquError(f"`objective` must name each metric once, but received {names}.")


class ParetoOracle(keras_tuner.Oracle):
    """Searches for the Pareto front of several objectives by steady-state NSGA-II.

    First the given design runs, then random subnets, then children of the best ones. No subnet runs twice. What trial i
    runs depends on `seed`, i and the trials that were created and ended before it, on nothing else: a search that was
    killed goes on as if it had not been when it is started again, and loses only the trials that were running.

    Every ended trial is one line of `trials.jsonl` in the project directory. KerasTuner's own `oracle.json` and
    `trial.json`, whose cost grows with the number of trials, are not written.

    Args:
        objective: What to rank by; a trial's weighted or summed score plays no part.
        max_trials: How many trials to run at most; None runs until the space is exhausted.
        hyperparameters: The search space, every one an unconditional `Choice`.
        seed: Of everything random.
        initial_design: Values to run first, in this order; after `canonicalise`, equal ones run once.
        initial_random: How many random subnets follow before evolution starts.
        canonicalise: Maps values to those of the equal network that stands for all its equals; it may leave out what
            changes nothing. Trials run and record these values.
        sample: Draws the values of a random subnet; None draws every choice uniformly.
        identity: What else must not change between a search and its continuation, as JSON (the target, the data).
        population: How many of the best trials are parents.
        max_retries_per_trial: How often a trial that crashed or returned NaN is run again.
        max_consecutive_failed_trials: How many failed trials in a row end the search.

    Raises:
        DaquError: An argument cannot be used (the message says which), or `max_trials` is less than the first design.
    """

    def __init__(
        self,
        objective: list[keras_tuner.Objective],
        max_trials: int | None,
        hyperparameters: keras_tuner.HyperParameters,
        seed: int = 0,
        initial_design: Sequence[Mapping[str, Any]] = (),
        initial_random: int = 16,
        canonicalise: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None,
        sample: Callable[[np.random.Generator], Mapping[str, Any]] | None = None,
        identity: Mapping[str, Any] | None = None,
        costs: Costs | None = None,
        constraints: Sequence[str | Constraint] = (),
        max_retries_per_trial: int = 0,
        max_consecutive_failed_trials: int = 3,
    ):
        _check_objectives(objective)
        self._alphabet = alphabet_of(hyperparameters)
        self.constraints = parse(constraints)
        super().__init__(
            objective=objective,
            max_trials=max_trials,
            hyperparameters=hyperparameters,
            allow_new_entries=False,
            tune_new_entries=False,
            seed=seed,
            max_retries_per_trial=max_retries_per_trial,
            max_consecutive_failed_trials=max_consecutive_failed_trials,
        )
        if not isinstance(seed, int) or seed < 0:
            raise DaquError(f"`seed` must be an integer of at least 0, but received {seed!r}.")
        self.seed = seed  # KerasTuner takes 0 for "none given" and draws one.
        self.verbose = 0  # At 1, KerasTuner prints every hyperparameter and sorts all trials, twice a trial.
        self._identity = dict(identity or {})
        goal = Goal(tuple((one.name, one.direction) for one in objective), self.constraints)
        self._search = SurrogateSearch(self._alphabet, goal, initial_design, initial_random, canonicalise, sample, costs, seed)
        first = self._search.first
        if max_trials is not None and max_trials < first:
            raise DaquError(
                f"`max_trials` must be at least {first}, the first design ({first - initial_random} given, "
                f"{initial_random} random), but received {max_trials}: raise it, or lower `initial_random`."
            )
        self._lost_ids: list[str] = []  # Of trials that were running when another search was killed.
        self._started: dict[str, float] = {}
        self._journal: Journal | None = None

    @property
    def objectives(self) -> list[keras_tuner.Objective]:
        """What trials are ranked by, in the order given."""
        return self.objective.objectives

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The values of a trial to come, as KerasTuner asks for them; `STOPPED` when nothing untried is left."""
        values = self._search.propose(np.random.default_rng((self.seed, int(trial_id))))
        if values is None:
            return {"status": TrialStatus.STOPPED}
        return {"status": TrialStatus.RUNNING, "values": values}

    # A trial's life.

    @_synchronized
    def create_trial(self, tuner_id: str) -> Trial:
        """The next trial to run, one to run again first; its status is `STOPPED` when the search is over."""
        self.reload()
        if tuner_id in self.ongoing_trials:
            return self.ongoing_trials[tuner_id]
        self.tuner_ids.add(tuner_id)
        trial = self._again() if self._retry_queue else self._new_trial()
        if trial.status == TrialStatus.STOPPED:
            self.tuner_ids.remove(tuner_id)
            return trial
        self._started[trial.trial_id] = time.monotonic()
        self.ongoing_trials[tuner_id] = trial
        self._display.on_trial_begin(trial)
        return trial

    def _again(self) -> Trial:
        old = self.trials[self._retry_queue.pop()]
        # Nothing of the failed run stays: KerasTuner would average its NaN into the next one's metrics.
        trial = self._trial(old.trial_id, old.hyperparameters.values, TrialStatus.RUNNING)
        self.trials[trial.trial_id] = trial
        return trial

    def _new_trial(self) -> Trial:
        trial_id = self._lost_ids[0] if self._lost_ids else f"{len(self.trials):04d}"
        full = self.max_trials is not None and len(self.trials) >= self.max_trials
        response = {"status": TrialStatus.STOPPED} if full else self.populate_space(trial_id)
        trial = self._trial(trial_id, response.get("values", {}), response["status"])
        if trial.status == TrialStatus.RUNNING:
            self._lost_ids = self._lost_ids[1:]
            self._add(trial)
        return trial

    def _trial(self, trial_id: str, values: dict[str, Any], status: str) -> Trial:
        # HyperParameters.copy() rebuilds every hyperparameter, which takes 10 ms for 100 of them; one never changes.
        hyperparameters = keras_tuner.HyperParameters()
        hyperparameters._hps.update({name: list(same) for name, same in self.hyperparameters._hps.items()})
        hyperparameters._space = list(self.hyperparameters.space)
        hyperparameters.values = dict(values)
        return Trial(hyperparameters, trial_id, status)

    def _add(self, trial: Trial) -> None:
        self.trials[trial.trial_id] = trial
        self.start_order.append(trial.trial_id)
        self._search.tried(trial.hyperparameters.values)

    @_synchronized
    def update_trial(self, trial_id: str, metrics: Mapping[str, float], step: int = 0) -> Trial:
        """Takes in what a running trial measured; every objective must be among `metrics`."""
        directions = {objective.name: objective.direction for objective in self.objectives}
        tracker = self.trials[trial_id].metrics
        for name in metrics:
            if not tracker.exists(name):
                tracker.register(name, directions.get(name) or _direction(name))
        return super().update_trial(trial_id, metrics, step)

    def score_trial(self, trial: Trial) -> None:
        """Sets KerasTuner's score, the plain sum of the objectives; it ranks nothing here."""
        trial.score = float(objective_point(trial, self.objectives).sum())

    @_synchronized
    def end_trial(self, trial: Trial) -> None:
        """Records a trial that has run; one that is not running has been recorded, and nothing happens."""
        if all(ongoing.trial_id != trial.trial_id for ongoing in self.ongoing_trials.values()):
            return
        self.update_space(trial.hyperparameters)
        mine = self.trials[trial.trial_id]  # The same object, or what came back from a worker.
        mine.status, mine.message = trial.status, trial.message
        self._judge(mine)
        self._run_times[mine.trial_id] += 1
        retried = self._retry(mine)
        if not retried:
            self._record(mine)
            self._close(mine)
        self._display.on_trial_end(mine)
        self.ongoing_trials = {key: value for key, value in self.ongoing_trials.items() if value is not mine}
        if not retried:
            self._check_consecutive_failures()

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
        if trial.status == TrialStatus.COMPLETED:
            self._search.learn(trial.hyperparameters.values, metrics_of(trial))

    def _check_consecutive_failures(self) -> None:
        last = [self.trials[trial_id] for trial_id in self.end_order[-self.max_consecutive_failed_trials :]]
        failed = [trial for trial in last if trial.status == TrialStatus.FAILED]
        if len(failed) == self.max_consecutive_failed_trials:
            reason = (failed[-1].message or "no message").strip().splitlines()[-1]
            raise SearchFailedError(
                f"The last {len(failed)} trials failed, trial {failed[-1].trial_id} with: {reason}; mend that and "
                f"start again (the whole message is in {self._get_oracle_fname()})."
            )

    # Results.

    def pareto_trials(self) -> list[Trial]:
        """The Pareto front: the best trial by the first objective, then by falling crowding distance."""
        return best_trials(list(self.trials.values()), self.objectives)

    def get_best_trials(self, num_trials: int = 1) -> list[Trial]:
        """The Pareto front, then the next fronts; unlike KerasTuner's, never a trial that was not completed."""
        return best_trials(list(self.trials.values()), self.objectives, num_trials)[:num_trials]

    # Storage.

    def _get_oracle_fname(self) -> str:
        return os.path.join(self._project_dir, "trials.jsonl")

    def save(self) -> None:
        """Does nothing: every trial is on disk as soon as it ends."""

    def _save_trial(self, trial: Trial) -> None:
        """Does nothing: a trial is written once, when it ends."""

    def _record(self, trial: Trial) -> None:
        metrics = {name: float(trial.metrics.get_last_value(name)) for name in trial.metrics.metrics}
        self._journal.append(
            {
                "trial_id": trial.trial_id,
                "status": trial.status,
                "values": trial.hyperparameters.values,
                "metrics": {name: value if math.isfinite(value) else None for name, value in metrics.items()},
                "message": trial.message,
                "seconds": round(time.monotonic() - self._started[trial.trial_id], 3),
            }
        )

    def reload(self) -> None:
        """Reads the trials of an earlier search in this project, once; memory is never behind the file after that.

        Raises:
            DaquError: The file is damaged, or of a search with another space, objectives, seed or identity.
        """
        if self._journal is not None:
            return
        own = {
            "space": self._alphabet.choices,
            "objectives": {objective.name: objective.direction for objective in self.objectives},
            "seed": self.seed,
        }
        journal = Journal(self._get_oracle_fname(), {**own, **self._identity})
        for record in journal.read():
            self._restore(record)
        self._journal = journal
        ended = {int(trial_id) for trial_id in self.trials}
        self._lost_ids = [f"{index:04d}" for index in range(max(ended, default=-1)) if index not in ended]

    def _restore(self, record: dict[str, Any]) -> None:
        trial = self._trial(record["trial_id"], record["values"], record["status"])
        trial.message = record["message"]
        self._add(trial)
        metrics = {name: math.nan if value is None else value for name, value in record["metrics"].items()}
        if all(objective.name in metrics for objective in self.objectives):
            self.update_trial(trial.trial_id, metrics)
        if trial.status == TrialStatus.COMPLETED:
            self.score_trial(trial)
        self._close(trial)
