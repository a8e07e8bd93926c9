"""What the replicas of a distributed training share: the parts of a batch, and sums over all replicas."""

import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf


GROUP_KEY = 0x64610000  # It is far from the keys of tf.distribute's own groups, which count from 1.


def worker(strategy: "tf.distribute.Strategy") -> tuple[int, int]:
    """The index of this worker, from 0, and the number of workers."""
    import tensorflow as tf

    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 0, 1
    resolver = strategy.cluster_resolver
    return resolver.task_id, len(resolver.cluster_spec().as_dict()["worker"])


def replicas() -> int:
    """The number of replicas that compute what is being traced; 1 outside of `strategy.run`, even under a strategy's scope."""
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def replica_part(strategy: "tf.distribute.Strategy", batch: "tf.Tensor") -> "tf.Tensor":
    """The part of a batch that this replica computes, inside of `strategy.run`.

    Args:
        strategy: The strategy.
        batch: The part of this worker, of shape (count, ...).
    """
    import tensorflow as tf

    count = strategy.num_replicas_in_sync // worker(strategy)[1]
    if count == 1:
        return batch
    index, size = tf.distribute.get_replica_context().replica_id_in_sync_group % count, tf.shape(batch)[0] // count
    return batch[index * size : (index + 1) * size]


def sum_over_replicas(x: "tf.Tensor", name: str) -> "tf.Tensor":
    """The sum of `x` over all replicas, on each of them, inside of `strategy.run` and a `tf.function`; gradients are summed too.

    TensorFlow's own `ReplicaContext.all_reduce` cannot be used in a branch of `tf.cond`, where most layers are. This function can,
    since the active subnet is the same everywhere and all replicas take the same branch. Each replica must use the sum: where one
    does not, TensorFlow prunes its share, and the others wait for it for ever.

    Args:
        x: The tensor, always of the same static shape, since members of a group refuse another.
        name: A name by which the tensors of the replicas are matched, used once in a function.
    """
    import tensorflow as tf

    if replicas() == 1:
        return x

    @tf.custom_gradient
    def total(x: "tf.Tensor") -> "tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]":
        return all_reduce(x, name), lambda upstream: all_reduce(upstream, f"{name}/gradient")

    return total(x)


def all_reduce(x: "tf.Tensor", name: str) -> "tf.Tensor":
    """The sum of `x` over all replicas, on each of them, without a gradient.

    Args:
        x: The tensor, always of the same static shape.
        name: A name by which the tensors of the replicas are matched, used once in a function.
    """
    import tensorflow as tf

    # The key comes from names and not from a counter, since replicas and workers need not trace in the same order.
    # CollectiveReduceV2 would hang in a group of logical CPUs of one process (TensorFlow 2.21).
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
