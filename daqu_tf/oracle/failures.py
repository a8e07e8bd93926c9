"""The errors that end a search before its time, and the text that is shown for a failed trial."""

import textwrap

from daqu_tf.errors import DaquError

LINE_LENGTH = 500


class SearchFailedError(DaquError, RuntimeError):
    """Too many trials failed in a row. It is a `RuntimeError`, as KerasTuner's contract says."""


def last_line(message: str | None) -> str:
    """The last line of a trial's message, which is mostly a stack trace, shortened to `LINE_LENGTH`."""
    return textwrap.shorten((message or "no message").strip().splitlines()[-1], LINE_LENGTH, placeholder=" ...")
