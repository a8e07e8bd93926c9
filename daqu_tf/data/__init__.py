"""Images and labels in three splits: train, search and test.

`dataset` loads and splits them, `images` reads them, `ranges` finds which numbers are black and white, `copies` which images occur
more than once, `classes` what the classes are called and how much each counts, and `mirroring` whether images keep their class in a
mirror.
`photos` is the way from a photo to what a model reads, for data sets and for models. `photo_sets` lists labelled photos on disk,
`decoded` keeps their pixels, and `reading` makes arrays of them. `saving` makes files of data sets of `tf.data`.
"""

from daqu_tf.data.dataset import NAMES, Dataset, load
from daqu_tf.data.photos import Preprocessing
from daqu_tf.data.reading import Reading
from daqu_tf.data.saving import save

__all__ = ["load", "save", "Dataset", "NAMES", "Reading", "Preprocessing"]
