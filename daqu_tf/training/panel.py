"""The panel: a fixed set of subnets that is scored again and again while the supernet trains."""

from collections.abc import Sequence

import numpy as np

from daqu_tf.data.dataset import Dataset
from daqu_tf.spaces.bits import next_width
from daqu_tf.spaces.precisions import in_float, uniform_bits
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.subnet import Subnet
from daqu_tf.supernet.scoring import Scorer
from daqu_tf.targets import costs

ARCHITECTURES = 8
SCORED_IMAGES = 3000  # Their standard error is about half a point.
_CANDIDATES = 400


def architectures(space: SearchSpace, count: int = ARCHITECTURES, seed: int = 0) -> list[Subnet]:
    """A fixed choice of architectures, ascending in MACs: the smallest, the largest, and quantiles of random ones between.

    Args:
        space: What may be chosen.
        count: At least 2; there are fewer where the space has no more.
        seed: Of the choice.
    """
    rng = np.random.default_rng([seed, 5])
    ends = [uniform_bits(space, end, space.widths[-1]) for end in (space.smallest(), space.largest())]
    drawn = (uniform_bits(space, space.sample_by_gene(rng), space.widths[-1]) for _ in range(_CANDIDATES))
    between = sorted(set(drawn) - set(ends), key=lambda subnet: (costs.macs(space, subnet), subnet.choices))
    places = np.linspace(0, len(between) - 1, min(count - 2, len(between))).round().astype(int)
    return list(dict.fromkeys([ends[0], *(between[place] for place in places), ends[1]]))


class Panel:
    """Scores the panel on the search split.

    Args:
        scorer: Of the supernet.
        space: Of the supernet.
        dataset: Whose search split is used.
    """

    def __init__(self, scorer: Scorer, space: SearchSpace, dataset: Dataset):
        self._scorer, self._space = scorer, space
        self._images = dataset.x_search[:SCORED_IMAGES], dataset.y_search[:SCORED_IMAGES]
        self._architectures = architectures(space)
        self.precisions = {width: precision_name(space, width) for width in space.widths}

    def score(self, widths: Sequence[int]) -> dict[str, float]:
        """Accuracies in [0, 1], by figure.

        Args:
            widths: Those that are open; none means float.

        Returns:
            `accuracy_smallest`, `_largest` and `_mean` of the architectures at the highest open precision, the accuracy gap `gap`
            (the most less the least) and `gap_std`, and for each open width, as `accuracy_w4a8`, the mean of the smallest, the
            middle and the largest architecture at that width throughout.
        """
        top = [uniform_bits(self._space, subnet, max(widths)) if widths else in_float(subnet) for subnet in self._architectures]
        scores = self._scorer.evaluate(top, *self._images)
        figures = {"smallest": scores[0], "largest": scores[-1], "mean": float(np.mean(scores))}
        few = [self._architectures[place] for place in (0, len(self._architectures) // 2, -1)]
        for width in widths:
            at_width = [uniform_bits(self._space, subnet, width) for subnet in few]
            figures[self.precisions[width]] = float(np.mean(self._scorer.evaluate(at_width, *self._images)))
        accuracies = {f"accuracy_{name}": value for name, value in figures.items()}
        return accuracies | {"gap": max(scores) - min(scores), "gap_std": float(np.std(scores))}

    @property
    def names(self) -> list[str]:
        """All figures that `score` can give."""
        accuracies = ("smallest", "largest", "mean", *self.precisions.values())
        return [*(f"accuracy_{name}" for name in accuracies), "gap", "gap_std"]


def precision_name(space: SearchSpace, width: int) -> str:
    """`w4a8`: what one width throughout means in `space`."""
    return f"w{next_width(space.weight_bits, width)}a{next_width(space.activation_bits, width)}"
