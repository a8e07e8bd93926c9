"""What may be chosen: search spaces, and the subnets in them. Nothing here imports TensorFlow.

`named` has the spaces that come with the library, and reads a space from a file. `space` is a search space, `subnet` has a gene
and one complete choice, `stage` is a run of blocks as a space describes it, `layer` is one layer of a network, and `architecture`
says which layers a choice leads to. `bits` says which integers fit in how many bits, `precisions` gives a subnet other bits, and
`hand_scaled` has the networks that people would make without a search. `fitting` makes families of networks fit images of any
size.
"""

from daqu_tf.spaces.named import SPACES, get
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.stage import Stage
from daqu_tf.spaces.subnet import Gene, Subnet

__all__ = ["get", "SPACES", "SearchSpace", "Stage", "Subnet", "Gene"]
