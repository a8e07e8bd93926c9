"""Chooses one model of a run's front, says why, and copies what an application needs of it into one folder.

    daqu-choose runs/mine --constraint='latency<=2ms' --constraint='size<=100kB'
    daqu-choose runs/mine --constraint='accuracy>=90%' --prefer=size --output_dir=for_the_app

Accuracies are those that the finished files have on the search split. The folder gets the model, its manifest, `labels.txt`, a card
and `classify.py`, an example that needs nothing of daqu_tf.
"""

import json

from absl import flags

from daqu_tf.errors import DaquError
from daqu_tf.tools import command

_CONSTRAINT = flags.DEFINE_multi_string(
    "constraint", [], "What the model must meet, such as latency<=2ms, size<=100kB or accuracy>=90%. It may be given several times."
)
_PREFER = flags.DEFINE_enum(
    "prefer", "accuracy", ["accuracy", "latency", "size"], "What counts among the models that meet all constraints."
)
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "The folder for the model; by default chosen/NAME in that of the run.")
_JSON = flags.DEFINE_bool("json", False, "Print one JSON object instead: the model, its figures and the reasons.")


def _choose(argv: list[str]) -> None:
    from daqu_tf.report import choose

    if len(argv) != 1:
        raise DaquError(f"One folder of a run must be given, but received {len(argv)}: daqu-choose runs/mine.")
    choice = choose(argv[0], _CONSTRAINT.value, _PREFER.value, _OUTPUT_DIR.value)
    print(json.dumps(choice.to_json(), indent=1) if _JSON.value else f"{choice.why}\n{choice.neighbours}\nModel: {choice.model}")


def main() -> None:
    """The console script."""
    command.main(_choose, __doc__, modules=(__name__,), positional=True)


if __name__ == "__main__":
    main()
