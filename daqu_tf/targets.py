"""What a network is for: the containers its runtime has, the bits worth searching there, and the objectives."""

import dataclasses

import numpy as np

from daqu_tf.errors import DaquError
from daqu_tf.space import Layer, SearchSpace, Subnet

RUNTIMES = ("litert", "tflite_runtime")


@dataclasses.dataclass(frozen=True)
class Target:
    """A runtime and what counts on it: fewer bits are worth searching only where an objective gets cheaper.

    One of your own: `Target("mine", (("accuracy", "max"), ("file_bytes", "min")), int4_fully_connected=False)`.

    Attributes:
        name: The name it is found under.
        objectives: (metric, `max` or `min`); accuracy first.
        int4_fully_connected: Whether per-channel INT4 FULLY_CONNECTED runs at speed.
        runtime: One of `RUNTIMES`. Files for `tflite_runtime` hold no INT4, which it refuses, and the form of INT8 that its
            kernels round best (`tflite_graph.widened`); LiteRT computes the same from them.

    Raises:
        DaquError: There is no such runtime, or it has no INT4.
    """

    name: str
    objectives: tuple[tuple[str, str], ...]
    int4_fully_connected: bool
    runtime: str = "litert"

    def __post_init__(self):
        if self.runtime not in RUNTIMES:
            raise DaquError(f"`runtime` must be one of {', '.join(RUNTIMES)}, but received {self.runtime!r}.")
        if self.runtime == "tflite_runtime" and self.int4_fully_connected:
            raise DaquError("`int4_fully_connected` must be False for the runtime tflite_runtime, which refuses INT4.")

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
        layer = dataclasses.replace(layer, weight_bits=bits)
        return (bits,) if metrics & _PRICED_BY_WEIGHT_BITS else (self.container(layer),)

    def container(self, layer: Layer) -> str:
        """The type the file stores the layer's weights in.

        A pointwise or dense layer of at most 4 bits is an INT4 FULLY_CONNECTED, which XNNPACK runs; it does not run an
        INT4 CONV_2D, whose fallback kernel is twice as slow as INT8.
        """
        return "INT4" if self.packs(layer) else "INT8"

    def packs(self, layer: Layer) -> bool | np.ndarray:
        """Whether the weights are stored as INT4."""
        return (layer.weight_bits <= 4) & (self.int4_fully_connected and layer.kind in ("pointwise", "dense"))


_PRICED_BY_WEIGHT_BITS = {"bitops", "bit_packed_bytes", "deflated_bytes"}  # Latency and file bytes see containers alone.
_LITERT_OBJECTIVES = (("accuracy", "max"), ("latency_us", "min"), ("file_bytes", "min"), ("deflated_bytes", "min"))
_ACCELERATOR_OBJECTIVES = (("accuracy", "max"), ("bitops", "min"), ("bit_packed_bytes", "min"))

TARGETS = {
    target.name: target
    for target in (
        Target("litert_cpu", _LITERT_OBJECTIVES, int4_fully_connected=True),
        Target("litert_cpu_int8", _LITERT_OBJECTIVES, int4_fully_connected=False),
        Target("tflite_runtime", _LITERT_OBJECTIVES, int4_fully_connected=False, runtime="tflite_runtime"),
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
