"""What subnets take on a device, from a table of its blocks. No TensorFlow.

`table` adds a subnet's blocks up; `profiling` makes it, from files of single `blocks` (`block_graph`) that a device times; `store`
keeps what was timed.
"""

from daqu_tf.latency.profiling import profile
from daqu_tf.latency.store import MeasurementStore
from daqu_tf.latency.table import LatencyTable

__all__ = ["LatencyTable", "MeasurementStore", "profile"]
