"""What a network is for: the containers its runtime has, the bits worth searching there, and the objectives."""

import dataclasses

import numpy as np

from daqu_tf.errors import DaquError
from daqu_tf.space import Layer, SearchSpace, Subnet


@dataclasses.dataclass(frozen=True)
class Target:
    """A runtime and what counts on it: fewer bits are worth searching only where an objective gets cheaper.

    One of your own: `Target("mine", (("accuracy", "max"), ("file_bytes", "min")), int4_fully_connected=False)`.

    Attributes:
        name: The name it is found under.
        objectives: (metric, `max` or `min`); accuracy first.
        int4_fully_connected: Whether per-channel INT4 FULLY_CONNECTED runs at speed.
    """

    name: str
    objectives: tuple[tuple[str, str], ...]
    int4_fully_connected: bool

    def restrict(self, space: SearchSpace) -> SearchSpace:
        """The part of `space` whose choices differ for this target; its cardinality is the effective one.

        Of widths that cost the same by every objective only the highest stays, which is the most accurate.
        """
        # Of every depth: `space` may have been restricted to fewer blocks than it has genes for.
        layers = {layer.name: layer for layer in space.layer_table(np.zeros((1, len(space.genes)), int))}
        kept = {}
        for gene in space.genes:
            if gene.name.endswith("_bits"):
                layer = layers[gene.name.rpartition(".")[0]]
                kept[gene.name] = tuple({self._price(layer, gene.name, bits): bits for bits in gene.values}.values())
        for field in ("weight_bits", "activation_bits"):
            if widths := set().union(*(values for name, values in kept.items() if name.endswith(field))):
                space = space.restrict(**{field: tuple(widths)})
        here = {gene.name: gene.values for gene in space.genes}
        return space.restrict(**{name: values for name, values in kept.items() if values != here[name]})

    def canonicalise(self, space: SearchSpace, subnet: Subnet) -> Subnet:
        """The subnet of `restrict(space)` that costs what `subnet` does by every objective.

        Raises:
            DaquError: The space has no such subnet.
        """
        kept, values = {gene.name: gene.values for gene in self.restrict(space).genes}, space.subnet(subnet.values).values
        return space.subnet({name: min(other for other in kept[name] if other >= value) for name, value in values.items()})

    def _price(self, layer: Layer, gene: str, bits: int) -> tuple:
        """What a width comes to: equal for widths between which no objective but accuracy can choose."""
        metrics = {name for name, _ in self.objectives}
        if gene.endswith("activation_bits"):
            return (bits,) if "bitops" in metrics else ()
        # At an even number of input channels, where a width can change the container.
        layer = dataclasses.replace(layer, weight_bits=bits, input_channels=2)
        return (bits,) if metrics & _PRICED_BY_WEIGHT_BITS else (self.container(layer),)

    def container(self, layer: Layer) -> str:
        """The type the file stores the layer's weights in.

        A dense layer or pointwise convolution of at most 4 bits that reads an even number of channels is an INT4
        FULLY_CONNECTED.
        """
        return "INT4" if self.packs(layer) else "INT8"

    def packs(self, layer: Layer) -> bool | np.ndarray:
        """Whether the weights are stored as INT4; of many layers at once, an array."""
        # Measured in `benchmarks/export_speed.py`, as multiples of INT8's time (LiteRT 2.3, AVX-512). XNNPACK takes a
        # FULLY_CONNECTED with INT4 weights and an even number of input channels: 0.99 to 1.03 for a whole network; a layer
        # of few weights and many pixels up to 1.1, one of many weights and one pixel 0.6. What it does not take runs on
        # built-in kernels: an odd number of channels 3 to 8, a CONV_2D or DEPTHWISE_CONV_2D in INT4 2 to 4 for a whole
        # network. INT2, which 2-bit weights fit, it takes too, but at 1.3 to 1.5, for files 10 to 20% smaller than with
        # INT4, and 3 to 5% deflated.
        fits = (layer.weight_bits <= 4) & (layer.input_channels % 2 == 0) & layer.is_pointwise
        return fits & self.int4_fully_connected


_PRICED_BY_WEIGHT_BITS = {"bitops", "bit_packed_bytes", "deflated_bytes"}  # Latency and file bytes see containers alone.
_LITERT_OBJECTIVES = (("accuracy", "max"), ("latency_us", "min"), ("file_bytes", "min"), ("deflated_bytes", "min"))
_ACCELERATOR_OBJECTIVES = (("accuracy", "max"), ("bitops", "min"), ("bit_packed_bytes", "min"))

TARGETS = {
    target.name: target
    for target in (
        Target("litert_cpu", _LITERT_OBJECTIVES, int4_fully_connected=True),
        Target("litert_cpu_int8", _LITERT_OBJECTIVES, int4_fully_connected=False),
        # Hardware that computes at any width. Its files still run, exactly, on int8 kernels.
        Target("accelerator", _ACCELERATOR_OBJECTIVES, int4_fully_connected=False),
    )
}


def get(name: str) -> Target:
    """Returns the named target.

    Raises:
        DaquError: There is no such target.
    """
    if name not in TARGETS:
        raise DaquError(f"`target` must be one of {', '.join(TARGETS)}, but received {name!r}.")
    return TARGETS[name]
