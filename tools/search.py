"""Trains the supernet where that is not done yet, then searches it and chooses the finalists. `daqu-run` goes on from there.

daqu-search --dataset=digits --space=digits --budget_minutes=4 --output_dir=runs/digits
"""

import functools

from daqu_tf.tools import command, job_flags


def main() -> None:
    """The console script."""
    command.main(functools.partial(job_flags.run_until, "search"), __doc__, ("dataset", "output_dir"), job_flags.MODULES)


if __name__ == "__main__":
    main()
