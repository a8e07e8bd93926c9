"""The mathematics of Pareto fronts over NumPy arrays of n points with m objectives, all of which are minimised.

Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", IEEE TEVC 6(2), 2002, is the source where no other is
named.
"""

import numpy as np

from daqu_tf.errors import DaquError

_BLOCK = 256  # The rows that are compared with all others at once, so that memory is bounded by _BLOCK * n * m booleans.


def _checked(points: np.ndarray, dimensions: int) -> np.ndarray:
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != dimensions:
        raise DaquError(f"Points must be an array of {dimensions} dimension(s), but received shape {points.shape}.")
    if not np.isfinite(points).all():
        raise DaquError(f"Objectives must be finite, but received {points[~np.isfinite(points)][0]}: leave such points out.")
    return points


def _dominates(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a <= b).all(-1) & (a < b).any(-1)


def dominates(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether point `a` is no worse than point `b` in every objective and better in one.

    Args:
        a: The objectives (m,) of one point.
        b: The objectives (m,) of the other point.

    Raises:
        DaquError: A value is NaN or infinite, or the shapes are not two equal vectors.
    """
    a, b = _checked(a, 1), _checked(b, 1)
    if a.shape != b.shape:
        raise DaquError(f"Points must have equally many objectives, but received {a.size} and {b.size}.")
    return bool(_dominates(a, b))


def non_dominated_mask(points: np.ndarray) -> np.ndarray:
    """Which points no other point dominates; equal points are treated alike.

    Args:
        points: The objectives (n, m) of the points.

    Returns:
        Whether each point is not dominated (n,).

    Raises:
        DaquError: A value is NaN or infinite, or `points` is not two-dimensional.
    """
    points = _checked(points, 2)
    mask = np.ones(len(points), dtype=bool)
    for start in range(0, len(points), _BLOCK):
        block = points[start : start + _BLOCK, None]  # Shape (block, 1, m), against (1, n, m).
        mask[start : start + _BLOCK] = ~_dominates(points[None], block).any(1)
    return mask


def non_dominated_ranks(points: np.ndarray) -> np.ndarray:
    """The rank of the front that each point belongs to.

    Args:
        points: The objectives (n, m) of the points.

    Returns:
        The rank of each point (n,): 0 on the Pareto front, 1 on the front of the others, and so on.

    Raises:
        DaquError: A value is NaN or infinite, or `points` is not two-dimensional.
    """
    points = _checked(points, 2)
    ranks = np.zeros(len(points), dtype=int)
    remaining = np.arange(len(points))
    while remaining.size:
        dominated = ~non_dominated_mask(points[remaining])
        remaining = remaining[dominated]
        ranks[remaining] += 1
    return ranks


def crowding_distance(points: np.ndarray) -> np.ndarray:
    """How far apart each point's neighbours are: the sum over objectives of their distance, as a share of the range.

    The ends of every objective are infinitely far apart. Two things differ from the paper: Equal points count as one, whose
    distance the first of them gets while the others get 0, so that copies never crowd out the rest. And an objective in which all
    points agree has no ends.

    Args:
        points: The objectives (n, m) of the points, usually of one front.

    Returns:
        The distances (n,), in [0, inf].

    Raises:
        DaquError: A value is NaN or infinite, or `points` is not two-dimensional.
    """
    unique, first = np.unique(_checked(points, 2), axis=0, return_index=True)
    distance = np.full(len(unique), np.inf if len(unique) <= 2 else 0.0)
    for column in unique.T if len(unique) else ():
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]]
        if span > 0:
            distance[order[[0, -1]]] = np.inf
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
    result = np.zeros(len(points))
    result[first] = distance
    return result


def hypervolume(points: np.ndarray, reference: np.ndarray) -> float:
    """The volume that points dominate, up to a reference point, by pymoo's implementation.

    Args:
        points: The objectives (n, m) of the points; those that do not dominate `reference` add nothing.
        reference: The worst value of each objective (m,).

    Raises:
        DaquError: A value is NaN or infinite, or the shapes do not match.
    """
    from pymoo.indicators.hv import HV  # The import takes half a second, and only some callers need it.

    points, reference = _checked(points, 2), _checked(reference, 1)
    if points.shape[1] != reference.size:
        raise DaquError(f"`reference` must have {points.shape[1]} objectives as the points, but received {reference.size}.")
    inside = points[(points < reference).all(1)]
    return float(HV(ref_point=reference)(inside[non_dominated_mask(inside)])) if len(inside) else 0.0


def first_front(points: np.ndarray) -> np.ndarray:
    """The indices of points (n, m) that no other dominates, one of equal points; it is quick where they are few among many."""
    left, front = np.argsort(points.sum(1), kind="stable"), []
    while left.size:  # No later point dominates the first, since its sum would be less.
        front.append(left[0])
        left = left[~(points[left] >= points[left[0]]).all(1)]
    return np.array(front, dtype=int)
