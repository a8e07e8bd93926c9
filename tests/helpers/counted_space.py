"""A space small enough to count by hand; the named ones may change."""

from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.stage import Stage

COUNTED = SearchSpace(
    "counted by hand",
    (8, 8, 1),
    10,
    (16,),
    1,
    (Stage((8, 16), (1, 2), (3,), (2, 4), 1), Stage((16, 32), (1, 2), (3, 5), (2, 4), 2)),
    (32, 64),
)
