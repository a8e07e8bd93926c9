"""The search space: which architectures and bits may be chosen.

A `SearchSpace` describes a family of networks. Its `genes` are the named choices, architecture and bits alike; a `Subnet`
gives each gene that acts one value, and its genome is the same choice as an int vector. Nothing here imports TensorFlow.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from daqu_tf import fields
from daqu_tf.errors import DaquError
from daqu_tf.spaces import architecture
from daqu_tf.spaces.layer import RELUS, Layer, Number
from daqu_tf.spaces.stage import ACTIVATIONS, BLOCKS, Stage, check_fields
from daqu_tf.spaces.subnet import Gene, Subnet

if TYPE_CHECKING:
    import keras_tuner


@dataclasses.dataclass(frozen=True)
class SearchSpace:
    """A family of networks: stem, stages of blocks, pointwise head, classifier.

    Attributes:
        name: The name of the space, by which `spaces.get` finds it and messages call it.
        input_shape: The height, width and channels of the images at the highest resolution.
        num_classes: The number of outputs of the classifier.
        stem_widths: The choices for the channels of the first convolution, the stem.
        stem_stride: The stride of the stem.
        stages: The stages of blocks, in order of computation.
        head_widths: The choices for the channels of the pointwise convolution before pooling; if empty, there is no head.
        weight_bits: The bit alphabet of every searched weight tensor, within 2 to 8.
        activation_bits: The bit alphabet of every searched activation tensor, within 2 to 8.
        resolutions: The choices for the height to which images are resized; if empty, only that of `input_shape`.
        activation: The activation of stem and head, one of `stage.ACTIVATIONS`.
        input_zero: The pixel, as a share of white in [0, 1], that stands for 0 in the network: the zeros that convolutions pad with
            are black by default. Networks that were trained on pixels from -1 to 1 have 0.5. Of quantized pixels it is the
            nearest.
        narrowed: The values that `restrict` left of single genes, as pairs of gene name and values.
        by_hand: Pairs of a gene's name and its value in the network that people scale by hand, where that is not the usual one (see
            `hand_scaled.hand_scaled`).

    Raises:
        DaquError: A field has a value of another kind, a list of choices is empty, a kernel is even, bits are outside 2 to 8,
            `narrowed` or `by_hand` names an unknown gene, `input_zero` is outside [0, 1], or the image is too small for the
            strides.
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
    resolutions: tuple[int, ...] = ()
    activation: str = "relu"
    narrowed: tuple[tuple[str, tuple[int, ...]], ...] = ()
    by_hand: tuple[tuple[str, int], ...] = ()
    input_zero: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self)
        _check_names(self)
        if not 0 <= self.input_zero <= 1:
            raise DaquError(f"`input_zero` must be in [0, 1], but received {self.input_zero}.")
        for gene in self.genes:
            _check_gene(gene)
        if unknown := dict(self.narrowed).keys() - {gene.name for gene in self.genes}:
            raise DaquError(f"`narrowed` must name genes of space {self.name!r}, but received `{min(unknown)}`.")
        if unknown := dict(self.by_hand).keys() - {gene.name for gene in self.genes}:
            raise DaquError(f"`by_hand` must name genes of space {self.name!r}, but received `{min(unknown)}`.")
        stride = self.stride
        smallest = architecture.image_size(self.input_shape, self.genes[0].values[0])
        if _halved_side(smallest) < stride:
            raise DaquError(
                f"Images of {smallest[0]}x{smallest[1]} are too small for space {self.name!r}, whose strides divide each side by "
                f"{stride}: use images of {stride} or more pixels a side, or another space."
            )
        if self.genes[0].values[-1] > self.input_shape[0]:
            raise DaquError(
                f"`resolutions` must be at most the {self.input_shape[0]} of `input_shape`, but received {self.resolutions}."
            )

    @property
    def stride(self) -> int:
        """By how much each side of an image is divided on the way to the pool."""
        return self.stem_stride * math.prod(stage.stride for stage in self.stages)

    @property
    def input_zero_code(self) -> int:
        """The pixel, 0 to 255, that stands for 0 in a network that reads whole ones."""
        return math.floor(255 * self.input_zero + 0.5)

    def for_images(self, input_shape: tuple[int, int, int], num_classes: int) -> "SearchSpace":
        """The space for other images and classes; resolutions keep their share of the full height, but those too low are left out.

        Args:
            input_shape: The height, width and channels of the images.
            num_classes: The number of classes.
        """

        def scaled(heights: tuple[int, ...]) -> tuple[int, ...]:
            found = sorted({(2 * h * input_shape[0] + self.input_shape[0]) // (2 * self.input_shape[0]) for h in heights})
            high = [height for height in found if _halved_side(architecture.image_size(input_shape, height)) >= self.stride]
            return tuple(high or found[-1:])

        narrowed = tuple((name, scaled(values) if name == "resolution" else values) for name, values in self.narrowed)
        resolutions = scaled(self.resolutions)
        return dataclasses.replace(
            self, input_shape=input_shape, num_classes=num_classes, resolutions=resolutions, narrowed=narrowed
        )

    def restrict(self, **choices: Sequence[int]) -> "SearchSpace":
        """The space with fewer choices: `restrict(weight_bits=(4, 8), kernel=(3,), **{"stage1.width": (16,)})`.

        Args:
            **choices: The values that may still be chosen, by the name of a gene or by the last part of several genes' names.

        Raises:
            DaquError: There is no such gene, a value is not in the space, or a gene would be left without a choice.
        """
        alphabets = {"weight_bits": self.weight_bits, "activation_bits": self.activation_bits}
        narrowed = dict(self.narrowed)
        for name, chosen in choices.items():
            values = set(fields.typed(name, tuple[int, ...], chosen))
            genes = [gene for gene in self.genes if name in (gene.name, gene.name.rpartition(".")[2])]
            known = {value for gene in genes for value in gene.values}
            if missing := values - known:
                among = f"among {tuple(sorted(known))} of" if known else "left out: there is no such gene in"
                raise DaquError(f"`{name}` must be {among} space {self.name!r}, but received {sorted(missing)}.")
            if name in alphabets:
                alphabets[name] = tuple(sorted(values))
            else:
                narrowed |= {gene.name: tuple(sorted(values & set(gene.values))) for gene in genes}
        return dataclasses.replace(
            self,
            narrowed=tuple(narrowed.items()),
            weight_bits=alphabets["weight_bits"],
            activation_bits=alphabets["activation_bits"],
        )

    @functools.cached_property
    def genes(self) -> tuple[Gene, ...]:
        """Every choice, in the order of the genome."""
        genes = [Gene("resolution", self.resolutions or self.input_shape[:1]), Gene("stem.width", self.stem_widths)]
        if self.activation in RELUS:
            genes.append(Gene("stem.activation_bits", self.activation_bits))
        for number, stage in enumerate(self.stages, 1):
            genes += [] if stage.keeps_width else [Gene(f"stage{number}.width", stage.widths)]
            genes.append(Gene(f"stage{number}.depth", stage.depths))
            for block in range(1, max(stage.depths, default=0) + 1):
                genes += self._block_genes(number, stage, block)
        if self.head_widths:  # Its output is only pooled: fewer bits would cost accuracy and save nothing.
            genes += [Gene("head.width", self.head_widths), Gene("head.weight_bits", self.weight_bits)]
        left = dict(self.narrowed)
        return tuple(
            dataclasses.replace(gene, values=tuple(value for value in gene.values if value in left[gene.name]))
            if gene.name in left
            else gene
            for gene in genes
        )

    def _block_genes(self, number: int, stage: Stage, block: int) -> list[Gene]:
        alphabets = {"kernel": stage.kernels, "expansion": stage.expansions}
        alphabets |= {f"{layer}.weight_bits": self.weight_bits for layer in stage.layer_names(block)}
        alphabets |= {f"{layer}.activation_bits": self.activation_bits for layer in stage.searched_activations(block)}
        prefix, depth_gene = f"stage{number}.block{block}", f"stage{number}.depth"
        return [Gene(f"{prefix}.{name}", values, depth_gene, block) for name, values in alphabets.items()]

    def subnet(self, values: Mapping[str, int]) -> Subnet:
        """The subnet that has the given values, without the genes that do not act.

        Args:
            values: The value of each gene by its name; values of genes that do not act are ignored.

        Raises:
            DaquError: A gene that acts has no value or one outside its alphabet.
        """
        if not isinstance(values, Mapping):
            raise DaquError(f"`values` must be gene names with their values, but received {values!r}.")
        for gene in self.genes:
            if gene.acts(values) and values.get(gene.name) not in gene.values:
                raise DaquError(f"`{gene.name}` must be one of {gene.values}, but received {values.get(gene.name)!r}.")
        return Subnet(tuple((gene.name, int(values[gene.name])) for gene in self.genes if gene.acts(values)))

    def genome(self, subnet: Subnet) -> list[int]:
        """The genome of `subnet`: the index of every gene's value, and 0 where the gene does not act.

        Raises:
            DaquError: The space has no such subnet.
        """
        values = self.subnet(subnet.values).values
        return [gene.values.index(values[gene.name]) if gene.name in values else 0 for gene in self.genes]

    def genomes(self, many: Sequence[Mapping[str, int]]) -> np.ndarray:
        """The genomes (count, genes) of many subnets, given as values by gene name, which are not checked; a missing gene is 0."""
        genomes = np.zeros((len(many), len(self.genes)), dtype=int)
        for column, gene in enumerate(self.genes):
            places = {value: index for index, value in enumerate(gene.values)}
            genomes[:, column] = [places[values[gene.name]] if gene.name in values else 0 for values in many]
        return genomes

    @property
    def conditions(self) -> dict[str, tuple[tuple[str, tuple[int, ...]], ...]]:
        """When genes act that do not always act: by gene name, pairs of a depth gene and the depths at which the gene acts."""
        depths = {gene.name: gene.values for gene in self._depths}
        return {
            gene.name: ((gene.depth_gene, tuple(depth for depth in depths[gene.depth_gene] if depth >= gene.block)),)
            for gene in self.genes
            if gene.depth_gene
        }

    def from_genome(self, genome: Sequence[int]) -> Subnet:
        """The subnet of a genome, the inverse of `genome`.

        Raises:
            DaquError: The genome has another length, or an index is no whole number or out of range (the gene is named).
        """
        if not isinstance(genome, Sequence | np.ndarray) or len(genome) != len(self.genes):
            came = len(genome) if isinstance(genome, Sequence | np.ndarray) else repr(genome)
            raise DaquError(f"`genome` must have {len(self.genes)} entries, but received {came}.")
        for gene, index in zip(self.genes, genome):
            if not isinstance(index, int | np.integer) or not 0 <= index < len(gene.values):
                raise DaquError(f"Gene `{gene.name}` must be a whole number in 0..{len(gene.values) - 1}, but received {index!r}.")
        return self.subnet({gene.name: gene.values[index] for gene, index in zip(self.genes, genome)})

    def sample(self, rng: np.random.Generator) -> Subnet:
        """A random subnet, uniform over all subnets, nearly all of which have the greatest depths."""
        return self.from_genome(self.sample_genomes(rng, 1)[0])

    def sample_genomes(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Random genomes (count, genes), uniform over all subnets; entries of genes that do not act are arbitrary."""
        genomes = rng.integers(0, [len(gene.values) for gene in self.genes], (count, len(self.genes)))
        for depth in self._depths:
            completions = self._completions(depth)
            chances = [completion / sum(completions) for completion in completions]
            genomes[:, self.genes.index(depth)] = rng.choice(len(chances), count, p=chances)
        return genomes

    def sample_by_gene(self, rng: np.random.Generator) -> Subnet:
        """A random subnet, uniform over the values of each gene: shallow networks are as frequent as deep ones."""
        return self.subnet({gene.name: int(rng.choice(gene.values)) for gene in self.genes})

    def largest(self) -> Subnet:
        """The subnet with every gene at its maximum."""
        return self.subnet({gene.name: max(gene.values) for gene in self.genes})

    def smallest(self) -> Subnet:
        """The smallest architecture, at the highest bits of every tensor."""
        return self.subnet({gene.name: (max if gene.name.endswith("_bits") else min)(gene.values) for gene in self.genes})

    @property
    def all_bits(self) -> tuple[int, ...]:
        """All bits that some searched tensor can have, ascending."""
        return tuple(sorted({*self.weight_bits, *self.activation_bits}))

    @functools.cached_property
    def cardinality(self) -> int:
        """The exact number of distinct subnets."""
        free = [len(gene.values) for gene in self.genes if gene.depth_gene is None and gene not in self._depths]
        return math.prod(free) * math.prod(sum(self._completions(depth)) for depth in self._depths)

    @functools.cached_property
    def _depths(self) -> tuple[Gene, ...]:
        return tuple(gene for gene in self.genes if gene.name.endswith(".depth"))

    def _completions(self, depth: Gene) -> list[int]:
        """For each value of a depth gene, the number of choices within the blocks that it keeps."""
        cut = [gene for gene in self.genes if gene.depth_gene == depth.name]
        return [math.prod(len(gene.values) for gene in cut if gene.block <= value) for value in depth.values]

    def layers(self, subnet: Subnet) -> list[Layer[int]]:
        """The layers of `subnet` in order of computation."""
        return architecture.layers(self, subnet.values)

    def layer_table(self, genomes: np.ndarray) -> list[Layer[Number]]:
        """The layers of many subnets at once; every field that depends on a choice is an array (count,).

        Args:
            genomes: The genomes (count, genes) of the subnets.

        Raises:
            DaquError: The array has another shape or type, or an index is out of range (the gene is named).
        """
        genomes = np.asarray(genomes)
        if genomes.ndim != 2 or genomes.shape[1] != len(self.genes) or not np.issubdtype(genomes.dtype, np.integer):
            wanted = f"whole numbers of shape (count, {len(self.genes)})"
            raise DaquError(f"`genomes` must be {wanted}, but received {genomes.dtype} of shape {genomes.shape}.")
        for gene, column in zip(self.genes, genomes.T):
            if column.size and not 0 <= column.min() <= column.max() < len(gene.values):
                came = f"{column.min()} to {column.max()}"
                raise DaquError(f"Gene `{gene.name}` must be in 0..{len(gene.values) - 1}, but received {came}.")
        values = {gene.name: np.array(gene.values)[column] for gene, column in zip(self.genes, np.transpose(genomes))}
        return architecture.layers(self, values)

    def to_json(self) -> dict[str, Any]:
        """The space as a JSON object; the fields that earlier versions did not have are left out where they are as ever."""
        as_ever = {"by_hand": (), "input_zero": 0.0}
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in as_ever or value != as_ever[name]}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "SearchSpace":
        """The space that a JSON object describes, the inverse of `to_json`.

        Raises:
            DaquError: A field is missing or unknown, or has a value that no space can have (the field is named).
        """
        stages = content.get("stages") if isinstance(content, Mapping) else None
        if not isinstance(stages, list | tuple):
            raise DaquError("A space must be a JSON object with a list of `stages`: see `daqu-space --json` for an example.")
        stages = tuple(fields.from_json(Stage, stage, "A stage of a space") for stage in stages)
        return fields.from_json(cls, {**content, "stages": stages}, "A space")

    def to_hyperparameters(self) -> "keras_tuner.HyperParameters":
        """The space as KerasTuner's hyperparameters, one `Choice` for each gene under its name, for any oracle of KerasTuner."""
        import keras_tuner

        hyperparameters = keras_tuner.HyperParameters()
        for gene in self.genes:
            hyperparameters.Choice(gene.name, list(gene.values))
        return hyperparameters

    def from_hyperparameters(self, hyperparameters: "keras_tuner.HyperParameters") -> Subnet:
        """The subnet that the values of KerasTuner's hyperparameters describe.

        Raises:
            DaquError: A gene that acts has no value or one outside its alphabet.
        """
        return self.subnet(hyperparameters.values)


def _halved_side(size: tuple[int, int]) -> int:
    """The side that strides may not halve away: the shorter one, but for a signal, whose one pixel stays one."""
    return min(size) if min(size) > 1 else max(size)


def _check_names(space: SearchSpace) -> None:
    for activation in (space.activation, *(stage.activation for stage in space.stages)):
        if activation not in ACTIVATIONS:
            raise DaquError(f"`activation` must be one of {', '.join(ACTIVATIONS)}, but received {activation!r}.")
    for stage in space.stages:
        if stage.block not in BLOCKS:
            raise DaquError(f"`block` must be one of {', '.join(BLOCKS)}, but received {stage.block!r}.")
        if stage.block == "basic" and (stage.squeeze_excite or stage.activation != "relu"):
            raise DaquError(
                "`squeeze_excite` must be false and `activation` relu in a stage of basic blocks: change one or `block`."
            )
        if stage.block == "separable" and (stage.squeeze_excite or stage.expansions != (1,)):
            raise DaquError(
                "`squeeze_excite` must be false and `expansions` 1 alone in a stage of separable blocks: change `block`."
            )
        if stage.keeps_width and stage.stride != 1:
            raise DaquError("`widths` must have a choice, but in a stage of stride 1, which may keep the channels.")


def _check_gene(gene: Gene) -> None:
    if not gene.values:
        raise DaquError(f"`{gene.name}` must have at least one choice, but received none.")
    if gene.name.endswith(".kernel") and any(value % 2 == 0 for value in gene.values):
        raise DaquError(f"`{gene.name}` must be odd sizes, but received {gene.values}.")
    if gene.name.endswith("_bits") and not set(gene.values) <= set(range(2, 9)):
        raise DaquError(f"`{gene.name}` must be among 2..8, but received {gene.values}.")
    if tuple(sorted(set(gene.values))) != gene.values or gene.values[0] < 1:
        raise DaquError(f"`{gene.name}` must be ascending positive integers, but received {gene.values}.")
