"""Images and labels in three splits: train, search and test.

`dataset` loads and splits them, `class_names` finds what the classes are called.
"""

from daqu_tf.data.dataset import NAMES, Dataset, load

__all__ = ["load", "Dataset", "NAMES"]
