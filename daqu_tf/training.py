"""The training of the supernet, warm-up then precision transfer, and the fine-tuning of one subnet.

Everything random is drawn from (seed, step), so that a resumed run needs no other state than its step and its clock.
"""

import csv
import dataclasses
import json
import math
import pathlib
import time
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from daqu_tf import atomic
from daqu_tf.data import Dataset
from daqu_tf.errors import DaquError
from daqu_tf.evaluation import Scorer
from daqu_tf.space import FLOAT_BITS, SearchSpace, Subnet
from daqu_tf.supernet import Network, StaticNetwork, Supernet
from daqu_tf.weights import cut

RANDOM_SUBNETS = 2  # A step of the sandwich rule: largest, smallest and two random subnets, as others found to work.
WARMUP_SHARE = 0.4  # Of the training time.
OPENING_SHARE = 0.4  # Of the precision transfer: by then every width is open; the lowest needs the rest.
CHECKPOINT_SECONDS = 30.0
PANEL_SECONDS = 120.0
STEP_RATE = 5e-3  # Peak learning rate of the quantizers' log steps, under an Adam of their own.
WEIGHT_DECAY, CLIP_NORM, BETAS = 0.02, 5.0, (0.9, 0.999)
STEP_IMAGES = 128  # From which activation steps are set.
FLOAT_SHARE = 0.7  # Of the time of fine-tuning,
LEAST_FLOAT_SECONDS = 15.0  # unless the share is shorter than the second trace is worth.


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How the supernet is trained.

    Attributes:
        seconds: Of training in all, without tracing and scoring.
        batch_size: Images a step.
        learning_rate: The peak; one cosine goes through both phases, since annealing and restarting costs accuracy.
        warmup: Whether there is a full-precision phase first.
        precision_transfer: `progressive` opens widths from high to low; `all_at_once` all together.
        seed: Of everything random.
    """

    seconds: float
    batch_size: int
    learning_rate: float
    warmup: bool
    precision_transfer: str
    seed: int

    def phase(self, done: float) -> str:
        """The phase after a share `done` of the time."""
        return "warmup" if self.warmup and done < WARMUP_SHARE else "precision_transfer"

    def open_widths(self, alphabet: tuple[int, ...], done: float) -> tuple[int, ...]:
        """The weight widths in use after a share `done` of the time, ascending."""
        if self.phase(done) == "warmup":
            return ()
        if self.precision_transfer == "all_at_once":
            return alphabet
        start = WARMUP_SHARE if self.warmup else 0.0
        transferred = (done - start) / (1.0 - start)
        count = 1 + int(transferred / OPENING_SHARE * (len(alphabet) - 1))
        return alphabet[-count:] if count < len(alphabet) else alphabet


class Optimizer:
    """Sums gradients over the subnets of a step, then moves weights by AdamW and log steps by an Adam of their own.

    All variables are one flat vector here: an update of a hundred small variables one by one takes a fifth of a step's time.
    AdamW is Loshchilov and Hutter's (ICLR 2019), with gradients clipped by their global norm.

    Args:
        network: What is trained.
        learning_rate: Peak of the weights'.
    """

    def __init__(self, network: Network, learning_rate: float):
        self._network, self._peak = network, learning_rate
        is_step = {v.ref(): "log_step" in v.name for v in network.trainable_variables}
        self._variables = sorted(network.trainable_variables, key=lambda v: is_step[v.ref()])
        self._sizes = [int(np.prod(v.shape)) for v in self._variables]
        self._weights = sum(size for v, size in zip(self._variables, self._sizes) if not is_step[v.ref()])
        rates = [STEP_RATE if is_step[v.ref()] else learning_rate for v in self._variables]
        decays = [WEIGHT_DECAY * learning_rate if v.name.endswith("kernel:0") else 0.0 for v in self._variables]
        self._rate, self._decay = (tf.constant(np.repeat(x, self._sizes), tf.float32) for x in (rates, decays))
        self.gradient = tf.Variable(tf.zeros_like(self._rate), trainable=False)
        self.mean, self.square, self._direction = (tf.Variable(tf.zeros_like(self._rate), trainable=False) for _ in range(3))
        self.updates = tf.Variable(0.0, trainable=False)
        shape = [None, *network.space.input_shape]
        signature = [tf.TensorSpec(shape), tf.TensorSpec([None, network.space.num_classes])]
        self.accumulate = tf.function(self._accumulate, input_signature=signature, autograph=False)
        self._apply = tf.function(self._update, input_signature=[tf.TensorSpec([])], autograph=False)

    def _accumulate(self, images, targets):
        """Adds the active subnet's gradients; `targets` are class probabilities. Returns the loss."""
        with tf.GradientTape() as tape:
            logits = self._network(images, training=True)
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(targets, logits))
        # A subnet leaves many variables out.
        gradients = tape.gradient(loss, self._variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        self.gradient.assign_add(_flat(gradients))
        return loss

    def _update(self, factor):
        gradient = self.gradient.read_value()
        # One bad batch must not end hours of training: its gradients count as zero.
        gradient = tf.where(tf.reduce_all(tf.math.is_finite(gradient)), gradient, 0.0)
        norm = tf.norm(gradient[: self._weights])
        weights = gradient[: self._weights] * (CLIP_NORM / tf.maximum(norm, CLIP_NORM))
        gradient = tf.concat([weights, gradient[self._weights :]], 0)
        change = self._rate * self._adam(gradient) - self._decay * _flat(self._variables)
        for variable, part in zip(self._variables, tf.split(factor * change, self._sizes)):
            variable.assign_add(tf.reshape(part, variable.shape))
        self.gradient.assign(tf.zeros_like(self.gradient))

    def _adam(self, gradient):
        """Adam's step at a learning rate of 1: TensorFlow's fused kernel, on a vector of zeros."""
        count = self.updates.assign_add(1.0)
        self._direction.assign(tf.zeros_like(gradient))
        tf.raw_ops.ResourceApplyAdam(
            var=self._direction.handle,
            m=self.mean.handle,
            v=self.square.handle,
            beta1_power=tf.pow(BETAS[0], count),
            beta2_power=tf.pow(BETAS[1], count),
            lr=1.0,
            beta1=BETAS[0],
            beta2=BETAS[1],
            epsilon=1e-7,
            grad=gradient,
        )
        return self._direction.read_value()

    def apply(self, done: float) -> float:
        """Moves the variables at share `done` of the schedule; returns the learning rate."""
        factor = min(1.0, done / 0.03 + 0.02) * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0))))
        self._apply(factor)
        return self._peak * factor


def _flat(tensors) -> tf.Tensor:
    return tf.concat([tf.reshape(x, [-1]) for x in tensors], 0)


class Batches:
    """Augmented training batches by step number.

    Args:
        dataset: Where the images are from.
        batch_size: Images a batch.
        seed: Of order and augmentation.
    """

    def __init__(self, dataset: Dataset, batch_size: int, seed: int):
        if batch_size > len(dataset.x_train):
            raise DaquError(f"`batch_size` must be at most the {len(dataset.x_train)} training images, but received {batch_size}.")
        self._dataset, self._size, self._seed = dataset, batch_size, seed
        self._epoch, self._order = -1, None
        self.per_epoch = len(dataset.x_train) // batch_size

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels of one step."""
        epoch, position = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self._seed, 1, epoch]).permutation(len(self._dataset.x_train))
        chosen = self._order[position * self._size : (position + 1) * self._size]
        rng = np.random.default_rng([self._seed, 2, step])
        images = augment(self._dataset.x_train[chosen], rng, flip=flips(self._dataset.name))
        return images, self._dataset.y_train[chosen]


def flips(dataset_name: str) -> bool:
    """Whether mirrored images keep their class: digits and letters do not; an unknown data set is left alone."""
    stem = pathlib.Path(dataset_name).stem
    return stem.startswith(("fashion_mnist", "cifar"))


def augment(images: np.ndarray, rng: np.random.Generator, flip: bool) -> np.ndarray:
    """Shifts each image by up to a fourteenth of its side, at least a pixel, with edges repeated, and mirrors half of them."""
    count, height, width, _ = images.shape
    most = max(1, height // 14)
    padded = np.pad(images, ((0, 0), (most, most), (most, most), (0, 0)), mode="edge")
    rows, columns = rng.integers(0, 2 * most + 1, (2, count, 1))
    columns = columns + np.arange(width)
    if flip:
        columns = np.where(rng.random((count, 1)) < 0.5, columns[:, ::-1], columns)
    rows = rows + np.arange(height)
    return padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def sandwich(space: SearchSpace, widths: tuple[int, ...], rng: np.random.Generator) -> list[Subnet]:
    """The subnets of one step: the largest at the highest open precision, then the smallest and random ones.

    Bits of the smallest are uniform but random; the random subnets have mixed bits, and one in four of them is the largest
    architecture at a random uniform width, without which it is never trained below 8 bits (ours, after BatchQuant).

    Args:
        space: Of the subnets.
        widths: The open weight widths; none means float.
        rng: Where the choices come from.
    """
    if not widths:
        chosen = [space.largest(), space.smallest(), *(space.sample_by_gene(rng) for _ in range(RANDOM_SUBNETS))]
        return [subnet.with_bits(FLOAT_BITS, FLOAT_BITS) for subnet in chosen]
    opened = space.restrict(weight_bits=widths)
    chosen = [opened.largest(), _uniform(opened.smallest(), opened, rng)]
    for _ in range(RANDOM_SUBNETS):
        chosen.append(_uniform(opened.largest(), opened, rng) if rng.random() < 0.25 else opened.sample_by_gene(rng))
    return chosen


def _uniform(subnet: Subnet, space: SearchSpace, rng: np.random.Generator) -> Subnet:
    return subnet.with_bits(int(rng.choice(space.weight_bits)), int(rng.choice(space.activation_bits)))


class SupernetTraining:
    """The two phases over one supernet, resumable.

    Args:
        supernet: What is trained.
        dataset: Train and search splits are used.
        scorer: Of the supernet.
        schedule: How.
        folder: Checkpoints and `training.csv` go here.
    """

    def __init__(self, supernet: Supernet, dataset: Dataset, scorer: Scorer, schedule: Schedule, folder: pathlib.Path):
        self._supernet, self._dataset, self._schedule, self._folder = supernet, dataset, schedule, folder
        self._batches = Batches(dataset, schedule.batch_size, schedule.seed)
        self._optimizer = Optimizer(supernet, schedule.learning_rate)
        self._scorer = scorer
        self._state = tf.Variable(json.dumps({"step": 0, "seconds": 0.0, "open": []}), trainable=False)
        optimizer = {name: getattr(self._optimizer, name) for name in ("mean", "square", "updates")}
        checkpoint = tf.train.Checkpoint(supernet=supernet, state=self._state, **optimizer)
        self._checkpoints = tf.train.CheckpointManager(checkpoint, str(folder / "checkpoints"), max_to_keep=2)
        self._log = tf.summary.create_file_writer(str(folder / "tensorboard"))

    def run(self, on_progress: Callable[[str, float, dict[str, float]], None]) -> None:
        """Trains until the schedule's time is up, from the newest checkpoint where there is one.

        Args:
            on_progress: Called with the phase, the share of the time that is done, and figures.
        """
        self._checkpoints.restore_or_initialize()
        state = json.loads(self._state.numpy())
        self._rows = self._rows_until(state["step"])
        saved = scored = time.monotonic()
        figures: dict[str, float] = {}
        while (done := state["seconds"] / self._schedule.seconds) < 1.0:
            self._open(state, done)
            began = time.monotonic()
            figures |= self._step(state, done)
            state["step"] += 1
            # A first call traces for many seconds; that is the price of starting, and would end a short schedule at once.
            state["seconds"] += min(time.monotonic() - began, max(2.0, self._schedule.seconds / 50))
            if time.monotonic() - scored > min(PANEL_SECONDS, self._schedule.seconds / 8):
                figures |= self._score_panel(state)
                self._record(state, done, figures)
                scored = time.monotonic()
            on_progress(self._schedule.phase(done), done, figures)
            if time.monotonic() - saved > min(CHECKPOINT_SECONDS, self._schedule.seconds / 10):
                self._save(state)
                saved = time.monotonic()
        self._save(state)

    def _open(self, state: dict, done: float) -> None:
        """Opens the widths that are due: their steps start from the present weights, those of activations from data."""
        due = self._schedule.open_widths(self._supernet.space.weight_bits, done)
        if new := tuple(width for width in due if width not in state["open"]):
            if state["open"]:
                self._supernet.initialise_weight_steps(new)
            else:
                self._supernet.activate(self._supernet.space.largest())
                self._supernet.initialise_steps(self._dataset.x_train[:STEP_IMAGES], new)
            state["open"] = list(due)

    def _step(self, state: dict, done: float) -> dict[str, float]:
        images, labels = self._batches[state["step"]]
        rng = np.random.default_rng([self._schedule.seed, 3, state["step"]])
        # All learn from the labels: in a training of minutes the largest subnet is no teacher yet (in-place distillation cost
        # 2 to 4 points in one of 7 minutes on Fashion-MNIST).
        targets = tf.one_hot(labels, self._dataset.num_classes)
        losses = []
        for subnet in sandwich(self._supernet.space, tuple(state["open"]), rng):
            self._supernet.activate(subnet)
            losses.append(float(self._optimizer.accumulate(images, targets)))
        return {"loss": losses[0], "learning_rate": self._optimizer.apply(done)}

    def _score_panel(self, state: dict) -> dict[str, float]:
        """Accuracy on the search split of the largest, the smallest and a middle subnet, at the least and most bits open."""
        space = self._supernet.space
        widths = state["open"] or [FLOAT_BITS]
        panel = {
            "largest": space.largest(),
            "smallest": space.smallest(),
            "middle": space.sample_by_gene(np.random.default_rng(0)),
        }
        figures = {}
        for name, subnet in panel.items():
            for width in sorted({min(widths), max(widths)}):
                bits = FLOAT_BITS if width == FLOAT_BITS else space.activation_bits[-1]
                self._supernet.activate(subnet.with_bits(width, bits))
                self._scorer.recalibrate()
                x, y = self._dataset.x_search[:3000], self._dataset.y_search[:3000]
                kind = "lowest" if width == min(widths) and len(widths) > 1 else "accuracy"
                figures[f"{kind}_{name}"] = self._scorer.accuracy(x, y)
        highest = [value for name, value in figures.items() if name.startswith("accuracy")]
        return figures | {"accuracy_mean": float(np.mean(highest)), "accuracy_gap": max(highest) - min(highest)}

    def _rows_until(self, step: int) -> list[dict]:
        """What `training.csv` says of the steps that are in the checkpoint; later ones are taken again."""
        path = self._folder / "training.csv"
        if not path.exists():
            return []
        with path.open(newline="") as file:
            return [row for row in csv.DictReader(file) if int(row["step"]) <= step]

    def _record(self, state: dict, done: float, figures: dict[str, float]) -> None:
        row = {
            "phase": self._schedule.phase(done),
            "epoch": round(state["step"] / self._batches.per_epoch, 3),
            "step": state["step"],
            "minutes": round(state["seconds"] / 60, 3),
        } | {name: figures.get(name, "") for name in CSV_FIGURES}
        self._rows.append(row)
        with atomic.replacing(self._folder / "training.csv") as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, row)
            writer.writeheader()
            writer.writerows(self._rows)
        with self._log.as_default(step=state["step"]):
            for name, value in figures.items():
                tf.summary.scalar(name, value)
        self._log.flush()

    def _save(self, state: dict) -> None:
        self._state.assign(json.dumps(state))
        self._checkpoints.save()


CSV_FIGURES = (
    "loss", "learning_rate", "accuracy_largest", "accuracy_middle", "accuracy_smallest", "accuracy_mean", "accuracy_gap",
    "lowest_largest", "lowest_middle", "lowest_smallest",
)  # fmt: skip


def fine_tune(
    space: SearchSpace,
    subnet: Subnet,
    arrays: Mapping[str, np.ndarray],
    dataset: Dataset,
    seconds: float,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> tuple[StaticNetwork, int]:
    """Trains one subnet from its part of the supernet's weights: first in float, then quantized, under one cosine.

    A quantized step takes about 1.5 times as long, and the last part of the schedule is enough for it (ours, by measurement).

    Args:
        space: Of the subnet.
        subnet: What is trained.
        arrays: `Supernet.arrays()`.
        dataset: The train split is used.
        seconds: Of training in all, tracing not counted.
        batch_size: Images a step.
        learning_rate: The peak.
        seed: Of order and augmentation.

    Returns:
        The quantized network, recalibrated, and the number of steps.
    """
    batches = Batches(dataset, batch_size, seed)
    arrays, step, used = cut(space, subnet, arrays), 0, 0.0
    phases = [(subnet, 1.0)]
    if FLOAT_SHARE * seconds > LEAST_FLOAT_SECONDS:
        phases.insert(0, (subnet.with_bits(FLOAT_BITS, FLOAT_BITS), FLOAT_SHARE))
    for precise, share in phases:
        network = StaticNetwork(space, precise)
        network.load_arrays(arrays)
        if precise == subnet and len(phases) > 1:
            network.initialise_steps(dataset.x_train[:STEP_IMAGES], space.weight_bits)
        optimizer, began = Optimizer(network, learning_rate), None
        while began is None or used + time.monotonic() - began < share * seconds:
            images, labels = batches[step]
            # No teacher: a supernet trained for minutes is weaker than what it would teach, and costs it a point.
            optimizer.accumulate(images, tf.one_hot(labels, dataset.num_classes))
            optimizer.apply((used + (time.monotonic() - began if began else 0.0)) / seconds)
            began = began or time.monotonic()  # After the first step, which traces.
            step += 1
        used += time.monotonic() - began
        arrays = network.arrays()
    Scorer(network, dataset.x_train).recalibrate()
    return network, step
