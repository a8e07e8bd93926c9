"""The frame of all tools: flags, no noise from TensorFlow, and one sentence for what the user can mend."""

import errno
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence

from absl import app, flags
from absl import logging as absl_logging

from daqu_tf.errors import DaquError


def main(
    run: Callable[[list[str]], None],
    usage: str,
    required: Sequence[str] = (),
    modules: Sequence[str] = (),
    positional: bool = False,
) -> None:
    """Parses the flags and calls `run(arguments)`; exits with status 1 and one sentence on a `DaquError`.

    Args:
        run: The function that does the work of the tool, which gets the arguments that are no flags.
        usage: The docstring of the tool, which --help shows.
        required: The names of the flags that must be given.
        modules: The names of the modules whose flags --help shows.
        positional: Whether there may be arguments that are no flags.
    """
    # absl shows the flags and the docstring of the main module, which a console script is not.
    for module in modules:
        for flag in flags.FLAGS.flags_by_module_dict().get(module, ()):
            flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    sys.modules["__main__"].__doc__ = usage
    for name in required:
        flags.mark_flag_as_required(name)
    _check_flags(required)
    app.run(lambda argv: _guard(run, argv[1:], positional))


def _check_flags(required: Sequence[str]) -> None:
    """Exits with one sentence where the command line is wrong, for which absl has its own words."""
    app.define_help_flags()
    sys.argv = ["--help" if word == "-h" else word for word in sys.argv]
    try:
        _check_once(sys.argv)
        flags.FLAGS(sys.argv)
        flags.FLAGS.unparse_flags()  # Else those of lists would have each value twice.
    except flags.Error as error:
        missing = [name for name in required if flags.FLAGS[name].value is None]
        is_missing = missing and isinstance(error, flags.IllegalFlagValueError)
        _exit(_without(missing, sys.argv) if is_missing else str(error))


def _exit(message: str) -> None:
    print(f"Error: {message} (--help shows all flags.)", file=sys.stderr)
    sys.exit(1)


def _without(missing: Sequence[str], argv: Sequence[str]) -> str:
    """The sentence for flags that are missing, where a word that is no flag may be the value of the first."""
    names = ", ".join(f"--{name}" for name in missing) + (" is" if len(missing) == 1 else " are")
    loose = [word for word in argv[1:] if not word.startswith("-")]
    remedy = f"write --{missing[0]}={loose[0]}, if that is it." if loose else f"give --{missing[0]}=..."
    return f"{names} missing: {remedy}"


def _check_once(argv: Sequence[str]) -> None:
    """Raises `flags.Error` for a flag that is given twice, where the second would win in silence."""
    given = [word.partition("=")[0].lstrip("-") for word in argv[1:] if word.startswith("-")]
    for name in given:
        is_single = name in flags.FLAGS and name != "flagfile" and not isinstance(flags.FLAGS[name], flags.MultiFlag)
        if is_single and given.count(name) > 1:
            raise flags.Error(f"--{name} is given twice: leave one out.")


def _guard(run: Callable[[list[str]], None], arguments: list[str], positional: bool) -> None:
    if arguments and not positional:
        _exit(f"Nothing is known of {arguments[0]!r}: settings are given as --name=value.")
    if not flags.FLAGS["verbosity"].present:
        quieten()
    try:
        run(arguments)
    except DaquError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # The reader of the output has gone, and Python would complain again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"Error: {error.strerror}: free some and run the same command, which goes on from there.", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        sys.exit(130)


def quieten() -> None:
    """Keeps TensorFlow's messages and warnings away, here and in child processes.

    Its libraries write to the file descriptor of stderr before any setting is read, so the descriptor is pointed elsewhere.
    Python's own `sys.stderr`, with our progress and every stack trace, still goes to where it went.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    warnings.filterwarnings("ignore")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    absl_logging.set_verbosity(absl_logging.ERROR)
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace")
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
