"""How often each trial was begun and came to no end: some trials end the process that runs them."""

import collections

MOST = 3  # So often a user may kill and restart a search in the same trial, less one, and it runs again.


class Attempts:
    """Counts the times that trials were begun and not ended, from what the journal says of them.

    A trial that is begun again while it has no end was lost once more: whoever ran it was killed, crashed, fell silent, or made a
    report that could not be believed. What was given back in good order is not lost.

    Args:
        most: How often a trial may be lost before it is hopeless.
    """

    def __init__(self, most: int = MOST):
        self._most = most
        self._open: set[str] = set()
        self._lost: collections.Counter[str] = collections.Counter()
        self._why: dict[str, str] = {}
        self._refused: set[str] = set()

    def begin(self, trial: str, worker: str) -> None:
        """A trial is given to a worker, by now or again."""
        self._lost[trial] += trial in self._open
        self._open.add(trial)
        self._refused.discard(trial)
        self._why[trial] = f"by {worker}, whose process is gone"

    def give_back(self, trial: str) -> None:
        """Whoever has a trial leaves it in good order."""
        self._open.discard(trial)

    def end(self, trial: str) -> None:
        """A trial has ended, well or not: no process died of it."""
        self._open.discard(trial)
        self._refused.discard(trial)
        self._lost.pop(trial, None)
        self._why.pop(trial, None)

    def explain(self, trial: str, why: str) -> None:
        """What is known of how a trial was lost last, for `message`: "by worker0, which was killed"."""
        self._why[trial] = why

    def refuse(self, trial: str, why: str) -> None:
        """A trial's report is not believed; whoever made it has no such trial any more when it asks for the next."""
        self._refused.add(trial)
        self.explain(trial, why)

    def is_refused(self, trial: str) -> bool:
        """Whether the last report of a trial that has not been given out since was refused."""
        return trial in self._refused

    def is_hopeless(self, trial: str) -> bool:
        """Whether a trial that nobody runs has been lost too often to be given out again."""
        return self._count(trial) >= self._most

    def _count(self, trial: str) -> int:
        return self._lost[trial] + (trial in self._open)

    def message(self, trial: str) -> str:
        """Why a hopeless trial has failed, in one line."""
        return (
            f"Trial {trial} was begun {self._count(trial)} times and never came to an end, the last time {self._why[trial]}: "
            "it may need more memory than there is, or crash in compiled code. Run it by itself, or leave such values out of the "
            "space; if it was you who ended it so often, raise `max_deaths_per_trial`."
        )
