"""The settings of one run of the whole job; no TensorFlow, so that `--help` is quick."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from daqu_tf import spaces, targets
from daqu_tf.data import NAMES, Reading
from daqu_tf.data.reading import CLASS_WEIGHTS
from daqu_tf.devices import kind_of
from daqu_tf.devices.benchmark_model import DELEGATES
from daqu_tf.errors import DaquError
from daqu_tf.pareto.constraints import Constraint
from daqu_tf.spaces.bits import MIXED_PRECISIONS
from daqu_tf.training.schedule import TRANSFERS, WARM_UPS, augmentation_parts, check_seed
from daqu_tf.training.strategies import STRATEGIES

LEAST_BUDGET_MINUTES = 1.0
FINE_TUNING_RATE = 0.4  # Of the supernet's learning rate: at 2 bits two points better than all of it, at 8 half a point (ours).
PRECISIONS = ("auto", "joint", "siblings")
ARCHITECTURES = ("auto", "search", "hand_scaled")
FILES = {
    "dataset": ".npz",
    "schedule": ".json",
    "space": ".json",
    "latency_table": ".json",
}  # Settings that may be files, by their endings.
LATENCIES = ("auto", "table", "measure")
BEGINNINGS = ("larger", "random")
CHOICES = {
    "latency": LATENCIES,
    "warmup": WARM_UPS,
    "precision_transfer": ("auto", *TRANSFERS),
    "precisions": PRECISIONS,
    "architectures": ARCHITECTURES,
    "begin_with": BEGINNINGS,
    "class_weights": CLASS_WEIGHTS,
    "strategy": STRATEGIES,
    "mixed_precision": MIXED_PRECISIONS,
    "delegate": tuple(DELEGATES),
}


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """What `daqu_tf.run` is asked to do.

    A setting that is not given has its default in a new run, and the run's own value where a run is resumed.

    Attributes:
        dataset: `digits`, a tf_keras data set name, a `.npz` file, or photos: a folder with a folder for each class, a `.zip` of
            one, or a `.csv` of paths and labels.
        output_dir: Where everything goes; the same settings resume there.
        space: The name of a search space, a `.json` file that describes one, or `auto`, the one whose networks are the fastest on
            the device.
        target: The name of a target.
        budget_minutes: Wall-clock minutes for everything: the job divides them itself.
        finalists: How many front members are fine-tuned and exported, at most.
        constraint: What every network must meet, as `latency<=2ms`; any number of them.
        max_trials: The most subnets scored in the search, whatever time is left.
        batch_size: Images a training step.
        learning_rate: The peak, of AdamW, in the supernet's training; fine-tuning has 0.4 of it, or 0.8 and twice
            the batch where it is at 8 bits.
        warmup: How the architectures are first trained in full precision: `gap_aware`, `sandwich`, or `none`.
        precision_transfer: How bits open in the supernet's training: `progressive`, `all_at_once`, `none`, which trains the highest
            alone, or `auto`: `progressive` where bits are searched, `none` where they are not.
        precisions: Whether bits are searched together with the architecture (`joint`), or architectures are searched at the highest
            bits, and each finalist is then trained on at fewer bits too (`siblings`). `auto` searches bits where they buy more than
            bytes on the target.
        architectures: Whether a supernet is trained and architectures are searched (`search`), or all minutes go to networks that
            people scale by hand, each trained from random weights (`hand_scaled`). `auto` searches where the minutes are enough for
            that to pay.
        epochs: Epochs of the supernet's training; 0 gives it a share of the minutes instead.
        finetune_epochs: Epochs of each finalist's fine-tuning, beside the budget; 0 gives it a share of the minutes instead.
        schedule: A `.json` file with a whole `Schedule`, which takes the place of the settings of training.
        augmentation: What is done to training images, as of `training.schedule.augmentation_parts`.
        strategy: Where the supernet trains: one of `STRATEGIES`.
        mixed_precision: The type of float arithmetic in the supernet's training, for GPUs: one of `MIXED_PRECISIONS`.
        deterministic: One thread and deterministic operators for the supernet and for `TrainedRun`: with `epochs`, and fine-tuned
            by steps, the same weights bit for bit.
        device: What times files, and whose latency counts: as of `devices.connect`.
        threads: Threads of the runtime on the device.
        python: The Python of boards, which has to have a runtime.
        benchmark_model: TFLite's program of that name, for phones.
        delegate: What computes on phones.
        max_celsius: At which the device is too hot; None leaves that to the device.
        cool_seconds: For how long it may cool then.
        latency: Where the search has latencies from: `table`, a latency table, `measure`, the device itself, or `auto`, the table
            where one is given. What is exported is measured in any case.
        latency_table: The `.json` file of the table; without one, `table` makes it, in the minutes of the budget.
        workers: Processes that score subnets, and then fine-tune, at once, of one thread each; 0 scores in this one, and fine-tunes
            in one per core.
        supernet_from: The folder of a run whose trained supernet is taken instead of training one.
        init_from: A trained network, from which the supernet or the finalists begin, as `stock_models.load_trained` takes it; the
            search space is one around it.
        teacher: A trained network of the same classes, whose opinion is half of what finalists are taught, as
            `stock_models.load_trained` takes it.
        begin_with: What networks that people scale by hand begin with where images are seen often: the weights of a `larger` one,
            which is trained before them and teaches them, or `random` ones.
        image_size: The size of images that are made of photos, as of `data.Reading`.
        group_by: What photos stay in one split, as of `data.Reading`.
        skip_bad_files: Whether photos that cannot be read are left out.
        cache_dir: The folder of the photos' pixels, which are decoded once.
        class_weights: Whether all classes count alike in training (`balanced`), or all images (`none`).
        seed: The seed of everything random.

    Raises:
        DaquError: A setting is out of range (which one is said).
    """

    dataset: str
    output_dir: str
    space: str = "auto"
    target: str = "litert_cpu"
    budget_minutes: float = 60.0
    finalists: int = 8
    constraint: Sequence[str] = ()
    max_trials: int = 100
    batch_size: int = 64
    learning_rate: float = 1e-2
    warmup: str = "sandwich"
    precision_transfer: str = "auto"
    precisions: str = "auto"
    architectures: str = "auto"
    epochs: float = 0.0
    finetune_epochs: float = 0.0
    schedule: str = ""
    augmentation: str = "auto"
    strategy: str = "auto"
    mixed_precision: str = "none"
    deterministic: bool = False
    device: str = "host"
    threads: int = 1
    python: str = "python3"
    benchmark_model: str = ""
    delegate: str = "xnnpack"
    max_celsius: float | None = None
    cool_seconds: float = 120.0
    latency: str = "auto"
    latency_table: str = ""
    workers: int = 0
    supernet_from: str = ""
    init_from: str = ""
    teacher: str = ""
    begin_with: str = "larger"
    image_size: str = Reading.image_size
    group_by: str = Reading.group_by
    skip_bad_files: bool = Reading.skip_bad_files
    cache_dir: str = Reading.cache_dir
    class_weights: str = Reading.class_weights
    seed: int = 0

    def __new__(cls, *args: Any, **kwargs: Any) -> "RunConfig":
        """Notes which settings were given, since a run that stands keeps its own of the others."""
        config = super().__new__(cls)
        names = [field.name for field in dataclasses.fields(cls)]
        object.__setattr__(config, "_given", frozenset([*names[: len(args)], *kwargs]))
        return config

    def __post_init__(self) -> None:
        for name, ending in FILES.items():
            if getattr(self, name).endswith(ending):  # Later stages run in other folders.
                object.__setattr__(self, name, os.path.abspath(getattr(self, name)))
        if self.dataset not in NAMES and os.path.exists(self.dataset):
            object.__setattr__(self, "dataset", os.path.abspath(self.dataset))
        _ = self.reading  # It refuses what is wrong.
        if not self.cache_dir.startswith("~"):
            object.__setattr__(self, "cache_dir", os.path.abspath(self.cache_dir))
        for name in ("benchmark_model", "supernet_from"):
            if getattr(self, name):
                object.__setattr__(self, name, os.path.abspath(getattr(self, name)))
        for name in ("init_from", "teacher"):
            if os.path.exists(getattr(self, name)):
                object.__setattr__(self, name, os.path.abspath(getattr(self, name)))
        if self.init_from:
            self._check_start()
        if self.latency_table and self.latency == "measure":
            raise DaquError("`latency_table` has no effect if `latency` is measure: leave one of them out.")
        kind_of(self.device)
        object.__setattr__(self, "constraint", list(self.constraint or ()))  # As it comes back from JSON.
        _ = self.constraints  # Which refuses what is wrong.
        if self.space != "auto":
            spaces.get(self.space)
        targets.get(self.target)
        if not math.isfinite(self.budget_minutes) or self.budget_minutes < LEAST_BUDGET_MINUTES:
            raise DaquError(
                f"`budget_minutes` must be at least {LEAST_BUDGET_MINUTES:g}, but received {self.budget_minutes:g}: training, "
                "search and export need that much to do anything."
            )
        for name, least in (("finalists", 1), ("max_trials", 20), ("batch_size", 2), ("workers", 0), ("threads", 1)):
            if getattr(self, name) < least:
                raise DaquError(f"`{name}` must be at least {least}, but received {getattr(self, name)}.")
        check_seed(self.seed)
        augmentation_parts(self.augmentation)
        if not 0 < self.learning_rate <= 1:
            raise DaquError(f"`learning_rate` must be in (0, 1], but received {self.learning_rate}.")
        for name in ("epochs", "finetune_epochs"):
            if not 0 <= getattr(self, name) < math.inf:
                raise DaquError(f"`{name}` must be above 0, or 0 to train by minutes, but received {getattr(self, name):g}.")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise DaquError(f"`{name}` must be one of {', '.join(known)}, but received {getattr(self, name)!r}.")
        if self.architectures == "hand_scaled" and (needs := self._needs_supernet):
            raise DaquError(f"`architectures` must be search or auto, since hand_scaled trains no supernet, which {needs} needs.")

    def _check_start(self) -> None:
        for name, default in (("space", "auto"), ("supernet_from", ""), ("begin_with", "larger")):
            if getattr(self, name) != default:
                raise DaquError(f"`{name}` has no effect with `init_from`, whose network brings its own: leave one of them out.")

    @property
    def given(self) -> frozenset[str]:
        """Names of the settings that were given when the object was made; the others have their defaults."""
        return vars(self)["_given"]

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """What the texts of `constraint` say."""
        return targets.constraints_of(self.constraint)

    @property
    def searches_bits(self) -> bool:
        """Whether bits are searched together with the architecture."""
        return self.precisions == "joint" or (self.precisions == "auto" and not targets.get(self.target).bits_buy_bytes_alone)

    @property
    def _needs_supernet(self) -> str:
        """The first setting that needs a supernet; empty where none does."""
        if self.searches_bits:
            return "a search of bits"
        return next((name for name in ("supernet_from", "epochs", "schedule") if getattr(self, name)), "")

    @property
    def may_do_without_supernet(self) -> bool:
        """Whether the job may decide that its minutes are too few for a supernet."""
        return self.architectures == "auto" and not (self._needs_supernet or self.space.endswith(FILES["space"]))

    @property
    def searches_architectures(self) -> bool:
        """Whether a supernet is trained, and architectures are searched; so it is as long as nothing else has been decided."""
        return self.architectures != "hand_scaled"

    @property
    def reading(self) -> Reading:
        """How photos are read."""
        return Reading(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Reading)})

    @property
    def how_to_train(self) -> dict[str, Any]:
        """Settings of the supernet's training, by name."""
        return {name: getattr(self, name) for name in ("batch_size", "learning_rate", "seed", "augmentation")}

    @property
    def how_to_fine_tune(self) -> dict[str, Any]:
        """Settings of a fine-tuning, by name: as of training, at a rate that does not undo inherited weights."""
        return self.how_to_train | {"learning_rate": FINE_TUNING_RATE * self.learning_rate}

    @property
    def half_type(self) -> str | None:
        """The type in which the supernet computes instead of float32, if there is one."""
        return None if self.mixed_precision == "none" else self.mixed_precision

    @property
    def how_to_time(self) -> dict[str, Any]:
        """The arguments of `devices.connect_with`, but for the patience."""
        names = ("threads", "python", "benchmark_model", "delegate", "max_celsius", "cool_seconds")
        return {"text": self.device} | {name: getattr(self, name) for name in names}

    @property
    def folder(self) -> pathlib.Path:
        """The output folder."""
        return pathlib.Path(self.output_dir)

    def to_json(self) -> dict[str, Any]:
        """The settings as a JSON object."""
        return dataclasses.asdict(self)
