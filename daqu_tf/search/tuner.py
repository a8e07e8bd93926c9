"""The tuner of a search, which asks an oracle for values, evaluates them, and shows the Pareto front."""

import os
from collections.abc import Callable
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from daqu_tf.errors import DaquError
from daqu_tf.oracle.distributed_tuner import PATIENCE_SECONDS, DistributedTuner
from daqu_tf.oracle.failures import last_line
from daqu_tf.oracle.oracle import best_trials, objective_point
from daqu_tf.pareto.incoming import named, number
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.subnet import Subnet

FEW = 8  # The most hyperparameters that have columns in a table.
MANY = 2**31 - 1  # More trials than there can be; KerasTuner's messages hold an int32.


class MissingObjectiveError(DaquError, keras_tuner.errors.FatalError):
    """`evaluate` does not report an objective or a constrained metric. Since it is a `FatalError`, KerasTuner ends the search."""


class _DeadlineReached(Exception):
    """Leaves KerasTuner's search loop, which has no other way out between trials."""


def _number(value: float) -> str:
    """A number as text: whole numbers in groups of three digits, shares with four decimals, all others with one."""
    if value == int(value) and abs(value) > 1:
        return f"{value:,.0f}"
    return f"{value:.4f}" if abs(value) <= 1 else f"{value:,.1f}"


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _endings(trials: list[Trial]) -> str:
    """A text with the number of trials by their ends, and the error of the last one that failed."""
    failed = [trial for trial in trials if trial.status == TrialStatus.FAILED]
    running = sum(trial.status in (TrialStatus.RUNNING, TrialStatus.INVALID) for trial in trials)
    parts = [f"{len(trials)} trials", f"{running} still running" if running else ""]
    parts.append(f"{len(failed)} failed" + (f" (the last with: {last_line(failed[-1].message)})" if failed else ""))
    return ", ".join(filter(None, parts))


def _table(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in rows)


class DaquTuner(DistributedTuner):
    """Evaluates what an oracle proposes, and goes on where an earlier search in the same folder ended.

    It knows nothing about models, since `evaluate` does all building, scoring and timing of a trial. Any oracle of KerasTuner will
    do; `ParetoOracle` is the one that searches for a front.

    Args:
        oracle: The oracle that proposes values and keeps the trials.
        evaluate: A function from the values of hyperparameters to metrics by name, all objectives among them. An exception fails
            only its trial.
        directory: The folder of projects.
        project_name: The name of the folder of this search in `directory`.
        on_progress: Is called with the tuner and the trial after every trial that ended.
        deadline: A function that says whether the time is up; no new trial starts then.
        overwrite: Whether to delete an earlier search in the same folder first.
        patience_seconds: The longest time that the workers and the chief of a distributed search wait for each other.
        space: The search space of the trials, which `pareto_subnets` needs; None for any other search.

    Raises:
        DaquError: The folder holds another search.
    """

    def __init__(
        self,
        oracle: keras_tuner.Oracle,
        evaluate: Callable[[dict[str, Any]], dict[str, float]],
        directory: str | os.PathLike,
        project_name: str = "search",
        on_progress: Callable[["DaquTuner", Trial], None] | None = None,
        deadline: Callable[[], bool] | None = None,
        overwrite: bool = False,
        patience_seconds: float = PATIENCE_SECONDS,
        space: SearchSpace | None = None,
    ):
        self._evaluate, self._space = evaluate, space
        self._constraints = getattr(oracle, "constraints", ())
        self._on_progress = on_progress
        self._deadline = deadline
        super().__init__(
            oracle,
            directory=os.fspath(directory),
            project_name=project_name,
            overwrite=overwrite,
            patience_seconds=patience_seconds,
        )
        self.reload()
        self._told = 0 if self._is_worker() else len(oracle.end_order)

    # The oracle holds all that is saved. The tuner has no file of its own, so that the base class finds none to announce and
    # reload, and so that a kill cannot come between the writing of two files.

    def save(self) -> None:
        """Saves the oracle, unless this process is a worker."""
        if not self._is_worker():
            self.oracle.save()

    def reload(self) -> None:
        """Reloads the oracle if it was saved, unless this process is a worker."""
        if not self._is_worker() and os.path.exists(self.oracle._get_oracle_fname()):
            self.oracle.reload()

    def search(self, verbose: int | None = None) -> None:
        """Runs trials until the oracle stops or the deadline has come.

        Args:
            verbose: The verbosity of KerasTuner; None leaves it to the oracle.
        """
        if verbose is not None and not self._is_worker():
            self.oracle.verbose = verbose
        try:
            super().search()
        except _DeadlineReached:
            self.on_search_end()

    def pre_create_trial(self) -> None:
        """Ends the search at the deadline, unless this process is a worker, which leaves that to the chief."""
        if not self._is_worker() and self._deadline is not None and self._deadline():
            raise _DeadlineReached

    def on_tick(self) -> None:
        """Tells `on_progress` about trials that workers have ended, and lets none begin after the deadline; for the chief."""
        ended = self.oracle.end_order[self._told :]
        self._told += len(ended)
        if self._on_progress is not None:
            for trial_id in ended:
                self._on_progress(self, self.oracle.trials[trial_id])
        if self._deadline is not None and self._deadline():
            self.oracle.close()

    def run_trial(self, trial: Trial) -> dict[str, float]:
        """Evaluates one trial.

        Returns:
            The metrics by name, with the sum of several objectives, which KerasTuner's stock oracles want.

        Raises:
            MissingObjectiveError: `evaluate` reported no value for an objective or a constrained metric.
        """
        found = named("evaluate", self._evaluate(dict(trial.hyperparameters.values)))
        metrics = {name: number(value) for name, value in found.items()}
        needed = [("objective", one.name) for one in self._objectives] + [("constraints", one.metric) for one in self._constraints]
        for argument, name in needed:
            if name not in metrics:
                raise MissingObjectiveError(
                    f"`{argument}` must name reported metrics, but `{name}` is not among {sorted(metrics)}."
                )
        total = self.oracle.objective
        return {**metrics, total.name: total.get_value(metrics)}

    def on_trial_end(self, trial: Trial) -> None:
        """Hands the trial to the oracle, then to `on_progress`, unless this process is a worker."""
        super().on_trial_end(trial)
        if self._on_progress is not None and not self._is_worker():
            self._on_progress(self, trial)

    @property
    def _objectives(self) -> list[keras_tuner.Objective]:
        return getattr(self.oracle.objective, "objectives", [self.oracle.objective])

    def pareto_trials(self) -> list[Trial]:
        """The trials on the Pareto front under the constraints, in the order of `oracle.best_trials`."""
        return best_trials(self._trials(), self._objectives, constraints=self._constraints)

    def _trials(self) -> list[Trial]:
        """All trials, or on a worker the completed ones, since it can ask the chief for no others."""
        return self.oracle.get_best_trials(MANY) if self._is_worker() else list(self.oracle.trials.values())

    def pareto_subnets(self) -> list[Subnet]:
        """The subnets of the trials on the Pareto front, in the order of `pareto_trials`.

        Raises:
            DaquError: The tuner does not know the search space of its trials.
        """
        if self._space is None:
            raise DaquError("`space` must be given to the tuner, but received none: give it the SearchSpace of its trials.")
        return [self._space.subnet(trial.hyperparameters.values) for trial in self.pareto_trials()]

    def results_summary(self, num_trials: int = 20) -> None:
        """Prints how the trials ended, and a table of the front, sorted by the first objective.

        Args:
            num_trials: The most trials of the front to show, which are those that lie farthest apart.
        """
        trials, front = self._trials(), self.pareto_trials()
        shown = sorted(front[:num_trials], key=lambda trial: tuple(objective_point(trial, self._objectives)))
        print(f"{_endings(trials)}; {len(front)} on the Pareto front, {len(shown)} shown")
        print(_table(self._rows(shown)))

    def _rows(self, trials: list[Trial]) -> list[list[str]]:
        """The heads and cells of a table of trials, with their objectives, and with hyperparameters if they are few."""
        names = list(dict.fromkeys(name for trial in trials for name in trial.hyperparameters.values))
        names = names if len(names) <= FEW else []
        rows = [["trial", *(f"{objective.name} ({objective.direction})" for objective in self._objectives), *names]]
        for trial in trials:
            numbers = [_number(trial.metrics.get_last_value(objective.name)) for objective in self._objectives]
            rows.append([trial.trial_id, *numbers, *(_cell(trial.hyperparameters.values.get(name)) for name in names)])
        return rows
