"""The whole job, in order and resumable: data, supernet, search, finalists, timing, report.

`pipeline` is a `job` that goes through `stages` by a `plan`, within a `budget` of minutes, which may take a `narrowing` of space;
where nobody names a space, `suiting` finds it, and `limits` finds constraints that nothing in it meets. `forecast` says what the
minutes are worth by the `speed` of this machine; where they are too few for a supernet to pay, the finalists are networks scaled
`by_hand`.
`finalists` starts a process of `finalist` for each network that is trained on, with its `siblings` of fewer bits, `search_workers`
those of a search, both by `processes`; `front` is the finished members' Pareto front, `progress` what a terminal shows.
`adopted` is the trained supernet of another run, `initial` a trained network to begin from, whose learning rate is one of the
`rates` that are tried, and `trained_run` what can be done with a trained supernet beside the job.
"""

from typing import TYPE_CHECKING

from daqu_tf.lazy import attach

if TYPE_CHECKING:
    from daqu_tf.pipeline.pipeline import STAGES, dry_run, run
    from daqu_tf.pipeline.trained_run import TrainedRun

__all__ = ["run", "dry_run", "STAGES", "TrainedRun"]

__getattr__, __dir__ = attach(
    __name__,
    {
        "run": "pipeline",
        "dry_run": "pipeline",
        "STAGES": "pipeline",
        "TrainedRun": "trained_run",
    },
)
