"""Verifies exported models, each file against the bytes, layers, labels and accuracy in the manifest beside it.

    daqu-verify-models tflite_models --dataset_path=fashion_mnist=fashion_mnist.npz

Without a folder it takes `tflite_models` of the checkout. If there are faults, it prints a sentence for each and exits with status
1. The accuracy is computed if the data set is at hand: `digits` always is, and --dataset_path says where others are. Nothing is
downloaded, unless with --dataset_path=fashion_mnist=fashion_mnist.
"""

import pathlib
import sys

from absl import flags

from daqu_tf.errors import DaquError
from daqu_tf.tools import command

_PATHS = flags.DEFINE_multi_string("dataset_path", [], "The path of a data set, as NAME=PATH. It may be given several times.")
_MARKDOWN = flags.DEFINE_bool("markdown", False, "Print the manifests as a table for a README, and verify nothing.")
_CHECKOUT = pathlib.Path(__file__).resolve().parent.parent / "tflite_models"


def _verify(argv: list[str]) -> None:
    from daqu_tf import export, files
    from daqu_tf.export import verification

    manifests = verification.find([pathlib.Path(name) for name in argv] or [_CHECKOUT])
    if _MARKDOWN.value:
        from daqu_tf.report import card

        print(card.table_of(map(files.read_json, manifests)))
        return
    verifier = export.Verifier(dict(map(_pair, _PATHS.value)))
    verdicts = [verifier.verify(path) for path in manifests]
    print(verification.table(verdicts))
    for fault in (faults := [fault for verdict in verdicts for fault in verdict.faults]):
        print(f"Error: {fault}", file=sys.stderr)
    sys.exit(bool(faults))


def _pair(text: str) -> tuple[str, str]:
    name, _, path = text.partition("=")
    if not name or not path:
        raise DaquError(f"`dataset_path` must be NAME=PATH, as fashion_mnist=data/fashion_mnist.npz, but received {text!r}.")
    return name, path


def main() -> None:
    """The console script."""
    command.main(_verify, __doc__, modules=(__name__,), positional=True)


if __name__ == "__main__":
    main()
