"""Images a second of what a job trains, beside plain tf_keras and TFMOT's quantization-aware training of the same networks.

    python benchmarks/training_speed.py --spaces=resnet,mobilenet_v2

For each hand-scaled network of a space there are five trainings: the supernet with that network active, the finalist in float, the
finalist at 8 bits, tf_keras in float, and TFMOT. All take steps of 128 images in turn, in one process, on all cores: forward,
backward and update. A step of the supernet takes as many subnets as the sandwich rule does, here all the same one, before one
update of all weights, and its images count once for each. tf_keras and TFMOT train as `practitioner.py` does it, by AdamW in a
`tf.function`. Images are random: time does not depend on them.
"""

import json
import os
import time
from collections.abc import Callable

import numpy as np
import records
from absl import app, flags
from supernet_step import BATCH, SupernetStep, TfmotStep, images_of

import daqu_tf
from daqu_tf import spaces, targets
from daqu_tf.spaces.hand_scaled import hand_scaled
from daqu_tf.spaces.precisions import in_float
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.subnet import Subnet
from daqu_tf.training.samplers import Sandwich

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
LEAST_OF_KERAS, LEAST_OF_TFMOT = 0.9, 1.1
UNTIMED = 5  # Steps of each before those that are timed: they trace, and warm the caches up.

# The flags are those of `supernet_step.py`, from which the steps come.
flags.FLAGS.set_default("spaces", "resnet,mobilenet_v2")
flags.FLAGS.set_default("steps", 60)


class KerasStep(TfmotStep):
    """A step of the subnet's architecture in stock layers, in float."""

    def model(self, subnet: Subnet):
        """The network that is trained."""
        from daqu_tf.supernet.baked import bake
        from daqu_tf.supernet.supernet import StaticNetwork

        return bake(StaticNetwork(self._space, in_float(subnet)))


class SandwichStep(SupernetStep):
    """A step of the supernet by the sandwich rule, whose subnets are all one."""

    images = BATCH * Sandwich.SUBNETS

    def __call__(self) -> float:
        """Returns the loss of the last subnet."""
        for _ in range(Sandwich.SUBNETS):
            loss, _ = self.optimizer.accumulate(*self._batch)
        self.optimizer.apply(0.5)
        return float(loss)


class FinalistStep:
    """A step of `fine_tuning.py` on one subnet."""

    def __init__(self, space: SearchSpace, subnet: Subnet):
        import tensorflow as tf

        from daqu_tf.supernet.supernet import StaticNetwork
        from daqu_tf.training.optimizer import Optimizer

        network, images = StaticNetwork(space, subnet), images_of(space)
        if subnet != in_float(subnet):
            network.initialise_steps(images, space.weight_bits)
        self._optimizer = Optimizer(network, 1e-4)
        labels = np.random.default_rng(1).integers(0, space.num_classes, BATCH)
        self._batch = tf.constant(images), tf.one_hot(labels, space.num_classes)

    def __call__(self) -> float:
        """Returns the loss."""
        loss, _ = self._optimizer.accumulate(*self._batch)
        self._optimizer.apply(0.5)
        return float(loss)


def steps_of(space: SearchSpace, supernet: SandwichStep, subnet: Subnet) -> dict[str, Callable[[], float]]:
    """A step of each training, by its name."""
    stock = {"tf_keras": KerasStep(space), "tfmot": TfmotStep(space)}
    for step in (supernet, *stock.values()):
        step.prepare(subnet)
    finalists = {"finalist_float": FinalistStep(space, in_float(subnet)), "finalist_quantized": FinalistStep(space, subnet)}
    return {"supernet": supernet, **finalists, **stock}


def images_a_second(steps: dict[str, Callable[[], float]], count: int) -> dict[str, float]:
    """In the median over `count` steps of each, one after the other in turn."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(-UNTIMED, count):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            if turn >= 0:
                taken[name].append(time.perf_counter() - began)
    return {name: getattr(steps[name], "images", BATCH) / float(np.median(some)) for name, some in taken.items()}


def measure(space: SearchSpace, quick: bool) -> list[dict]:
    """One row a hand-scaled network."""
    supernet, rows = SandwichStep(space), []
    for subnet in hand_scaled(space)[: 1 if quick else None]:
        found = images_a_second(steps_of(space, supernet, subnet), 10 if quick else flags.FLAGS.steps)
        ratios = {
            "float_of_keras": found["finalist_float"] / found["tf_keras"],
            "quantized_of_tfmot": found["finalist_quantized"] / found["tfmot"],
            "supernet_of_tfmot": found["supernet"] / found["tfmot"],
        }
        rows.append({"space": space.name, "subnet": str(subnet), "images_a_second": found, "ratios": ratios})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def main(argv: list[str]) -> None:
    """Measures and writes `results/training_speed.json`."""
    del argv
    daqu_tf.check_keras()
    results, bars, quick = [], [], flags.FLAGS.quick
    for name in flags.FLAGS.spaces[: 1 if quick else None]:
        rows = measure(targets.get("litert_cpu").restrict(spaces.get(name)), quick)
        results += rows
        for ratio, text, limit in (
            ("float_of_keras", "finalist in float over tf_keras", LEAST_OF_KERAS),
            ("quantized_of_tfmot", "finalist at 8 bits over TFMOT", LEAST_OF_TFMOT),
            ("supernet_of_tfmot", "supernet over TFMOT", LEAST_OF_TFMOT),
        ):
            median = float(np.median([row["ratios"][ratio] for row in rows]))
            bars.append(records.bar(f"{name}: images a second, {text}, median", median, limit, "at_least", "ratio"))
    print(f"Wrote {records.write('training_speed_quick' if quick else 'training_speed', [0], results, bars)}")


if __name__ == "__main__":
    app.run(main)
