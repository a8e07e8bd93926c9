"""What the replicas of a distributed training share: parts of a batch, and sums over all of it."""

import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf


GROUP_KEY = 0x64610000  # Far from the keys that tf.distribute gives its own groups, which count from 1.


def worker(strategy: "tf.distribute.Strategy") -> tuple[int, int]:
    """The index of this worker, and how many there are."""
    import tensorflow as tf

    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 0, 1
    resolver = strategy.cluster_resolver
    return resolver.task_id, len(resolver.cluster_spec().as_dict()["worker"])


def replicas() -> int:
    """How many replicas compute what is being traced; 1 outside of `strategy.run`, also under a strategy's scope."""
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def replica_part(strategy: "tf.distribute.Strategy", batch: "tf.Tensor") -> "tf.Tensor":
    """This replica's part of its worker's part of a batch; inside of `strategy.run`."""
    import tensorflow as tf

    count = strategy.num_replicas_in_sync // worker(strategy)[1]
    if count == 1:
        return batch
    index, size = tf.distribute.get_replica_context().replica_id_in_sync_group % count, tf.shape(batch)[0] // count
    return batch[index * size : (index + 1) * size]


def sum_over_replicas(x: "tf.Tensor", name: str) -> "tf.Tensor":
    """The sum of all replicas' `x`, on each of them; as for gradients too. Inside of `strategy.run` and a `tf.function`.

    TensorFlow's own `ReplicaContext.all_reduce` cannot be used in a branch of `tf.cond`, where most layers are. This can, as all
    replicas take the same branch, the active subnet being the same everywhere. Each of them must use the sum: where one does not,
    TensorFlow prunes its share, and the others wait for it for ever.

    Args:
        x: Of one static shape, always: members of a group refuse another.
        name: Says which tensors belong together. Not used twice in one function.
    """
    import tensorflow as tf

    if replicas() == 1:
        return x

    @tf.custom_gradient
    def total(x: "tf.Tensor") -> "tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]":
        return all_reduce(x, name), lambda upstream: all_reduce(upstream, f"{name}/gradient")

    return total(x)


def all_reduce(x: "tf.Tensor", name: str) -> "tf.Tensor":
    """The sum of all replicas' `x`, without a gradient; arguments as of `sum_over_replicas`."""
    import tensorflow as tf

    # From names, not a counter: replicas and workers need not trace in the same order. Not CollectiveReduceV2, which hangs in a
    # group of logical CPUs of one process (TensorFlow 2.21).
    key = zlib.crc32(f"{name} {x.dtype.name} {x.shape.as_list()}".encode()) & 0x7FFFFFFF
    size = replicas()
    return tf.raw_ops.CollectiveReduce(
        input=x,
        group_size=size,
        group_key=GROUP_KEY + size,
        instance_key=key,
        merge_op="Add",
        final_op="Id",
        subdiv_offsets=[0],
    )
