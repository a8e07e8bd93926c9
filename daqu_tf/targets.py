"""What a network is for: the containers its runtime has, the bits worth searching there, and the objectives."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from daqu_tf.errors import DaquError
from daqu_tf.space import FLOAT_BITS, Layer, SearchSpace, Subnet

COMPUTED = ("parameters", "macs", "bitops", "bit_packed_bytes", "peak_activation_bytes")
METRICS = ("accuracy", "latency_us", "file_bytes", "deflated_bytes", *COMPUTED)  # What a trial can report.
CONTAINERS = ("auto", "int8", "int4", "float32", "float16", "dynamic")
RUNTIMES = ("litert", "tflite_runtime")
TYPES = ("int8", "uint8", "float32")


class Stored(Protocol):
    """What decides how a layer's weights are stored: a `Layer` has it, and a `Kernel`."""

    kind: str
    weight_bits: int
    input_channels: int
    is_pointwise: bool


@dataclasses.dataclass(frozen=True)
class Storage:
    """How a file stores weights and activations, and the types that it reads and writes.

    Attributes:
        container: One of `CONTAINERS`. `auto`: kernels of at most 4 bits as INT4 where the runtime has them at int8's speed;
            `int8`: none; `int4`: all, which makes convolutions slow. In the other three all activations are real, and weights, as
            trained, FLOAT32 or FLOAT16, or, `dynamic`, integers, where the runtime rounds what they meet to 8 bits as it goes.
        runtime: One of `RUNTIMES`, the oldest that has to run the file: `litert` is ai-edge-litert 1.4 and later,
            `tflite_runtime` is tflite-runtime 2.14, which has no INT4 or real FULLY_CONNECTED with a scale for each channel; for
            its kernels, INT8 weights of few bits are multiplied by powers of two (`tflite_widening.py`).
        input_type: One of `TYPES`: `uint8` takes pixels as they are, `int8` those less 128, `float32` what the network was trained
            on. None is what the network itself reads: int8, or float32 where its input is real.
        output_type: One of `TYPES`: of the logits. None is what the network itself writes.

    Raises:
        DaquError: There is no such choice, or the runtime does not run the container.
    """

    container: str = "auto"
    runtime: str = "litert"
    input_type: str | None = None
    output_type: str | None = None

    def __post_init__(self):
        types = (None, *TYPES)
        for name, known in (
            ("container", CONTAINERS),
            ("runtime", RUNTIMES),
            ("input_type", types),
            ("output_type", types),
        ):
            if getattr(self, name) not in known:
                raise DaquError(f"`{name}` must be one of {', '.join(map(str, known))}, but received {getattr(self, name)!r}.")
        if self.runtime == "tflite_runtime" and self.container in ("int4", "dynamic"):
            known = ", ".join(name for name in CONTAINERS if name not in ("int4", "dynamic"))
            raise DaquError(f"`container` must be one of {known} for tflite_runtime, but received {self.container!r}.")

    @property
    def in_float(self) -> bool:
        """Whether all activations are real."""
        return self.container in ("float32", "float16", "dynamic")

    def of(self, layer: Stored) -> str:
        """The type of the weights of a layer."""
        if layer.weight_bits == FLOAT_BITS or (self.in_float and (self.container != "dynamic" or layer.kind == "depthwise")):
            return "FLOAT16" if self.container == "float16" else "FLOAT32"
        return "INT4" if self.packs(layer) else "INT8"

    def packs(self, layer: Stored) -> bool | np.ndarray:
        """Whether the weights, where they are integers, are stored as INT4; of many layers at once, an array."""
        # Measured in `benchmarks/export_speed.py`, as multiples of INT8's time (LiteRT 2.3, AVX-512). XNNPACK takes a
        # FULLY_CONNECTED with INT4 weights and an even number of input channels: 0.99 to 1.03 for a whole network; a layer
        # of few weights and many pixels up to 1.1, one of many weights and one pixel 0.6. What it does not take runs on
        # built-in kernels: an odd number of channels 3 to 8, a CONV_2D or DEPTHWISE_CONV_2D in INT4 2 to 4 for a whole
        # network. INT2, which 2-bit weights fit, it takes too, but at 1.3 to 1.5, for files 10 to 20% smaller than with
        # INT4, and 3 to 5% deflated.
        at_speed = (layer.input_channels % 2 == 0) & layer.is_pointwise & (self.container != "int8" and self.runtime == "litert")
        return (layer.weight_bits <= 4) & (at_speed | (self.container == "int4"))


@dataclasses.dataclass(frozen=True)
class Target:
    """A runtime and what counts on it: fewer bits are worth searching only where an objective gets cheaper.

    One of your own: `Target("mine", (("accuracy", "max"), ("file_bytes", "min")), int4_fully_connected=False)`.

    Attributes:
        name: The name it is found under.
        objectives: (metric, `max` or `min`); accuracy first.
        int4_fully_connected: Whether per-channel INT4 FULLY_CONNECTED runs at speed.
        runtime: One of `RUNTIMES`. Files for `tflite_runtime` hold no INT4, which it refuses, and the form of INT8 that its
            kernels round best (`tflite_widening.py`); LiteRT computes the same from them.

    Raises:
        DaquError: There is no such runtime, or it has no INT4; or the objectives are not accuracy and then costs.
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

    @property
    def storage(self) -> Storage:
        """How its files store weights."""
        return Storage("auto" if self.int4_fully_connected else "int8", self.runtime)

    def container(self, layer: Layer) -> str:
        """The type the file stores the layer's weights in.

        A dense layer or pointwise convolution of at most 4 bits that reads an even number of channels is an INT4
        FULLY_CONNECTED, if the target has that.
        """
        return self.storage.of(layer)

    def packs(self, layer: Layer) -> bool | np.ndarray:
        """Whether the weights are stored as INT4; of many layers at once, an array."""
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


def for_device(identity: Mapping[str, Any], name: str | None = None) -> Target:
    """Returns the target for files that a device runs.

    Args:
        identity: `Device.identity()`: its `runtime`, `runtime_version` and `delegate` decide.
        name: Of a target that was chosen; None takes the one that fits the device best.

    Raises:
        DaquError: There is no such target, or its files have a container that the device's runtime does not take.
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
    # What a GPU or an NPU makes of INT4, nobody has measured here.
    return get("litert_cpu" if _takes_int4(identity) and identity["delegate"] not in ("gpu", "nnapi") else "litert_cpu_int8")


def _takes_int4(identity: Mapping[str, Any]) -> bool:
    """Whether XNNPACK there takes INT4 FULLY_CONNECTED: from LiteRT 1.3 on (`benchmarks/containers.py`)."""
    if identity["runtime"] != "ai-edge-litert":
        return identity["runtime"] != "tflite-runtime"  # A benchmark_model does not tell its version.
    return tuple(map(int, re.findall(r"\d+", identity["runtime_version"])[:2])) >= (1, 3)
