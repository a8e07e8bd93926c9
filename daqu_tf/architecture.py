"""The layers that a choice of architecture and bits comes to.

Sizes, channels and bits are whole numbers for one subnet, and arrays for many at once: the arithmetic is the same.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from daqu_tf.errors import DaquError
from daqu_tf.fields import typed

if TYPE_CHECKING:
    from daqu_tf.space import SearchSpace

# Of stem weights, classifier, network input and every tensor that is no ReLU's: few or sensitive, and a signed activation of
# fewer bits would need a clamp of its own in the file. The sum of a basic block is the residual stream, and stays there too.
FIXED_BITS = 8
BLOCKS = ("inverted_residual", "basic")
ACTIVATIONS = ("relu", "hard_swish")
Number = int | np.ndarray
Tensor = TypeVar("Tensor")


@dataclasses.dataclass(frozen=True)
class Stage:
    """A run of blocks at one resolution; the first block has the stride.

    An `inverted_residual` block (Sandler et al., CVPR 2018; with squeeze-excite and hard-swish, Howard et al., ICCV 2019)
    expands, convolves each channel and projects; where the only expansion is 1, nothing is expanded. A `basic` block (He et al.,
    CVPR 2016) is two full convolutions, of which the first has the elastic kernel and the expanded channels; a stage's first
    block has a pointwise convolution in its shortcut.

    Attributes:
        widths: Output channels.
        depths: Numbers of blocks.
        kernels: Odd sizes of the depthwise or first kernels.
        expansions: Hidden channels over input channels; in a basic block, over output channels.
        stride: Of the first block.
        block: One of `BLOCKS`.
        activation: One of `ACTIVATIONS`; basic blocks have ReLUs.
        squeeze_excite: Whether channels are weighed after the depthwise convolution.

    Raises:
        DaquError: A field has a value of another kind (the field is named).
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    kernels: tuple[int, ...]
    expansions: tuple[int, ...]
    stride: int
    block: str = "inverted_residual"
    activation: str = "relu"
    squeeze_excite: bool = False

    def __post_init__(self):
        check_fields(self)

    @property
    def expands(self) -> bool:
        """Whether inverted residual blocks have an expanding layer."""
        return self.expansions != (1,)

    def layers(self, number: int) -> tuple[str, ...]:
        """The layers with weights of a block, in order of computation; blocks count from 1."""
        if self.block == "basic":
            return ("conv1", "conv2", "shortcut") if number == 1 else ("conv1", "conv2")
        weighing = ("squeeze", "excite") if self.squeeze_excite else ()
        return (*["expand"] * self.expands, "depthwise", *weighing, "project")

    def searched_activations(self, number: int) -> tuple[str, ...]:
        """The layers behind which the width of the activation tensor is searched: what a layer with weights reads from a ReLU.

        With squeeze-excite that is the product, behind `excite`, not the depthwise convolution's own output.
        """
        relu = self.activation == "relu"
        searched = {"expand": relu, "depthwise": relu and not self.squeeze_excite, "excite": relu, "squeeze": True, "conv1": True}
        return tuple(layer for layer in self.layers(number) if searched.get(layer, False))


_KINDS = {
    tuple[int, int, int]: "height, width and channels in whole numbers",
    tuple[Stage, ...]: "a list of stages",
    tuple[tuple[str, tuple[int, ...]], ...]: "a list of pairs of a gene's name and a list of whole numbers",
}


def check_fields(choices: Any) -> None:
    """Makes tuples of the lists in a dataclass, and Python's numbers of NumPy's.

    Raises:
        DaquError: A field has a value of another kind (the field is named).
    """
    for field in dataclasses.fields(choices):
        value = typed(field.name, field.type, getattr(choices, field.name), _KINDS)
        if field.type in (int, tuple[int, int, int]) and np.min(value) < 1:
            raise DaquError(f"`{field.name}` must be at least 1, but received {value}.")
        object.__setattr__(choices, field.name, value)


@dataclasses.dataclass(frozen=True)
class Layer:
    """One layer as costs, targets, manifests and the exporter see it; of many subnets at once where fields are arrays.

    Attributes:
        name: The layer's name in the supernet.
        kind: `conv`, `pointwise`, `depthwise` or `dense`.
        kernel: Side of the kernel.
        stride: In both directions.
        input_size: Height and width.
        output_size: Height and width.
        input_channels: Of the tensor that is read.
        output_channels: Of the tensor that is written.
        weight_bits: Of the kernel.
        input_bits: Of the activation tensor that the layer reads.
        input_signed: Whether that tensor, or the one that is gated, may be negative.
        output_bits: Of the activation tensor that it leaves, with all that belongs to it: activation, product, sum.
        activation: What follows: `linear`, `relu`, `hard_swish` or `hard_sigmoid`.
        residual: The activation of the sum that the output goes into, `linear` or `relu`; None where there is no sum. The other
            addend is the block's input, or, of a `shortcut`, the output of the layer before it.
        pools: Whether the input is first averaged over its pixels.
        gates: Whether the tensor that was pooled is multiplied by the output.
        held: Values of other tensors that wait while it is computed; of a tensor that will be gated, nothing is said.
        active: Whether the subnet has this layer: its depth may leave the block out.
    """

    name: str
    kind: str
    kernel: Number
    stride: int
    input_size: tuple[Number, Number]
    output_size: tuple[Number, Number]
    input_channels: Number
    output_channels: Number
    weight_bits: Number
    input_bits: Number
    input_signed: bool
    output_bits: Number
    activation: str
    residual: str | None = None
    pools: bool = False
    gates: bool = False
    held: Number = 0
    active: bool | np.ndarray = True

    @property
    def is_shortcut(self) -> bool:
        """Whether it reads what its block reads, beside the layers before it."""
        return self.name.endswith(".shortcut")

    @property
    def is_pointwise(self) -> bool | np.ndarray:
        """Whether it is the same matrix product at every pixel."""
        return (self.kernel == 1) & (self.stride == 1 and self.kind != "depthwise")

    @property
    def block(self) -> str:
        """Name of the block that it belongs to; empty for stem, head and classifier."""
        return self.name.rpartition(".")[0]

    @property
    def output_signed(self) -> bool:
        """Whether the tensor that is left may be negative."""
        if self.gates:
            return self.input_signed
        return (self.residual or self.activation) != "relu"

    @property
    def tensors(self) -> dict[str, bool]:
        """The activation tensors with a quantizer, in order, and whether they are signed.

        The last one is left to the next layer and has `output_bits`; those before it have `FIXED_BITS`.
        """
        tensors = {f"{self.name}.pooled": self.input_signed} if self.pools else {}
        if not self.gates:
            tensors[f"{self.name}.{'output' if self.kind == 'dense' else 'normalize'}"] = self.activation != "relu"
        if self.activation == "hard_swish":
            tensors[f"{self.name}.hard_swish"] = True
        if self.gates:
            tensors[f"{self.name}.product"] = self.input_signed
        if self.residual:
            tensors[f"{self.name}.sum"] = self.residual != "relu"
        return tensors

    @property
    def left_tensor(self) -> str:
        """The name of the last of `tensors`."""
        return list(self.tensors)[-1]

    @property
    def weights(self) -> Number:
        """Number of kernel weights."""
        return self.kernel**2 * self.output_channels * (1 if self.kind == "depthwise" else self.input_channels)

    @property
    def output_values(self) -> Number:
        """Numbers that are written."""
        return self.output_size[0] * self.output_size[1] * self.output_channels

    @property
    def macs(self) -> Number:
        """Multiply-accumulates of one image."""
        return self.weights * self.output_size[0] * self.output_size[1]


@dataclasses.dataclass
class _Chain:
    """Adds layers one behind another: `size`, `channels` and `bits` are those of the tensor that the next one reads."""

    values: Mapping[str, Number]
    layers: list[Layer]
    size: tuple[Number, Number]
    channels: Number
    bits: Number = FIXED_BITS
    signed: bool = False
    held: Number = 0
    active: bool | np.ndarray = True

    @property
    def count(self) -> Number:
        """Values of the tensor that the next layer reads."""
        return self.size[0] * self.size[1] * self.channels

    def add(self, name: str, kind: str, output_channels: Number, activation: str, kernel: Number = 1, stride: int = 1, **more):
        dense, pools = kind == "dense", more.get("pools", False)
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
            held=self.held,
            active=self.active,
            **more,
        )
        self.layers.append(layer)
        self.size = self.size if dense else layer.output_size
        self.channels, self.bits = output_channels, layer.output_bits
        self.signed = layer.output_signed if not dense else self.signed


def layers(space: "SearchSpace", values: Mapping[str, Number]) -> list[Layer]:
    """All layers that a space can have, in order of computation, for the choices in `values`.

    A block that is left out changes neither size nor channels of what passes it, so the layers behind it need not know.

    Args:
        space: Of the choices.
        values: Gene name to value; a gene that does not act may be missing.
    """
    chain = _Chain(values, [], image_size(space.input_shape, values["resolution"]), space.input_shape[2])
    chain.add("stem", "conv", values["stem.width"], space.activation, kernel=3, stride=space.stem_stride)
    for number, stage in enumerate(space.stages, 1):
        name = f"stage{number}"
        for block in range(1, max(stage.depths) + 1):
            chain.active = block <= min(stage.depths) or values[f"{name}.depth"] >= block
            if chain.active is not False:  # It is a number's comparison; whole arrays have no one answer.
                _BLOCKS[stage.block](chain, stage, f"{name}.block{block}", block, values[f"{name}.width"])
    chain.active = True
    if space.head_widths:
        chain.add("head", "pointwise", values["head.width"], space.activation)
    chain.add("classifier", "dense", space.num_classes, "linear", pools=True)
    return chain.layers


def walk(layers: Iterable[Layer], x: Tensor, run: Callable[[Layer, Tensor, Tensor], Tensor]) -> Tensor:
    """Goes through layers, whatever a tensor is to the caller, and returns the last one's output.

    Args:
        layers: In order of computation.
        x: What the first one reads.
        run: Computes a layer from what it reads and from its other operand: the second addend, or what is gated.
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


def image_size(input_shape: tuple[int, int, int], resolution: Number) -> tuple[Number, Number]:
    """Height and width of images of `input_shape` at a resolution, which is the height; the width is rounded."""
    height, width, _ = input_shape
    return resolution, (2 * width * resolution + height) // (2 * height)


def squeezed_channels(channels: Number) -> Number:
    """Channels between the two layers of squeeze-excite: a quarter, rounded up to a multiple of eight."""
    return -(-channels // 32) * 8


def _inverted_residual(chain: _Chain, stage: Stage, block: str, number: int, width: Number) -> None:
    stream = chain.count if number > 1 else 0
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
    chain.add(f"{block}.project", "pointwise", width, "linear", residual="linear" if number > 1 else None)
    chain.held = 0


def _basic(chain: _Chain, stage: Stage, block: str, number: int, width: Number) -> None:
    stream, before = chain.count, dataclasses.replace(chain)
    stride = stage.stride if number == 1 else 1
    hidden = width * chain.values[f"{block}.expansion"]
    chain.add(f"{block}.conv1", "conv", hidden, "relu", chain.values[f"{block}.kernel"], stride)
    chain.held = stream
    chain.add(f"{block}.conv2", "conv", width, "linear", 3, residual="relu" if number > 1 else None)
    if number == 1:
        chain.held, chain.size, chain.channels = chain.count, before.size, before.channels
        chain.bits, chain.signed = before.bits, before.signed
        chain.add(f"{block}.shortcut", "conv", width, "linear", 1, stride, residual="relu")
    chain.held = 0


_BLOCKS = dict(zip(BLOCKS, (_inverted_residual, _basic)))
