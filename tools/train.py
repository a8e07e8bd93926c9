"""Trains the supernet in a warm-up and a precision transfer. `daqu-run` with the same flags goes on from there.

    daqu-train --dataset=digits --space=digits --budget_minutes=4 --output_dir=runs/digits

With --subnet it fine-tunes a subnet of a trained supernet instead: `largest`, `smallest`, the name of a finalist (m00), `front` for
all finalists, or a JSON file of gene names and values.

    daqu-train --output_dir=runs/digits --subnet=largest --fine_tuning_minutes=1

With --fine_tuning_steps in place of minutes, in a run that is --deterministic, the same command gives the same weights bit for bit.
"""

import pathlib
import time

from absl import flags

from daqu_tf import machine
from daqu_tf.tools import command, job_flags

_SUBNET = flags.DEFINE_string(
    "subnet", None, "The subnet to fine-tune: largest, smallest, the name of a finalist, front, or a JSON file."
)
_MINUTES = flags.DEFINE_float("fine_tuning_minutes", None, "The minutes for each subnet; by default 2.")
_STEPS = flags.DEFINE_integer("fine_tuning_steps", None, "The steps for each subnet, in place of minutes.")
_DISTILLATION = flags.DEFINE_float("fine_tuning_distillation", 0.0, "The share of the largest subnet's opinion in what is taught.")


def _train(argv: list[str]) -> None:
    if _SUBNET.value is None:
        job_flags.run_until("supernet", argv)
        return
    job_flags.refuse("--subnet", kept=("output_dir", "overwrite"))
    machine.check_training()  # Before the data of the run is loaded.
    from daqu_tf.pipeline.progress import Progress
    from daqu_tf.pipeline.trained_run import TrainedRun

    progress = Progress()
    folder = pathlib.Path(flags.FLAGS.output_dir)
    run = TrainedRun(folder)
    begun: dict[str, tuple[float, float]] = {}

    def begin(name: str, done: float) -> tuple[float, float]:
        if name not in begun:
            progress.begin(f"fine-tuning {name}")
            begun[name] = time.monotonic(), done
        return begun[name]

    def on_progress(name: str, done: float) -> None:
        began, before = begin(name, done)  # This is after the first step, which traces for many seconds.
        progress.update("", (time.monotonic() - began) * (1 - done) / max(done - before, 1e-9))

    how = {"minutes": _MINUTES.value, "steps": _STEPS.value, "distillation": _DISTILLATION.value}
    for row in run.fine_tune(_SUBNET.value, on_progress, **how, overwrite=flags.FLAGS.overwrite):
        begin(row["name"], 1.0)
        before, after = (row["search_accuracy"][name] for name in ("inherited", "fine_tuned"))
        path = folder / "fine_tuned" / f"{row['name']}.npz"
        progress.end(f"{before:.1%} inherited, {after:.1%} fine-tuned, on the search split; {path}")


def main() -> None:
    """The console script."""
    command.main(_train, __doc__, required=("output_dir",), modules=(*job_flags.MODULES, __name__))


if __name__ == "__main__":
    main()
