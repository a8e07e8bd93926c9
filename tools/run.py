"""Makes a Pareto set of `.tflite` files for a data set: searched, fine-tuned, and timed on this machine, a board or a phone.

    daqu-run --dataset=digits --space=digits --budget_minutes=4 --output_dir=runs/digits

The same command goes on where it was cut off.
"""

import functools

from daqu_tf.tools import command, job_flags


def main() -> None:
    """The console script."""
    command.main(functools.partial(job_flags.run_until, "report"), __doc__, ("dataset", "output_dir"), job_flags.MODULES)


if __name__ == "__main__":
    main()
