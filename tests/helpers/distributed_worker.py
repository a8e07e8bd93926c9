"""Trains `digits` for a few steps under a strategy, in a process of its own, and writes what came out.

  python tests/helpers/distributed_worker.py <one_device | reversed | mirrored | multi_worker> <output.npz>

With mirrored there are two logical CPUs, with multi_worker one for each process that TF_CONFIG names. `reversed` is one device with
the images of each batch in reverse, which is the same but for the rounding of sums: it shows how far apart that alone leads.
"""

import sys
import time

import numpy as np
import tensorflow as tf

from daqu_tf import spaces
from daqu_tf.keras import keras
from daqu_tf.spaces.bits import FLOAT_BITS
from daqu_tf.supernet import replicas
from daqu_tf.supernet.scoring import Scorer
from daqu_tf.supernet.supernet import Supernet
from daqu_tf.training import strategies
from daqu_tf.training.optimizer import Optimizer

FLOAT_STEPS, STEPS, BATCH, SEED = 4, 7, 32, 0
# Of the learning rate, when quantized: where the last bit of a sum decides how a value is rounded, a loss changes by some 1e-4, and
# Adam's first steps are as long for a gradient near zero as for others. At the full rate that alone soon drives trainings apart.
QUANTIZED_FACTOR = 0.01


def subnets_of(space, step):
    """As in a training, first in float and then with all bits: the largest, the smallest and a random one."""
    rng = np.random.default_rng([SEED, 3, step])
    chosen = [space.largest(), space.smallest(), space.sample_by_gene(rng)]
    return [subnet.with_bits(FLOAT_BITS, FLOAT_BITS) for subnet in chosen] if step < FLOAT_STEPS else chosen


def batch_of(space, step):
    """Images that show something of their class, so that there is something to learn."""
    rng = np.random.default_rng([SEED, 1, step])
    labels = rng.integers(0, space.num_classes, BATCH)
    means = np.random.default_rng(SEED).random((space.num_classes, *space.input_shape))
    return ((means[labels] + rng.random((BATCH, *space.input_shape))) / 2).astype(np.float32), labels


def train(strategy, order):
    """The supernet, the losses (steps, subnets), and the gradients (steps, variables' size)."""
    space = spaces.get("digits")
    keras.utils.set_random_seed(SEED)
    with strategy.scope():
        supernet = Supernet(space)
    supernet.initialise_steps(batch_of(space, STEPS)[0], space.weight_bits)
    optimizer = Optimizer(supernet, 1e-3)
    losses, gradients = np.zeros((STEPS, 3)), []
    for step in range(STEPS):
        images, labels = (strategies.own_part(strategy, x[::order]) for x in batch_of(space, step))
        targets = tf.one_hot(labels, space.num_classes)
        for index, subnet in enumerate(subnets_of(space, step)):
            supernet.activate(subnet)
            losses[step, index], logits = optimizer.accumulate(images, targets)
            assert logits.shape == targets.shape
        gradients.append(optimizer.gradient.read_value().numpy())  # Of all replicas.
        assert optimizer.apply(1.0 if step < FLOAT_STEPS else QUANTIZED_FACTOR)
    return supernet, losses, np.array(gradients)


def main():
    _, name, path = sys.argv
    if name == "mirrored":
        halves = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], halves)
    began = time.monotonic()
    strategy = strategies.make_strategy("one_device" if name == "reversed" else name)
    supernet, losses, gradients = train(strategy, -1 if name == "reversed" else 1)
    index, _ = replicas.worker(strategy)
    arrays = {key: array for key, array in supernet.arrays().items() if not key.endswith("_bits")}
    # Each worker recalibrates and scores by itself.
    images, _ = batch_of(supernet.space, 0)
    scorer = Scorer(supernet, images)
    scorer.recalibrate()
    arrays |= {key: array for key, array in supernet.arrays().items() if "moving_" in key}
    facts = {
        "losses": losses,
        "gradients": gradients,
        "chief": strategies.from_chief(strategy, [index + 7.0]),
        "logits": scorer.logits(images),
    }
    facts |= {"replicas": strategy.num_replicas_in_sync, "seconds": time.monotonic() - began}
    facts |= {f"array/{key}": array for key, array in arrays.items()}
    np.savez(path.format(index=index), **facts)


if __name__ == "__main__":
    main()
