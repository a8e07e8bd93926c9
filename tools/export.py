"""Exports one subnet of a trained supernet, with inherited or fine-tuned weights, to a `.tflite` file.

    daqu-export --run=runs/digits --subnet=largest --output=largest.tflite --input_type=uint8

The subnet is `largest`, `smallest`, the name of a finalist (m00), or a JSON file of gene names and values.
"""

import pathlib

from absl import flags

from daqu_tf.tools import command

_RUN = flags.DEFINE_string("run", None, "Output folder of daqu-run or daqu-train.")
_SUBNET = flags.DEFINE_string("subnet", "largest", "largest, smallest, a finalist's name, or a JSON file.")
_FINE_TUNED = flags.DEFINE_bool("fine_tuned", False, "With the weights that `daqu-train --subnet` left, else the finalist's own.")
_INPUT_TYPE = flags.DEFINE_enum("input_type", "int8", ("int8", "uint8"), "uint8: pixels as they are; int8: pixel - 128.")
_OUTPUT = flags.DEFINE_string("output", None, "The .tflite file to write.")


def _export(argv: list[str]) -> None:
    del argv
    from daqu_tf.trained_run import TrainedRun

    run, path = TrainedRun(pathlib.Path(_RUN.value)), pathlib.Path(_OUTPUT.value)
    run.export(_SUBNET.value, _FINE_TUNED.value, path, _INPUT_TYPE.value)
    print(f"Wrote {path} ({path.stat().st_size:,} bytes)")


def main() -> None:
    """The console script."""
    command.main(_export, __doc__, required=("run", "output"), modules=(__name__,))


if __name__ == "__main__":
    main()
