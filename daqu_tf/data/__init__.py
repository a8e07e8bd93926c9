"""Images and labels in three splits: train, search and test.

`dataset` loads and splits them, `ranges` finds which numbers are black and white, `copies` which images occur more than once,
and `class_names` what the classes are called.
"""

from daqu_tf.data.dataset import NAMES, Dataset, load

__all__ = ["load", "Dataset", "NAMES"]
