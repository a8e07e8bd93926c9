"""Trains the supernet where that is not done yet, then searches it and chooses the finalists. `daqu-run` goes on from there.

daqu-search --dataset=digits --space=digits --budget_minutes=4 --output_dir=runs/digits
"""

from daqu_tf.tools import job_flags


def main() -> None:
    """The console script."""
    job_flags.run_until("search", __doc__)


if __name__ == "__main__":
    main()
