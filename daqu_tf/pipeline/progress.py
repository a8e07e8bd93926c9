"""One line a stage while the job runs: what it is doing, how far it is, how long it will take, the best so far."""

import sys
import time
from typing import TextIO

_LINE_SECONDS = 30.0  # Between lines where the output is a file, in which a line cannot be rewritten.
_TERMINAL_SECONDS = 0.5
_BAR_LETTERS = 24


class Progress:
    """Prints the state of one stage after another.

    Args:
        stream: Where to; a terminal is rewritten in place.
    """

    def __init__(self, stream: TextIO | None = None):
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._stage, self._began, self._shown = "", 0.0, 0.0

    def begin(self, stage: str) -> None:
        """Starts a stage."""
        self._stage, self._began, self._shown = stage, time.monotonic(), 0.0
        self.update("", None)

    def update(self, text: str, left_seconds: float | None) -> None:
        """Shows `text` and the time left, not too often."""
        now = time.monotonic()
        if now - self._shown < (_TERMINAL_SECONDS if self._live else _LINE_SECONDS):
            return
        self._shown = now
        left = "" if left_seconds is None else f"  {minutes(left_seconds)} left"
        self._print(f"{self._stage:<19} {minutes(now - self._began)}{left}  {text}", end="" if self._live else "\n")

    def end(self, text: str) -> None:
        """Ends the stage with a line that stays."""
        self._print(f"{self._stage:<19} {minutes(time.monotonic() - self._began)}  {text}", end="\n")

    def say(self, text: str) -> None:
        """Lines that stay, between two stages."""
        self._print(text, end="\n")

    def warn(self, text: str) -> None:
        """A line that stays, for something the user should know; the stage goes on."""
        self._print(f"Warning: {text}", end="\n")
        self._shown = 0.0

    def abandon(self) -> None:
        """Leaves the line as it is: what comes next is an error's."""
        if self._live:
            self._print(self._stage, end="\n")

    def _print(self, line: str, end: str) -> None:
        start, clear = ("\r", "\x1b[K") if self._live else ("", "")
        self._stream.write(f"{start}{line.rstrip()}{clear}{end}")
        self._stream.flush()


def bar(done: int, total: int) -> str:
    """How much of something is done: `[######..................] 200 of 774`."""
    filled = _BAR_LETTERS * done // total
    return f"[{'#' * filled}{'.' * (_BAR_LETTERS - filled)}] {done} of {total}"


def minutes(seconds: float) -> str:
    """Minutes and seconds, as 3:07."""
    return f"{int(max(seconds, 0)) // 60}:{int(max(seconds, 0)) % 60:02d}"
