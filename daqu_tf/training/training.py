"""The training of the supernet: a warm-up, then a precision transfer.

Everything random is drawn from seed and step, so that a resumed training needs no other state than what a checkpoint holds.
"""

import contextlib
import dataclasses
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

import numpy as np
import tensorflow as tf

from daqu_tf.data.dataset import Dataset
from daqu_tf.data.images import at_once
from daqu_tf.errors import DaquError
from daqu_tf.spaces.precisions import in_float, uniform_bits
from daqu_tf.spaces.subnet import Subnet
from daqu_tf.supernet.scoring import Scorer
from daqu_tf.supernet.supernet import STEP_IMAGES, Supernet
from daqu_tf.targets import costs
from daqu_tf.training.batches import Augmentation, Batches, taught_labels
from daqu_tf.training.checkpoints import CHECKPOINT_SECONDS, Checkpoints, part
from daqu_tf.training.log import TrainingLog
from daqu_tf.training.optimizer import Optimizer, cosine
from daqu_tf.training.panel import Panel
from daqu_tf.training.samplers import SAMPLERS, Uniform, with_open_bits
from daqu_tf.training.schedule import STEP_RATE, Phase, Schedule, WarmUp
from daqu_tf.training.strategies import check_same_everywhere, check_shares, checkpoint_from_chief, from_chief, leads, own_part

LARGEST_LEARNS = 0.25  # The share of steps of the precision transfer in which the largest network is a student as well.
MAX_SCORING_SHARE = 0.1  # In a training by minutes, an epoch is not scored if scoring takes a larger share of the time than this.
_WHERE, _STEP_FIGURES = ("phase", "epoch", "step", "minutes"), ("loss", "learning_rate")  # Columns of training.csv.

Figures = dict[str, float]


@dataclasses.dataclass
class TrainingState:
    """The state of a training; with weights and optimizer, it is all that is needed to go on.

    Attributes:
        step: The number of steps taken, which with the seed gives the position in data and samples.
        seconds: The time of training in seconds, without traces and scoring.
        input_seconds: The part of `seconds` in which steps waited for images.
        transfer_from: The share of the training after which the precision transfer began; None before that.
        open: The open bits, ascending.
        samplers: The numbers that the samplers have learned, by their names.
        scored_step: The step after which the panel was scored last.
        gaps: The accuracy gaps of the panel in the warm-up, in order.
        not_finite: The number of last steps in a row whose gradients were not finite.
        skipped: The number of all steps whose gradients were not finite.
    """

    step: int = 0
    seconds: float = 0.0
    input_seconds: float = 0.0
    transfer_from: float | None = None
    open: tuple[int, ...] = ()
    samplers: dict[str, list[float | None]] = dataclasses.field(default_factory=dict)
    scored_step: int = 0
    gaps: list[float] = dataclasses.field(default_factory=list)
    not_finite: int = 0
    skipped: int = 0


class SupernetTraining:
    """The training of one supernet by a schedule, which can be resumed.

    Args:
        supernet: The supernet to train.
        dataset: The data set, of which the train and search splits are used.
        scorer: The scorer of the supernet.
        schedule: The phases of the training.
        folder: The folder of checkpoints, `training.csv` and `tensorboard/`.
        on_warning: Is called with a sentence for the user.

    Raises:
        DaquError: The schedule does not fit the space or the data set.
    """

    def __init__(
        self,
        supernet: Supernet,
        dataset: Dataset,
        scorer: Scorer,
        schedule: Schedule,
        folder: pathlib.Path,
        on_warning: Callable[[str], None] = print,
    ):
        schedule.check(supernet.space, len(dataset.x_train))
        self._supernet, self._dataset, self._schedule, self._folder = supernet, dataset, schedule, folder
        self._space, self._warn, self._strategy = supernet.space, on_warning, supernet.distribute_strategy
        check_shares(self._strategy, schedule.batch_size)
        check_same_everywhere(self._strategy, [schedule.to_json(), self._space.to_json(), dataset.fingerprint])
        augmentation = Augmentation.of(dataset, schedule.augmentation)
        self._batches = Batches(dataset, schedule.batch_size, schedule.seed, augmentation)
        peaks = schedule.phases[-1]
        self._peak = peaks.learning_rate
        self._optimizer = Optimizer(supernet, self._peak, getattr(peaks, "step_rate", STEP_RATE))
        self._panel = Panel(scorer, supernet.space, dataset)
        self._checkpoints = Checkpoints(folder / "checkpoints", on_warning)
        self._samplers: dict[str, Uniform] = {}
        self._losses: list[float] = []  # The losses since the panel was scored.
        self._state = TrainingState()

    def restore(self) -> float:
        """Goes to the newest checkpoint, if there is one.

        Returns:
            The share of the training that is done, in [0, 1].

        Raises:
            DaquError: The checkpoint is one of another space.
        """
        if found := checkpoint_from_chief(self._strategy, self._checkpoints.newest(), self._arrays()):
            arrays, state = found
            self._supernet.load_arrays(part(arrays, "supernet/"))
            self._optimizer.load_arrays(part(arrays, "optimizer/"))
            self._state = TrainingState(**state | {"open": tuple(state["open"])})
        return self._done()

    def run(self, on_progress: Callable[[str, float, Figures], None]) -> TrainingState:
        """Trains from the present state to the end of the schedule.

        Args:
            on_progress: Is called after each step with the name of the phase, the share of the training that is done, and the
                latest figures by name.

        Returns:
            The state of the training at the end.

        Raises:
            DaquError: Too many steps in a row had gradients that are not finite.
        """
        state, log = self._state, TrainingLog(self._folder, [*_WHERE, *_STEP_FIGURES, *self._panel.names], self._state.step)
        batches = iter(self._batches.starting_at(state.step))
        saved = scored = time.monotonic()
        scoring_seconds: float | None = None
        figures: Figures = {}
        phase = self._schedule.phases[-1]
        with _signals_noted() as signals:
            while (done := self._done()) < 1.0:
                phase = self._enter_phase(done)
                figures |= self._timed_step(phase, batches, done)
                now = time.monotonic()
                if state.step % self._batches.per_epoch == 0 and self._may_score(now - scored, scoring_seconds):
                    figures |= self._score(log, phase, figures)
                    scored, has_traced = time.monotonic(), scoring_seconds is not None
                    scoring_seconds = scored - now if has_traced else 0.0
                on_progress(_name(phase), self._done(), figures)
                if signals or time.monotonic() - saved > CHECKPOINT_SECONDS:
                    self._save()
                    saved = time.monotonic()
                if signals:
                    raise KeyboardInterrupt
        self._finish(log, phase, figures)
        return state

    def _timed_step(self, phase: Phase, batches: Iterator[tuple[tf.Tensor, tf.Tensor]], done: float) -> Figures:
        """Takes a step, and counts the time that it takes of the schedule."""
        state, began = self._state, time.monotonic()
        images, labels = (own_part(self._strategy, part) for part in next(batches))
        state.input_seconds += time.monotonic() - began
        figures = self._step(phase, images, labels, done)
        # A first call traces for many seconds; that is the price of starting, and would end a short training at once.
        seconds = min(time.monotonic() - began, self._longest_step)
        state.seconds += float(from_chief(self._strategy, seconds))
        return figures

    def _finish(self, log: TrainingLog, phase: Phase, figures: Figures) -> None:
        """Scores the panel a last time, and sets the steps of bits that were never trained from the weights."""
        if self._state.scored_step != self._state.step:
            self._score(log, phase, figures)
        self._open(self._space.all_bits)
        self._save()

    def _may_score(self, since_seconds: float, scoring_seconds: float | None) -> bool:
        return self._schedule.unit == "epochs" or (scoring_seconds or 0.0) <= MAX_SCORING_SHARE * since_seconds

    def _done(self) -> float:
        """The share of the schedule that is over, in [0, 1]."""
        if self._schedule.unit == "minutes":
            return self._state.seconds / (60 * self._schedule.length)
        return self._state.step / max(1, round(self._schedule.length * self._batches.per_epoch))

    @property
    def _longest_step(self) -> float:
        return max(2.0, 60 * self._schedule.length / 50) if self._schedule.unit == "minutes" else float("inf")

    def _enter_phase(self, done: float) -> Phase:
        """The phase of the next step; opens the bits that are due in it."""
        state, transfer = self._state, self._schedule.precision_transfer
        if state.transfer_from is None and transfer and (done >= self._schedule.warm_up_share or self._gap_is_stuck()):
            state.transfer_from = done
        if transfer is None or state.transfer_from is None:
            return self._schedule.phases[0]
        self._open(transfer.open_bits((done - state.transfer_from) / (1 - state.transfer_from)))
        return transfer

    def _gap_is_stuck(self) -> bool:
        warm_up, gaps = self._schedule.warm_up, self._state.gaps
        if warm_up is None or warm_up.patience is None:
            return False
        patience = warm_up.patience
        stuck = len(gaps) > patience and min(gaps[-patience:]) >= min(gaps[:-patience])
        return bool(from_chief(self._strategy, float(stuck)))

    def _open(self, wanted: tuple[int, ...]) -> None:
        """Opens bits, whose steps start from the present weights and from the activations of the largest subnet."""
        state, space = self._state, self._space
        if new := tuple(bits for bits in wanted if bits not in state.open):
            self._supernet.activate(space.largest())
            images = self._dataset.x_train[: at_once(STEP_IMAGES, self._dataset.image_shape)]
            if not state.open:  # All steps are set, since a tensor that lacks some bits has the next above them.
                self._supernet.initialise_steps(images, space.weight_bits)
            else:
                self._supernet.initialise_weight_steps(tuple(set(space.weight_bits) & set(new)))
                self._supernet(images, training=True, observe=tuple(set(space.activation_bits) & set(new)))
            state.open = tuple(sorted((*state.open, *new)))

    def _step(self, phase: Phase, images: tf.Tensor, labels: tf.Tensor, done: float) -> Figures:
        state, sampler = self._state, self._sampler_of(phase)
        rng = np.random.default_rng([self._schedule.seed, 3, state.step])
        taught = phase.distillation > 0
        subnets = self._subnets(sampler.architectures(rng), taught, rng)
        losses: list[float] = []
        targets = labels
        for subnet in subnets:
            self._supernet.activate(subnet)
            loss, logits = self._optimizer.accumulate(images, targets)
            if not losses and taught:
                targets = taught_labels(labels, tf.nn.softmax(logits), phase.distillation)
            elif taught:
                loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(labels, logits))
            losses.append(float(loss))
        losses = from_chief(self._strategy, losses).tolist()
        # The teacher does not count: it is at other bits than the others, and would make its band look good.
        students = slice(1 if taught and state.open else 0, None)
        sampler.observe(subnets[students], losses[students])
        rate = cosine(done) * phase.learning_rate
        self._guard(self._optimizer.apply(rate / self._peak))
        state.step += 1
        self._losses.append(float(np.mean(losses)))
        return {"loss": float(np.mean(self._losses)), "learning_rate": rate}

    def _subnets(self, architectures: list[Subnet], taught: bool, rng: np.random.Generator) -> list[Subnet]:
        """The subnets of a step; if the first one teaches, it is the largest, at the highest open bits.

        Now and then the largest is a student too. If it only knew 8 bits, it would be the worst of all at 2 bits, by 6 points
        (ours).
        """
        space, open_bits = self._space, self._state.open
        if taught:
            architectures = sorted(architectures, key=lambda subnet: -costs.macs(space, subnet))
        if not open_bits:
            return [in_float(subnet) for subnet in architectures]
        if taught and rng.random() < LARGEST_LEARNS:
            architectures[rng.integers(1, len(architectures))] = architectures[0]
        subnets = [with_open_bits(space, subnet, open_bits, rng) for subnet in architectures]
        return [uniform_bits(space, architectures[0], max(open_bits)), *subnets[1:]] if taught else subnets

    def _guard(self, finite: bool) -> None:
        """Counts steps that were skipped, with one warning.

        Raises:
            DaquError: Too many steps in a row were skipped.
        """
        state = self._state
        state.not_finite = 0 if finite else state.not_finite + 1
        state.skipped += not finite
        if not finite and state.skipped == 1:
            self._warn(f"The gradients of step {state.step} were not finite: it is skipped, like all such steps to come.")
        if state.not_finite >= self._schedule.guard:
            raise DaquError(
                f"The training diverged: {state.not_finite} steps in a row up to {state.step} had gradients that are not finite. "
                "Lower --learning_rate, with another --output_dir or --overwrite."
            )

    def _sampler_of(self, phase: Phase) -> Uniform:
        """The sampler of a phase; it keeps what it has learned if the next phase has the same sampler."""
        if phase.sampler not in self._samplers:
            self._samplers[phase.sampler] = SAMPLERS[phase.sampler](self._space)
            if phase.sampler in self._state.samplers:
                self._samplers[phase.sampler].state = self._state.samplers[phase.sampler]
        return self._samplers[phase.sampler]

    def _score(self, log: TrainingLog, phase: Phase, figures: Figures) -> Figures:
        """Scores the panel and logs it, on the chief alone, while other workers wait in their next step."""
        state = self._state
        self._losses.clear()
        if not leads(self._strategy):
            return {}
        state.scored_step = state.step
        scores = self._panel.score(state.open)
        if phase is self._schedule.warm_up:
            state.gaps.append(scores["gap"])
        where = {"epoch": state.step / self._batches.per_epoch, "minutes": state.seconds / 60}
        row = {"phase": _name(phase), "step": state.step} | where | figures | scores
        try:
            log.add({name: round(value, 6) if isinstance(value, float) else value for name, value in row.items()})
        except (OSError, tf.errors.OpError) as error:  # A full disk must not end a training.
            self._warn(f"What was just scored could not be written down ({error}): training goes on.")
        return scores

    def _save(self) -> None:
        if not leads(self._strategy):
            return
        self._state.samplers = {name: sampler.state for name, sampler in self._samplers.items()}
        self._checkpoints.save(self._state.step, self._arrays(), dataclasses.asdict(self._state))

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {f"supernet/{name}": array for name, array in self._supernet.arrays().items()}
        return arrays | {f"optimizer/{name}": array for name, array in self._optimizer.arrays().items()}


@contextlib.contextmanager
def _signals_noted() -> Iterator[list[int]]:
    """Lets a step end before Ctrl-C or SIGTERM ends the training; a second signal ends it at once."""
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if noted:
            raise KeyboardInterrupt
        noted.append(number)

    # Python lets only the main thread have handlers.
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _name(phase: Phase) -> str:
    return "warm_up" if isinstance(phase, WarmUp) else "precision_transfer"
