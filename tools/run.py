"""From a data set to a Pareto set of `.tflite` files, searched, fine-tuned and timed on this machine.

    daqu-run --dataset=digits --space=digits --budget_minutes=4 --output_dir=runs/digits

The same command goes on where it was cut off.
"""

from absl import flags

from daqu_tf.config import RunConfig
from daqu_tf.tools import command

_DATASET = flags.DEFINE_string("dataset", None, "digits, a .npz file, fashion_mnist, mnist, cifar10 or cifar100.")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Folder for everything the run writes.")
_SPACE = flags.DEFINE_string("space", RunConfig.space, "Search space: digits or mobilenet_v2_28.")
_TARGET = flags.DEFINE_string("target", RunConfig.target, "What the networks are for: litert_cpu or litert_cpu_int8.")
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


def _run(argv: list[str]) -> None:
    del argv
    config = RunConfig(
        dataset=_DATASET.value,
        output_dir=_OUTPUT_DIR.value,
        space=_SPACE.value,
        target=_TARGET.value,
        budget_minutes=_BUDGET.value,
        finalists=_FINALISTS.value,
        max_trials=_MAX_TRIALS.value,
        batch_size=_BATCH_SIZE.value,
        learning_rate=_LEARNING_RATE.value,
        warmup=_WARMUP.value,
        precision_transfer=_TRANSFER.value,
        workers=_WORKERS.value,
        seed=_SEED.value,
    )
    from daqu_tf.pipeline import run

    report = run(config, overwrite=_OVERWRITE.value)
    print(f"Report: {report.resolve()}")


def main() -> None:
    """The console script."""
    command.main(_run, __doc__, required=("dataset", "output_dir"))


if __name__ == "__main__":
    main()
