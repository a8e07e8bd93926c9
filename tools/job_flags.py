"""The flags of the whole job, shared by `daqu-run` and by the tools that end after one of its stages."""

from absl import flags

from daqu_tf.config import RunConfig
from daqu_tf.spaces import SPACES
from daqu_tf.targets import TARGETS
from daqu_tf.tools import command

_DATASET = flags.DEFINE_string("dataset", None, "digits, a .npz file, fashion_mnist, mnist, cifar10 or cifar100.")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder for everything the run writes.")
_SPACE = flags.DEFINE_string("space", RunConfig.space, f"Search space: {', '.join(SPACES)}, or a .json file.")
_TARGET = flags.DEFINE_string("target", RunConfig.target, f"What the networks are for: {', '.join(TARGETS)}.")
_BUDGET = flags.DEFINE_float("budget_minutes", RunConfig.budget_minutes, "Minutes for everything.")
_FINALISTS = flags.DEFINE_integer("finalists", RunConfig.finalists, "Front members to fine-tune and export, at most.")
_MAX_TRIALS = flags.DEFINE_integer("max_trials", RunConfig.max_trials, "Subnets scored in the search, at most.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", RunConfig.batch_size, "Images in a training step.")
_LEARNING_RATE = flags.DEFINE_float("learning_rate", RunConfig.learning_rate, "Peak learning rate of AdamW.")
_WARMUP = flags.DEFINE_bool("warmup", RunConfig.warmup, "Train the architectures in full precision first.")
_TRANSFER = flags.DEFINE_enum(
    "precision_transfer", RunConfig.precision_transfer, ["progressive", "all_at_once"], "How weight widths open."
)
_WORKERS = flags.DEFINE_integer("workers", RunConfig.workers, "Processes that fine-tune at once; 0: one a core.")
_SEED = flags.DEFINE_integer("seed", RunConfig.seed, "Seed of everything random.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Delete a run with other settings in the output folder.")


def run_until(last_stage: str, usage: str) -> None:
    """A tool's `main`: runs the job with the settings given as flags, up to `last_stage`.

    Args:
        last_stage: One of `pipeline.STAGES`.
        usage: The tool's docstring.
    """

    def run(argv: list[str]) -> None:
        del argv
        config = RunConfig(**{name: flags.FLAGS[name].value for name in RunConfig.__dataclass_fields__})
        from daqu_tf import pipeline

        product = pipeline.run(config, overwrite=_OVERWRITE.value, last_stage=last_stage)
        print(f"{last_stage.capitalize()}: {product.resolve()}")

    command.main(run, usage, required=("dataset", "output_dir"), modules=(__name__,))
