"""KerasTuner's side of a search: an oracle proposes trials, keeps them, and shares them out among workers.

`oracle` proposes trials by the surrogate search of `daqu_tf.pareto`, over `hyperparameters` and `objectives`. It is built on
`journaled_oracle`, which gives trials to workers by `leases`, and on `stored_trials`, which keeps their `records` in an
append-only `journal`. `attempts` that come to no end fail a trial, and `failures` end a search early. `chief` serves trials over
gRPC, `client` is a worker's side of that, and `distributed_tuner` makes any tuner a chief or a worker, by the `roles` that the
environment gives. `asked` notices models that ask for another space than before. `keras_tuner_files` writes what KerasTuner's own
tools read.
"""

from typing import TYPE_CHECKING

from daqu_tf.lazy import attach

if TYPE_CHECKING:
    from daqu_tf.oracle.distributed_tuner import DistributedTuner
    from daqu_tf.oracle.failures import SearchFailedError
    from daqu_tf.oracle.oracle import ParetoOracle

__all__ = ["ParetoOracle", "DistributedTuner", "SearchFailedError"]

__getattr__, __dir__ = attach(
    __name__,
    {
        "ParetoOracle": "oracle",
        "DistributedTuner": "distributed_tuner",
        "SearchFailedError": "failures",
    },
)
