"""A search whose space opens while models are built, as in KerasTuner's guide: `units_0`, `units_1`, ... for as many layers."""

import json
import os
import pathlib

import keras_tuner
from keras_tuner.engine.base_tuner import BaseTuner

from daqu_tf.oracle.distributed_tuner import DistributedTuner
from daqu_tf.oracle.oracle import ParetoOracle

OBJECTIVES = [keras_tuner.Objective("accuracy", "max"), keras_tuner.Objective("units", "min")]


def build(hp: keras_tuner.HyperParameters) -> list[int]:
    """What stands for a model: the units of its layers."""
    units = [hp.Int(f"units_{layer}", 32, 512, step=32) for layer in range(hp.Int("num_layers", 1, 3))]
    if hp.Boolean("dropout"):
        units[-1] -= int(units[-1] * hp.Float("rate", 0.1, 0.5))
    return units


def make_oracle(max_trials: int, **kwargs) -> ParetoOracle:
    return ParetoOracle(list(OBJECTIVES), max_trials, **{"seed": 3, "initial_random": 4, **kwargs})


class OpeningTuner(DistributedTuner, BaseTuner):
    """Builds anew for each trial, and writes down who did."""

    def run_trial(self, trial):
        units = self.hypermodel.build(trial.hyperparameters)
        path = pathlib.Path(self.directory) / "evaluated.txt"
        with path.open("a") as file:
            file.write(json.dumps([os.environ.get("KERASTUNER_TUNER_ID"), trial.hyperparameters.values]) + "\n")
        return {"accuracy": 1 - 1 / sum(units) - 0.001 * len(units), "units": float(sum(units))}


def make_tuner(oracle, evaluation, folder, patience_seconds=30.0) -> OpeningTuner:
    """As `search_processes.Search` makes one; the evaluation is the tuner's own."""
    return OpeningTuner(oracle, build, directory=str(folder), project_name="search", patience_seconds=patience_seconds)
