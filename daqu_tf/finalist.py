"""Finishes one member of the front in a process of its own: extract, fine-tune, export, compare with the simulation.

Started by the pipeline as `python -m daqu_tf.finalist FOLDER NAME SECONDS`; one thread, so that several share a machine well.
"""

import os
import pathlib
import sys
import threading
import time

import numpy as np

from daqu_tf import atomic, costs, data, targets
from daqu_tf.config import RunConfig

LEARNING_RATE_SHARE = 0.75  # Of the supernet's peak: the weights are trained already.


def finish(folder: pathlib.Path, name: str, seconds: float) -> None:
    """Writes `models/NAME.tflite` and `finalists/NAME.json`, what the manifest says but for the latency."""
    import tensorflow as tf

    from daqu_tf.devices import HostDevice
    from daqu_tf.evaluation import Scorer, top1
    from daqu_tf.export import export_tflite, layer_table, round_biases
    from daqu_tf.pipeline import read_json, space_for
    from daqu_tf.supernet import StaticNetwork
    from daqu_tf.training import fine_tune
    from daqu_tf.weights import cut

    tf.config.threading.set_intra_op_parallelism_threads(1)
    config = RunConfig(**read_json(folder / "config.json")["flags"])
    dataset = data.load(config.dataset, config.seed)
    target = targets.get(config.target)
    space = space_for(config, dataset)
    subnet = space.subnet(read_json(folder / "finalists.json")[name]["values"])

    network = StaticNetwork(space, subnet)
    with np.load(folder / "supernet.npz") as arrays:
        network.load_arrays(cut(space, subnet, arrays))
    inherited = _accuracies(network, dataset)
    with np.load(folder / "teacher.npz") as teacher:
        probabilities = teacher["probabilities"]
    learning_rate = config.learning_rate * LEARNING_RATE_SHARE
    seed = config.seed + 1 + sorted(read_json(folder / "finalists.json")).index(name)
    steps = fine_tune(network, dataset, probabilities, seconds, config.batch_size, learning_rate, seed)

    network.load_arrays(round_biases(space, subnet, target, network.arrays()))

    scorer = Scorer(network, dataset.x_train)
    simulated = scorer.logits(dataset.x_test)
    path = folder / "models" / f"{name}.tflite"
    export_tflite(space, subnet, target, network.arrays(), path)
    written = HostDevice().predict(path, dataset.x_test)
    tuned = {"search": scorer.accuracy(dataset.x_search, dataset.y_search), "test": top1(simulated, dataset.y_test)}
    atomic.write_json(
        folder / "finalists" / f"{name}.json",
        {
            "name": name,
            "file": path.name,
            "space": space.name,
            "target": target.name,
            "dataset": dataset.name,
            "input": {"offset": dataset.input_offset, "scale": dataset.input_scale},
            "subnet": subnet.to_json(),
            "subnet_text": str(subnet),
            "genome": space.genome(subnet),
            "layers": layer_table(space, subnet, target),
            "accuracy": {"inherited": inherited, "fine_tuned": tuned, "file": {"test": top1(written, dataset.y_test)}},
            "top1_agreement": float(np.mean(written.argmax(1) == simulated.argmax(1))),
            "fine_tuning": {"seconds": seconds, "steps": steps},
            "macs": costs.macs(space, subnet),
            "parameters": costs.parameters(space, subnet),
        },
    )


def _accuracies(network, dataset) -> dict[str, float]:
    from daqu_tf.evaluation import Scorer

    scorer = Scorer(network, dataset.x_train)
    scorer.recalibrate()
    splits = (("search", dataset.x_search, dataset.y_search), ("test", dataset.x_test, dataset.y_test))
    return {split: scorer.accuracy(x, y) for split, x, y in splits}


def _die_with_parent() -> None:
    """Ends this process when the one that started it is gone, however it went."""
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    _die_with_parent()
    finish(pathlib.Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
