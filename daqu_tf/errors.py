"""The error for what a user can mend, whose message is one sentence that ends in the remedy."""


class DaquError(ValueError):
    """An input cannot be used. The message is one sentence that names the input, what came, and what to do.

    Tools print the message and exit with status 1; every other exception is a bug and keeps its stack trace.
    """
