"""A KerasTuner oracle that searches for a Pareto front, and keeps its trials in one append-only file."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner.engine.trial import Trial, TrialStatus

from daqu_tf import pareto
from daqu_tf.errors import DaquError
from daqu_tf.oracle.attempts import MOST
from daqu_tf.oracle.failures import SearchFailedError
from daqu_tf.oracle.hyperparameters import choices_of
from daqu_tf.oracle.journaled_oracle import LEASE_SECONDS, JournaledOracle
from daqu_tf.oracle.objectives import objective_point
from daqu_tf.pareto.choices import Choices, Conditions
from daqu_tf.pareto.constraints import Constraint, parse, total_violation
from daqu_tf.pareto.goal import Goal
from daqu_tf.pareto.incoming import number
from daqu_tf.pareto.predictor import Costs
from daqu_tf.pareto.surrogate_search import SurrogateSearch

__all__ = ["ParetoOracle", "SearchFailedError", "best_trials", "metrics_of", "objective_point"]


def metrics_of(trial: Trial) -> dict[str, float]:
    """The metrics that a trial reported last, by name."""
    last = {name: trial.metrics.get_last_value(name) for name in trial.metrics.metrics}
    return {name: number(value) for name, value in last.items() if value is not None}


def best_trials(
    trials: Sequence[Trial],
    objectives: Sequence[keras_tuner.Objective],
    at_least: int | None = None,
    constraints: Sequence[Constraint] = (),
) -> list[Trial]:
    """The completed trials front by front, each front by falling crowding distance, and last those that miss a constraint.

    The first trial is the best by the first objective; ties are decided by the next objectives, then by the order of `trials`.

    Args:
        trials: Trials of any status.
        objectives: The objectives to rank by.
        at_least: The number of trials after which no further front is added; None gives the first front alone, the Pareto front.
        constraints: The constraints. Trials that miss them come last, those that miss them by least first; if no trial meets them,
            the first of these stands for the front.
    """
    completed = [trial for trial in trials if trial.status == TrialStatus.COMPLETED]
    # KerasTuner's own oracles complete a trial whatever it reports.
    completed = [trial for trial in completed if np.isfinite(objective_point(trial, objectives)).all()]
    missed = [float(total_violation(constraints, metrics_of(trial))) if constraints else 0.0 for trial in completed]
    left = [trial for trial, violation in zip(completed, missed) if violation == 0]
    points = np.array([objective_point(trial, objectives) for trial in left]).reshape(len(left), len(objectives))
    order: list[Trial] = []
    while left and (not order or len(order) < (at_least or 0)):
        mask = pareto.non_dominated_mask(points)
        front = np.flatnonzero(mask)
        keys = (*points[front].T[::-1], -pareto.crowding_distance(points[front]))
        order += [left[index] for index in front[np.lexsort(keys)]]
        left, points = [left[index] for index in np.flatnonzero(~mask)], points[~mask]
    behind = [completed[index] for index in np.argsort(missed, kind="stable") if missed[index] > 0]
    return order + behind[: max((at_least or 1) - len(order), 0)]


def _check_objectives(objective: Any) -> None:
    if not isinstance(objective, list) or not objective:
        raise DaquError(f"`objective` must be a list of `keras_tuner.Objective`, but received {objective!r}.")
    for item in objective:
        if getattr(item, "direction", None) not in ("min", "max"):
            came = f"{item.name!r} with {item.direction!r}" if hasattr(item, "direction") else repr(item)
            raise DaquError(f"`objective` must be `keras_tuner.Objective`s with a direction, min or max, but received {came}.")
    names = [item.name for item in objective]
    if len(set(names)) < len(names):
        raise DaquError(f"`objective` must name each metric once, but received {names}.")


class ParetoOracle(JournaledOracle):
    """Searches for the Pareto front of several objectives by surrogate-assisted evolution.

    First the given design runs, then random values, then what a predictor expects to widen the front most (see
    `pareto.surrogate_search`). No values run twice. What trial i runs depends on nothing but `seed`, i and the trials that were
    created and ended before it, so a search that was killed and is started again goes on as if it had not been killed.
    `JournaledOracle` keeps the trials and gives them to workers.

    Args:
        objective: The objectives, which are not weighted or summed.
        max_trials: The most trials to run; None runs until the space is exhausted.
        hyperparameters: The search space, of hyperparameters of any kind, conditional or not, but with every name once; None where
            a tuner finds it by building a model. Of a number with more than 64 values, 65 are searched, evenly on its own scale.
        seed: The seed of everything random.
        initial_design: The values to run first, in this order; values that `canonicalise` makes equal run once.
        initial_random: The number of random trials after the design, before anything is predicted.
        canonicalise: Maps values to the values that stand for all equal networks, and may leave out what changes nothing. Trials
            run and record these values; None where all values differ.
        sample: Draws random values; None draws every choice uniformly.
        identity: A JSON object with what else must not change when a search is continued, such as the target and the data.
        conditions: Pairs of a parent and its values, by the name of a hyperparameter, which acts only where every parent acts and
            has one of these values and is left out elsewhere. They are for hyperparameters that are not registered under
            conditions, since KerasTuner is slow to send those to workers.
        costs: A function from a list of values to arrays (count,) by name of what is known before a trial runs. An objective among
            them is predicted only as far as trials measure something else; the others help to predict.
        constraints: Constraints such as `latency_us<=2000` on metrics that trials report. Values whose costs miss one never run.
        max_retries_per_trial: The number of times that a trial that crashed or returned NaN is run again.
        max_consecutive_failed_trials: The number of failed trials in a row that ends the search.
        lease_seconds: The time for which a worker may be silent before its trial is given to another.
        max_deaths_per_trial: The number of times that a trial may begin and come to no end, because its process was killed,
            crashed, fell silent or made a report that was refused. Then the trial has failed, and is not run again.
        allow_new_entries: Whether a model may ask for hyperparameters that are not among `hyperparameters`; None allows it where
            `hyperparameters` is None.
        tune_new_entries: Whether such hyperparameters are searched, which has to begin before the first trial, or else keep their
            defaults; None searches them where `hyperparameters` is None.

    Raises:
        DaquError: An argument cannot be used (it is named), or `max_trials` is less than the first design.
    """

    def __init__(
        self,
        objective: list[keras_tuner.Objective],
        max_trials: int | None,
        hyperparameters: keras_tuner.HyperParameters | None = None,
        seed: int = 0,
        initial_design: Sequence[Mapping[str, Any]] = (),
        initial_random: int = 16,
        canonicalise: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None,
        sample: Callable[[np.random.Generator], Mapping[str, Any]] | None = None,
        identity: Mapping[str, Any] | None = None,
        conditions: Mapping[str, Conditions] | None = None,
        costs: Costs | None = None,
        constraints: Sequence[str | Constraint] = (),
        max_retries_per_trial: int = 0,
        max_consecutive_failed_trials: int = 3,
        lease_seconds: float = LEASE_SECONDS,
        max_deaths_per_trial: int = MOST,
        allow_new_entries: bool | None = None,
        tune_new_entries: bool | None = None,
    ):
        _check_objectives(objective)
        is_partial = hyperparameters is None
        self.constraints = parse(constraints)
        super().__init__(
            objective=objective,
            max_trials=max_trials,
            hyperparameters=hyperparameters,
            allow_new_entries=is_partial if allow_new_entries is None else allow_new_entries,
            tune_new_entries=is_partial if tune_new_entries is None else tune_new_entries,
            seed=seed,
            max_retries_per_trial=max_retries_per_trial,
            max_consecutive_failed_trials=max_consecutive_failed_trials,
            lease_seconds=lease_seconds,
            max_deaths_per_trial=max_deaths_per_trial,
        )
        if not isinstance(seed, int) or seed < 0:
            raise DaquError(f"`seed` must be an integer of at least 0, but received {seed!r}.")
        self.seed = seed  # KerasTuner takes 0 for "none given" and draws one.
        self._identity = dict(identity or {})
        self._conditions = dict(conditions or {})
        goal = Goal(tuple((one.name, one.direction) for one in objective), self.constraints)
        rest = (goal, initial_design, initial_random, canonicalise, sample, costs, seed)
        self._make_search: Callable[[Choices], SurrogateSearch] = lambda choices: SurrogateSearch(choices, *rest)
        self._initial_random = initial_random
        if hyperparameters is not None:
            self.prepare()

    def prepare(self) -> None:
        """Makes the search over the space as it is known now.

        Raises:
            DaquError: The space or the first design cannot be used.
        """
        self._choices = choices_of(self.hyperparameters, self._conditions)
        self._search = self._make_search(self._choices)
        first, drawn = self._search.first, self._initial_random
        if self.max_trials is not None and self.max_trials < first:
            raise DaquError(
                f"`max_trials` must be at least {first}, the first design ({first - drawn} given, {drawn} random), but received "
                f"{self.max_trials}: raise it, or lower `initial_random`."
            )

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The status and the values of a new trial, as KerasTuner asks for them; the status is `STOPPED` when none are left."""
        values = self._search.propose(np.random.default_rng((self.seed, int(trial_id))))
        if values is None:
            return {"status": TrialStatus.STOPPED}
        return {"status": TrialStatus.RUNNING, "values": values}

    def identity(self) -> dict[str, Any]:
        """A JSON object with what must not change when the search is continued."""
        return {"space": self._choices.options, **super().identity(), **self._identity}

    def note_begun(self, values: dict[str, Any]) -> None:
        """Excludes `values`, with which a trial has begun, from what is proposed from now on."""
        self._search.tried(values)

    def note_failed(self, values: dict[str, Any]) -> None:
        """Learns that a trial with `values` failed."""
        self._search.failed(values)

    def _check_objective_found(self, metrics: Mapping[str, float]) -> None:
        super()._check_objective_found(metrics)
        if missing := [one.metric for one in self.constraints if one.metric not in metrics]:
            raise DaquError(f"`constraints` must name reported metrics, but `{missing[0]}` is not among {sorted(metrics)}.")

    def note_completed(self, values: dict[str, Any], trial: Trial) -> None:
        """Learns what a trial with `values` measured."""
        self._search.learn(values, metrics_of(trial))

    # Results.

    def pareto_trials(self) -> list[Trial]:
        """The trials on the Pareto front: the best by the first objective, then the others by falling crowding distance."""
        return best_trials(list(self.trials.values()), self.objectives, constraints=self.constraints)

    def get_best_trials(self, num_trials: int = 1) -> list[Trial]:
        """The trials on the Pareto front, then on the next fronts; unlike in KerasTuner, all of them are completed."""
        return best_trials(list(self.trials.values()), self.objectives, num_trials, self.constraints)[:num_trials]
