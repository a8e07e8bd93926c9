"""One layer as costs, targets, manifests and the exporter see it."""

import dataclasses
from typing import Generic, TypeVar

import numpy as np

Number = int | np.ndarray
N = TypeVar("N", int, Number)  # Of one subnet, or of many.


@dataclasses.dataclass(frozen=True)
class Layer(Generic[N]):
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
    def weights(self) -> N:
        """Number of kernel weights."""
        return self.kernel**2 * self.output_channels * (1 if self.kind == "depthwise" else self.input_channels)

    @property
    def output_values(self) -> N:
        """Numbers that are written."""
        return self.output_size[0] * self.output_size[1] * self.output_channels

    @property
    def macs(self) -> N:
        """Multiply-accumulates of one image."""
        return self.weights * self.output_size[0] * self.output_size[1]
