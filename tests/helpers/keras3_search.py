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
    main(pathlib.Path(sys.argv[1]), {"own": keras_tuner.Tuner, "ours": Tuner}[sys.argv[2]], int(sys.argv[3]))
