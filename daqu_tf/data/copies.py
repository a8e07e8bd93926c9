"""Images that occur more than once: they are found by a hash of their pixels, and kept in one split."""

import itertools
from collections.abc import Mapping

import numpy as np


def together(ids: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """A number (N,) for each image: the same for images of one group or with the same pixels, and for all that these lead to.

    Args:
        ids: The hash (N,) of each image.
        groups: The name (N,) of each image's group.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    (_, same), (_, group) = (np.unique(each, return_inverse=True) for each in (ids, groups))
    first_group = same.max() + 1  # Pixels and groups are the nodes, and each image joins two of them.
    size = first_group + group.max() + 1
    joined = coo_array((np.ones(len(ids)), (same, group + first_group)), shape=(size, size))
    return connected_components(joined, directed=False)[1][same]


def keep_together(ids: np.ndarray, labels: np.ndarray, kept: np.ndarray, held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Moves images between two splits until no image of one has a copy in the other; without copies nothing changes.

    All copies of an image go to that split by which the sizes of the splits change least, class by class. Copies stay apart only
    where a class would be without any image in `kept`, or `held` without any image at all.

    Args:
        ids: The hash (N,) of each image.
        labels: The class (N,) of each image.
        kept: The indices of the images that are trained with.
        held: The indices of the images that are held out.

    Returns:
        The indices that are kept, and those that are held out.
    """
    _, groups, counts = np.unique(ids, return_inverse=True, return_counts=True)
    held_counts = np.bincount(groups[held], minlength=len(counts))
    torn = np.flatnonzero((held_counts > 0) & (held_counts < counts))
    order, ends = np.argsort(groups, kind="stable"), np.cumsum(counts)
    is_held = np.zeros(len(ids), bool)
    is_held[held] = True
    kept_of_class, held_size = np.bincount(labels[kept], minlength=labels.max() + 1), len(held)
    added = np.zeros_like(kept_of_class)  # What `held` has won or lost, by class.
    for group in torn:
        members = order[ends[group] - counts[group] : ends[group]]
        inside, outside = members[is_held[members]], members[~is_held[members]]
        label, leaving = labels[members[0]], np.bincount(labels[outside], minlength=len(kept_of_class))
        may_leave, may_return = bool((kept_of_class[leaving > 0] > leaving[leaving > 0]).all()), held_size > len(inside)
        if may_leave and (not may_return or abs(added[label] + len(outside)) < abs(added[label] - len(inside))):
            is_held[outside] = True
            kept_of_class, held_size, change = kept_of_class - leaving, held_size + len(outside), len(outside)
        elif may_return:
            is_held[inside] = False
            kept_of_class = kept_of_class + np.bincount(labels[inside], minlength=len(kept_of_class))
            held_size, change = held_size - len(inside), -len(inside)
        else:
            change = 0
        added[label] += change
    new_kept = np.concatenate([kept[~is_held[kept]], held[~is_held[held]]])
    return new_kept, np.concatenate([held[is_held[held]], kept[is_held[kept]]])


def note_on_copies(name: str, splits: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> tuple[str, ...]:
    """One sentence on the images that stand in several splits, or nothing where there are none.

    Args:
        name: The name of the data set.
        splits: The hashes (N,) and the labels (N,) of the images of each split.
    """
    found = []
    for (first, (ids, labels)), (second, (other_ids, other_labels)) in itertools.combinations(splits.items(), 2):
        is_copy = np.isin(other_ids, ids)
        if copies := int(is_copy.sum()):
            pairs = set(zip(ids.tolist(), labels.tolist()))
            differing = sum(pair not in pairs for pair in zip(other_ids[is_copy].tolist(), other_labels[is_copy].tolist()))
            others = f", {differing} of them with another label" if differing else ""
            found.append(f"{copies} of the {len(other_ids)} {second} images stand in {first} too{others}")
    if not found:
        return ()
    return (
        f"Images of {name} are in several splits: {'; '.join(found)}. "
        "Accuracies on such images say too much: take them out of one.",
    )
