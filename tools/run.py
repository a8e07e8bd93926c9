"""From a data set to a Pareto set of `.tflite` files, searched, fine-tuned and timed on this machine.

    daqu-run --dataset=digits --space=digits --budget_minutes=4 --output_dir=runs/digits

The same command goes on where it was cut off.
"""

from daqu_tf.tools import job_flags


def main() -> None:
    """The console script."""
    job_flags.run_until("report", __doc__)


if __name__ == "__main__":
    main()
