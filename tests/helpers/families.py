"""A small space of every family, with all that its networks can have, for tests that build many of them."""

import numpy as np

from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.stage import Stage

FAMILIES = {
    space.name: space
    for space in (
        SearchSpace(
            "inverted_residual",
            (12, 10, 1),
            5,
            (4, 8),
            1,
            (
                Stage((), (1, 2), (3,), (1,), 1),  # Keeps the channels of the stem, so that its first block adds its input too.
                Stage((8, 12), (1, 2), (3, 5), (2, 3), 2),
            ),
            (16, 24),
            resolutions=(8, 12),
        ),
        SearchSpace(
            "squeeze_excite",
            (12, 12, 3),
            5,
            (8,),
            1,
            (
                Stage((8,), (1,), (3,), (1,), 1),
                Stage((8, 12), (1, 2), (3, 5), (2, 4), 2, squeeze_excite=True),
                Stage((8, 12), (1, 2), (3,), (2,), 1, activation="hard_swish"),
                Stage((12, 16), (1, 2), (3,), (2, 3), 2, activation="hard_swish", squeeze_excite=True),
            ),
            (16, 24),
            resolutions=(8, 12),
            activation="hard_swish",
        ),
        SearchSpace(
            "basic",
            (10, 12, 3),
            5,
            (4, 8),
            1,
            (
                Stage((4, 8), (1, 2), (3,), (1,), 1, block="basic"),
                Stage((8, 12), (1, 2), (1, 3), (1, 2), 2, block="basic"),
            ),
            (),
            resolutions=(8, 10),
        ),
        SearchSpace(
            "identity",
            (10, 12, 3),
            5,
            (4, 8),
            1,
            (
                Stage((), (1, 2), (3,), (1,), 1, block="basic"),
                Stage((8, 12), (1,), (1, 3), (1,), 2, block="basic"),
            ),
            (),
            resolutions=(8, 10),
        ),
        SearchSpace(  # As networks that were trained elsewhere: ReLU6, and grey for zero.
            "separable",
            (12, 12, 3),
            5,
            (4, 8),
            2,
            (
                Stage((4, 8), (1,), (3,), (1,), 1, block="separable", activation="relu6"),
                Stage((12, 20), (1, 2), (3, 5), (1,), 2, block="separable", activation="relu6"),
                Stage((12, 16), (1, 2), (3,), (2, 3), 1, activation="relu6"),
            ),
            (24, 40),
            resolutions=(8, 12),
            activation="relu6",
            input_zero=0.5,
        ),
    )
}


def smooth_images(space: SearchSpace, count: int, seed: int = 0) -> np.ndarray:
    """Images in [0, 1] (count, height, width, channels) on the grid of 255 steps, with neighbours alike."""
    height, width, channels = space.input_shape
    noise = np.random.default_rng(seed).integers(0, 256, (count, height + 2, width + 2, channels))
    return ((noise[:, :-2, :-2] + noise[:, 1:-1, 1:-1] + noise[:, 2:, 2:]) // 3).astype(np.float32) / 255
