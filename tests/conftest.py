import types

import numpy as np
import pytest

from daqu_tf import spaces


@pytest.fixture(scope="session")
def images():
    """A batch of smooth random images in [0, 1] of the space `digits`."""
    noise = np.random.default_rng(0).random((16, 10, 10, 1), np.float32)
    return (noise[:, :-2, :-2] + noise[:, 1:-1, 1:-1] + noise[:, 2:, 2:]) / 3


@pytest.fixture(scope="session")
def digits(images):
    """The supernet of `digits`, its calls as traced functions, and one traced gradient, shared since building takes long.

    All steps and statistics come from data. A test that changes weights puts them back.
    """
    import tensorflow as tf

    from daqu_tf.supernet import Supernet

    tf.keras.utils.set_random_seed(0)
    supernet = Supernet(spaces.get("digits"))
    supernet.initialise_steps(images, supernet.space.weight_bits)
    supernet(images, training=True, statistics_rate=1.0)

    @tf.function
    def gradients(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(supernet(x, training=True)))
        return tape.gradient(loss, supernet.trainable_variables)

    infer, train = (tf.function(lambda x, t=training: supernet(x, training=t)) for training in (False, True))
    return types.SimpleNamespace(supernet=supernet, infer=infer, train=train, gradients=gradients)
