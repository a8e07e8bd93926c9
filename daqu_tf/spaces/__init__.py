"""What may be chosen: search spaces, and the subnets in them. No TensorFlow.

`named` has the spaces that come with the library and reads those of a file. `space` is a search space, `subnet` a gene and one
complete choice, `stage` a run of blocks as a space describes it, `layer` one layer of a network, `architecture` which layers a
choice comes to. `bits` says what so many bits hold, `precisions` gives a subnet other bits.
"""

from daqu_tf.spaces.named import SPACES, get
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.stage import Stage
from daqu_tf.spaces.subnet import Gene, Subnet

__all__ = ["get", "SPACES", "SearchSpace", "Stage", "Subnet", "Gene"]
