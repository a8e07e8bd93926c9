import numpy as np
import tensorflow as tf

from daqu_tf import data, spaces, targets
from daqu_tf.keras import keras
from daqu_tf.supernet.supernet import StaticNetwork
from daqu_tf.training.optimizer import CLIP_NORM, WEIGHT_DECAY, Optimizer
from daqu_tf.training.schedule import STEP_RATE

SPACE = targets.get("litert_cpu").restrict(spaces.get("digits"))


def test_the_flat_optimizer_moves_variables_as_stock_keras_does():
    dataset = data.load("digits")
    ours, stock = (StaticNetwork(SPACE, SPACE.smallest()) for _ in range(2))
    ours.initialise_steps(dataset.x_train[:64], (8,))
    stock.load_arrays(ours.arrays())
    steps = [v for v in stock.trainable_variables if "log_step" in v.name]
    weights = [v for v in stock.trainable_variables if "log_step" not in v.name]
    adam = keras.optimizers.Adam(0.5 * STEP_RATE)
    adamw = keras.optimizers.AdamW(0.5 * 1e-3, weight_decay=WEIGHT_DECAY, global_clipnorm=CLIP_NORM)
    adamw.exclude_from_weight_decay([v for v in weights if "kernel" not in v.name])
    optimizer = Optimizer(ours, 1e-3)
    for step in range(3):
        chosen = slice(64 * step, 64 * step + 64)
        images, targets = dataset.x_train[chosen], np.eye(10, dtype=np.float32)[dataset.y_train[chosen]] * 30
        optimizer.accumulate(images, targets)
        ends = np.cumsum([np.prod(v.shape) for v in weights + steps])
        flat = np.split(optimizer.gradient.numpy(), ends[:-1].astype(int))
        gradients = [tf.reshape(part, v.shape) for part, v in zip(flat, weights + steps)]
        norm = np.linalg.norm(np.concatenate(flat[: len(weights)]))
        optimizer._apply(0.5)
        adamw.apply_gradients(zip(gradients[: len(weights)], weights))
        adam.apply_gradients(zip(gradients[len(weights) :], steps))
        assert norm > CLIP_NORM  # Else clipping would go untested.
        if step == 0:  # Our count of updates, which corrects Adam's bias, begins with an element's first gradient; Keras's here.
            at_once = [part != 0 for part in flat]
    for one, other, compared in zip(optimizer._variables, weights + steps, at_once):
        compared = compared.reshape(one.shape)
        np.testing.assert_allclose(one.numpy()[compared], other.numpy()[compared], atol=2e-5, err_msg=one.name)
    assert np.mean(np.concatenate([compared.ravel() for compared in at_once[: len(weights)]])) > 0.9


def test_a_batch_that_is_not_finite_moves_nothing():
    network = StaticNetwork(SPACE, SPACE.smallest())
    optimizer, before = Optimizer(network, 1e-3), network.arrays()
    optimizer.accumulate(np.full((4, 8, 8, 1), np.nan, np.float32), np.full((4, 10), 0.1, np.float32))
    assert not optimizer.apply(0.5)
    assert all(np.array_equal(value, before[name]) for name, value in network.arrays().items())
    optimizer.accumulate(np.ones((4, 8, 8, 1), np.float32), np.full((4, 10), 0.1, np.float32))
    assert optimizer.apply(0.5)


def test_what_learns_late_begins_as_at_the_start():
    """Adam's correction of its bias counts the updates of each element: bits that open late must not leap."""
    moved = []
    for idle in (0, 40):
        network = StaticNetwork(SPACE, SPACE.smallest())
        optimizer = Optimizer(network, 1e-3)
        gradient = np.zeros(optimizer.gradient.shape, np.float32)
        gradient[0] = 1.0
        for step in range(idle + 3):
            gradient[-1] = 1.0 if step >= idle else 0.0  # A log step.
            before = optimizer._variables[-1].numpy().ravel()[-1]
            optimizer.gradient.assign(gradient)
            optimizer.apply(1.0)
            if step >= idle:
                moved.append(optimizer._variables[-1].numpy().ravel()[-1] - before)
    np.testing.assert_allclose(moved, -STEP_RATE, rtol=1e-3)
