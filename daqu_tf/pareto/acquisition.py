"""The choice of the candidates to run next: a batch of those that are expected to add most to the hypervolume.

The region that no point dominates yet is sampled at random places. A candidate with independent normal objectives dominates a place
with a probability in closed form, and its expected gain is the mean of these. What one member of the batch will probably dominate
counts that much less for the next. So the number of objectives does not matter, and an objective that is known exactly is a normal
one without deviation. Every second member is the one that gains most if all are as good as expected, since a batch of promises
alone is of near copies, whose deviations are not independent. (Expected hypervolume improvement: Emmerich et al., IEEE CEC 2011;
greedy batches: Daulton et al., NeurIPS 2020; the estimate by places and the turns are ours.)
"""

import numpy as np
from scipy.special import ndtr

from daqu_tf.pareto.fronts import first_front

PLACES, DRAWS = 800, 20_000  # The places wanted in the region, and the most that are drawn to find them.
OPTIMISM = 2.5  # A candidate bounds the region so many deviations below its mean.
SCREENED, SCREEN_PLACES = 800, 100  # The candidates that are left by a first look at some of the places.
_BLOCK = 2000


def choose(
    means: np.ndarray, deviations: np.ndarray, weights: np.ndarray, front: np.ndarray, count: int, rng: np.random.Generator
) -> list[int]:
    """Chooses a batch of candidates.

    Args:
        means: The predicted objectives (candidates, m), which are minimised and lie about in [0, 1].
        deviations: The deviations of the predictions (candidates, m), 0 where an objective is exact.
        weights: The probability (candidates,) that each candidate meets the constraints.
        front: The objectives (n, m) that have been reached so far.
        count: The most candidates to choose.
        rng: The source of all random numbers.

    Returns:
        The indices of the chosen candidates, best first.
    """
    optimistic = means - OPTIMISM * deviations
    hopeful = np.flatnonzero(~_dominated(optimistic, front) & (weights > 0))
    if not len(hopeful):
        return []
    places = _places(optimistic[hopeful], front, rng)
    means, deviations, weights = means[hopeful], deviations[hopeful], weights[hopeful]
    kept = _screened(means, deviations, weights, places[:SCREEN_PLACES])
    means, deviations, weights = means[kept], deviations[kept], weights[kept]
    expected = _covers(means, np.zeros_like(deviations), weights, places)
    return hopeful[kept[_choose(_covers(means, deviations, weights, places), expected, count)]].tolist()


def _screened(means: np.ndarray, deviations: np.ndarray, weights: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The indices of at most `SCREENED` candidates: half of them by what they may cover, half by what their means cover."""
    if len(means) <= SCREENED:
        return np.arange(len(means))
    gains = [_covers(means, each, weights, places).sum(axis=1) for each in (deviations, np.zeros_like(deviations))]
    return np.unique([np.argsort(-each, kind="stable")[: SCREENED // 2] for each in gains])


def _covers(means: np.ndarray, deviations: np.ndarray, weights: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The probability (candidates, places) that a candidate meets the constraints and dominates a place."""
    covers = np.zeros((len(means), len(places)), dtype=np.float32)
    for start in range(0, len(means), _BLOCK):
        part = slice(start, start + _BLOCK)
        covers[part] = _cover(means[part], deviations[part], places) * weights[part, None]
    return covers


def _choose(covers: np.ndarray, expected: np.ndarray, count: int) -> list[int]:
    """Chooses at most `count` candidates greedily, by turns by covers (candidates, places) and by those that their means have."""
    left = np.ones(covers.shape[1], dtype=np.float32)
    chosen: list[int] = []
    while len(chosen) < min(count, len(covers)):
        best = _best(expected, left, chosen) if len(chosen) % 2 else None
        if best is None:
            best = _best(covers, left, chosen)
        if best is None:
            break
        chosen.append(best)
        left *= 1 - covers[best]
    return chosen


def _best(covers: np.ndarray, left: np.ndarray, chosen: list[int]) -> int | None:
    """The candidate that covers most of the places (places,) that are left, as far as they are; None if none covers any."""
    gains = covers @ left
    gains[chosen] = -1.0
    best = int(np.argmax(gains))
    return best if gains[best] > 0 else None


def _cover(means: np.ndarray, deviations: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The probability (candidates, places) that a candidate is no worse than a place in any objective."""
    cover = np.ones((len(means), len(places)), dtype=np.float32)
    for objective in range(means.shape[1]):
        mean, deviation = means[:, objective, None], deviations[:, objective, None]
        distance = places[None, :, objective] - mean
        if deviation.any():
            cover *= ndtr((distance / np.maximum(deviation, 1e-9)).astype(np.float32))
        else:
            cover *= distance >= 0
    return cover


def _places(optimistic: np.ndarray, front: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Places (n, m), uniform over what a candidate may reach and the front does not dominate.

    The region ends a tenth of its range beyond the worst of both.
    """
    best = optimistic[first_front(optimistic)]
    lowest = np.minimum(best.min(0), front.min(0))
    # The worst of the candidates counts too: else a candidate that is cheaper and worse than all so far would gain nothing.
    worst = np.maximum(best.max(0), front.max(0))
    highest = worst + 0.1 * np.maximum(worst - lowest, 1e-3)
    drawn = lowest + (highest - lowest) * rng.random((DRAWS, front.shape[1]))
    drawn = drawn[~_dominated(drawn, front)]
    return drawn[_dominated(drawn, best)][:PLACES]


def _dominated(places: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Whether each place (places,) is dominated: some point is no worse in every objective."""
    left = np.arange(len(places))
    for point in points:
        left = left[~(places[left] >= point).all(1)]
    result = np.ones(len(places), dtype=bool)
    result[left] = False
    return result
