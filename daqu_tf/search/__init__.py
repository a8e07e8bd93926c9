"""The joint search of architecture and bits over a trained supernet.

`candidates` is what a trial measures, in `timing_turns` where workers share a machine; `tuner` is KerasTuner's loop over them,
`search` sets it up for a space, and `finalists` chooses which members of the front are trained on.
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
