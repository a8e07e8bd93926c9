"""The mathematics of Pareto fronts over NumPy arrays of n points with m objectives, all of which are minimised.

Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", IEEE TEVC 6(2), 2002, is the source where no other is
named.
"""

import numpy as np

from daqu_tf.errors import DaquError
from daqu_tf.pareto.incoming import shown

_BLOCK = 32  # The number of points that are compared with all others at once.
_LARGE = 2.0**1000  # From here on sums and differences might not be floats.


def _checked(points: np.ndarray, dimensions: int) -> np.ndarray:
    try:
        if np.iscomplexobj(points):
            raise TypeError
        points = np.asarray(points, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise DaquError(f"Points must be an array of real numbers, but received {shown(points)}: give each as many.") from None
    if points.ndim != dimensions:
        raise DaquError(f"Points must be an array of {dimensions} dimension(s), but received shape {points.shape}.")
    if not np.isfinite(points).all():
        raise DaquError(f"Objectives must be finite, but received {points[~np.isfinite(points)][0]}: leave such points out.")
    return points


def _scaled_down(values: np.ndarray) -> np.ndarray:
    """The same values, or a power of two of them less where their sums would overflow: no order and no ratio changes by that."""
    return values / 2.0**20 if values.size and np.abs(values).max() >= _LARGE else values


def first_front(points: np.ndarray) -> np.ndarray:
    """The points that no other one dominates, by rising sum of the objectives; of equal points, the first alone.

    A point dominates none that comes before it in that order. So the first points that are left are compared with all at once, and
    the points that they dominate are left out before the next ones are compared. Rounding can make the sums of two such
    points equal; then the objectives decide.

    Args:
        points: The objectives (n, m) of the points, all finite.

    Returns:
        The indices (front,) of the points.
    """
    sums = _scaled_down(points).sum(axis=1)
    left = np.lexsort((*points.T[::-1], sums))
    columns, found = points.T[:, left], [left[:0]]
    while left.size:
        covered = _covered(columns)
        found.append(left[:_BLOCK][~covered[:_BLOCK]])
        left, columns = left[_BLOCK:][~covered[_BLOCK:]], columns[:, _BLOCK:][:, ~covered[_BLOCK:]]
    front = np.concatenate(found)
    return front[np.lexsort((front, sums[front]))]


def _covered(columns: np.ndarray) -> np.ndarray:
    """Which points, the columns of (m, n), are in no objective better than one of the first `_BLOCK` that comes before them."""
    covers = np.ones((min(_BLOCK, columns.shape[1]), columns.shape[1]), dtype=bool)
    for objective in columns:  # A third dimension in place of this loop is five times slower.
        covers &= objective[:_BLOCK, None] <= objective
    covers[:, :_BLOCK] = np.triu(covers[:, :_BLOCK], 1)
    return np.asarray(covers.any(axis=0))


def non_dominated_mask(points: np.ndarray) -> np.ndarray:
    """Which points no other point dominates; equal points are treated alike.

    Args:
        points: The objectives (n, m) of the points.

    Returns:
        Whether each point is not dominated (n,).

    Raises:
        DaquError: A value is NaN or infinite, or `points` is not two-dimensional.
    """
    unique, copies = np.unique(_checked(points, 2), axis=0, return_inverse=True)
    mask = np.zeros(len(unique), dtype=bool)
    mask[first_front(unique)] = True
    return mask[copies.reshape(-1)]


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
        column = _scaled_down(column)
        order = np.argsort(column, kind="stable")
        span = column[order[-1]] - column[order[0]]
        if span > 0:
            distance[order[[0, -1]]] = np.inf
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
    result = np.zeros(len(points))
    result[first] = distance
    return result


def hypervolume(points: np.ndarray, reference: np.ndarray) -> float:
    """The exact volume that points dominate, up to a reference point.

    Args:
        points: The objectives (n, m) of the points; those that do not dominate `reference` add nothing.
        reference: The worst value of each objective (m,).

    Raises:
        DaquError: A value is NaN or infinite, the shapes do not match, or the volume is beyond the range of floats.
    """
    points, reference = _checked(points, 2), _checked(reference, 1)
    if points.shape[1] != reference.size:
        raise DaquError(f"`reference` must have {points.shape[1]} objectives as the points, but received {reference.size}.")
    with np.errstate(over="ignore", invalid="ignore"):
        volume = _union(reference - points[(points < reference).all(axis=1)])
    if not np.isfinite(volume):
        raise DaquError("Points must span a volume within the range of floats, but these span more: divide them by what is usual.")
    return volume


def _union(sides: np.ndarray) -> float:
    """The volume that boxes with a common corner cover together, given their sides (n, m).

    For three objectives or more, it is computed by the WFG algorithm (While, Bradstreet and Barone, "A fast way of calculating
    exact hypervolumes", IEEE TEVC 16(1), 2012): a box adds what it does not share with the boxes that come after it. Boxes come by
    rising last side, so what is shared is as long as the box in that objective, which need not be looked at again.
    """
    if sides.shape[1] <= 2:
        return _area(sides)
    sides = sides[first_front(-sides)]
    sides = sides[np.argsort(sides[:, -1], kind="stable")]
    volume = 0.0
    for index, (*others, last) in enumerate(sides):
        shared = np.minimum(sides[index + 1 :, :-1], others)
        volume += last * (np.prod(others) - _union(shared))
    return float(volume)


def _area(sides: np.ndarray) -> float:
    """The area that rectangles cover together, given their sides (n, 2); lines, with sides (n, 1), have a height of 1."""
    widths, heights = sides[:, 0], sides[:, 1] if sides.shape[1] == 2 else np.ones(len(sides))
    order = np.argsort(-widths, kind="stable")
    steps = np.diff(np.maximum.accumulate(heights[order]), prepend=0.0)
    return float(widths[order] @ steps)
