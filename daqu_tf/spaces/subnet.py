"""A gene, which is one named choice, and a subnet, which is one complete choice."""

import dataclasses
import functools
from collections.abc import Mapping

from daqu_tf.spaces.bits import FIXED_BITS, FLOAT_BITS


@dataclasses.dataclass(frozen=True)
class Gene:
    """One named choice.

    Attributes:
        name: The name of the gene, for example `stage2.block1.expand.weight_bits`.
        values: The values that may be chosen, ascending.
        depth_gene: The name of the gene that may leave this gene's block out; None for a gene that always acts.
        block: The number of this gene's block, from 1; the gene acts where the depth is at least that.
    """

    name: str
    values: tuple[int, ...]
    depth_gene: str | None = None
    block: int = 0

    def acts(self, values: Mapping[str, int]) -> bool:
        """Whether the gene changes the network described by `values`."""
        return self.depth_gene is None or values[self.depth_gene] >= self.block


@dataclasses.dataclass(frozen=True)
class Subnet:
    """One complete choice: the value of every gene that acts, so that equal networks are equal and hash alike.

    Attributes:
        choices: Pairs of gene name and value, in the order of the space's genes.
    """

    choices: tuple[tuple[str, int], ...]

    @functools.cached_property
    def values(self) -> dict[str, int]:
        """The value of each gene that acts, by its name."""
        return dict(self.choices)

    def __getitem__(self, name: str) -> int:
        return self.values[name]

    @functools.cached_property
    def bits(self) -> dict[str, int]:
        """The bits of each tensor whose bits are searched, by the name of the gene."""
        return {name: value for name, value in self.choices if name.endswith("_bits")}

    @property
    def fixed_bits(self) -> int:
        """The bits of the tensors that are not searched: 8, or 32 if all others are in float."""
        return FLOAT_BITS if set(self.bits.values()) == {FLOAT_BITS} else FIXED_BITS

    def with_bits(self, weight_bits: int, activation_bits: int) -> "Subnet":
        """The architecture of this subnet at one precision throughout.

        Args:
            weight_bits: The bits of all searched weights; 32 is float. The space need not have them.
            activation_bits: The bits of all searched activations; 32 is float. The space need not have them.
        """
        bits = {"weight_bits": weight_bits, "activation_bits": activation_bits}
        return Subnet(tuple((name, bits.get(name.rpartition(".")[2], value)) for name, value in self.choices))

    def to_json(self) -> dict[str, int]:
        """The value of each gene by its name, as a JSON object."""
        return dict(self.choices)

    def __repr__(self) -> str:
        return f"Subnet({self})"

    def __str__(self) -> str:
        """One line, for people: `r28 stem c16 s1 c8 d1 [k3e4 w4.8.3 a8.8] ...`; bits in the order of a block's layers."""
        width = self["stem.width"]
        parts = [f"r{self['resolution']}", f"stem c{width}"]
        for stage in range(1, 1 + sum(name.endswith(".depth") for name in self.values)):
            width, depth = self.values.get(f"stage{stage}.width", width), self[f"stage{stage}.depth"]
            blocks = " ".join(self._block_text(f"stage{stage}.block{block}") for block in range(1, depth + 1))
            parts.append(f"s{stage} c{width} d{depth} [{blocks}]")
        head = [f"head c{self['head.width']} w{self['head.weight_bits']}"] if "head.width" in self.values else []
        return " ".join(parts + head)

    def _block_text(self, block: str) -> str:
        def bits(kind: str) -> str:
            return ".".join(str(value) for name, value in self.choices if name.startswith(f"{block}.") and name.endswith(kind))

        text = f"k{self[f'{block}.kernel']}e{self[f'{block}.expansion']} w{bits('.weight_bits')}"
        return f"{text} a{activations}" if (activations := bits(".activation_bits")) else text
