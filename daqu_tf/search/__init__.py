"""The joint search of architecture and bits over a trained supernet.

`candidates` measures what a trial reports, in `timing_turns` where workers share a machine. `tuner` is KerasTuner's loop over
trials, `search` sets it up for a space, and `finalists` chooses the members of the front that are trained further.
"""

from typing import TYPE_CHECKING

from daqu_tf.lazy import attach

if TYPE_CHECKING:
    from daqu_tf.search.candidates import Candidates
    from daqu_tf.search.search import make_tuner
    from daqu_tf.search.tuner import DaquTuner

__all__ = ["make_tuner", "Candidates", "DaquTuner"]

__getattr__, __dir__ = attach(
    __name__,
    {
        "make_tuner": "search",
        "Candidates": "candidates",
        "DaquTuner": "tuner",
    },
)
