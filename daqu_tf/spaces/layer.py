"""The layer of a network, without its weights."""

import dataclasses
from typing import Generic, TypeVar

import numpy as np

Number = int | np.ndarray
N = TypeVar("N", int, Number)  # Of one subnet, or of many.
RELUS = {"relu": np.inf, "relu6": 6.0}  # The functions that clip at 0, and where else they clip.


@dataclasses.dataclass(frozen=True)
class Layer(Generic[N]):
    """One layer as costs, targets, manifests and the exporter see it.

    Where fields are arrays of shape (count,), it is the layer of many subnets at once.

    Attributes:
        name: The layer's name in the supernet.
        kind: `conv`, `pointwise`, `depthwise` or `dense`.
        kernel: The side of the kernel in pixels.
        stride: The stride along height and width.
        input_size: The height and width of the tensor that the layer reads.
        output_size: The height and width of the tensor that the layer writes.
        input_channels: The channels of the tensor that the layer reads.
        output_channels: The channels of the tensor that the layer writes.
        weight_bits: The bits of the kernel's weights.
        input_bits: The bits of the activation tensor that the layer reads.
        input_signed: Whether the tensor that the layer reads or gates may be negative.
        output_bits: The bits of the activation tensor that the layer leaves behind, after its activation, product and sum.
        activation: The function behind the weights: `linear`, `relu`, `relu6`, `hard_swish` or `hard_sigmoid`.
        residual: The activation of the sum that the output goes into, `linear` or `relu`; None where there is no sum. The other
            addend is the block's input, or, for a `shortcut`, the output of the layer before it.
        pools: Whether the input is first averaged over its pixels.
        gates: Whether the tensor that was pooled is multiplied by the output.
        held: The number of values of other tensors that wait in memory while the layer is computed. A tensor that waits to be
            gated does not count.
        active: Whether the subnet has this layer, which its depth may leave out with the block.
    """

    name: str
    kind: str
    kernel: N
    stride: int
    input_size: tuple[N, N]
    output_size: tuple[N, N]
    input_channels: N
    output_channels: N
    weight_bits: N
    input_bits: N
    input_signed: bool
    output_bits: N
    activation: str
    residual: str | None = None
    pools: bool = False
    gates: bool = False
    held: N = 0
    active: N = True

    @property
    def is_shortcut(self) -> bool:
        """Whether the layer reads the input of its block, beside the layers before it."""
        return self.name.endswith(".shortcut")

    @property
    def is_pointwise(self) -> bool | np.ndarray:
        """Whether the layer is the same matrix product at every pixel."""
        return (self.kernel == 1) & (self.stride == 1 and self.kind != "depthwise")

    @property
    def block(self) -> str:
        """The name of the block that the layer belongs to; empty for stem, head and classifier."""
        return self.name.rpartition(".")[0]

    @property
    def output_signed(self) -> bool:
        """Whether the tensor that the layer leaves behind may be negative."""
        if self.gates:
            return self.input_signed
        return (self.residual or self.activation) not in RELUS

    @property
    def ceiling(self) -> float:
        """The number at which the function behind the weights clips, infinite for most."""
        return RELUS.get(self.activation, np.inf)

    @property
    def tensors(self) -> dict[str, bool]:
        """The names of the layer's activation tensors with a quantizer, in order, and whether each is signed.

        The last one goes to the next layer and has `output_bits`; those before it have `FIXED_BITS`.
        """
        tensors = {f"{self.name}.pooled": self.input_signed} if self.pools else {}
        if not self.gates:
            tensors[f"{self.name}.{'output' if self.kind == 'dense' else 'normalize'}"] = self.activation not in RELUS
        if self.activation == "hard_swish":
            tensors[f"{self.name}.hard_swish"] = True
        if self.gates:
            tensors[f"{self.name}.product"] = self.input_signed
        if self.residual:
            tensors[f"{self.name}.sum"] = self.residual not in RELUS
        return tensors

    @property
    def left_tensor(self) -> str:
        """The name of the tensor that the layer leaves behind, the last of `tensors`."""
        return list(self.tensors)[-1]

    @property
    def weights(self) -> N:
        """The number of weights in the kernel."""
        return self.kernel**2 * self.output_channels * (1 if self.kind == "depthwise" else self.input_channels)

    @property
    def output_values(self) -> N:
        """The number of values in the tensor that the layer writes."""
        return self.output_size[0] * self.output_size[1] * self.output_channels

    @property
    def macs(self) -> N:
        """The multiply-accumulates that the layer takes for one image."""
        return self.weights * self.output_size[0] * self.output_size[1]
