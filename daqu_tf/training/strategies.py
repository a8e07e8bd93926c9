"""The distribution of a training over several devices or machines, through tf.distribute.

Every replica computes the same subnet on its part of a global batch. One process has all devices of its machine. With TF_CONFIG,
there is one such process, a worker, on each machine; every worker runs the same program and takes its decisions from the chief.
"""

import functools
import json
import os
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from daqu_tf.errors import DaquError
from daqu_tf.supernet.replicas import all_reduce, worker

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):(\d{1,5})")
STRATEGIES = ("auto", "one_device", "mirrored", "multi_worker")
EXAMPLE = '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'


def check_strategy(name: str) -> str:
    """Checks a strategy and TF_CONFIG before anything waits for other machines; it imports no TensorFlow.

    Args:
        name: The strategy, one of `STRATEGIES`.

    Returns:
        `multi_worker` if `name` and TF_CONFIG lead to that, else `name`.

    Raises:
        DaquError: The strategy is unknown, or TF_CONFIG does not fit it.
    """
    if name not in STRATEGIES:
        raise DaquError(f"`strategy` must be one of {', '.join(STRATEGIES)}, but received {name!r}.")
    config = _tf_config()
    cluster = config.get("cluster")
    tasks = sum(map(_size, cluster.values())) if isinstance(cluster, dict) else 0
    if name in ("one_device", "mirrored") and tasks > 1:
        raise DaquError(f"`strategy` {name} is for one machine, but TF_CONFIG names {tasks}: use multi_worker or unset TF_CONFIG.")
    if name == "multi_worker" or (name == "auto" and tasks > 1):
        _check_cluster(config)
        return "multi_worker"
    return name


def _size(addresses: Any) -> int:
    return len(addresses) if isinstance(addresses, list | dict) else 1


def _tf_config() -> Mapping[str, Any]:
    """The content of TF_CONFIG; empty if it is not set."""
    try:
        config = json.loads(os.environ.get("TF_CONFIG") or "{}")
    except json.JSONDecodeError as error:
        raise DaquError(f"TF_CONFIG must be JSON such as {EXAMPLE}, but is not ({error}): mend or unset it.") from error
    _require(isinstance(config, dict), "be an object", config)
    return config


def _require(condition: bool, expected: str, came: object) -> None:
    if not condition:
        raise DaquError(f"TF_CONFIG must {expected}, but received {came!r}: set it to something like {EXAMPLE}.")


def _check_cluster(config: Mapping[str, Any]) -> None:
    """Raises `DaquError` unless the cluster has workers alone and the task is one of them."""
    if not config:
        raise DaquError(f"`strategy` multi_worker needs TF_CONFIG, which is not set: set it on every worker to {EXAMPLE}.")
    cluster: Any = config.get("cluster")
    task: Any = config.get("task")
    _require(isinstance(cluster, dict) and bool(cluster.get("worker")), "have a list of addresses `cluster.worker`", cluster)
    _require(list(cluster) == ["worker"], "name all machines under `cluster.worker`", sorted(cluster))
    workers = cluster["worker"]
    _require(isinstance(workers, list), "have a list of addresses `cluster.worker`", workers)
    for address in workers:
        match = ADDRESS.fullmatch(address) if isinstance(address, str) else None
        _require(match is not None and 0 < int(match[2]) < 65536, "have addresses of the form host:port", address)
    _require(len(set(workers)) == len(workers), "name each address once", workers)
    _require(isinstance(task, dict) and task.get("type") == "worker", "have a `task` of type worker", task)
    index = task.get("index")
    is_index = isinstance(index, int) and not isinstance(index, bool)
    _require(is_index and 0 <= index < len(workers), f"have a `task.index` from 0 to {len(workers) - 1}", index)


def make_strategy(name: str) -> "tf.distribute.Strategy":
    """The strategy in whose scope networks are made; it must be called before TensorFlow computes anything.

    Args:
        name: The strategy, one of `STRATEGIES`. `mirrored` uses all GPUs, or all logical CPUs where there are none. `multi_worker`
            uses those of all workers in TF_CONFIG, and waits for these. `one_device` is TensorFlow's default and costs nothing.
            `auto` is `multi_worker` where TF_CONFIG names several workers, else `mirrored` if there are several GPUs, else
            `one_device`.

    Raises:
        DaquError: The strategy is unknown, or TF_CONFIG does not fit it.
    """
    name = check_strategy(name)
    import tensorflow as tf

    if name == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    gpus = tf.config.list_logical_devices("GPU")
    if name == "mirrored" or (name == "auto" and len(gpus) > 1):
        devices = gpus or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.get_strategy()


def leads(strategy: "tf.distribute.Strategy") -> bool:
    """Whether this worker is the chief, which writes files and decides."""
    return worker(strategy)[0] == 0


def check_shares(strategy: "tf.distribute.Strategy", size: int) -> None:
    """Raises `DaquError` if a batch of `size` images cannot be shared out evenly among the replicas."""
    replicas = strategy.num_replicas_in_sync
    if size % replicas:
        nearest = max(1, round(size / replicas)) * replicas
        raise DaquError(f"`batch_size` must be a multiple of the {replicas} replicas, but received {size}: use {nearest}.")


def own_part(strategy: "tf.distribute.Strategy", batch: "np.ndarray | tf.Tensor") -> "np.ndarray | tf.Tensor":
    """This worker's part of a global batch, which every worker makes by itself from seed and step.

    Args:
        strategy: The strategy of the network.
        batch: The images or labels of the global batch, of shape (batch, ...).

    Raises:
        DaquError: The batch cannot be shared out evenly.
    """
    check_shares(strategy, len(batch))
    index, workers = worker(strategy)
    size = len(batch) // workers
    return batch if workers == 1 else batch[index * size : (index + 1) * size]


def from_chief(strategy: "tf.distribute.Strategy", values: "np.ndarray | Sequence[float] | float") -> "np.ndarray":
    """The chief's values on every worker, all of which must call this at the same point.

    What each worker measures, such as time, differs, and workers whose decisions differ wait for each other for ever.

    Args:
        strategy: The strategy of the network.
        values: Numbers that a float64 can hold, of the same shape on every worker.

    Returns:
        The chief's values, float64, in the shape of `values`.
    """
    import numpy as np
    import tensorflow as tf

    values = np.asarray(values, np.float64)
    return values if worker(strategy)[1] == 1 else _from_chief(strategy)(tf.constant(values))[0].numpy()


@functools.cache
def _from_chief(strategy: "tf.distribute.Strategy") -> "Callable[[tf.Tensor], tf.Tensor]":
    """The function that gives the chief's values, which is traced once for each shape."""
    import tensorflow as tf

    @tf.function(autograph=False, reduce_retracing=False)
    def shared(own: "tf.Tensor") -> "tf.Tensor":
        sums = strategy.run(lambda: all_reduce(tf.where(_is_first_replica(), own, 0.0), "from_chief"))
        return tf.stack(strategy.experimental_local_results(sums))

    return shared


def check_same_everywhere(strategy: "tf.distribute.Strategy", settings: Any) -> None:
    """Raises `DaquError` if `settings`, a JSON value, differ from those of the chief."""
    own = zlib.crc32(json.dumps(settings).encode())
    if int(from_chief(strategy, own)) != own:
        raise DaquError("Settings or data differ from those of worker 0: start the same command on the same data everywhere.")


def checkpoint_from_chief(
    strategy: "tf.distribute.Strategy",
    found: "tuple[dict[str, np.ndarray], dict[str, Any]] | None",
    own: "dict[str, np.ndarray]",
) -> "tuple[dict[str, np.ndarray], dict[str, Any]] | None":
    """The arrays and the state of the chief's checkpoint on every worker, whose own may be older or missing.

    Args:
        strategy: The strategy of the network.
        found: The arrays and the state of this worker's own checkpoint; None if it has none.
        own: The present arrays of this worker, for their names and shapes.

    Returns:
        The arrays by name and the state; None if the chief has no checkpoint.
    """
    import numpy as np

    if worker(strategy)[1] == 1:
        return found
    text = json.dumps(found[1]).encode() if found else b""
    size = int(from_chief(strategy, [len(text)])[0])
    if not size:
        return None
    state = bytes(from_chief(strategy, list(text.ljust(size)[:size])).astype(np.uint8))
    arrays = found[0] if found and leads(strategy) else own
    flat = from_chief(strategy, np.concatenate([arrays[name].ravel().astype(np.float64) for name in own]))
    ends = np.cumsum([array.size for array in own.values()])
    parts = np.split(flat, ends[:-1])
    return {n: part.reshape(own[n].shape).astype(own[n].dtype) for n, part in zip(own, parts)}, json.loads(state)


def _is_first_replica() -> "tf.Tensor":
    import tensorflow as tf

    return tf.equal(tf.distribute.get_replica_context().replica_id_in_sync_group, 0)


def make_deterministic() -> None:
    """Makes TensorFlow use one thread and deterministic operators in this process.

    Raises:
        DaquError: TensorFlow has begun to work already.
    """
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError as error:
        raise DaquError("`deterministic` must be set before TensorFlow computes anything: start a new process.") from error
    tf.config.experimental.enable_op_determinism()
