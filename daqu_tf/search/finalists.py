"""Which members of the search's front are fine-tuned."""

import numpy as np


def spread(accuracies: np.ndarray, prices: np.ndarray, count: int, max_loss: float) -> list[int]:
    """The most accurate of each of `count` equal steps of the logarithm of the price.

    Not what adds most to the hypervolume that inherited accuracies span: a supernet trains its smallest subnet in every step and
    flatters it, so that those of middle size, which gain most from fine-tuning, would be left out.

    Args:
        accuracies: Shape (n,), the best first where they tie.
        prices: Shape (n,), positive.
        count: How many, at most.
        max_loss: Those further below the best accuracy than this are left out, unless too few remain.

    Returns:
        At most `count` indices; where a step is empty, the first ones left fill up.
    """
    good = np.flatnonzero(accuracies >= accuracies.max() - max_loss)
    good = good if len(good) >= count else np.arange(len(accuracies))
    edges = np.geomspace(prices[good].min(), prices[good].max(), count + 1)
    steps = np.searchsorted(edges[1:-1], prices[good])
    chosen = [max(good[steps == step], key=lambda index: accuracies[index]) for step in np.unique(steps)]
    rest = [index for index in good if index not in chosen]
    return [int(index) for index in (*chosen, *rest)[:count]]
