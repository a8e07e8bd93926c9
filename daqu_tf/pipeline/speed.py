"""How fast this machine trains networks, which says what a job's minutes are worth."""

import dataclasses
import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from daqu_tf import files
from daqu_tf.pipeline import processes
from daqu_tf.spaces import SearchSpace
from daqu_tf.spaces.hand_scaled import hand_scaled
from daqu_tf.targets import costs

BATCH, STEPS, LEAST_STEPS, SECONDS = 128, 20, 3, 2.0  # Of a timing; two more steps trace and warm up.


@dataclasses.dataclass(frozen=True)
class Speed:
    """What a training step of a network takes on one core, for networks of two sizes.

    Attributes:
        macs: The multiplications of each network, ascending.
        seconds: The seconds that a step takes for each image.
        opinion: The seconds that the opinion of a given teacher takes for each image; 0 where there is none.
    """

    macs: tuple[float, ...]
    seconds: tuple[float, ...]
    opinion: float = 0.0

    def seconds_an_image(self, macs: float) -> float:
        """The seconds of a network with so many multiplications, on the line through both, but at least the quicker one's."""
        (small, large), (quick, slow) = self.macs, self.seconds
        slope = (slow - quick) / max(large - small, 1)
        return max(quick + slope * (macs - small), min(self.seconds))

    def to_json(self) -> dict[str, Any]:
        """The speed as a JSON object."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Speed":
        """The inverse of `to_json`."""
        return cls(tuple(content["macs"]), tuple(content["seconds"]), content.get("opinion", 0.0))


USUAL = Speed((4e5, 3.5e6), (1.6e-4, 5.5e-4))  # Of `resnet` on an AMD EPYC with AVX-512 (ours), where nothing is timed.


def measure(space: SearchSpace) -> Speed:
    """Times the smallest and the largest network that people scale by hand, each in a process of its own, at once.

    Raises:
        DaquError: A process failed (how is said).
    """
    ends = [hand_scaled(space)[index] for index in (0, -1)]
    with tempfile.TemporaryDirectory() as name, processes.Processes() as children:
        folder = pathlib.Path(name)
        files.write_json(folder / "space.json", space.to_json())
        for index in (0, -1):
            arguments = [str(folder / "space.json"), str(index)]
            children.running[str(index)] = processes.start("pipeline.speed", arguments, folder, folder / f"{index}.log")
        seconds = tuple(map(float, children.last_lines("times a training step").values()))
    return Speed(tuple(float(costs.macs(space, one)) for one in ends), (min(seconds), max(seconds)))


def time_step(space: SearchSpace, index: int) -> float:
    """The seconds that a training step takes for each image, of one of the networks that people scale by hand."""
    import tensorflow as tf

    from daqu_tf.supernet.supernet import StaticNetwork
    from daqu_tf.training.batches import Augmentation
    from daqu_tf.training.optimizer import Optimizer

    rng = np.random.default_rng(0)
    images = rng.random((BATCH, *space.input_shape), np.float32)
    labels = np.eye(space.num_classes, dtype=np.float32)[rng.integers(0, space.num_classes, BATCH)]
    network = StaticNetwork(space, hand_scaled(space)[index])
    network.initialise_steps(images, space.weight_bits)
    optimizer, taken = Optimizer(network, 1e-3), []
    augment = tf.function(Augmentation(1, True), autograph=False)  # It takes its time on the same core.
    for number in range(STEPS):
        began = time.monotonic()
        optimizer.accumulate(augment(images, tf.constant([0, number])), labels)
        optimizer.apply(1.0)
        taken.append(time.monotonic() - began)
        if len(taken) >= 2 + LEAST_STEPS and sum(taken[2:]) > SECONDS:
            break
    return float(np.median(taken[2:])) / BATCH


def main(arguments: list[str]) -> None:
    """A process that `measure` has started."""
    processes.die_with(int(arguments[2]))
    processes.compute_on_one_thread()
    space = SearchSpace.from_json(json.loads(pathlib.Path(arguments[0]).read_text()))
    print(json.dumps(time_step(space, int(arguments[1]))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
