"""What ends a search before its time, and how a failed trial's message is shown."""

import textwrap

from daqu_tf.errors import DaquError

LINE_LENGTH = 500


class SearchFailedError(DaquError, RuntimeError):
    """Too many trials failed in a row; KerasTuner's contract is a `RuntimeError`."""


class NewEntryError(DaquError, RuntimeError):
    """A hyperparameter that is registered too late to be searched; KerasTuner's contract for others is a `RuntimeError`."""


def last_line(message: str | None) -> str:
    """What a trial's message, mostly a stack trace, comes down to."""
    return textwrap.shorten((message or "no message").strip().splitlines()[-1], LINE_LENGTH, placeholder=" ...")
