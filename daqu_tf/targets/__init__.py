"""What a network is for, and what it costs there. Nothing here imports TensorFlow.

`metrics` names what a network is judged by, and reads constraints; `target` names runtimes with the objectives and the bits that
count on them, `storage` says how a file stores a network for a runtime, `builder` makes the graph of such a file from trained
kernels, and `costs` computes what a subnet costs from its layers alone.
"""

from daqu_tf.targets.metrics import COMPUTED, METRICS, constraints_of
from daqu_tf.targets.storage import CONTAINERS, RUNTIMES, TYPES, Storage
from daqu_tf.targets.target import TARGETS, Target, for_device, get

__all__ = [
    "get",
    "for_device",
    "TARGETS",
    "Target",
    "METRICS",
    "COMPUTED",
    "constraints_of",
    "Storage",
    "CONTAINERS",
    "RUNTIMES",
    "TYPES",
]
