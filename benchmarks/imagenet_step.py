"""Training steps, scores and extraction in `mobilenet_v3_imagenet`: the space is more than a count.

  python benchmarks/imagenet_step.py

One step at batch 8 of the largest, the smallest and a random subnet: seconds, memory, and for each the trainable static network
and the baked one, whose logits are compared with the supernet's. Images are random: nothing here depends on them.
"""

import os
import resource
import time

import numpy as np
import records
from absl import app, flags

import daqu_tf
from daqu_tf import spaces
from daqu_tf.spaces.bits import FLOAT_BITS
from daqu_tf.spaces.subnet import Subnet
from daqu_tf.targets import costs

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
BATCH = 8

_SEED = flags.DEFINE_integer("seed", 0, "Of the random subnet and of the weights.")
_STEPS = flags.DEFINE_integer("steps", 5, "Timed steps of each, after two that are not.")
_QUICK = flags.DEFINE_bool("quick", False, "Batch 2 and two steps: the same figures, coarsely, in about a minute.")


def measure(supernet, optimizer, subnet: Subnet, batch, steps: int) -> dict:
    """Seconds of a step, peak memory so far, and how far both extracted networks are from the supernet."""
    import tensorflow as tf

    from daqu_tf.spaces.architecture import image_size
    from daqu_tf.supernet.baked import bake
    from daqu_tf.supernet.layers import quantize_input, resize

    supernet.activate(subnet)
    seconds = []
    for _ in range(2 + steps):
        began = time.perf_counter()
        loss = float(optimizer.accumulate(*batch)[0])
        optimizer.apply(0.5)
        seconds.append(time.perf_counter() - began)
    supernet(batch[0], training=True, statistics_rate=1.0)
    logits = supernet(batch[0])
    network = supernet.extract(subnet)
    size = image_size(supernet.space.input_shape, subnet["resolution"])
    baked = bake(network)(quantize_input(resize(batch[0], size)))
    return {
        "subnet": str(subnet),
        "macs": costs.macs(supernet.space, subnet),
        "parameters": costs.parameters(supernet.space, subnet),
        "step_seconds": float(np.median(seconds[2:])),
        "loss": loss,
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "static_difference": float(tf.reduce_max(tf.abs(network(batch[0]) - logits))),
        "baked_difference": float(tf.reduce_max(tf.abs(baked - logits))),
        "logits_range": float(np.ptp(logits)),
    }


def main(argv: list[str]) -> None:
    """Measures and writes `results/imagenet_step.json`."""
    del argv
    daqu_tf.check_keras()
    import tensorflow as tf

    from daqu_tf.keras import keras
    from daqu_tf.supernet.supernet import Supernet
    from daqu_tf.training.optimizer import Optimizer

    keras.utils.set_random_seed(_SEED.value)
    space, rng = spaces.get("mobilenet_v3_imagenet"), np.random.default_rng(_SEED.value)
    count, steps = (2, 2) if _QUICK.value else (BATCH, _STEPS.value)
    images = rng.integers(0, 256, (count, *space.input_shape)).astype(np.float32) / 255
    batch = tf.constant(images), tf.one_hot(rng.integers(0, space.num_classes, count), space.num_classes)
    began = time.perf_counter()
    supernet = Supernet(space)
    supernet.initialise_steps(images, space.weight_bits)
    optimizer = Optimizer(supernet, 1e-3)
    optimizer.accumulate(*batch)
    tracing = time.perf_counter() - began
    # The smallest first: the peak of memory only grows.
    subnets = {"smallest": space.smallest(), "random": space.sample(rng), "largest": space.largest()}
    subnets["largest in float"] = space.largest().with_bits(FLOAT_BITS, FLOAT_BITS)
    rows = {name: measure(supernet, optimizer, subnet, batch, steps) for name, subnet in subnets.items()}
    for name, row in rows.items():
        print(f"{name}: {row['macs'] / 1e6:.0f}M MACs, {row['step_seconds']:.2f} s a step, {row['peak_bytes'] / 2**30:.2f} GiB")
    traces = optimizer.accumulate.experimental_get_tracing_count()
    difference = max(row["static_difference"] for row in rows.values())
    bars = [
        records.bar("traces after the first call", traces - 1, 0, "at_most", "traces"),
        records.bar("static network from the supernet", difference, 1e-5, "at_most", "logits"),
    ]
    results = {"batch": count, "build_and_trace_seconds": tracing, "subnets": rows}
    print(f"Wrote {records.write('imagenet_step_quick' if _QUICK.value else 'imagenet_step', [_SEED.value], results, bars)}")


if __name__ == "__main__":
    app.run(main)
