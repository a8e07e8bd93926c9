"""The latencies of subnets on a device, from a table of blocks. Nothing here imports TensorFlow.

`table` adds up the latencies of a subnet's blocks. `profiling` makes a table from files of single `blocks`, which `block_graph`
builds and a device times, and `store` keeps what was timed.
"""

from daqu_tf.latency.profiling import profile
from daqu_tf.latency.store import MeasurementStore
from daqu_tf.latency.table import LatencyTable

__all__ = ["LatencyTable", "MeasurementStore", "profile"]
