import types

import numpy as np
import pytest

from daqu_tf import spaces

# The group of slow tests that keep both cores busy, or have so many minutes for a job: never two of them at once.
ALONE = "one at a time"
# Slow files whose tests share nothing that takes long to make: each test goes to whoever is free, so that both end together.
APART = ("test_documents", "test_every_target")


@pytest.hookimpl(tryfirst=True)  # Before pytest-xdist looks for its marks.
def pytest_collection_modifyitems(items):
    """Where tests are handed out by groups, a file is one, but for `APART` and what is marked otherwise, which comes first."""
    for item in items:
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.nodeid if item.path.stem in APART else item.path.stem))
    items.sort(key=lambda item: item.get_closest_marker("xdist_group").args != (ALONE,))


@pytest.fixture(scope="session")
def images():
    """A batch of smooth random images in [0, 1] of the space `digits`."""
    noise = np.random.default_rng(0).random((16, 10, 10, 1), np.float32)
    return (noise[:, :-2, :-2] + noise[:, 1:-1, 1:-1] + noise[:, 2:, 2:]) / 3


@pytest.fixture(scope="session")
def digits(images):
    """The supernet of `digits`, with its inference and its training step as traced functions; tracing takes long.

    All steps and statistics come from data. A test that changes weights puts them back.
    """
    import tensorflow as tf

    from daqu_tf.supernet.supernet import Supernet

    tf.keras.utils.set_random_seed(0)
    supernet = Supernet(spaces.get("digits"))
    supernet.initialise_steps(images, supernet.space.weight_bits)
    supernet(images, training=True, statistics_rate=1.0)

    @tf.function
    def train(x):
        """Logits, and the gradients of the sum of their squares."""
        with tf.GradientTape() as tape:
            logits = supernet(x, training=True)
            loss = tf.reduce_sum(tf.square(logits))
        return logits, tape.gradient(loss, supernet.trainable_variables)

    return types.SimpleNamespace(supernet=supernet, infer=tf.function(lambda x: supernet(x)), train=train)
