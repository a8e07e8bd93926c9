"""A journal's trials in the files that KerasTuner itself keeps, for its own tools and those of others."""

import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus
from keras_tuner.src.engine.metrics_tracking import MetricsTracker

from daqu_tf import files
from daqu_tf.errors import DaquError
from daqu_tf.oracle import journal
from daqu_tf.oracle.records import TrialRecord

ENDED = (TrialStatus.COMPLETED, TrialStatus.FAILED)


def write(path: str | os.PathLike, folder: str | os.PathLike) -> int:
    """Writes `oracle.json`, and `trial_ID/trial.json` for every trial, as a stock oracle reloads them.

    It would go on with them: none is proposed again, and those that have not ended run first.

    Args:
        path: The journal, which may be in use.
        folder: Is made where it is missing; what lies there is replaced.

    Returns:
        How many trials there are.

    Raises:
        DaquError: There is no journal, or a damaged one.
    """
    if not os.path.exists(path):
        raise DaquError(f"{path} does not exist: name the folder of a search that has begun.")
    header = journal.header(path)
    if "identity" not in header or "hyperparameters" not in (header.get("notes") or {}):
        raise DaquError(f"{path} is no journal of a search, or of another version: name the folder of a search that has begun.")
    records = journal.Journal(path, header["identity"]).read()
    folder = pathlib.Path(folder)
    oracle = _stock_oracle(header)
    oracle._set_project_dir(str(folder.parent), folder.name)
    for record in map(TrialRecord.from_json, records):
        _take_in(oracle, record)
    space = oracle.hyperparameters.get_config()["space"]
    for trial_id, trial in oracle.trials.items():
        values = trial.hyperparameters.values
        if trial.status not in ENDED:
            oracle._retry_queue.append(trial_id)
        oracle._id_to_hash[trial_id] = oracle._compute_values_hash(values)
        (folder / f"trial_{trial_id}").mkdir(parents=True, exist_ok=True)
        state = trial.get_state() | {"hyperparameters": {"space": space, "values": values}}
        files.write_json(folder / f"trial_{trial_id}" / "trial.json", state)
    oracle._tried_so_far = set(oracle._id_to_hash.values())
    files.write_json(folder / "oracle.json", oracle.get_state())
    return len(oracle.trials)


def _stock_oracle(header: Mapping[str, Any]) -> keras_tuner.Oracle:
    identity = header["identity"]
    hyperparameters = keras_tuner.HyperParameters.from_config(header["notes"]["hyperparameters"])
    objectives = [keras_tuner.Objective(name, direction) for name, direction in identity["objectives"].items()]
    return keras_tuner.Oracle(objectives, hyperparameters=hyperparameters, seed=identity["seed"])


def _take_in(oracle: keras_tuner.Oracle, record: TrialRecord) -> None:
    trial_id = record.trial_id
    if record.space:
        added = keras_tuner.HyperParameters.from_config({"space": record.space, "values": {}})
        oracle.hyperparameters.merge(added, overwrite=False)
    if record.values is not None:
        hyperparameters = keras_tuner.HyperParameters()
        hyperparameters.values = record.values
        oracle.trials[trial_id] = Trial(hyperparameters, trial_id)
        oracle.start_order.append(trial_id)
    trial = oracle.trials[trial_id]
    trial.status, trial.message = record.status, record.message
    if record.is_running:
        return
    trial.hyperparameters.values |= record.added or {}
    oracle._run_times[trial_id] += 1
    trial.metrics = _tracker({name: value for name, value in record.figures.items() if math.isfinite(value)}, oracle.objective)
    if trial.status == TrialStatus.COMPLETED:
        oracle.score_trial(trial)
    if trial.status in ENDED:
        oracle.end_order.append(trial_id)


def _tracker(metrics: Mapping[str, float], objective: Any) -> MetricsTracker:
    """The metrics, with KerasTuner's sum of the objectives, which its score is."""
    tracker = MetricsTracker()
    for name, value in metrics.items():
        tracker.register(name, objective.name_to_direction.get(name))
        tracker.update(name, value)
    if objective.has_value(metrics):
        tracker.register(objective.name, objective.direction)
        tracker.update(objective.name, objective.get_value(metrics))
    return tracker
