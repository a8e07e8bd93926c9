"""The layers that a choice of architecture and bits leads to.

Sizes, channels and bits are whole numbers for one subnet and arrays for many at once; the arithmetic is the same.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Generic, Protocol, TypeVar

from daqu_tf.spaces.bits import FIXED_BITS
from daqu_tf.spaces.layer import Layer, N
from daqu_tf.spaces.stage import BLOCKS, Stage

Tensor = TypeVar("Tensor")


class Family(Protocol):
    """The attributes that decide which layers a network can have, as a `SearchSpace` has them."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The height, width and channels of the images at the highest resolution."""

    @property
    def num_classes(self) -> int:
        """The number of outputs of the classifier."""

    @property
    def stem_stride(self) -> int:
        """The stride of the first convolution, the stem."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of blocks, in order of computation."""

    @property
    def head_widths(self) -> tuple[int, ...]:
        """The choices for the channels of the pointwise convolution before pooling; if empty, there is no head."""

    @property
    def activation(self) -> str:
        """The activation of stem and head, one of `stage.ACTIVATIONS`."""


@dataclasses.dataclass
class _Chain(Generic[N]):
    """Adds layers one behind another; `size`, `channels` and `bits` describe the tensor that the next layer reads."""

    values: Mapping[str, N]
    layers: list[Layer[N]]
    size: tuple[N, N]
    channels: N
    bits: N = FIXED_BITS
    signed: bool = False
    held: N = 0
    active: N = True

    @property
    def count(self) -> N:
        """The number of values in the tensor that the next layer reads."""
        return self.size[0] * self.size[1] * self.channels

    def add(
        self,
        name: str,
        kind: str,
        output_channels: N,
        activation: str,
        kernel: N = 1,
        stride: int = 1,
        residual: str | None = None,
        pools: bool = False,
        gates: bool = False,
    ) -> None:
        dense = kind == "dense"
        size = (1, 1) if dense else self.size
        layer = Layer(
            name,
            kind,
            kernel,
            stride,
            input_size=size,
            output_size=(-(-size[0] // stride), -(-size[1] // stride)),  # Rounded up, as SAME padding does.
            input_channels=self.channels,
            output_channels=output_channels,
            weight_bits=self.values.get(f"{name}.weight_bits", FIXED_BITS),
            input_bits=FIXED_BITS if pools else self.bits,
            input_signed=self.signed,
            output_bits=self.values.get(f"{name}.activation_bits", FIXED_BITS),
            activation=activation,
            residual=residual,
            pools=pools,
            gates=gates,
            held=self.held,
            active=self.active,
        )
        self.layers.append(layer)
        self.size = self.size if dense else layer.output_size
        self.channels, self.bits = output_channels, layer.output_bits
        self.signed = layer.output_signed if not dense else self.signed


def layers(space: Family, values: Mapping[str, N]) -> list[Layer[N]]:
    """All layers that a space can have, in order of computation, for the choices in `values`.

    A block that is left out changes neither the size nor the channels of the tensor, so the layers behind it are unaffected.

    Args:
        space: The space that the choices belong to.
        values: The value of each gene by its name, an int or an array (count,); a gene that does not act may be missing.
    """
    chain = _Chain(values, [], image_size(space.input_shape, values["resolution"]), space.input_shape[2])
    chain.add("stem", "conv", values["stem.width"], space.activation, kernel=3, stride=space.stem_stride)
    for number, stage in enumerate(space.stages, 1):
        name, width = f"stage{number}", chain.channels if stage.keeps_width else values[f"stage{number}.width"]
        for block in range(1, max(stage.depths) + 1):
            chain.active = block <= min(stage.depths) or values[f"{name}.depth"] >= block
            if chain.active is not False:  # It is False for one subnet alone; for many it is an array.
                _BLOCKS[stage.block](chain, stage, f"{name}.block{block}", block, width)
    chain.active = True
    if space.head_widths:
        chain.add("head", "pointwise", values["head.width"], space.activation)
    chain.add("classifier", "dense", space.num_classes, "linear", pools=True)
    return chain.layers


def walk(layers: Iterable[Layer], x: Tensor, run: Callable[[Layer, Tensor, Tensor], Tensor]) -> Tensor:
    """Computes layers one after another, whatever a tensor is to the caller, and returns the output of the last layer.

    Args:
        layers: The layers in order of computation.
        x: The tensor that the first layer reads.
        run: Computes one layer from the layer, the tensor that it reads and its other operand, which is the second addend of a
            sum or the tensor that is gated.
    """
    block, block_input, gated = None, x, x
    for layer in layers:
        if layer.block != block:
            block, block_input = layer.block, x
        if layer.pools:
            gated = x
        other = x if layer.is_shortcut else gated if layer.gates else block_input
        x = run(layer, block_input if layer.is_shortcut else x, other)
    return x


def image_size(input_shape: tuple[int, int, int], resolution: N) -> tuple[N, N]:
    """The height and width of images of `input_shape` at a resolution: the height is the resolution, the width is rounded."""
    height, width, _ = input_shape
    return resolution, (2 * width * resolution + height) // (2 * height)


def squeezed_channels(channels: N) -> N:
    """The channels between the two layers of squeeze-excite: a quarter of `channels`, rounded up to a multiple of eight."""
    return -(-channels // 32) * 8


def _inverted_residual(chain: _Chain[N], stage: Stage, block: str, number: int, width: N) -> None:
    adds = stage.adds_input(number)
    stream = chain.count if adds else 0
    hidden = chain.channels * chain.values[f"{block}.expansion"]
    if stage.expands:
        chain.add(f"{block}.expand", "pointwise", hidden, stage.activation)
        chain.held = stream
    kernel, stride = chain.values[f"{block}.kernel"], stage.stride if number == 1 else 1
    chain.add(f"{block}.depthwise", "depthwise", hidden, stage.activation, kernel, stride)
    chain.held = stream
    if stage.squeeze_excite:
        chain.add(f"{block}.squeeze", "dense", squeezed_channels(hidden), "relu", pools=True)
        chain.add(f"{block}.excite", "dense", hidden, "hard_sigmoid", gates=True)
    chain.add(f"{block}.project", "pointwise", width, "linear", residual="linear" if adds else None)
    chain.held = 0


def _basic(chain: _Chain[N], stage: Stage, block: str, number: int, width: N) -> None:
    stream, before = chain.count, dataclasses.replace(chain)
    stride = stage.stride if number == 1 else 1
    hidden = width * chain.values[f"{block}.expansion"]
    chain.add(f"{block}.conv1", "conv", hidden, "relu", chain.values[f"{block}.kernel"], stride)
    chain.held = stream
    chain.add(f"{block}.conv2", "conv", width, "linear", 3, residual="relu" if stage.adds_input(number) else None)
    if not stage.adds_input(number):
        chain.held, chain.size, chain.channels = chain.count, before.size, before.channels
        chain.bits, chain.signed = before.bits, before.signed
        chain.add(f"{block}.shortcut", "conv", width, "linear", 1, stride, residual="relu")
    chain.held = 0


def _separable(chain: _Chain[N], stage: Stage, block: str, number: int, width: N) -> None:
    kernel, stride = chain.values[f"{block}.kernel"], stage.stride if number == 1 else 1
    chain.add(f"{block}.depthwise", "depthwise", chain.channels, stage.activation, kernel, stride)
    chain.add(f"{block}.project", "pointwise", width, stage.activation)


_BLOCKS = dict(zip(BLOCKS, (_inverted_residual, _basic, _separable)))
