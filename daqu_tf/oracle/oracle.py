"""A KerasTuner oracle that searches for a Pareto front, and keeps its trials in one append-only file."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.src.engine.objective import create_objective

from daqu_tf import pareto
from daqu_tf.errors import DaquError
from daqu_tf.oracle.attempts import MOST
from daqu_tf.oracle.failures import SearchFailedError, last_line
from daqu_tf.oracle.hyperparameters import check_any, choices_of
from daqu_tf.oracle.journaled_oracle import LEASE_SECONDS, JournaledOracle
from daqu_tf.oracle.objectives import objective_point
from daqu_tf.pareto.choices import Conditions
from daqu_tf.pareto.constraints import Constraint, parse, total_violation
from daqu_tf.pareto.goal import Goal
from daqu_tf.pareto.incoming import number
from daqu_tf.pareto.predictor import Costs
from daqu_tf.pareto.surrogate_search import SurrogateSearch

RANDOM = 16  # Trials after the design, before anything is predicted.

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


def _objectives(objective: Any) -> list[keras_tuner.Objective]:
    """The objectives that KerasTuner's `objective` stands for: a metric's name, an objective, a list of them, or None."""
    given = objective if isinstance(objective, list) else [objective]
    try:
        found = [create_objective(one) for one in given]
    except (TypeError, ValueError) as error:
        found, reason = [], str(error)
    else:
        reason = "an empty list"
    if not found:
        raise DaquError(
            f"`objective` must be metrics with a direction, but received {objective!r} ({reason}): write "
            'keras_tuner.Objective("accuracy", "max"), or a list of such.'
        )
    for item in found:
        if getattr(item, "direction", None) not in ("min", "max"):
            came = f"{item.name!r} with {item.direction!r}" if hasattr(item, "direction") else repr(item)
            raise DaquError(f"`objective` must be `keras_tuner.Objective`s with a direction, min or max, but received {came}.")
    names = [item.name for item in found]
    if len(set(names)) < len(names):
        raise DaquError(f"`objective` must name each metric once, but received {names}.")
    return found


class ParetoOracle(JournaledOracle):
    """Searches for the Pareto front of several objectives by surrogate-assisted evolution.

    First the given design runs, then random values, then what a predictor expects to widen the front most (see
    `pareto.surrogate_search`). No values run twice. What trial i runs depends on nothing but `seed`, i and the trials that were
    created and ended before it, so a search that was killed and is started again goes on as if it had not been killed.
    `JournaledOracle` keeps the trials and gives them to workers.

    Args:
        objective: The objectives, which are not weighted or summed: `keras_tuner.Objective`s, or names of metrics whose direction
            KerasTuner knows; None where a model is fitted to a single number, which is made small.
        max_trials: The most trials to run; None runs until the space is exhausted. It may be raised, and the search gone on with.
        hyperparameters: The search space, of hyperparameters of any kind, conditional or not, but with every name once; None where
            a tuner finds it by building models, each of which may ask for more. Of a number with more than 64 values, 65 are
            searched, evenly on its own scale, and those of the design.
        seed: The seed of everything random; None draws one, which is kept when a search is continued.
        initial_design: The values to run first, in this order; values that `canonicalise` makes equal run once.
        initial_random: The number of random trials after the design, before anything is predicted; None takes 16, or half of fewer
            trials than that.
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
        tune_new_entries: Whether such hyperparameters are searched, from the next trial on, or else keep their defaults; None
            searches them where `hyperparameters` is None. Earlier trials lack what came later.

    Raises:
        DaquError: An argument cannot be used (it is named), or `max_trials` is less than the first design.
    """

    def __init__(
        self,
        objective: str | keras_tuner.Objective | list[str | keras_tuner.Objective] | None = None,
        max_trials: int | None = 10,
        hyperparameters: keras_tuner.HyperParameters | None = None,
        seed: int | None = 0,
        initial_design: Sequence[Mapping[str, Any]] = (),
        initial_random: int | None = None,
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
        objectives = _objectives(objective)
        if seed is not None and (not isinstance(seed, int) or seed < 0):
            raise DaquError(f"`seed` must be an integer of at least 0, but received {seed!r}.")
        is_partial = hyperparameters is None
        self.constraints = parse(constraints)
        super().__init__(
            objective=objectives,
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
        if initial_random is None:
            initial_random = RANDOM if max_trials is None or max_trials >= RANDOM else max(1, max_trials // 2)
        self._identity = dict(identity or {})
        self._conditions = dict(conditions or {})
        self._goal = Goal(tuple((one.name, one.direction) for one in self.objectives), self.constraints)
        is_list = isinstance(initial_design, Iterable) and not isinstance(initial_design, str | Mapping)
        self._design: Any = list(initial_design) if is_list else initial_design  # Which the search refuses.
        self._initial_random = initial_random
        self._rest = (canonicalise, sample, costs)
        self._told: list[tuple[str, dict[str, Any], dict[str, float]]] = []  # All that the search was told, in order.
        if hyperparameters is not None:
            self.prepare()

    def prepare(self) -> None:
        """Makes the search over the space as it is known now.

        Raises:
            DaquError: The space or the first design cannot be used.
        """
        if not (self.allow_new_entries and self.tune_new_entries):
            check_any(self.hyperparameters)
        self._search = self._searched(self.hyperparameters, self._design, self._initial_random)
        first, drawn = self._search.first, self._initial_random
        if self.max_trials is not None and self.max_trials < first:
            raise DaquError(
                f"`max_trials` must be at least {first}, the first design ({first - drawn} given, {drawn} random), but received "
                f"{self.max_trials}: raise it, or lower `initial_random`."
            )

    def _searched(self, hyperparameters: keras_tuner.HyperParameters, design: Any, initial_random: Any) -> SurrogateSearch:
        choices = choices_of(hyperparameters, self._conditions, design)
        return SurrogateSearch(choices, self._goal, design, initial_random, *self._rest, self.seed)

    def note_enlarged(self, hyperparameters: keras_tuner.HyperParameters) -> None:
        """Searches the larger space from now on, with all that is known; in it, earlier trials lack what came later."""
        canonicalise, first = self._rest[0] or dict, self._search.first
        defaults = {one.name: one.default for one in hyperparameters.space}
        begun = [values for what, values, _ in self._told if what == "tried"]
        left = [values for values in self._design if not any(canonicalise(dict(values)).items() <= one.items() for one in begun)]
        self._search = self._searched(hyperparameters, [defaults | dict(values) for values in left], 0)
        self._search.first = first
        for told in self._told:
            self._tell(*told)
        for values in begun:  # With defaults in the place of what they lack, they would be the same model.
            self._search.exclude(defaults | values)

    def _tell(self, what: str, values: dict[str, Any], metrics: dict[str, float]) -> None:
        """Tells the search that values were `tried`, have `failed`, or were measured."""
        self._search.tried(values)
        if what == "learn":
            self._search.learn(values, metrics)
        elif what == "failed":
            self._search.failed(values)

    def _note(self, what: str, values: dict[str, Any], metrics: dict[str, float] | None = None) -> None:
        self._told.append((what, values, metrics or {}))
        self._tell(*self._told[-1])

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """The status and the values of a new trial, as KerasTuner asks for them; the status is `STOPPED` when none are left."""
        self.reload()
        values = self._search.propose(np.random.default_rng((self.seed, int(trial_id))))
        if values is None:
            self._check_any()
            return {"status": TrialStatus.STOPPED}
        return {"status": TrialStatus.RUNNING, "values": values}

    def _check_any(self) -> None:
        """Where the space is found out by trials, the first has no values; there is no second if it asks for nothing."""
        if not self._leases.open:
            failed = [trial for trial in self.trials.values() if trial.status == TrialStatus.FAILED]
            why = f", and trial {failed[-1].trial_id} failed with: {last_line(failed[-1].message)}" if failed else ""
            check_any(self.hyperparameters, why)

    def identity(self) -> dict[str, Any]:
        """A JSON object with what must not change when the search is continued."""
        return {"space": choices_of(self.hyperparameters, self._conditions).options, **super().identity(), **self._identity}

    def notes(self) -> dict[str, Any]:
        """A JSON object with what the space is before the first trial, and on what its hyperparameters depend."""
        return {**super().notes(), "conditions": self._conditions}

    def note_begun(self, values: dict[str, Any]) -> None:
        """Excludes `values`, with which a trial has begun, from what is proposed from now on."""
        self._note("tried", values)

    def note_failed(self, values: dict[str, Any]) -> None:
        """Learns that a trial with `values` failed."""
        self._note("failed", values)

    def _check_objective_found(self, metrics: Mapping[str, float]) -> None:
        super()._check_objective_found(metrics)
        if missing := [one.metric for one in self.constraints if one.metric not in metrics]:
            raise DaquError(f"`constraints` must name reported metrics, but `{missing[0]}` is not among {sorted(metrics)}.")

    def note_completed(self, values: dict[str, Any], trial: Trial) -> None:
        """Learns what a trial with `values` measured, some of which its model may have added."""
        self._note("learn", values, metrics_of(trial))

    # Results.

    def pareto_trials(self) -> list[Trial]:
        """The trials on the Pareto front: the best by the first objective, then the others by falling crowding distance."""
        return best_trials(list(self.trials.values()), self.objectives, constraints=self.constraints)

    def get_best_trials(self, num_trials: int = 1) -> list[Trial]:
        """The trials on the Pareto front, then on the next fronts; unlike in KerasTuner, all of them are completed."""
        return best_trials(list(self.trials.values()), self.objectives, num_trials, self.constraints)[:num_trials]
