"""Joint search of network architecture and per-layer precision that ends in real `.tflite` files.

One flow, one direction:

    architecture -> space, spaces -> targets, costs -> samplers, schedule -> quantizers -> layers -> units -> supernet
    -> evaluation -> training -> fine_tuning -> export -> devices -> oracle -> tuner -> report

`daqu_tf.run(RunConfig(...))` goes through all of it (`pipeline.py`); each stage can be used alone, and `trained_run.py` holds what
else can be done with a trained supernet. A search is one process, or a `chief` and its `worker`s. Beside the flow stand `baked`, a
subnet as a plain tf_keras model, and `stock_models`, switchable bits for any tf_keras model, which `export_tflite` takes too;
`verification` compares files with their manifests.
"""

import importlib
import os

from daqu_tf.errors import DaquError

__version__ = "0.1.0"

# TFMOT works with tf_keras (Keras 2) only, and decides by this variable when it is first imported.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
# Off by default on some x86 processors, where it makes a training step 1.4 to 1.8 times faster.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

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
__all__ = ["DaquError", "__version__", *_LAZY]


def check_keras() -> None:
    """Not at import, so that the tools can say it in a sentence.

    Raises:
        DaquError: The user's environment asks for Keras 3.
    """
    if (chosen := os.environ["TF_USE_LEGACY_KERAS"]) not in ("1", "true", "True"):
        raise DaquError(f"TF_USE_LEGACY_KERAS must be 1 for TFMOT, but received {chosen!r}: unset it, or set it to 1.")


def __getattr__(name: str):
    """Public names are imported on first use: TensorFlow takes seconds, `--help` must not."""
    if name in _LAZY:
        return getattr(importlib.import_module(f"daqu_tf.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
