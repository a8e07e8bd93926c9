"""A search of small Keras 3 models by KerasTuner's own tuner, in a process of its own: `python keras3_search.py FOLDER`.

The other tests are about Keras 2. The same script is chief and worker where KerasTuner's environment variables say so.
"""

import json
import os
import pathlib
import sys

import keras
import keras_tuner
import numpy as np

from daqu_tf.oracle.distributed_tuner import DistributedTuner
from daqu_tf.oracle.oracle import ParetoOracle

TRIALS, EPOCHS = 7, 2
RNG = np.random.default_rng(0)
X = RNG.normal(size=(128, 8)).astype(np.float32)
Y = (X[:, 0] * X[:, 1] > 0).astype(np.float32)


class Model(keras_tuner.HyperModel):
    def build(self, hp):
        layers = [
            keras.layers.Dense(hp.Choice(f"units_{index}", [2, 4, 8]), hp.Choice("activation", ["relu", "tanh"]))
            for index in range(hp.Choice("layers", [1, 2]))
        ]
        model = keras.Sequential([keras.layers.Input((8,)), *layers, keras.layers.Dense(1, "sigmoid")])
        model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
        return model

    def fit(self, hp, model, *args, **kwargs):
        history = super().fit(hp, model, *args, **kwargs).history
        return {"val_accuracy": max(history["val_accuracy"]), "parameters": model.count_params()}


class Epochs(keras.callbacks.Callback):
    """Counts in a file, since KerasTuner gives every trial a copy of its own."""

    def __init__(self, path):
        super().__init__()
        self.path, self.mine = path, 0

    def on_epoch_end(self, epoch, logs=None):
        self.mine += 1
        with open(self.path, "a") as file:
            file.write(f"{self.mine}\n")


class Tuner(DistributedTuner, keras_tuner.Tuner):
    pass


def build(hp):
    """As in KerasTuner's guide: how many units there are is found out layer by layer."""
    model = keras.Sequential([keras.layers.Input((8,))])
    for index in range(hp.Int("num_layers", 1, 3)):
        units = hp.Int(f"units_{index}", min_value=2, max_value=16, step=2)
        model.add(keras.layers.Dense(units, hp.Choice("activation", ["relu", "tanh"])))
    if hp.Boolean("dropout"):
        model.add(keras.layers.Dropout(rate=0.25))
    model.add(keras.layers.Dense(1, "sigmoid"))
    rate = hp.Float("lr", min_value=1e-4, max_value=1e-2, sampling="log")
    model.compile(keras.optimizers.Adam(rate), "binary_crossentropy", metrics=["accuracy"])
    return model


def guide(folder: pathlib.Path, kind: type, trials: int) -> None:
    tuner = kind(ParetoOracle("val_accuracy", trials), build, directory=str(folder), project_name="search")
    tuner.search(X[:96], Y[:96], epochs=EPOCHS, validation_data=(X[96:], Y[96:]), verbose=0)
    if os.environ.get("KERASTUNER_TUNER_ID", "chief") == "chief":
        tuner.results_summary(2)
    if "KERASTUNER_TUNER_ID" not in os.environ:
        best, values = tuner.get_best_models(2)[0], tuner.get_best_hyperparameters()[0].values
        _, accuracy = best.evaluate(X[96:], Y[96:], verbose=0)
        found = {"trials": len(tuner.oracle.trials), "layers": len(best.layers), "values": values}
        print(json.dumps(found | {"accuracy": accuracy, "score": tuner.oracle.get_best_trials()[0].score}))


def main(folder: pathlib.Path, kind: type, trials: int) -> None:
    space = keras_tuner.HyperParameters()
    for name, values in {"layers": [1, 2], "units_0": [2, 4, 8], "units_1": [2, 4, 8], "activation": ["relu", "tanh"]}.items():
        space.Choice(name, values)
    objectives = [keras_tuner.Objective("val_accuracy", "max"), keras_tuner.Objective("parameters", "min")]
    oracle = ParetoOracle(objectives, trials, space, initial_random=4)
    tuner = kind(oracle, Model(), directory=str(folder), project_name="search")
    callback = Epochs(folder / "epochs.txt")
    tuner.search(X[:96], Y[:96], epochs=EPOCHS, validation_data=(X[96:], Y[96:]), callbacks=[callback], verbose=0)
    if os.environ.get("KERASTUNER_TUNER_ID", "chief") == "chief":
        front = {trial.trial_id: trial.hyperparameters.values for trial in oracle.pareto_trials()}
        best = oracle.get_best_trials(1)[0]
        print(json.dumps({"trials": len(oracle.trials), "front": front, "best": best.trial_id, "score": best.score}))


if __name__ == "__main__":
    kind = keras_tuner.Tuner if sys.argv[2].startswith("own") else Tuner
    (guide if sys.argv[2].endswith("guide") else main)(pathlib.Path(sys.argv[1]), kind, int(sys.argv[3]))
