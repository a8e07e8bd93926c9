"""Trains the supernet only: warm-up, then precision transfer. `daqu-run` with the same flags goes on from there.

daqu-train --dataset=digits --space=digits --budget_minutes=4 --output_dir=runs/digits
"""

from daqu_tf.tools import job_flags


def main() -> None:
    """The console script."""
    job_flags.run_until("supernet", __doc__)


if __name__ == "__main__":
    main()
