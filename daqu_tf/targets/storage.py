"""How a file stores weights and activations, and which types it reads and writes."""

import dataclasses
from typing import Protocol

import numpy as np

from daqu_tf.errors import DaquError
from daqu_tf.spaces.bits import FLOAT_BITS
from daqu_tf.spaces.layer import Number

CONTAINERS = ("auto", "int8", "int4", "float32", "float16", "dynamic")
RUNTIMES = ("litert", "tflite_runtime")
TYPES = ("int8", "uint8", "float32")


class Stored(Protocol):
    """The attributes that decide how a layer's weights are stored, as a `Layer` and a `Kernel` have them."""

    @property
    def kind(self) -> str:
        """The kind of the layer: `dense`, `depthwise`, or another name for any other convolution."""

    @property
    def weight_bits(self) -> Number:
        """The bits of the kernel's weights."""

    @property
    def input_channels(self) -> Number:
        """The channels of the tensor that the layer reads."""

    @property
    def is_pointwise(self) -> bool | np.ndarray:
        """Whether the layer is the same matrix product at every pixel."""


@dataclasses.dataclass(frozen=True)
class Storage:
    """How a file stores weights and activations, and the types that it reads and writes.

    Attributes:
        container: How weights are stored, one of `CONTAINERS`. With `auto`, kernels of at most 4 bits are INT4 where the runtime
            computes them at the speed of INT8; with `int8` none are, and with `int4` all are, which makes convolutions slow. With
            the other three, activations are real. Weights are then FLOAT32 or FLOAT16, as trained, or, with `dynamic`, integers,
            and the runtime rounds the activations that they are multiplied by to 8 bits.
        runtime: The oldest runtime that has to run the file, one of `RUNTIMES`. `litert` is ai-edge-litert 1.4 and later.
            `tflite_runtime` is tflite-runtime 2.14, which has no INT4 and no real FULLY_CONNECTED with a scale for each channel;
            for its kernels, INT8 weights of few bits are multiplied by powers of two (see `tflite.widening`).
        input_type: The type of the images, one of `TYPES`: `uint8` is pixels as they are, `int8` is pixels less 128, and
            `float32` is what the network was trained on. None is the network's own: int8, or float32 where its input is real. An
            `int8` of a model of your own is pixels only if `export_tflite` gets its `input_range`, which `uint8` needs.
        output_type: The type of the outputs, one of `TYPES`; None is the network's own, float32 of probabilities.

    Raises:
        DaquError: A field has an unknown value, or the runtime does not run the container.
    """

    container: str = "auto"
    runtime: str = "litert"
    input_type: str | None = None
    output_type: str | None = None

    def __post_init__(self) -> None:
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
            left = ", ".join(name for name in CONTAINERS if name not in ("int4", "dynamic"))
            raise DaquError(f"`container` must be one of {left} for tflite_runtime, but received {self.container!r}.")

    @property
    def in_float(self) -> bool:
        """Whether all activations are real."""
        return self.container in ("float32", "float16", "dynamic")

    def of(self, layer: Stored) -> str:
        """The container of a layer's weights: INT4, INT8, FLOAT16 or FLOAT32."""
        if layer.weight_bits == FLOAT_BITS or (self.in_float and (self.container != "dynamic" or layer.kind == "depthwise")):
            return "FLOAT16" if self.container == "float16" else "FLOAT32"
        return "INT4" if self.packs(layer) else "INT8"

    def packs(self, layer: Stored) -> bool | np.ndarray:
        """Whether a layer's weights, where they are integers, are stored as INT4; an array (count,) for many layers at once."""
        # Measured in `benchmarks/export_speed.py`, as multiples of INT8's time (LiteRT 2.3, AVX-512). XNNPACK takes a
        # FULLY_CONNECTED with INT4 weights and an even number of input channels: 0.99 to 1.03 for a whole network; a layer
        # of few weights and many pixels up to 1.1, one of many weights and one pixel 0.6. What it does not take runs on
        # built-in kernels: an odd number of channels 3 to 8, a CONV_2D or DEPTHWISE_CONV_2D in INT4 2 to 4 for a whole
        # network. INT2, which 2-bit weights fit, it takes too, but at 1.3 to 1.5, for files 10 to 20% smaller than with
        # INT4, and 3 to 5% deflated.
        at_speed = (layer.input_channels % 2 == 0) & layer.is_pointwise & (self.container != "int8" and self.runtime == "litert")
        return (layer.weight_bits <= 4) & (at_speed | (self.container == "int4"))
