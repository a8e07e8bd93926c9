"""What every tool does: flags, TensorFlow's noise kept away, and one sentence for what the user can mend."""

import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence

from absl import app, flags

from daqu_tf.errors import DaquError


def main(run: Callable[[list[str]], None], usage: str, required: Sequence[str] = ()) -> None:
    """Parses the flags and calls `run(argv)`; exits with status 1 and one sentence on a `DaquError`, 2 on wrong flags.

    Args:
        run: The tool's work.
        usage: The tool's docstring, shown by --help.
        required: Names of flags that must be given.
    """
    # absl prints the help of the module it takes for the main one; a console script is not that.
    module = run.__globals__["__name__"]
    if module != "__main__":
        for flag in flags.FLAGS.flags_by_module_dict()[module]:
            flags.FLAGS._register_key_flag_for_module(sys.argv[0], flag)
    sys.modules["__main__"].__doc__ = usage
    for name in required:
        flags.mark_flag_as_required(name)
    app.run(lambda argv: _guard(run, argv))


def _guard(run: Callable[[list[str]], None], argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected argument {argv[1]!r}: settings are given as --name=value.")
    if flags.FLAGS.verbosity < 0:
        quieten()
    try:
        run(argv)
    except DaquError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from here.", file=sys.stderr)
        sys.exit(130)


def quieten() -> None:
    """Keeps TensorFlow's start-up messages and deprecation warnings away, here and in child processes."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    warnings.filterwarnings("ignore")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
