"""Writes the report of a run again: `report.html`, `pareto.png` and `pareto.csv`.

daqu-report --run=runs/digits
"""

import pathlib

from absl import flags

from daqu_tf.tools import command

_RUN = flags.DEFINE_string("run", None, "The output folder of daqu-run.")


def _report(argv: list[str]) -> None:
    del argv
    from daqu_tf.report import write_report

    print(f"Report: {write_report(pathlib.Path(_RUN.value)).resolve()}")


def main() -> None:
    """The console script."""
    command.main(_report, __doc__, required=("run",), modules=(__name__,))


if __name__ == "__main__":
    main()
