"""Supernets of `families.py`, which tests share since each takes seconds to build."""

import functools

import numpy as np
from families import FAMILIES, smooth_images

from daqu_tf.keras import keras
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.supernet.supernet import Supernet


@functools.cache
def family_supernet(name: str) -> tuple[Supernet, np.ndarray]:
    """The supernet of a family and images; a test that changes more than statistics and the active subnet puts that back."""
    return make_supernet(FAMILIES[name], 8)


def make_supernet(space: SearchSpace, batch: int) -> tuple[Supernet, np.ndarray]:
    """With gammas of either sign, offsets, and steps from data."""
    keras.utils.set_random_seed(0)
    images, rng = smooth_images(space, batch), np.random.default_rng(0)
    supernet = Supernet(space)
    arrays = supernet.arrays()
    for name, array in arrays.items():
        if name.endswith("gamma"):
            arrays[name] = (rng.uniform(0.5, 1.5, array.shape) * rng.choice([-1, 1], array.shape)).astype(np.float32)
        if name.endswith(("beta", "bias")):
            arrays[name] = rng.normal(0, 0.5, array.shape).astype(np.float32)
    supernet.load_arrays(arrays)
    supernet.initialise_steps(images, space.weight_bits)
    return supernet, images
