"""Exports one subnet of a trained supernet, with inherited or fine-tuned weights, to a `.tflite` file.

    daqu-export --run=runs/digits --subnet=largest --output=largest.tflite

The subnet is `largest`, `smallest`, the name of a finalist (m00), or a JSON file of gene names and values.
"""

import pathlib

from absl import flags

from daqu_tf.tools import command

_RUN = flags.DEFINE_string("run", None, "Output folder of daqu-run or daqu-train.")
_SUBNET = flags.DEFINE_string("subnet", "largest", "largest, smallest, a finalist's name, or a JSON file.")
_FINE_TUNED = flags.DEFINE_bool("fine_tuned", False, "With the weights that `daqu-train --subnet` left.")
_OUTPUT = flags.DEFINE_string("output", None, "The .tflite file to write.")


def _export(argv: list[str]) -> None:
    del argv
    from daqu_tf.trained_run import TrainedRun

    path = TrainedRun(pathlib.Path(_RUN.value)).export(_SUBNET.value, _FINE_TUNED.value, pathlib.Path(_OUTPUT.value))
    print(f"Wrote {path} ({path.stat().st_size:,} bytes)")


def main() -> None:
    """The console script."""
    command.main(_export, __doc__, required=("run", "output"), modules=(__name__,))


if __name__ == "__main__":
    main()
