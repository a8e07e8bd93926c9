"""Images and labels in three splits: train, search and test.

`dataset` loads and splits them, `ranges` finds which numbers are black and white, `copies` which images occur more than once,
`class_names` what the classes are called, and `mirroring` whether images keep their class in a mirror. `photos` is the way from a
photo to what a model reads, for data sets and for models.
"""

from daqu_tf.data.dataset import NAMES, Dataset, load
from daqu_tf.data.photos import Preprocessing

__all__ = ["load", "Dataset", "NAMES", "Preprocessing"]
