"""Samplers, which choose the subnets of a training step, each a small class behind one interface. No TensorFlow is imported.

A sampler chooses architectures, and `with_open_bits` gives them bits that are open. What a sampler has learned is a list of
numbers, which a checkpoint holds.
"""

from collections.abc import Sequence

import numpy as np

from daqu_tf.spaces.precisions import mixed_bits, uniform_bits
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.subnet import Subnet
from daqu_tf.targets import costs

UNIFORM_SHARE = 0.5  # The share of subnets that have the same bits throughout; the others have mixed bits.


class Uniform:
    """Samples random architectures, uniform over the values of each gene.

    Args:
        space: The search space.

    Attributes:
        state: The numbers that `observe` has learned.
    """

    SUBNETS = 4  # The subnets of a step, as many as in BigNAS and AttentiveNAS: largest, smallest and two random ones.

    def __init__(self, space: SearchSpace):
        self.space = space
        self.state: list[float | None] = []

    def architectures(self, rng: np.random.Generator) -> list[Subnet]:
        """The architectures of one step; their bits mean nothing yet."""
        return [self.space.sample_by_gene(rng) for _ in range(self.SUBNETS)]

    def observe(self, subnets: Sequence[Subnet], losses: Sequence[float]) -> None:
        """Learns from the losses of the subnets of a step; this sampler learns nothing."""


class Sandwich(Uniform):
    """Samples by the sandwich rule (Yu and Huang, ICCV 2019): the largest, the smallest, and random architectures.

    Where the largest teaches in a precision transfer, it now and then also takes the place of another, which may be the smallest.
    """

    def architectures(self, rng: np.random.Generator) -> list[Subnet]:
        """The architectures of one step, the largest first; their bits mean nothing yet."""
        return [self.space.largest(), self.space.smallest(), *super().architectures(rng)[2:]]


class GapAware(Uniform):
    """Samples architectures by bands of MACs, more often from bands whose loss lies further behind that of the best (ours).

    The sandwich rule trains the two ends in every step, and each architecture between them hardly ever. Here no architecture is in
    every step: a quarter of the draws go evenly over the bands, and the others to those that lag. `state` is the running mean of
    each band's loss, None before the first.
    """

    SUBNETS = 6  # They take as long as the sandwich rule's four, one of which is the largest.
    BANDS, CANDIDATES = 6, 20_000
    TEMPERATURE = 0.05  # A band whose loss is higher by so much is drawn e times as often.
    EVEN_SHARE = 0.25
    END_SHARE = 0.3  # The share of draws in the first and the last band that go to the smallest and the largest architecture.
    RATE = 0.02  # The rate of the running means.

    def __init__(self, space: SearchSpace):
        super().__init__(space)
        self._ends = space.smallest(), space.largest()
        self._limits = [np.log(costs.macs(space, end)) for end in self._ends]
        choices = [len(gene.values) for gene in space.genes]
        genomes = np.random.default_rng(0).integers(0, choices, (self.CANDIDATES, len(choices)))
        bands = self._band(costs.macs_of_many(space, genomes))
        self._bands = [genomes[bands == band] for band in range(self.BANDS)]
        self.state = [None] * self.BANDS

    def architectures(self, rng: np.random.Generator) -> list[Subnet]:
        """The architectures of one step, in any order; their bits mean nothing yet."""
        seen = [loss for loss in self.state if loss is not None]
        lag = np.array([0.0 if loss is None else loss - min(seen) for loss in self.state])
        behind = np.exp((lag - lag.max()) / self.TEMPERATURE)
        chances = self.EVEN_SHARE / self.BANDS + (1 - self.EVEN_SHARE) * behind / behind.sum()
        return [self._draw(int(band), rng) for band in rng.choice(self.BANDS, self.SUBNETS, p=chances)]

    def _draw(self, band: int, rng: np.random.Generator) -> Subnet:
        genomes = self._bands[band]
        ends = {0: self._ends[0], self.BANDS - 1: self._ends[1]}
        if band in ends and (rng.random() < self.END_SHARE or not len(genomes)):
            return ends[band]
        return self.space.from_genome(rng.choice(genomes)) if len(genomes) else self.space.sample_by_gene(rng)

    def observe(self, subnets: Sequence[Subnet], losses: Sequence[float]) -> None:
        """Moves the running means of the subnets' bands; losses that are not finite are ignored."""
        for subnet, loss in zip(subnets, losses):
            if np.isfinite(loss):
                band = int(self._band(costs.macs(self.space, subnet)))
                mean = self.state[band]
                self.state[band] = loss if mean is None else mean + self.RATE * (loss - mean)

    def _band(self, macs: int | np.ndarray) -> np.ndarray:
        lowest, highest = self._limits
        share = (np.log(macs) - lowest) / max(highest - lowest, 1e-9)
        return np.clip((share * self.BANDS).astype(int), 0, self.BANDS - 1)


SAMPLERS: dict[str, type[Uniform]] = {"uniform": Uniform, "sandwich": Sandwich, "gap_aware": GapAware}


def with_open_bits(space: SearchSpace, subnet: Subnet, open_bits: Sequence[int], rng: np.random.Generator) -> Subnet:
    """The architecture of `subnet` with random bits: half of the time the same for all tensors, else mixed.

    Bits are drawn with a probability in inverse proportion to their number, since 8, 6 and 4 bits learn nearly the same, and 2 bits
    take longest (ours).

    Args:
        space: The space of the subnet.
        subnet: The subnet, whose own bits do not matter.
        open_bits: The bits that may be drawn.
        rng: The source of all random numbers.
    """
    chances = 1.0 / np.array(open_bits)
    chances /= chances.sum()
    if rng.random() < UNIFORM_SHARE:
        return uniform_bits(space, subnet, int(rng.choice(open_bits, p=chances)))
    return mixed_bits(space, subnet, open_bits, rng, chances)
