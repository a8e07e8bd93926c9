"""The fine-tuning of subnets, as static networks that start from their part of the supernet's weights."""

import copy
import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from daqu_tf.data.dataset import Dataset
from daqu_tf.data.images import at_once
from daqu_tf.errors import DaquError
from daqu_tf.keras import keras
from daqu_tf.spaces.precisions import in_float
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.subnet import Subnet
from daqu_tf.supernet.scoring import Scorer
from daqu_tf.supernet.supernet import STEP_IMAGES, StaticNetwork, extract
from daqu_tf.supernet.weights import cut
from daqu_tf.training.batches import Augmentation, Batches, taught_labels
from daqu_tf.training.checkpoints import CHECKPOINT_SECONDS, Checkpoints, part
from daqu_tf.training.optimizer import Optimizer, cosine

Opinion = Callable[[tf.Tensor], tf.Tensor]  # From images to logits.
OnProgress = Callable[[float], None]  # Of the share that is done.
LEAST_FLOAT_SECONDS = 15.0  # A shorter float phase is not worth its trace.


@dataclasses.dataclass(frozen=True)
class FineTuning:
    """How a subnet is fine-tuned.

    Attributes:
        seconds: The time of the training in seconds, without tracing; used if `steps` is 0.
        steps: The number of steps, however long they take; 0 trains by time.
        batch_size: The number of images in a step.
        learning_rate: The peak learning rate of the weights; one cosine goes through both phases.
        seed: The seed of order and augmentation.
        augmentation: The augmentation of the images, one of `schedule.AUGMENTATIONS`.
        float_share: The share of the training, in [0, 1), that comes first and is in float. It is for random weights: after a
            supernet, a share of 0.7 makes 2 bits 7 points worse, and 8 bits no better (ours).
        distillation: The share, in [0, 1], of a teacher's opinion in what is taught, beside the labels. It is 0 by default, since a
            supernet that was trained for minutes is weaker than the subnet that it would teach (ours, by measurement).

    Raises:
        DaquError: Neither `seconds` nor `steps` is above 0.
    """

    seconds: float = 0.0
    steps: int = 0
    batch_size: int = 64
    learning_rate: float = 4e-3
    seed: int = 0
    augmentation: str = "auto"
    float_share: float = 0.0
    distillation: float = 0.0

    def __post_init__(self) -> None:
        if not (self.seconds > 0 or self.steps > 0):
            raise DaquError(f"`seconds` or `steps` must be above 0, but received {self.seconds} and {self.steps}.")


class FineTuner:
    """Trains subnets, each from its part of the supernet's weights and steps.

    They share the data, the teacher, and, where they differ in bits alone, the phase in float.

    Args:
        space: The space of the subnets.
        arrays: The supernet's weights by name, as `Supernet.arrays()` gives them; None begins with random weights, drawn from the
            seed. Where no step was ever set, each network sets its own.
        dataset: The data set, of which the train split is used.
        how: How each subnet is trained.
        teacher: What teaches, where something does, as a function from images (batch, height, width, channels) in [0, 1] to logits
            (batch, classes), such as a trained network; None takes the supernet's largest subnet.

    Raises:
        DaquError: The largest subnet is to teach, but there is no supernet.
    """

    def __init__(
        self,
        space: SearchSpace,
        arrays: Mapping[str, np.ndarray] | None,
        dataset: Dataset,
        how: FineTuning,
        teacher: Opinion | None = None,
    ):
        if how.distillation and arrays is None and teacher is None:
            raise DaquError(
                "`distillation` must be 0 without a teacher or the weights of a supernet, whose largest subnet teaches."
            )
        self._space, self._arrays, self._how = space, arrays, how
        self._images = dataset.x_train
        self._some_images = dataset.x_train[: at_once(STEP_IMAGES, dataset.image_shape)]
        self._batches = Batches(dataset, how.batch_size, how.seed, Augmentation.of(dataset, how.augmentation))
        self._teach = self._taught_by(teacher or self._largest()) if how.distillation else lambda images, labels: labels
        self._in_float: dict[Subnet, tuple[dict[str, np.ndarray], _Progress]] = {}

    def tune_sibling(
        self, parent: StaticNetwork, subnet: Subnet, how: FineTuning, checkpoints: Checkpoints | None = None
    ) -> tuple[StaticNetwork, int]:
        """Trains a subnet that differs in bits alone from one that was trained, from its weights.

        Args:
            parent: The network that was trained.
            subnet: The subnet.
            how: The length and the learning rate of the training; all else is as for the others.
            checkpoints: Where this training alone is kept, so that the next process goes on with it; None keeps nothing.

        Returns:
            The quantized network, recalibrated, and the number of steps.
        """
        progress, network = _Progress(how), StaticNetwork(self._space, subnet)
        network.load_arrays(parent.arrays())
        network.initialise_weight_steps(tuple(set(subnet.bits.values()) - set(parent.subnet.bits.values())))
        self._train(network, progress, 1.0, lambda done: None, checkpoints)
        Scorer(network, self._images).recalibrate()
        return network, progress.steps

    def tune(
        self, subnet: Subnet, on_progress: OnProgress = lambda done: None, checkpoints: Checkpoints | None = None
    ) -> tuple[StaticNetwork, int]:
        """Trains one subnet.

        Args:
            subnet: The subnet, which is one of the space.
            on_progress: Is called after each step with the share of the training that is done.
            checkpoints: Where this training alone is kept, so that the next process goes on with it; None keeps nothing.

        Returns:
            The quantized network, recalibrated, and the number of steps.
        """
        how, progress, arrays = self._how, _Progress(self._how), self._initial(subnet)
        float_first = how.float_share * how.seconds > LEAST_FLOAT_SECONDS or how.float_share * how.steps >= 1
        if float_first and not (checkpoints and _is_of(checkpoints.newest(), subnet)):
            arrays, progress = self._float_phase(subnet, arrays, on_progress, checkpoints)
        network = StaticNetwork(self._space, subnet)
        network.load_arrays(arrays)
        if float_first:  # A checkpoint of this phase has steps of its own.
            network.initialise_steps(self._some_images, self._space.weight_bits)
        self._train(network, progress, 1.0, on_progress, checkpoints)
        Scorer(network, self._images).recalibrate()
        return network, progress.steps

    def _initial(self, subnet: Subnet) -> dict[str, np.ndarray]:
        """The weights and steps from which a subnet is trained."""
        given = None if self._arrays is None else cut(self._space, subnet, self._arrays)
        if given is not None and any(array.any() for name, array in given.items() if name.endswith("_log_step")):
            return given
        keras.utils.set_random_seed(self._how.seed)
        network = StaticNetwork(self._space, subnet)
        if given is not None:  # The weights of a network that was trained elsewhere, in float.
            network.load_arrays(given)
        network.initialise_steps(self._some_images, self._space.weight_bits)
        return network.arrays()

    def _float_phase(
        self, subnet: Subnet, arrays: dict[str, np.ndarray], on_progress: OnProgress, checkpoints: Checkpoints | None
    ) -> tuple[dict[str, np.ndarray], "_Progress"]:
        """The weights after the phase in float, with the steps of quantizers as before, and the progress of the training."""
        architecture = in_float(subnet)
        if architecture not in self._in_float:
            network, progress = StaticNetwork(self._space, architecture), _Progress(self._how)
            network.load_arrays(arrays)
            self._train(network, progress, self._how.float_share, on_progress, checkpoints)
            self._in_float[architecture] = network.arrays(), progress
        arrays, progress = self._in_float[architecture]
        return arrays, copy.copy(progress)

    def _train(
        self,
        network: StaticNetwork,
        progress: "_Progress",
        until: float,
        on_progress: OnProgress,
        checkpoints: Checkpoints | None,
    ) -> None:
        """Takes steps, at least one, until the share `until` of the fine-tuning is over; goes on where a checkpoint stands."""
        optimizer = Optimizer(network, progress.how.learning_rate)
        if checkpoints and (found := checkpoints.newest()) and _is_of(found, network.subnet):
            arrays, state = found
            network.load_arrays(part(arrays, "network/"))
            optimizer.load_arrays(part(arrays, "optimizer/"))
            progress.go_on(state)
        progress.begin()
        saved = time.monotonic()
        for images, labels in self._batches.starting_at(progress.steps):
            optimizer.accumulate(images, self._teach(images, labels))
            optimizer.apply(cosine(progress.done))
            progress.count()
            on_progress(progress.done)
            if progress.done >= until:
                return
            if checkpoints and time.monotonic() - saved > CHECKPOINT_SECONDS:
                checkpoints.save(progress.steps, _arrays(network, optimizer), progress.state | {"subnet": network.subnet.to_json()})
                saved = time.monotonic()

    def _largest(self) -> StaticNetwork:
        """The supernet's largest subnet, recalibrated."""
        assert self._arrays is not None
        largest = extract(self._space, self._space.largest(), self._arrays)
        Scorer(largest, self._images).recalibrate()
        return largest

    def _taught_by(self, teacher: Opinion) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        """The function that turns images and labels into what is taught."""
        opinion = tf.function(lambda images: tf.nn.softmax(teacher(images)), autograph=False)
        return lambda images, labels: taught_labels(labels, opinion(images), self._how.distillation)


def seconds_done(checkpoints: Checkpoints) -> float:
    """For how many seconds the subnet of the newest checkpoint was trained; 0 where there is none."""
    found = checkpoints.newest()
    return found[1]["seconds"] if found else 0.0


def _is_of(found: tuple[Mapping[str, np.ndarray], Mapping[str, Any]] | None, subnet: Subnet) -> bool:
    """Whether a checkpoint, if there is one, is of this subnet at these bits."""
    return found is not None and found[1]["subnet"] == subnet.to_json()


def _arrays(network: StaticNetwork, optimizer: Optimizer) -> dict[str, np.ndarray]:
    parts = {"network": network.arrays(), "optimizer": optimizer.arrays()}
    return {f"{name}/{key}": array for name, arrays in parts.items() for key, array in arrays.items()}


class _Progress:
    """The progress of the training of one subnet."""

    def __init__(self, how: FineTuning):
        self.how = how
        self.steps, self._seconds = 0, 0.0
        self._ended: float | None = None

    @property
    def done(self) -> float:
        """The share of the training that is over, in [0, 1]."""
        return min(1.0, self.steps / self.how.steps if self.how.steps else self._seconds / self.how.seconds)

    @property
    def state(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return {"steps": self.steps, "seconds": self._seconds}

    def go_on(self, state: Mapping[str, float]) -> None:
        """Goes to where a checkpoint was saved."""
        self.steps, self._seconds = int(state["steps"]), state["seconds"]

    def begin(self) -> None:
        """Notes that the next step traces, so that its time does not count."""
        self._ended = None

    def count(self) -> None:
        """Notes that a step has ended."""
        now = time.monotonic()
        self._seconds += now - self._ended if self._ended else 0.0
        self._ended = now
        self.steps += 1
