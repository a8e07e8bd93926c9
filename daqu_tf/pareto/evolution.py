"""Evolution of thousands of candidates on predictions alone, which is the inner search.

The archive holds the candidates that are not dominated if each is one deviation better than predicted. It breeds the next
generation and is thinned by crowding distance (after Deb et al., "NSGA-II", IEEE TEVC 6(2), 2002, with whole arrays instead of
single children).
"""

import numpy as np

from daqu_tf.pareto import fronts
from daqu_tf.pareto.choices import ABSENT, Choices
from daqu_tf.pareto.fronts import first_front
from daqu_tf.pareto.outlook import Outlook

GENERATIONS, CHILDREN, PARENTS = 12, 400, 200
OPTIMISM = 1.0


def crossover(mother: np.ndarray, father: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Children of parents of any shape: each entry comes from either parent, or from the one in which it is not `ABSENT`."""
    mother, father = np.array(mother), np.array(father)
    child = np.where(rng.random(mother.shape) < 0.5, mother, father)
    return np.where(child == ABSENT, np.maximum(mother, father), child)


def mutate(code: np.ndarray, choices: Choices, rng: np.random.Generator) -> np.ndarray:
    """Codes with one entry changed on average, to a neighbouring value or to any other; absent entries become random ones.

    The step to a neighbour is ours: values are mostly ordered, as widths and bits are, and the polynomial mutation of NSGA-II is
    for real numbers.

    Args:
        code: The codes, of shape (..., n).
        choices: The choices that the codes belong to.
        rng: The source of all random numbers.
    """
    sizes, shape = choices.sizes, np.shape(code)
    fresh = rng.integers(0, sizes, shape)
    free = sizes > 1
    neighbour = np.clip(code + rng.choice((-1, 1), shape), 0, sizes - 1)
    moved = np.where(rng.random(shape) < 0.5, neighbour, fresh)
    hit = free & (rng.random(shape) < 1 / max(1, int(free.sum())))
    return np.where(code == ABSENT, fresh, np.where(hit, moved, code))


def breed(choices: Choices, outlook: Outlook, parents: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Breeds candidates for some generations, and gives the codes (count, n) of all that were looked at, without repetition.

    Args:
        choices: The choices that the codes belong to.
        outlook: The predictions of the candidates' objectives.
        parents: The codes (count, n) of the first parents.
        rng: The source of all random numbers.
    """
    fresh = rng.integers(0, choices.sizes, (CHILDREN, len(choices.sizes)))
    new = choices.canonical(np.vstack([fresh, children(choices, parents, CHILDREN, rng)]))
    seen, archive, merits = new, parents[:0], np.zeros((0, 0))
    for _ in range(GENERATIONS):
        points = _merits(outlook, new)
        archive = np.vstack([archive, new])
        merits = np.vstack([merits.reshape(-1, points.shape[1]), points])
        kept = _best(merits)
        archive, merits = archive[kept], merits[kept]
        new = choices.canonical(children(choices, archive, CHILDREN, rng))
        seen = np.vstack([seen, new])
    return np.unique(seen, axis=0)


def children(choices: Choices, parents: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """The codes (count, n) of children of random pairs of parents.

    Args:
        choices: The choices that the codes belong to.
        parents: The codes (parents, n) of the parents.
        count: The number of children.
        rng: The source of all random numbers.
    """
    mothers, fathers = parents[rng.integers(len(parents), size=(2, count))]
    return mutate(crossover(mothers, fathers, rng), choices, rng)


def _merits(outlook: Outlook, codes: np.ndarray) -> np.ndarray:
    """Optimistic objectives (count, m), which are worse by much for candidates that probably miss the constraints."""
    means, deviations, chances = outlook(codes)
    return means - OPTIMISM * deviations + 1e3 * np.maximum(0.5 - chances, 0)[:, None]


def _best(merits: np.ndarray) -> np.ndarray:
    front = first_front(merits)
    crowded = np.argsort(-fronts.crowding_distance(merits[front]), kind="stable")
    return front[crowded[:PARENTS]]
