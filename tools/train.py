"""Trains the supernet: warm-up, then precision transfer. `daqu-run` with the same flags goes on from there.

    daqu-train --dataset=digits --space=digits --budget_minutes=4 --output_dir=runs/digits

With --subnet it fine-tunes a subnet of a trained supernet instead: `largest`, `smallest`, the name of a finalist (m00), `front` for
all of those, or a JSON file of gene names and values.

    daqu-train --output_dir=runs/digits --subnet=largest --fine_tuning_minutes=1
"""

import pathlib

from absl import flags

from daqu_tf.tools import command, job_flags

_SUBNET = flags.DEFINE_string("subnet", None, "What to fine-tune: largest, smallest, a finalist, front, or a JSON file.")
_MINUTES = flags.DEFINE_float("fine_tuning_minutes", 2.0, "For each subnet.")
_DISTILLATION = flags.DEFINE_float("fine_tuning_distillation", 0.0, "Share of the largest subnet's opinion in what is taught.")


def _train(argv: list[str]) -> None:
    if _SUBNET.value is None:
        job_flags.run_until("supernet", argv)
        return
    job_flags.refuse("--subnet", kept=("output_dir", "overwrite"))
    from daqu_tf.progress import Progress
    from daqu_tf.trained_run import TrainedRun

    progress = Progress()
    folder = pathlib.Path(flags.FLAGS.output_dir)
    run = TrainedRun(folder)
    begun: set[str] = set()

    def begin(name: str) -> None:
        if name not in begun:
            progress.begin(f"fine-tuning {name}")
            begun.add(name)

    def on_progress(name: str, done: float) -> None:
        begin(name)
        progress.update("", 60 * _MINUTES.value * (1 - done))

    overwrite = flags.FLAGS.overwrite
    for row in run.fine_tune(_SUBNET.value, _MINUTES.value, _DISTILLATION.value, on_progress, overwrite):
        begin(row["name"])
        before, after = (row["search_accuracy"][name] for name in ("inherited", "fine_tuned"))
        path = folder / "fine_tuned" / f"{row['name']}.npz"
        progress.end(f"{before:.1%} inherited, {after:.1%} fine-tuned, on the search split; {path}")


def main() -> None:
    """The console script."""
    command.main(_train, __doc__, required=("output_dir",), modules=(job_flags.__name__, __name__))


if __name__ == "__main__":
    main()
