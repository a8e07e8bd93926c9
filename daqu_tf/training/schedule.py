"""The schedule of a supernet's training: warm-up and precision transfer, each a frozen description. No TensorFlow is imported."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from daqu_tf.errors import DaquError
from daqu_tf.fields import check_kinds, from_json
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.training.samplers import SAMPLERS

UNITS = ("minutes", "epochs")
MOST_SEED = 2**32 - 1  # NumPy's limit.
WARM_UPS = ("none", "sandwich", "gap_aware")
TRANSFERS = ("none", "all_at_once", "progressive")
AUGMENTATIONS = ("auto", "none", "shift_mirror")  # Or any of the parts, parted by commas.
AUGMENTATION_PARTS = ("shift", "mirror", "zoom", "colour", "cutout")
WARM_UP_SHARE = 0.2  # The share of the training; a longer warm-up leaves too little for the lowest bits.
DEFAULT_SAMPLER = "sandwich"
DISTILLATION = 0.5  # Half a point to a point better than 0 at every precision, in ten minutes on Fashion-MNIST.
STEP_RATE = 5e-3  # The peak learning rate of the quantizers' log steps, which have another Adam than weights.


@dataclasses.dataclass(frozen=True)
class WarmUp:
    """The first phase of a training, which trains architectures in float.

    Attributes:
        length: The length of the phase, in the unit of the schedule.
        learning_rate: The peak learning rate of the weights; one cosine goes through both phases.
        sampler: The sampler of a step's architectures, one of `samplers.SAMPLERS`.
        distillation: The share, in [0, 1], of the opinion of a step's largest network in what the others are taught; the rest is
            the label.
        patience: The number of scorings without a smaller accuracy gap of the panel after which the phase ends early, and leaves
            its time to the precision transfer; None never ends it early.
    """

    length: float
    learning_rate: float = 1e-2
    sampler: str = DEFAULT_SAMPLER
    distillation: float = DISTILLATION
    patience: int | None = None

    def __post_init__(self) -> None:
        _check_phase(self)
        if self.patience is not None and self.patience < 1:
            raise DaquError(f"`patience` must be at least 1 scoring, or null to never end early, but received {self.patience}.")


@dataclasses.dataclass(frozen=True)
class PrecisionTransfer:
    """The second phase of a training, in which bits open from high to low, and new ones start from the present weights.

    Attributes:
        length: The length of the phase, in the unit of the schedule.
        order: The bits in the order in which they open, descending. A tensor that cannot have some of them has the next above them.
            Bits that are not named are never trained; their steps are set from the weights in the end.
        opening: The share of the phase, in [0, 1), after which all of `order` is open; 0 opens all at once.
        learning_rate: The peak learning rate of the weights; one cosine goes through both phases.
        step_rate: The peak learning rate of the quantizers' log steps, which have another Adam than weights.
        sampler: The sampler of a step's architectures, one of `samplers.SAMPLERS`.
        distillation: The share, in [0, 1], of the opinion of a step's largest network, at the highest open bits, in what the others
            are taught; the rest is the label.
    """

    length: float
    order: tuple[int, ...]
    opening: float = 0.1
    learning_rate: float = 1e-2
    step_rate: float = STEP_RATE
    sampler: str = DEFAULT_SAMPLER
    distillation: float = DISTILLATION

    def __post_init__(self) -> None:
        _check_phase(self)
        if not self.order or any(low >= high for high, low in zip(self.order, self.order[1:])):
            raise DaquError(f"`order` must be bits from high to low, at least one, but received {list(self.order)}.")
        if not 0 <= self.opening < 1:
            raise DaquError(f"`opening` must be in [0, 1), but received {self.opening}.")
        _check_rate("step_rate", self.step_rate)

    def open_bits(self, done: float) -> tuple[int, ...]:
        """The bits that are open after a share `done` of the phase, ascending."""
        count = len(self.order) if done >= self.opening else 1 + int(done / self.opening * (len(self.order) - 1))
        return self.order[count - 1 :: -1]


Phase = WarmUp | PrecisionTransfer


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How a supernet is trained, in a warm-up, a precision transfer, or both.

    Attributes:
        unit: The unit of the phases' lengths: `minutes` of training, or `epochs`, which repeat bit for bit with deterministic
            operators.
        warm_up: The first phase; None leaves it out.
        precision_transfer: The second phase; None leaves it out.
        batch_size: The number of images in a step, over all replicas.
        seed: The seed of everything random.
        augmentation: The augmentation of the images, as `augmentation_parts` takes it.
        guard: The number of steps in a row without finite gradients after which the training is given up; each of them is skipped.
    """

    unit: str
    warm_up: WarmUp | None
    precision_transfer: PrecisionTransfer | None
    batch_size: int = 64
    seed: int = 0
    augmentation: str = "auto"
    guard: int = 10

    def __post_init__(self) -> None:
        check_kinds(self, {WarmUp | None: "a WarmUp or null", PrecisionTransfer | None: "a PrecisionTransfer or null"})
        if self.unit not in UNITS:
            raise DaquError(f"`unit` must be one of {', '.join(UNITS)}, but received {self.unit!r}.")
        if self.warm_up is None and self.precision_transfer is None:
            raise DaquError("`schedule` must have a warm-up or a precision transfer: with neither there is nothing to train.")
        augmentation_parts(self.augmentation)
        for name, least in (("batch_size", 2), ("guard", 1)):
            if getattr(self, name) < least:
                raise DaquError(f"`{name}` must be at least {least}, but received {getattr(self, name)}.")
        check_seed(self.seed)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phases of the schedule, one or two, in order."""
        return tuple(phase for phase in (self.warm_up, self.precision_transfer) if phase)

    @property
    def length(self) -> float:
        """The length of both phases, in the unit of the schedule."""
        return sum(phase.length for phase in self.phases)

    @property
    def warm_up_share(self) -> float:
        """The share of the warm-up in the training, in [0, 1], if it does not end early."""
        return self.warm_up.length / self.length if self.warm_up else 0.0

    def check(self, space: SearchSpace, images: int) -> None:
        """Raises `DaquError` if the schedule does not fit a space or a data set.

        Args:
            space: The space, whose bits are opened, the highest first.
            images: The number of training images.
        """
        check_batch_size(self.batch_size, images)
        if not self.precision_transfer:
            return
        order = self.precision_transfer.order
        if missing := set(order) - set(space.all_bits):
            raise DaquError(
                f"`order` must be among the bits {list(space.all_bits)} of space {space.name!r}, but received {sorted(missing)}: "
                "leave them out."
            )
        if order[0] != space.all_bits[-1]:
            raise DaquError(f"`order` must begin with {space.all_bits[-1]}, the highest of the space, but received {order[0]}.")

    def to_json(self) -> dict[str, Any]:
        """The schedule as a JSON object."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Schedule":
        """The schedule that a JSON object describes, the inverse of `to_json`; the object may be the `config.json` of a run.

        Raises:
            DaquError: A field is missing, unknown or out of range (it is named).
        """
        phases = {"warm_up": WarmUp, "precision_transfer": PrecisionTransfer}
        if isinstance(content, Mapping) and isinstance(content.get("schedule"), Mapping):
            content = content["schedule"]  # A run's `config.json`.
        given = {name: content[name] for name in phases if isinstance(content, Mapping) and content.get(name) is not None}
        made = {name: from_json(phases[name], value, f"A {phases[name].__name__}") for name, value in given.items()}
        return from_json(cls, {**content, **made} if made else content, "A Schedule")


def make_schedule(
    space: SearchSpace,
    warm_up: str,
    precision_transfer: str,
    length: float,
    unit: str = "minutes",
    learning_rate: float = 1e-2,
    batch_size: int = 64,
    seed: int = 0,
    **settings: Any,
) -> Schedule:
    """The schedule that the flags of the tools describe.

    Args:
        space: The space, whose bits are opened.
        warm_up: The warm-up, one of `WARM_UPS`; with `none`, all of `length` is precision transfer.
        precision_transfer: The precision transfer, one of `TRANSFERS`; `none` trains the highest bits alone, for as long.
        length: The length of both phases, in `unit`.
        unit: The unit of the length, one of `UNITS`.
        learning_rate: The peak learning rate of both phases.
        batch_size: The number of images in a step.
        seed: The seed of everything random.
        **settings: Further fields of `Schedule`.

    Raises:
        DaquError: A name is unknown or a number out of range.
    """
    for name, value, known in (("warmup", warm_up, WARM_UPS), ("precision_transfer", precision_transfer, TRANSFERS)):
        if value not in known:
            raise DaquError(f"`{name}` must be one of {', '.join(known)}, but received {value!r}.")
    share = 0.0 if warm_up == "none" else WARM_UP_SHARE
    sampler = "sandwich" if warm_up == "none" else warm_up
    order = space.all_bits[::-1] if precision_transfer != "none" else space.all_bits[-1:]
    opening = PrecisionTransfer.opening if precision_transfer == "progressive" else 0.0
    return Schedule(
        unit,
        WarmUp(share * length, learning_rate, sampler) if share else None,
        PrecisionTransfer((1 - share) * length, order, opening, learning_rate, sampler=sampler),
        batch_size,
        seed,
        **settings,
    )


def _check_phase(phase: "Phase") -> None:
    check_kinds(phase)
    if not math.isfinite(phase.length) or phase.length <= 0:
        raise DaquError(f"`length` must be above 0, but received {phase.length:g}: leave the phase out to skip it.")
    _check_rate("learning_rate", phase.learning_rate)
    if phase.sampler not in SAMPLERS:
        raise DaquError(f"`sampler` must be one of {', '.join(SAMPLERS)}, but received {phase.sampler!r}.")
    if not 0 <= phase.distillation <= 1:
        raise DaquError(f"`distillation` must be in [0, 1], but received {phase.distillation}.")


def _check_rate(name: str, rate: float) -> None:
    if not 0 < rate <= 1:
        raise DaquError(f"`{name}` must be in (0, 1], but received {rate}.")


def check_batch_size(batch_size: int, images: int) -> None:
    """Raises `DaquError` if a batch has more images than there are to train on."""
    if batch_size > images:
        raise DaquError(f"`batch_size` must be at most the {images} training images, but received {batch_size}.")


def check_seed(seed: int) -> None:
    """Raises `DaquError` unless a seed is from 0 to `MOST_SEED`."""
    if not 0 <= seed <= MOST_SEED:
        raise DaquError(f"`seed` must be from 0 to {MOST_SEED}, but received {seed}.")


def augmentation_parts(name: str) -> tuple[str, ...] | None:
    """What is done to training images, in parts; None leaves it to the data set.

    Args:
        name: `auto`, `none`, `shift_mirror`, or some of `AUGMENTATION_PARTS` with commas between them.

    Raises:
        DaquError: The name is none of these.
    """
    if name == "auto":
        return None
    parts = (
        () if name == "none" else ("shift", "mirror") if name == "shift_mirror" else tuple(str(name).replace(" ", "").split(","))
    )
    if not isinstance(name, str) or set(parts) - set(AUGMENTATION_PARTS):
        raise DaquError(
            f"`augmentation` must be one of {', '.join(AUGMENTATIONS)}, or some of {', '.join(AUGMENTATION_PARTS)} with commas "
            f"between them, but received {name!r}."
        )
    return parts
