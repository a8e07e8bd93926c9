"""A run as its settings and a folder. No TensorFlow.

`config` is what a user asks for, `folder` what a run has written so far and whose it is, `clock` the time that it has used,
`commands` the command lines that make what it made.
"""

from daqu_tf.runs.clock import Clock
from daqu_tf.runs.config import RunConfig
from daqu_tf.runs.folder import RunFolder

__all__ = ["RunConfig", "RunFolder", "Clock"]
