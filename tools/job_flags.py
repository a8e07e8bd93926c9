"""The flags of the whole job, shared by `daqu-run` and by the tools that end after one of its stages."""

from collections.abc import Iterable

from absl import flags

from daqu_tf.errors import DaquError
from daqu_tf.runs.config import LATENCIES, RunConfig
from daqu_tf.spaces.bits import MIXED_PRECISIONS
from daqu_tf.spaces.named import SPACES
from daqu_tf.targets.target import TARGETS
from daqu_tf.tools import device_flags
from daqu_tf.training.schedule import AUGMENTATIONS, TRANSFERS, WARM_UPS
from daqu_tf.training.strategies import STRATEGIES

MODULES = (__name__, device_flags.__name__)  # Whose flags the tools of the job have.

_DATASET = flags.DEFINE_string("dataset", None, "digits, a .npz file, fashion_mnist, mnist, cifar10 or cifar100.")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder for everything the run writes.")
_SPACE = flags.DEFINE_string("space", RunConfig.space, f"Search space: {', '.join(SPACES)}, or a .json file.")
_TARGET = flags.DEFINE_string("target", RunConfig.target, f"What the networks are for: {', '.join(TARGETS)}.")
_BUDGET = flags.DEFINE_float("budget_minutes", RunConfig.budget_minutes, "Minutes for everything.")
_FINALISTS = flags.DEFINE_integer("finalists", RunConfig.finalists, "Front members to fine-tune and export, at most.")
_CONSTRAINT = flags.DEFINE_multi_string(
    "constraint",
    list(RunConfig.constraint),
    "What networks must meet, in the search and as they ship: latency_us<=2000. Any number.",
)
_MAX_TRIALS = flags.DEFINE_integer("max_trials", RunConfig.max_trials, "Subnets scored in the search, at most.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", RunConfig.batch_size, "Images in a training step.")
_LEARNING_RATE = flags.DEFINE_float("learning_rate", RunConfig.learning_rate, "Peak learning rate of AdamW.")
_WARMUP = flags.DEFINE_enum("warmup", RunConfig.warmup, WARM_UPS, "How architectures are sampled in full precision, first.")
_TRANSFER = flags.DEFINE_enum("precision_transfer", RunConfig.precision_transfer, TRANSFERS, "How widths open, from high to low.")
_EPOCHS = flags.DEFINE_float("epochs", RunConfig.epochs, "Epochs of the supernet; 0: a share of the minutes.")
_FINETUNE_EPOCHS = flags.DEFINE_float(
    "finetune_epochs", RunConfig.finetune_epochs, "Epochs of each finalist's fine-tuning; 0: a share of the minutes."
)
_SCHEDULE = flags.DEFINE_string("schedule", RunConfig.schedule, "A .json file with a whole training schedule, instead.")
_AUGMENTATION = flags.DEFINE_enum("augmentation", RunConfig.augmentation, AUGMENTATIONS, "What is done to training images.")
_STRATEGY = flags.DEFINE_enum("strategy", RunConfig.strategy, STRATEGIES, "tf.distribute strategy of the supernet's training.")
_MIXED = flags.DEFINE_enum(
    "mixed_precision", RunConfig.mixed_precision, MIXED_PRECISIONS, "Type of the float arithmetic, for GPUs."
)
_DETERMINISTIC = flags.DEFINE_bool("deterministic", RunConfig.deterministic, "One thread, so that --epochs repeat bit for bit.")
_DEVICE = flags.DEFINE_string("device", RunConfig.device, f"What times files, and whose latency counts: {device_flags.DEVICE_HELP}")
_LATENCY = flags.DEFINE_enum(
    "latency",
    RunConfig.latency,
    LATENCIES,
    "Of subnets in the search: from a latency table, measured on the device, or from the table where one is given.",
)
_TABLE = flags.DEFINE_string("latency_table", RunConfig.latency_table, "A .json file of daqu-profile; --latency=table makes one.")
_WORKERS = flags.DEFINE_integer("workers", RunConfig.workers, "Processes at once; 0: one that scores, one a core to fine-tune.")
_SEED = flags.DEFINE_integer("seed", RunConfig.seed, "Seed of everything random.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Delete a run with other settings in the output folder.")


def run_until(last_stage: str, argv: list[str]) -> None:
    """Runs the job with the settings given as flags.

    Args:
        last_stage: One of `pipeline.STAGES`.
        argv: What is no flag; there is nothing.

    Raises:
        DaquError: Something that the user can mend.
    """
    del argv
    if flags.FLAGS.dataset is None:
        raise DaquError("`dataset` must be given: --dataset=digits, or the path of a .npz file.")
    if flags.FLAGS.schedule:
        refuse("--schedule", kept=set(RunConfig.__dataclass_fields__) - {"warmup", "precision_transfer", "epochs"})
    # What is not given has its default in a new run, and a run that stands keeps its own.
    config = RunConfig(**{name: flags.FLAGS[name].value for name in RunConfig.__dataclass_fields__ if flags.FLAGS[name].present})
    from daqu_tf import pipeline

    product = pipeline.run(config, overwrite=_OVERWRITE.value, last_stage=last_stage)
    is_worker = product.name == "trials.jsonl"  # Of a chief, which has the rest to do.
    print("The search is over for this worker." if is_worker else f"{last_stage.capitalize()}: {product.resolve()}")


def refuse(because: str, kept: Iterable[str]) -> None:
    """Raises `DaquError` if a flag of the job is given, other than `kept`, that `because` makes useless."""
    for name in {*RunConfig.__dataclass_fields__, "overwrite"} - set(kept):
        if flags.FLAGS[name].present:
            raise DaquError(f"--{name} has no effect beside {because}: leave one of them out.")
