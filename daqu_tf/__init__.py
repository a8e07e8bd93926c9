"""Joint search of network architecture and per-layer precision that ends in real `.tflite` files.

One flow, one direction:

    architecture -> space, spaces -> targets, costs -> samplers, schedule -> quantizers -> layers -> units -> supernet
    -> evaluation -> training -> fine_tuning -> export -> devices -> oracle -> tuner -> report

`daqu_tf.run(RunConfig(...))` goes through all of it (`pipeline.py`); each stage can be used alone, and `trained_run.py` holds what
else can be done with a trained supernet. A search is one process, or a `chief` and its `worker`s. Beside the flow stand `baked`, a
subnet as a plain tf_keras model, and `stock_models`, switchable bits for any tf_keras model, which `export_tflite` takes too;
`verification` compares files with their manifests.
"""

from daqu_tf.environment import check_keras
from daqu_tf.errors import DaquError
from daqu_tf.lazy import attach

__version__ = "0.1.0"

_LAZY = {
    "RunConfig": "config",
    "run": "pipeline",
    "TrainedRun": "trained_run",
    "ParetoOracle": "oracle",
    "DaquTuner": "tuner",
    "DistributedTuner": "distributed_tuner",
    "Schedule": "schedule",
    "WarmUp": "schedule",
    "PrecisionTransfer": "schedule",
    "SearchSpace": "space",
    "Subnet": "space",
    "Target": "targets",
    "Storage": "targets",
    "export_tflite": "export",
    "round_biases": "export",
}
__all__ = ["DaquError", "__version__", "check_keras", *_LAZY]

__getattr__, __dir__ = attach(__name__, _LAZY)
