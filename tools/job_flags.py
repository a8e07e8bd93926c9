"""The flags of the whole job, which `daqu-run` shares with the tools that end after one of its stages."""

from collections.abc import Iterable

from absl import flags

from daqu_tf.errors import DaquError
from daqu_tf.runs.config import CHOICES, LATENCIES, RunConfig
from daqu_tf.spaces.bits import MIXED_PRECISIONS
from daqu_tf.spaces.named import SPACES
from daqu_tf.targets.target import TARGETS
from daqu_tf.tools import device_flags
from daqu_tf.training.schedule import AUGMENTATION_PARTS, AUGMENTATIONS, WARM_UPS
from daqu_tf.training.strategies import STRATEGIES

MODULES = (__name__, device_flags.__name__)  # The modules whose flags the tools of the job have.

_DATASET = flags.DEFINE_string(
    "dataset",
    None,
    "The data set: a folder with a folder of photos for each class, a .zip of one, a .csv of paths and labels, a .npz file, "
    "digits, fashion_mnist, mnist, cifar10 or cifar100.",
)
_IMAGE_SIZE = flags.DEFINE_string(
    "image_size",
    RunConfig.image_size,
    "The size that photos are brought to, in pixels: a side as 64, height and width as 48x64, or auto, at most 64.",
)
_GROUP_BY = flags.DEFINE_string(
    "group_by",
    RunConfig.group_by,
    "What photos stay in one split, as frames of one scene: a regular expression, whose first group in a photo's path counts, or a "
    "column of the .csv.",
)
_SKIP_BAD = flags.DEFINE_bool("skip_bad_files", RunConfig.skip_bad_files, "Leave photos out that cannot be read.")
_CACHE_DIR = flags.DEFINE_string("cache_dir", RunConfig.cache_dir, "The folder of the photos' pixels, which are decoded once.")
_CLASS_WEIGHTS = flags.DEFINE_enum(
    "class_weights",
    RunConfig.class_weights,
    CHOICES["class_weights"],
    "Let all classes count alike in training (balanced), or all images (none).",
)
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "The folder for everything that the run writes.")
_SPACE = flags.DEFINE_string(
    "space",
    RunConfig.space,
    f"The search space: {', '.join(SPACES)}, a .json file, or auto, the one whose networks are the fastest on the device.",
)
_TARGET = flags.DEFINE_string(
    "target", RunConfig.target, f"The target, which says what the networks are for: {', '.join(TARGETS)}."
)
_BUDGET = flags.DEFINE_float("budget_minutes", RunConfig.budget_minutes, "The minutes for the whole job.")
_FINALISTS = flags.DEFINE_integer("finalists", RunConfig.finalists, "The most members of the front to fine-tune and export.")
_CONSTRAINT = flags.DEFINE_multi_string(
    "constraint",
    list(RunConfig.constraint),
    "A constraint on the networks, in the search and as they ship, such as latency<=2ms, size<=100kB or accuracy>=90%. It may be "
    "given several times.",
)
_MAX_TRIALS = flags.DEFINE_integer("max_trials", RunConfig.max_trials, "The most subnets to score in the search.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", RunConfig.batch_size, "The number of images in a training step.")
_LEARNING_RATE = flags.DEFINE_float("learning_rate", RunConfig.learning_rate, "The peak learning rate of AdamW.")
_WARMUP = flags.DEFINE_enum(
    "warmup", RunConfig.warmup, WARM_UPS, "How architectures are sampled in the warm-up, which is in float."
)
_TRANSFER = flags.DEFINE_enum(
    "precision_transfer",
    RunConfig.precision_transfer,
    CHOICES["precision_transfer"],
    "How bits open in the supernet's training, from high to low; auto trains fewer bits only where they are searched.",
)
_PRECISIONS = flags.DEFINE_enum(
    "precisions",
    RunConfig.precisions,
    CHOICES["precisions"],
    "Search bits together with the architecture, or search architectures at the highest bits and give each finalist siblings of "
    "fewer bits; auto searches bits where they buy more than bytes on the target.",
)
_ARCHITECTURES = flags.DEFINE_enum(
    "architectures",
    RunConfig.architectures,
    CHOICES["architectures"],
    "Train a supernet and search architectures, or spend all minutes on networks that people scale by hand; auto searches where "
    "the minutes are enough for that to pay.",
)
_EPOCHS = flags.DEFINE_float("epochs", RunConfig.epochs, "The epochs of the supernet's training; 0 takes a share of the minutes.")
_FINETUNE_EPOCHS = flags.DEFINE_float(
    "finetune_epochs", RunConfig.finetune_epochs, "The epochs of each finalist's fine-tuning; 0 takes a share of the minutes."
)
_SCHEDULE = flags.DEFINE_string(
    "schedule", RunConfig.schedule, "A .json file with a whole training schedule, in place of the flags for it."
)
_AUGMENTATION = flags.DEFINE_string(
    "augmentation",
    RunConfig.augmentation,
    f"What is done to training images: {', '.join(AUGMENTATIONS)}, or some of {', '.join(AUGMENTATION_PARTS)} with commas between "
    "them; auto goes by the images.",
)
_STRATEGY = flags.DEFINE_enum("strategy", RunConfig.strategy, STRATEGIES, "The tf.distribute strategy of the supernet's training.")
_MIXED = flags.DEFINE_enum(
    "mixed_precision", RunConfig.mixed_precision, MIXED_PRECISIONS, "The type of float arithmetic in training, for GPUs."
)
_DETERMINISTIC = flags.DEFINE_bool(
    "deterministic", RunConfig.deterministic, "Train with one thread, so that --epochs repeat bit for bit."
)
_DEVICE = flags.DEFINE_string("device", RunConfig.device, f"{device_flags.DEVICE_HELP} Its latency counts in the search.")
_LATENCY = flags.DEFINE_enum(
    "latency",
    RunConfig.latency,
    LATENCIES,
    "Where the latency of subnets in the search comes from: a latency table, the device, or a table if one is given.",
)
_TABLE = flags.DEFINE_string(
    "latency_table", RunConfig.latency_table, "A .json file from daqu-profile; without it, --latency=table makes one."
)
_WORKERS = flags.DEFINE_integer(
    "workers", RunConfig.workers, "The processes at once; 0 takes one to score subnets, and one for each core to fine-tune."
)
_FROM = flags.DEFINE_string(
    "supernet_from",
    RunConfig.supernet_from,
    "The folder of a run whose trained supernet the job takes, for another constraint, device or number of finalists.",
)
_INIT_FROM = flags.DEFINE_string(
    "init_from",
    RunConfig.init_from,
    "A trained network to begin from, in a space around it: a .keras or .h5 file or a SavedModel of tf_keras, or "
    "mobilenet_v1_imagenet or mobilenet_v2_imagenet, which are downloaded.",
)
_TEACHER = flags.DEFINE_string(
    "teacher",
    RunConfig.teacher,
    "A trained network of the same classes, a .keras or .h5 file or a SavedModel of tf_keras, whose opinion is half of what the "
    "finalists are taught.",
)
_BEGIN_WITH = flags.DEFINE_enum(
    "begin_with",
    RunConfig.begin_with,
    CHOICES["begin_with"],
    "What networks that people scale by hand begin with where images are seen often: the weights of a larger one, which is trained "
    "before them and teaches them, or random ones.",
)
_SEED = flags.DEFINE_integer("seed", RunConfig.seed, "The seed of everything random.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Delete a run with other settings in the output folder.")
_ADD_MINUTES = flags.DEFINE_float(
    "add_minutes", None, "Minutes in which a finished run goes on, with further finalists from its supernet; for daqu-run alone."
)
_DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Print the plan of the job, with its minutes, images, memory and disk, and do nothing else."
)


def run_until(last_stage: str, argv: list[str]) -> None:
    """Runs the job with the settings that the flags give.

    Args:
        last_stage: The stage after which the job ends, one of `pipeline.STAGES`.
        argv: The arguments that are no flags, of which there are none.

    Raises:
        DaquError: The user has to mend something.
    """
    del argv
    if flags.FLAGS.dataset is None:
        raise DaquError("`dataset` must be given: --dataset=digits, or the path of a folder of photos or of a .npz file.")
    if flags.FLAGS.schedule:
        refuse("--schedule", kept=set(RunConfig.__dataclass_fields__) - {"warmup", "precision_transfer", "epochs"})
    # What is not given has its default in a new run, and a run that stands keeps its own.
    config = RunConfig(**{name: flags.FLAGS[name].value for name in RunConfig.__dataclass_fields__ if flags.FLAGS[name].present})
    from daqu_tf import pipeline

    if _DRY_RUN.value:
        print(pipeline.dry_run(config))
        return
    product = pipeline.run(config, overwrite=_OVERWRITE.value, last_stage=last_stage, add_minutes=_ADD_MINUTES.value)
    if product.name == "report.html":
        from daqu_tf.report.choosing import outline

        print(*filter(None, [outline(product.parent)]), sep="\n")
    is_worker = product.name == "trials.jsonl"  # A worker leaves the other stages to the chief.
    print("The search is over for this worker." if is_worker else f"{last_stage.capitalize()}: {product.resolve()}")


def refuse(because: str, kept: Iterable[str]) -> None:
    """Raises `DaquError` if a flag of the job is given that has no effect beside another.

    Args:
        because: The flag beside which it has none, such as `--schedule`.
        kept: The names of the flags that have an effect.
    """
    for name in {*RunConfig.__dataclass_fields__, "overwrite"} - set(kept):
        if flags.FLAGS[name].present:
            raise DaquError(f"--{name} has no effect beside {because}: leave one of them out.")
