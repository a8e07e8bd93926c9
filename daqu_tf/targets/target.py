"""What a network is for: the containers its runtime has, the bits worth searching there, and the objectives."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from daqu_tf.errors import DaquError
from daqu_tf.spaces.layer import Layer
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.subnet import Subnet
from daqu_tf.targets.metrics import METRICS
from daqu_tf.targets.storage import RUNTIMES, Storage


@dataclasses.dataclass(frozen=True)
class Target:
    """A runtime and the objectives that count on it; fewer bits are worth searching only where an objective gets cheaper.

    A target of your own is made as `Target("mine", (("accuracy", "max"), ("file_bytes", "min")), int4_fully_connected=False)`.

    Attributes:
        name: The name of the target, by which `targets.get` finds it.
        objectives: Pairs of a metric and `max` or `min`: accuracy first, then at least one cost.
        int4_fully_connected: Whether an INT4 FULLY_CONNECTED with a scale for each channel runs at the speed of INT8.
        runtime: The runtime, one of `RUNTIMES`. Files for `tflite_runtime` hold no INT4, which it refuses, and have the form of
            INT8 that its kernels round best (see `tflite.widening`), from which LiteRT computes the same.

    Raises:
        DaquError: The runtime is unknown or has no INT4, or the objectives are not accuracy and then costs.
    """

    name: str
    objectives: tuple[tuple[str, str], ...]
    int4_fully_connected: bool
    runtime: str = "litert"

    def __post_init__(self) -> None:
        if self.runtime not in RUNTIMES:
            raise DaquError(f"`runtime` must be one of {', '.join(RUNTIMES)}, but received {self.runtime!r}.")
        if self.runtime == "tflite_runtime" and self.int4_fully_connected:
            raise DaquError("`int4_fully_connected` must be False for the runtime tflite_runtime, which refuses INT4.")

        self._check_objectives()

    def _check_objectives(self) -> None:
        pairs = [tuple(pair) for pair in self.objectives if isinstance(pair, tuple | list)]
        if (
            len(pairs) != len(self.objectives)
            or pairs[:1] != [("accuracy", "max")]
            or len(pairs) < 2
            or len(set(pairs)) < len(pairs)
        ):
            raise DaquError(
                f"`objectives` must be ('accuracy', 'max') and then at least one cost, each once, but received {self.objectives!r}."
            )
        for pair in pairs[1:]:
            if len(pair) != 2 or pair[0] not in METRICS[1:] or pair[1] != "min":
                raise DaquError(f"`objectives` must be costs to `min` among {', '.join(METRICS[1:])}, but received {pair!r}.")

    def restrict(self, space: SearchSpace) -> SearchSpace:
        """The part of `space` whose choices differ for this target, so that its cardinality is the effective one.

        Of bits that cost the same by every objective, only the highest stay, which are the most accurate.
        """
        # All layers, whatever the depth: `space` may have been restricted to fewer blocks than it has genes for.
        layers = {layer.name: layer for layer in space.layer_table(np.zeros((1, len(space.genes)), int))}
        kept = {}
        for gene in space.genes:
            if gene.name.endswith("_bits"):
                layer = layers[gene.name.rpartition(".")[0]]
                kept[gene.name] = tuple({self._price(layer, gene.name, bits): bits for bits in gene.values}.values())
        for field in ("weight_bits", "activation_bits"):
            if bits := set().union(*(values for name, values in kept.items() if name.endswith(field))):
                space = space.restrict(**{field: tuple(bits)})
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
        """What decides the cost of some bits; it is equal for bits between which no objective but accuracy can choose."""
        metrics = {name for name, _ in self.objectives}
        if gene.endswith("activation_bits"):
            return (bits,) if "bitops" in metrics else ()
        # With an even number of input channels, since only there can bits change the container.
        layer = dataclasses.replace(layer, weight_bits=bits, input_channels=2)
        return (bits,) if metrics & _PRICED_BY_WEIGHT_BITS else (self.container(layer),)

    @property
    def bits_buy_bytes_alone(self) -> bool:
        """Whether latency is counted first, which bits below 8 hardly change, so that they buy bytes alone."""
        return self.objectives[1][0] == "latency_us" and "bitops" not in dict(self.objectives)

    @property
    def storage(self) -> Storage:
        """How files for this target store weights and activations."""
        return Storage("auto" if self.int4_fully_connected else "int8", self.runtime)

    def container(self, layer: Layer) -> str:
        """The container in which a file for this target stores the layer's weights.

        A dense layer or pointwise convolution of at most 4 bits that reads an even number of channels is an INT4
        FULLY_CONNECTED, if the target has one.
        """
        return self.storage.of(layer)

    def packs(self, layer: Layer) -> bool | np.ndarray:
        """Whether a file for this target stores the layer's weights as INT4; an array (count,) for many layers at once."""
        return self.storage.packs(layer)


_PRICED_BY_WEIGHT_BITS = {"bitops", "bit_packed_bytes", "deflated_bytes"}  # Latency and file bytes see containers alone.
_LITERT_OBJECTIVES = (("accuracy", "max"), ("latency_us", "min"), ("file_bytes", "min"), ("deflated_bytes", "min"))
_ACCELERATOR_OBJECTIVES = (("accuracy", "max"), ("bitops", "min"), ("bit_packed_bytes", "min"))

TARGETS = {
    target.name: target
    for target in (
        Target("litert_cpu", _LITERT_OBJECTIVES, int4_fully_connected=True),
        Target("litert_cpu_int8", _LITERT_OBJECTIVES, int4_fully_connected=False),
        Target("tflite_runtime", _LITERT_OBJECTIVES, int4_fully_connected=False, runtime="tflite_runtime"),
        # Hardware that computes at any bits. Files for it still run on int8 kernels, with the same results.
        Target("accelerator", _ACCELERATOR_OBJECTIVES, int4_fully_connected=False),
    )
}


def get(name: str) -> Target:
    """The target of a name, one of `TARGETS`.

    Raises:
        DaquError: There is no such target.
    """
    if name not in TARGETS:
        raise DaquError(f"`target` must be one of {', '.join(TARGETS)}, but received {name!r}.")
    return TARGETS[name]


def for_device(identity: Mapping[str, Any], name: str | None = None) -> Target:
    """The target for files that a device runs.

    Args:
        identity: The device's identity, as `Device.identity()` gives it; its runtime, version and delegate decide.
        name: The name of the target that was chosen; None takes the target that fits the device best.

    Raises:
        DaquError: The target is unknown, or its files have a container that the device's runtime does not take.
    """
    runtime, best = f"{identity['runtime']} {identity['runtime_version']}", _best(identity)
    target = best if name is None else get(name)
    if target.int4_fully_connected and not _takes_int4(identity):
        raise DaquError(
            f"`target` {target.name} stores weights as INT4, which {runtime} on the device refuses or computes slowly: "
            f"choose {best.name}, or install ai-edge-litert there."
        )
    return target


def _best(identity: Mapping[str, Any]) -> Target:
    if identity["runtime"] == "tflite-runtime":
        return get("tflite_runtime")
    # How a GPU or an NPU computes INT4 has not been measured.
    return get("litert_cpu" if _takes_int4(identity) and identity["delegate"] not in ("gpu", "nnapi") else "litert_cpu_int8")


def _takes_int4(identity: Mapping[str, Any]) -> bool:
    """Whether the device's XNNPACK takes INT4 FULLY_CONNECTED: from LiteRT 1.3 on (`benchmarks/containers.py`)."""
    if identity["runtime"] != "ai-edge-litert":
        return identity["runtime"] != "tflite-runtime"  # The version of a `benchmark_model` is unknown.
    return tuple(map(int, re.findall(r"\d+", identity["runtime_version"])[:2])) >= (1, 3)
