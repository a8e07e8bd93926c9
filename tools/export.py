"""Exports one subnet of a trained supernet, with inherited or fine-tuned weights, to a `.tflite` file.

    daqu-export --run=runs/digits --subnet=largest --output=largest.tflite --input_type=uint8

The subnet is `largest`, `smallest`, the name of a finalist (m00), or a JSON file of gene names and values.
"""

import pathlib
import sys

from absl import flags

from daqu_tf import targets
from daqu_tf.tools import command

_RUN = flags.DEFINE_string("run", None, "The output folder of daqu-run or daqu-train.")
_SUBNET = flags.DEFINE_string("subnet", "largest", "The subnet: largest, smallest, the name of a finalist, or a JSON file.")
_FINE_TUNED = flags.DEFINE_bool(
    "fine_tuned",
    None,
    "Take the weights that `daqu-train --subnet` left, or else the finalist's own; --nofine_tuned takes those of the supernet. By "
    "default a finalist is the one of the report, and others have the best weights that there are.",
)
_CONTAINER = flags.DEFINE_enum(
    "container", None, targets.CONTAINERS, "The container of the weights; by default that of the run's target."
)
_RUNTIME = flags.DEFINE_enum(
    "runtime", None, targets.RUNTIMES, "The oldest runtime that has to run the file; by default that of the run's target."
)
_INPUT_TYPE = flags.DEFINE_enum(
    "input_type",
    None,
    targets.TYPES,
    "The type of the input, for 8-bit pixels: uint8 takes them as they are, int8 takes pixel - 128, float32 takes pixel / 255.",
)
_OUTPUT_TYPE = flags.DEFINE_enum(
    "output_type", None, targets.TYPES, "The type of the logits; by default int8, or float32 in a float file."
)
_OUTPUT = flags.DEFINE_string("output", None, "The .tflite file to write.")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace a file that holds another network.")


def _export(argv: list[str]) -> None:
    del argv
    from daqu_tf.pipeline.trained_run import TrainedRun

    run, path = TrainedRun(pathlib.Path(_RUN.value)), pathlib.Path(_OUTPUT.value)
    usual = targets.get(run.config.target).storage
    container, runtime = _CONTAINER.value or usual.container, _RUNTIME.value or usual.runtime
    storage = targets.Storage(container, runtime, _INPUT_TYPE.value, _OUTPUT_TYPE.value)
    manifest = run.export(_SUBNET.value, _FINE_TUNED.value, path, storage, _OVERWRITE.value)
    weights = "fine-tuned" if "fine_tuned" in manifest.accuracy else "with the supernet's weights, which were not fine-tuned"
    figures = f"{manifest.file_bytes:,} bytes, {manifest.accuracy['file']['test']:.1%} on test"
    if note := run.note(manifest):
        print(f"Note: {note}", file=sys.stderr)
    print(f"Wrote {path}: {manifest.name}, {weights} ({figures}), and {path.with_suffix('.manifest.json').name}")


def main() -> None:
    """The console script."""
    command.main(_export, __doc__, required=("run", "output"), modules=(__name__,))


if __name__ == "__main__":
    main()
