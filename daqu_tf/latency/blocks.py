"""The blocks that subnets consist of, as far as a device can tell them apart, each of which has an entry in a latency table.

Shapes, kinds and containers of layers count; bits and weights do not. The stem is a block, and so is all that follows the last
stage. Nothing here imports TensorFlow.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from daqu_tf.spaces.bits import FIXED_BITS
from daqu_tf.spaces.layer import RELUS, Layer, Number
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.targets.storage import Storage

PACKED_BITS = 4  # These bits stand for all that may be stored as INT4; `FIXED_BITS` stand for all others.
TIMED_BITS = (PACKED_BITS, FIXED_BITS)
# The fields of a layer that choices decide.
_CHOSEN = ("kernel", "input_size", "output_size", "input_channels", "output_channels", "weight_bits")


@dataclasses.dataclass(frozen=True)
class TimedBlock:
    """Layers that are timed together.

    Attributes:
        input_shape: The height, width and channels of the tensor that the first layer reads.
        layers: The layers in order of computation, each at one choice, with weight bits among `TIMED_BITS`.
        widest: The highest weight bits that the gene of each layer allows, among `TIMED_BITS`.
        narrowest: The lowest weight bits that the gene of each layer allows, among `TIMED_BITS`.
    """

    input_shape: tuple[int, int, int]
    layers: tuple[Layer[int], ...]
    widest: tuple[int, ...]
    narrowest: tuple[int, ...]

    def key(self, storage: Storage) -> str:
        """A text of what a device can tell: `16x16x24 pointwise 96 INT8 relu, depthwise5/2 96 INT8 relu, pointwise 40 INT4`."""
        texts = (_text(layer, storage.of(layer)) for layer in self.layers)
        return f"{'x'.join(map(str, self.input_shape))} {', '.join(texts)}"

    def ends(self) -> tuple["TimedBlock", "TimedBlock"]:
        """The block at the highest and at the lowest weight bits throughout, both of which are measured."""
        return self._at(self.widest), self._at(self.narrowest)

    def _at(self, bits: tuple[int, ...]) -> "TimedBlock":
        layers = (dataclasses.replace(layer, weight_bits=each) for layer, each in zip(self.layers, bits))
        return dataclasses.replace(self, layers=tuple(layers))

    def share_of_narrowest(self, storage: Storage) -> float:
        """How far the block is from the highest weight bits to the lowest, in [0, 1].

        It is the share of the MACs of layers in the container of the lowest bits, among layers that can be in two.
        """
        wide, narrow = ([storage.of(layer) for layer in end.layers] for end in self.ends())
        differing = [layer for layer, w, n in zip(self.layers, wide, narrow) if w != n]
        # A layer that differs has one of the two containers.
        narrowed = [layer for layer, w in zip(self.layers, wide) if storage.of(layer) != w]
        return sum(layer.macs for layer in narrowed) / (sum(layer.macs for layer in differing) or 1)


def _text(layer: Layer[int], container: str) -> str:
    kernel = f"{layer.kernel}/{layer.stride}" if layer.kind in ("conv", "depthwise") else ""
    activation = "relu" if layer.activation in RELUS else layer.activation  # They take the same time.
    marks = [activation] * (activation != "linear")
    marks += [name for name in ("pools", "gates") if getattr(layer, name)]
    marks += [f"sum {layer.residual}".removesuffix(" linear")] * bool(layer.residual)
    return " ".join([f"{layer.kind}{kernel}", str(layer.output_channels), container, *marks])


def blocks_of(space: SearchSpace, genomes: np.ndarray) -> Iterator[tuple[list[TimedBlock], np.ndarray]]:
    """The blocks of many subnets.

    Args:
        space: The space that the genomes belong to.
        genomes: The genomes (count, genes) of the subnets.

    Yields:
        For each place where a block may stand, the distinct blocks at this place, and the index among them (count,) of each
        subnet's own block, -1 where it has none.
    """
    layers = space.layer_table(genomes)
    input_size = layers[0].input_size
    for _, group in itertools.groupby(layers, _place):
        place = tuple(group)
        yield _distinct(space, place, input_size, len(genomes))
        input_size = place[-1].output_size if place[-1].kind != "dense" else input_size


def _place(layer: Layer) -> str:
    return layer.block or ("stem" if layer.name == "stem" else "tail")


def _distinct(
    space: SearchSpace, layers: tuple[Layer[Number], ...], input_size: tuple[Number, Number], count: int
) -> tuple[list[TimedBlock], np.ndarray]:
    """The distinct blocks at one place, and the index of each subnet's own."""
    columns = [layers[0].active, *input_size]
    for layer in layers:
        columns += _flat(dataclasses.replace(layer, weight_bits=_timed_bits(layer.weight_bits)))
    table = np.stack([np.broadcast_to(column, count) for column in columns], axis=1)
    rows, index = np.unique(table, axis=0, return_inverse=True)
    active = rows[:, 0].astype(bool)
    found = [_block(space, layers, row.tolist()) for row in rows[active, 1:]]
    return found, np.where(active, np.cumsum(active) - 1, -1)[index.reshape(-1)]


def _timed_bits(bits: Number | Sequence[int]) -> np.ndarray:
    """The entry of `TIMED_BITS` that stands for some bits."""
    return np.where(np.asarray(bits) <= PACKED_BITS, PACKED_BITS, FIXED_BITS)


def _flat(layer: Layer[Number]) -> list[Number]:
    values = (getattr(layer, name) for name in _CHOSEN)
    return [part for value in values for part in (value if isinstance(value, tuple) else (value,))]


def _block(space: SearchSpace, layers: tuple[Layer, ...], row: list[int]) -> TimedBlock:
    alphabets = {gene.name: gene.values for gene in space.genes}
    values, found, widest, narrowest = iter(row[2:]), [], [], []
    for layer in layers:
        chosen: dict[str, Any] = {name: (next(values), next(values)) if name.endswith("size") else next(values) for name in _CHOSEN}
        # The place, held values and bits of activations do not change the time; without them, blocks that take equally long are
        # equal.
        chosen["name"] = f"block.{layer.name.rpartition('.')[2]}" if layer.block else layer.name
        found.append(dataclasses.replace(layer, held=0, input_bits=FIXED_BITS, output_bits=FIXED_BITS, active=True, **chosen))
        timed = _timed_bits(alphabets.get(f"{layer.name}.weight_bits", (FIXED_BITS,)))
        widest.append(int(timed.max()))
        narrowest.append(int(timed.min()))
    return TimedBlock((row[0], row[1], found[0].input_channels), tuple(found), tuple(widest), tuple(narrowest))


def every_block(space: SearchSpace, storage: Storage) -> dict[str, TimedBlock]:
    """All distinct blocks of a space, at the highest and at the lowest weight bits throughout, by their keys."""
    found: dict[str, TimedBlock] = {}
    for index, place in enumerate(_places(space)):
        blocks, _ = list(blocks_of(space, _genomes(space, place)))[index]
        found |= {end.key(storage): end for block in blocks for end in block.ends()}
    return found


def _places(space: SearchSpace) -> list[str]:
    return list(dict.fromkeys(map(_place, space.layer_table(np.zeros((1, len(space.genes)), int)))))


def _genomes(space: SearchSpace, place: str) -> np.ndarray:
    """Genomes (count, genes) with all combinations of the choices that the block at a place depends on."""
    before, width = {"stem": "stem.width"}, "stem.width"  # The gene of the channels that a place reads.
    for number, stage_of_blocks in enumerate(space.stages, 1):
        before[f"stage{number}"] = width
        width = width if stage_of_blocks.keeps_width else f"stage{number}.width"
    before["tail"] = width
    stage = place.partition(".")[0]
    names = {"resolution", f"{stage}.width", before[stage], "head.width" if place == "tail" else ""}
    decides = [
        gene.name in names or (gene.name.startswith(f"{place}.") and not gene.name.endswith("_bits")) for gene in space.genes
    ]
    # All other genes have their last value, so that the depth leaves no block out.
    choices = [range(len(gene.values)) if free else (len(gene.values) - 1,) for gene, free in zip(space.genes, decides)]
    return np.array(list(itertools.product(*choices)))
