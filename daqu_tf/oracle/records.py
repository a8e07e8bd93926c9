"""The records in a journal of trials: one when a trial is given to a worker, and one when it ends. No KerasTuner is imported."""

import dataclasses
import json
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

RUNNING, COMPLETED, FAILED, INVALID = "RUNNING", "COMPLETED", "FAILED", "INVALID"  # KerasTuner's words.


@dataclasses.dataclass(frozen=True)
class TrialRecord:
    """The record in one line of `trials.jsonl`.

    Attributes:
        trial_id: The id of the trial.
        status: `RUNNING` when the trial is given to a worker; when it ends, `COMPLETED`, `FAILED`, or `INVALID`, after which it may
            run again.
        tuner_id: The id of the worker to which the trial is given.
        values: The values of the hyperparameters, in the first record of the trial.
        space: Hyperparameters that models have added to the space since the record before, as KerasTuner describes them.
        added: The values of hyperparameters that the model of the trial has added to those proposed, by name.
        metrics: The metrics of a trial that has ended, by name; None stands for a value that is no finite number.
        message: The error of a trial that failed; None for any other.
        seconds: The time for which the trial ran, in seconds.
        process: An id of the worker's process, which differs from that of an earlier process of the same worker; None where the
            worker does not tell.
        given_back: Whether the worker gives the trial back with this record, since its process ends in good order.
    """

    trial_id: str
    status: str
    tuner_id: str | None = None
    values: dict[str, Any] | None = None
    space: list[dict[str, Any]] | None = None
    added: dict[str, Any] | None = None
    metrics: dict[str, float | None] | None = None
    message: str | None = None
    seconds: float | None = None
    process: str | None = None
    given_back: bool | None = None

    @property
    def is_running(self) -> bool:
        """Whether this is the record of a trial that is given to a worker."""
        return self.status == RUNNING

    @property
    def figures(self) -> dict[str, float]:
        """The metrics by name, with NaN where there was no finite number."""
        return {name: math.nan if value is None else value for name, value in (self.metrics or {}).items()}

    def to_json(self) -> dict[str, Any]:
        """The record as a JSON object."""
        kept = (
            ("trial_id", "status", "tuner_id", "space", "values", "process", "given_back")
            if self.is_running
            else ("trial_id", "status", "space", "added", "metrics", "message", "seconds")
        )
        return {name: value for name in kept if (value := getattr(self, name)) is not None or name == "message"}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "TrialRecord":
        """The record that a JSON object describes, the inverse of `to_json`; fields of later versions are ignored."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: content[name] for name in names if name in content})


def ended(trial_id: str, status: str, metrics: Mapping[str, float], message: str | None, seconds: float) -> TrialRecord:
    """The record of a trial's end.

    Args:
        trial_id: The id of the trial.
        status: The status: `COMPLETED`, `FAILED` or `INVALID`.
        metrics: The metrics by name; numbers that are not finite become None.
        message: The error of a trial that failed; None for any other.
        seconds: The time for which the trial ran, in seconds.
    """
    finite = {name: float(value) if math.isfinite(value) else None for name, value in metrics.items()}
    return TrialRecord(trial_id, status, metrics=finite, message=message, seconds=round(seconds, 3))


def last_records(path: str | os.PathLike) -> Iterator[TrialRecord]:
    """The last record of each trial in a journal, which may be in use; a line that a kill cut short is left out.

    Args:
        path: The path of the journal.
    """
    found = {}
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                content = json.loads(line)
            except ValueError:
                continue
            if isinstance(content, dict) and {"trial_id", "status"} <= content.keys():
                found[content["trial_id"]] = TrialRecord.from_json(content)
    yield from found.values()
