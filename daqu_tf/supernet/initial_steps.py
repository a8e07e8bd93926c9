"""The steps of quantizers before they are learned."""

import numpy as np


def best_steps(values: np.ndarray, lower: int, upper: int) -> np.ndarray:
    """The steps with the least squared error, of 40 that clip more and more.

    Args:
        values: The values (count, columns).
        lower: The lowest code.
        upper: The highest code.

    Returns:
        The step of each column (columns,), positive.
    """
    full = np.maximum(np.abs(values).max(axis=0), 1e-8) / max(upper, -lower)
    best, least = full, np.full(full.shape, np.inf)
    for ratio in np.linspace(1.0, 0.1, 40):
        step = full * ratio
        error = np.square(np.clip(np.round(values / step), lower, upper) * step - values).sum(axis=0)
        best, least = np.where(error < least, step, best), np.minimum(error, least)
    return best
