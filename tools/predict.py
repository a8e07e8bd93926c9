"""Says what a .tflite file sees in a photo, or in all photos of a folder: the reference for applications that call the file.

    daqu-predict runs/mine/models/m00.tflite photo.jpg
    daqu-predict runs/mine/models/m00.tflite photos --top=3

First it prints what becomes of a photo before the model reads it, then a line a photo: file, label and score. What is no image is
named and left out, and then the exit status is 1.
"""

import json
import sys

from absl import flags

from daqu_tf.errors import DaquError
from daqu_tf.tools import command

_JSON = flags.DEFINE_bool("json", False, "Print one JSON object instead: the preprocessing, and the classes of each photo.")
_TOP = flags.DEFINE_integer("top", 1, "How many classes to name for each photo, the most probable ones.", lower_bound=1)


def _predict(argv: list[str]) -> None:
    from daqu_tf.export import predict

    if len(argv) != 2:
        raise DaquError(f"A model and a photo or a folder must be given, but received {len(argv)} paths: daqu-predict MODEL PHOTO.")
    model, photo = argv
    found = predict(model, photo, _TOP.value)
    if _JSON.value:
        print(json.dumps(found.to_json(), indent=1))
    else:
        print(found.preprocessing.text())
        for each in found.found:
            print(f"{each.photo}: {', '.join(f'{label} {score:.1%}' for label, score in zip(each.labels, each.scores))}")
    for fault in found.faults:
        print(f"Error: {fault}", file=sys.stderr)
    sys.exit(bool(found.faults))


def main() -> None:
    """The console script."""
    command.main(_predict, __doc__, modules=(__name__,), positional=True)


if __name__ == "__main__":
    main()
