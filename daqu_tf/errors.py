"""Errors for what a user can mend, whose message is one sentence that ends in the remedy."""

import errno

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # The disk is full, or the user's share of it, or the file may not grow.
DISK = (*FULL, errno.EIO, errno.EROFS)  # What is wrong with a disk, whatever is written to it.


class DaquError(ValueError):
    """An input cannot be used. The message is one sentence that names the input, what came, and what to do.

    Tools print the message and exit with status 1; every other exception is a bug and keeps its stack trace.
    """


class WriteError(OSError, DaquError):
    """A file that cannot be written, for a reason that its system gives; made as an `OSError` is, of number, text and path."""

    def __str__(self) -> str:
        remedy = {
            errno.EFBIG: "raise the limit on the size of files (`ulimit -f`), then run the same again",
            errno.ENOSPC: "make room, then run the same again",
            errno.EDQUOT: "make room, then run the same again",
        }.get(self.errno or 0, "mend that, or choose another path")
        return f"{self.filename} cannot be written ({self.strerror}): {remedy}."

    @classmethod
    def of(cls, path: object, error: OSError) -> "WriteError":
        """The error of a system as one that names the file, whatever call it came from."""
        return cls(error.errno or errno.EIO, error.strerror or str(error) or type(error).__name__, str(path))
