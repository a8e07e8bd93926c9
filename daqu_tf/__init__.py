"""Joint search of network architecture and per-layer precision that ends in real `.tflite` files.

The packages; each imports only those in the rows above its own:

    spaces, tflite, devices, data, pareto    search spaces; the file format and its operators; devices; images; Pareto fronts
    supernet, targets, oracle                one network for all subnets, and its quantizers; runtimes, objectives, costs; trials
    stock_models, training                   switchable bits for any tf_keras model; which subnets a step draws, and how they train
    export, runs                             networks to files; a run as settings and a folder
    latency, report                          latencies of subnets from a table; what a run found, for people
    search                                   the joint search of architecture and bits
    pipeline                                 the whole job: `daqu_tf.run(daqu_tf.RunConfig(...))`

Below them all stand `errors`, `fields`, `files`, `lazy`, `environment`, `machine` and `keras`, which every package may import; the
command line tools stand on top. Importing the library makes `tf.keras` Keras 2 in the whole process, as TFMOT needs it.
"""

from typing import TYPE_CHECKING

from daqu_tf.environment import check_keras
from daqu_tf.errors import DaquError
from daqu_tf.lazy import attach

if TYPE_CHECKING:
    from daqu_tf.export.export import export_tflite, round_biases
    from daqu_tf.export.prediction import predict
    from daqu_tf.oracle.distributed_tuner import DistributedTuner
    from daqu_tf.oracle.oracle import ParetoOracle
    from daqu_tf.pipeline.pipeline import run
    from daqu_tf.pipeline.trained_run import TrainedRun
    from daqu_tf.report.choosing import choose
    from daqu_tf.runs.config import RunConfig
    from daqu_tf.search.tuner import DaquTuner
    from daqu_tf.spaces.space import SearchSpace
    from daqu_tf.spaces.subnet import Subnet
    from daqu_tf.stock_models.models import check
    from daqu_tf.targets.storage import Storage
    from daqu_tf.targets.target import Target
    from daqu_tf.training.schedule import PrecisionTransfer, Schedule, WarmUp

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "DaquError",
    "check_keras",
    "RunConfig",
    "run",
    "choose",
    "TrainedRun",
    "SearchSpace",
    "Subnet",
    "Target",
    "Storage",
    "Schedule",
    "WarmUp",
    "PrecisionTransfer",
    "check",
    "export_tflite",
    "round_biases",
    "predict",
    "ParetoOracle",
    "DaquTuner",
    "DistributedTuner",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "RunConfig": "runs.config",
        "run": "pipeline.pipeline",
        "choose": "report.choosing",
        "TrainedRun": "pipeline.trained_run",
        "SearchSpace": "spaces.space",
        "Subnet": "spaces.subnet",
        "Target": "targets.target",
        "Storage": "targets.storage",
        "Schedule": "training.schedule",
        "WarmUp": "training.schedule",
        "PrecisionTransfer": "training.schedule",
        "check": "stock_models.models",
        "export_tflite": "export.export",
        "round_biases": "export.export",
        "predict": "export.prediction",
        "ParetoOracle": "oracle.oracle",
        "DaquTuner": "search.tuner",
        "DistributedTuner": "oracle.distributed_tuner",
    },
    (
        "spaces", "tflite", "devices", "data", "pareto", "supernet", "targets", "oracle", "stock_models", "training", "export",
        "runs", "latency", "report", "search", "pipeline",
    ),
)  # fmt: skip
