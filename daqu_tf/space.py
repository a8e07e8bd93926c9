"""The search space: what may be chosen, and one complete choice.

A `SearchSpace` describes a family of mobile networks. Its `genes` are the named choices, architecture and bits alike;
a `Subnet` gives each gene that acts one value; its `genome` is the same as an int vector. Nothing here imports
TensorFlow.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from daqu_tf.errors import DaquError

FLOAT_BITS = 32
# Of stem weights, classifier, network input and linear outputs: few or sensitive, and a signed activation of fewer bits
# would need a clamp of its own in the file.
FIXED_BITS = 8


@dataclasses.dataclass(frozen=True)
class Gene:
    """One named choice.

    Attributes:
        name: Readable, for example `stage2.block1.expand.weight_bits`.
        values: What may be chosen, ascending.
        depth_gene: The gene that cuts this one's block off, or None where the gene always acts.
        block: The block's number, from 1; the gene acts where the depth is at least that.
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
        choices: (gene name, value) in the space's order.
    """

    choices: tuple[tuple[str, int], ...]

    @functools.cached_property
    def values(self) -> dict[str, int]:
        """Gene name to value."""
        return dict(self.choices)

    def __getitem__(self, name: str) -> int:
        return self.values[name]

    def with_bits(self, weight_bits: int, activation_bits: int) -> "Subnet":
        """The same architecture at one precision throughout, which need not be one of the space's (32 is float)."""
        bits = {"weight_bits": weight_bits, "activation_bits": activation_bits}
        return Subnet(tuple((name, bits.get(name.rpartition(".")[2], value)) for name, value in self.choices))

    def to_json(self) -> dict[str, int]:
        """The values as a JSON object."""
        return dict(self.choices)

    def __str__(self) -> str:
        """One line, for people: `stem c16 s1 c8 d1 [k3e4 w4.8.3] ...`; bits are those of expand, depthwise and project."""
        parts = [f"stem c{self['stem.width']}"]
        for stage in range(1, 1 + sum(name.endswith(".depth") for name in self.values)):
            width, depth = self[f"stage{stage}.width"], self[f"stage{stage}.depth"]
            blocks = " ".join(self._block_text(f"stage{stage}.block{block}") for block in range(1, depth + 1))
            parts.append(f"s{stage} c{width} d{depth} [{blocks}]")
        return " ".join([*parts, f"head c{self['head.width']} w{self['head.weight_bits']}"])

    def _block_text(self, block: str) -> str:
        def bits(kind: str) -> str:
            names = (f"{block}.{layer}.{kind}" for layer in LAYERS)
            return ".".join(str(self[name]) for name in names if name in self.values)

        weights, activations = bits("weight_bits"), bits("activation_bits")
        return f"k{self[f'{block}.kernel']}e{self[f'{block}.expansion']} w{weights} a{activations}"


LAYERS = ("expand", "depthwise", "project")


@dataclasses.dataclass(frozen=True)
class Stage:
    """A run of inverted residual blocks at one resolution; the first block has the stride.

    Where the only expansion is 1, blocks have no expanding layer, as in the first stage of MobileNetV2.

    Attributes:
        widths: Output channels.
        depths: Numbers of blocks.
        kernels: Odd sizes of the depthwise kernels.
        expansions: Hidden channels over input channels.
        stride: Of the first block.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    kernels: tuple[int, ...]
    expansions: tuple[int, ...]
    stride: int

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers of a block, of `LAYERS`."""
        return LAYERS[1:] if self.expansions == (1,) else LAYERS


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer of one subnet as costs, targets, manifests and the exporter see it. Sizes are (height, width).

    Attributes:
        name: The layer's name in the supernet.
        kind: `conv`, `pointwise`, `depthwise` or `dense`.
        weight_bits: Of the kernel.
        input_bits: Of the activation tensor that the layer reads.
        output_bits: Of the activation tensor that it writes.
        relu: Whether a ReLU follows batch normalization.
        residual: Whether the block's input is added to the output.
    """

    name: str
    kind: str
    kernel: int
    stride: int
    input_size: tuple[int, int]
    output_size: tuple[int, int]
    input_channels: int
    output_channels: int
    weight_bits: int
    input_bits: int
    output_bits: int
    relu: bool
    residual: bool = False

    @property
    def weights(self) -> int:
        """Number of kernel weights."""
        return self.kernel**2 * self.output_channels * (1 if self.kind == "depthwise" else self.input_channels)


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """A family of mobile networks: stem, stages of inverted residual blocks, pointwise head, classifier.

    Attributes:
        name: The name it is found under.
        input_shape: Height, width and channels of the images.
        num_classes: Outputs of the classifier.
        stem_widths: Channels after the first convolution.
        stem_stride: Its stride.
        stages: In order.
        head_widths: Channels of the pointwise convolution before pooling.
        weight_bits: Alphabet of every searched weight tensor.
        activation_bits: Alphabet of every searched activation tensor.

    Raises:
        DaquError: A choice list is empty, a kernel is even, bits are outside 2..8, or the image is too small.
    """

    name: str
    input_shape: tuple[int, int, int]
    num_classes: int
    stem_widths: tuple[int, ...]
    stem_stride: int
    stages: tuple[Stage, ...]
    head_widths: tuple[int, ...]
    weight_bits: tuple[int, ...] = (2, 3, 4, 6, 8)
    activation_bits: tuple[int, ...] = (2, 3, 4, 6, 8)

    def __post_init__(self):
        for gene in self.genes:
            _check_gene(gene)
        stride = self.stem_stride * math.prod(stage.stride for stage in self.stages)
        if min(self.input_shape[:2]) < stride:
            raise DaquError(
                f"Images of {self.input_shape[0]}x{self.input_shape[1]} are too small for space {self.name!r}, whose "
                f"strides divide each side by {stride}: use images of {stride} or more pixels a side, or another space."
            )

    def for_images(self, input_shape: Sequence[int], num_classes: int) -> "SearchSpace":
        """The same space for other images and classes."""
        return dataclasses.replace(self, input_shape=tuple(input_shape), num_classes=num_classes)

    def restrict(self, **alphabets: Sequence[int]) -> "SearchSpace":
        """The space with smaller alphabets: `restrict(weight_bits=(4, 8), activation_bits=(8,))`.

        Raises:
            DaquError: A width is not in the space.
        """
        for field, bits in alphabets.items():
            if missing := set(bits) - set(getattr(self, field)):
                raise DaquError(
                    f"`{field}` must be among {getattr(self, field)} of space {self.name!r}, but received {sorted(missing)}."
                )
        return dataclasses.replace(self, **{field: tuple(sorted(bits)) for field, bits in alphabets.items()})

    @functools.cached_property
    def genes(self) -> tuple[Gene, ...]:
        """Every choice, in the order of the genome."""
        genes = [Gene("stem.width", self.stem_widths), Gene("stem.activation_bits", self.activation_bits)]
        for number, stage in enumerate(self.stages, 1):
            genes += [Gene(f"stage{number}.width", stage.widths), Gene(f"stage{number}.depth", stage.depths)]
            for block in range(1, max(stage.depths, default=0) + 1):
                genes += self._block_genes(number, stage, block)
        return (
            *genes,
            Gene("head.width", self.head_widths),
            Gene("head.weight_bits", self.weight_bits),
            Gene("head.activation_bits", self.activation_bits),
        )

    def _block_genes(self, number: int, stage: Stage, block: int) -> list[Gene]:
        alphabets = {"kernel": stage.kernels, "expansion": stage.expansions}
        alphabets |= {f"{layer}.weight_bits": self.weight_bits for layer in stage.layers}
        alphabets |= {f"{layer}.activation_bits": self.activation_bits for layer in stage.layers[:-1]}
        prefix, depth_gene = f"stage{number}.block{block}", f"stage{number}.depth"
        return [Gene(f"{prefix}.{name}", values, depth_gene, block) for name, values in alphabets.items()]

    def subnet(self, values: Mapping[str, int]) -> Subnet:
        """A canonical subnet: genes that do not act are dropped.

        Raises:
            DaquError: A gene that acts has no value or one outside its alphabet.
        """
        for gene in self.genes:
            if gene.acts(values) and values.get(gene.name) not in gene.values:
                raise DaquError(f"`{gene.name}` must be one of {gene.values}, but received {values.get(gene.name)}.")
        return Subnet(tuple((gene.name, int(values[gene.name])) for gene in self.genes if gene.acts(values)))

    def genome(self, subnet: Subnet) -> list[int]:
        """The index of every gene's value; 0 where the gene does not act."""
        return [gene.values.index(subnet[gene.name]) if gene.name in subnet.values else 0 for gene in self.genes]

    def from_genome(self, genome: Sequence[int]) -> Subnet:
        """The inverse of `genome`.

        Raises:
            DaquError: Wrong length, or an index out of range (the gene is named).
        """
        if len(genome) != len(self.genes):
            raise DaquError(f"`genome` must have {len(self.genes)} entries, but received {len(genome)}.")
        for gene, index in zip(self.genes, genome):
            if not 0 <= index < len(gene.values):
                raise DaquError(f"Gene `{gene.name}` must be in 0..{len(gene.values) - 1}, but received {index}.")
        return self.subnet({gene.name: gene.values[index] for gene, index in zip(self.genes, genome)})

    def sample(self, rng: np.random.Generator) -> Subnet:
        """A random subnet, uniform over the values of each gene: shallow networks are as frequent as deep ones."""
        return self.subnet({gene.name: int(rng.choice(gene.values)) for gene in self.genes})

    def largest(self) -> Subnet:
        """Every gene at its maximum."""
        return self.subnet({gene.name: max(gene.values) for gene in self.genes})

    def smallest(self) -> Subnet:
        """The least architecture at the highest precision."""
        return self.subnet({gene.name: (max if gene.name.endswith("_bits") else min)(gene.values) for gene in self.genes})

    @functools.cached_property
    def cardinality(self) -> int:
        """The exact number of distinct subnets."""
        free = [len(gene.values) for gene in self.genes if gene.depth_gene is None and not gene.name.endswith(".depth")]
        return math.prod(free) * math.prod(self._stage_cardinality(gene) for gene in self.genes if ".depth" in gene.name[-6:])

    def _stage_cardinality(self, depth: Gene) -> int:
        cut = [gene for gene in self.genes if gene.depth_gene == depth.name]
        return sum(math.prod(len(gene.values) for gene in cut if gene.block <= value) for value in depth.values)

    def layers(self, subnet: Subnet) -> list[Layer]:
        """The layers of `subnet` in order of computation; the residual stream and linear outputs have 8 bits."""
        size = _divide(self.input_shape[:2], self.stem_stride)
        bits = subnet["stem.activation_bits"]
        stem = Layer(
            "stem", "conv", 3, self.stem_stride, self.input_shape[:2], size,
            self.input_shape[2], subnet["stem.width"], FIXED_BITS, FIXED_BITS, bits, relu=True,
        )  # fmt: skip
        layers = [stem]
        for number, stage in enumerate(self.stages, 1):
            for block in range(1, subnet[f"stage{number}.depth"] + 1):
                layers += _block_layers(subnet, stage, f"stage{number}", block, layers[-1])
        return layers + self._head_layers(subnet, layers[-1])

    def _head_layers(self, subnet: Subnet, last: Layer) -> list[Layer]:
        head = Layer(
            "head", "pointwise", 1, 1, last.output_size, last.output_size, last.output_channels,
            subnet["head.width"], subnet["head.weight_bits"], last.output_bits, subnet["head.activation_bits"],
            relu=True,
        )  # fmt: skip
        classifier = Layer(
            "classifier", "dense", 1, 1, (1, 1), (1, 1), head.output_channels, self.num_classes,
            FIXED_BITS, FIXED_BITS, FIXED_BITS, relu=False,
        )  # fmt: skip
        return [head, classifier]

    def to_json(self) -> dict[str, Any]:
        """The space as a JSON object."""
        return dataclasses.asdict(self)


def _block_layers(subnet: Subnet, stage: Stage, name: str, number: int, last: Layer) -> list[Layer]:
    block = f"{name}.block{number}"
    hidden = last.output_channels * subnet[f"{block}.expansion"]
    shapes = {
        "expand": {"kind": "pointwise", "kernel": 1, "output_channels": hidden},
        "depthwise": {"kind": "depthwise", "kernel": subnet[f"{block}.kernel"], "output_channels": hidden},
        "project": {"kind": "pointwise", "kernel": 1, "output_channels": subnet[f"{name}.width"]},
    }
    layers = []
    for layer in stage.layers:
        stride = stage.stride if layer == "depthwise" and number == 1 else 1
        linear = layer == "project"
        last = Layer(
            f"{block}.{layer}",
            **shapes[layer],
            stride=stride,
            input_size=last.output_size,
            output_size=_divide(last.output_size, stride),
            input_channels=last.output_channels,
            weight_bits=subnet[f"{block}.{layer}.weight_bits"],
            input_bits=last.output_bits,
            output_bits=FIXED_BITS if linear else subnet[f"{block}.{layer}.activation_bits"],
            relu=not linear,
            residual=linear and number > 1,
        )
        layers.append(last)
    return layers


def _divide(size: Sequence[int], stride: int) -> tuple[int, int]:
    return (math.ceil(size[0] / stride), math.ceil(size[1] / stride))


def _check_gene(gene: Gene) -> None:
    if not gene.values:
        raise DaquError(f"`{gene.name}` must have at least one choice, but received none.")
    if gene.name.endswith(".kernel") and any(value % 2 == 0 for value in gene.values):
        raise DaquError(f"`{gene.name}` must be odd sizes, but received {gene.values}.")
    if gene.name.endswith("_bits") and not set(gene.values) <= set(range(2, 9)):
        raise DaquError(f"`{gene.name}` must be among 2..8, but received {gene.values}.")
    if tuple(sorted(set(gene.values))) != gene.values or gene.values[0] < 1:
        raise DaquError(f"`{gene.name}` must be ascending positive integers, but received {gene.values}.")
