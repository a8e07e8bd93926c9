"""The panel, a fixed set of subnets that is scored again and again while the supernet trains."""

from collections.abc import Sequence

import numpy as np

from daqu_tf.data.dataset import Dataset
from daqu_tf.data.images import first
from daqu_tf.spaces.bits import next_bits
from daqu_tf.spaces.precisions import in_float, uniform_bits
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.subnet import Subnet
from daqu_tf.supernet.scoring import Scorer
from daqu_tf.targets import costs

ARCHITECTURES = 8
SCORED_IMAGES = 3000  # Their standard error is about half a point.
_CANDIDATES = 400


def architectures(space: SearchSpace, count: int = ARCHITECTURES, seed: int = 0) -> list[Subnet]:
    """A fixed choice of architectures, ascending in MACs: the smallest, quantiles of random ones, and the largest.

    Args:
        space: The search space.
        count: The number of architectures, at least 2; there are fewer where the space has no more.
        seed: The seed of the random ones.
    """
    rng = np.random.default_rng([seed, 5])
    ends = [uniform_bits(space, end, space.all_bits[-1]) for end in (space.smallest(), space.largest())]
    drawn = (uniform_bits(space, space.sample_by_gene(rng), space.all_bits[-1]) for _ in range(_CANDIDATES))
    between = sorted(set(drawn) - set(ends), key=lambda subnet: (costs.macs(space, subnet), subnet.choices))
    places = np.linspace(0, len(between) - 1, min(count - 2, len(between))).round().astype(int)
    return list(dict.fromkeys([ends[0], *(between[place] for place in places), ends[1]]))


class Panel:
    """Scores the panel on the search split of a data set.

    Args:
        scorer: The scorer of the supernet.
        space: The space of the supernet.
        dataset: The data set, of which the search split is used.

    Attributes:
        precisions: The name of the precision that each entry of the space's bits gives, such as `w4a8`.
    """

    def __init__(self, scorer: Scorer, space: SearchSpace, dataset: Dataset):
        self._scorer, self._space = scorer, space
        self._images = first(dataset.x_search, SCORED_IMAGES), dataset.y_search[:SCORED_IMAGES]
        self._architectures = architectures(space)
        self.precisions = {bits: precision_name(space, bits) for bits in space.all_bits}

    def score(self, open_bits: Sequence[int]) -> dict[str, float]:
        """Scores the panel.

        Args:
            open_bits: The bits that are open, ascending; if empty, the panel is scored in float.

        Returns:
            Figures by name, in [0, 1]. `accuracy_smallest`, `accuracy_largest` and `accuracy_mean` are those of the architectures
            at the highest open bits, `gap` is the highest accuracy less the lowest, and `gap_std` their standard deviation. For
            each entry of `open_bits` there is the mean accuracy of the smallest, the middle and the largest architecture at these
            bits throughout, as `accuracy_w4a8`.
        """
        space, members = self._space, self._architectures
        top = [uniform_bits(space, subnet, max(open_bits)) if open_bits else in_float(subnet) for subnet in members]
        scores = self._scorer.evaluate(top, *self._images)
        figures = {"smallest": scores[0], "largest": scores[-1], "mean": float(np.mean(scores))}
        few = [members[place] for place in (0, len(members) // 2, -1)]
        for bits in open_bits:
            uniform = [uniform_bits(space, subnet, bits) for subnet in few]
            figures[self.precisions[bits]] = float(np.mean(self._scorer.evaluate(uniform, *self._images)))
        accuracies = {f"accuracy_{name}": value for name, value in figures.items()}
        return accuracies | {"gap": max(scores) - min(scores), "gap_std": float(np.std(scores))}

    @property
    def names(self) -> list[str]:
        """The names of all figures that `score` can give."""
        accuracies = ("smallest", "largest", "mean", *self.precisions.values())
        return [*(f"accuracy_{name}" for name in accuracies), "gap", "gap_std"]


def precision_name(space: SearchSpace, bits: int) -> str:
    """The precision, such as `w4a8`, that the same bits for all tensors give in a space."""
    return f"w{next_bits(space.weight_bits, bits)}a{next_bits(space.activation_bits, bits)}"
