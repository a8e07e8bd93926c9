"""The layers that a choice of architecture and bits comes to.

Sizes, channels and bits are whole numbers for one subnet, and arrays for many at once: the arithmetic is the same.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from daqu_tf.space import SearchSpace

# Of stem weights, classifier, network input and linear outputs: few or sensitive, and a signed activation of fewer bits
# would need a clamp of its own in the file.
FIXED_BITS = 8
LAYERS = ("expand", "depthwise", "project")
Number = int | np.ndarray


@dataclasses.dataclass(frozen=True)
class Stage:
    """A run of inverted residual blocks at one resolution; the first block has the stride.

    Where the only expansion is 1, blocks have no expanding layer, as in the first stage of MobileNetV2.

    Attributes:
        widths: Output channels.
        depths: Numbers of blocks.
        kernels: Odd sizes of the depthwise kernels.
        expansions: Hidden channels over input channels.
        stride: Of the first block.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    kernels: tuple[int, ...]
    expansions: tuple[int, ...]
    stride: int

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers of a block, of `LAYERS`."""
        return LAYERS[1:] if self.expansions == (1,) else LAYERS


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
        output_bits: Of the activation tensor that it writes.
        relu: Whether a ReLU follows batch normalization.
        residual: Whether the block's input is added to the output.
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
    output_bits: Number
    relu: bool
    residual: bool = False
    active: bool | np.ndarray = True

    @property
    def weights(self) -> Number:
        """Number of kernel weights."""
        return self.kernel**2 * self.output_channels * (1 if self.kind == "depthwise" else self.input_channels)

    @property
    def macs(self) -> Number:
        """Multiply-accumulates of one image."""
        return self.weights * self.output_size[0] * self.output_size[1]


def layers(space: "SearchSpace", values: Mapping[str, Number]) -> list[Layer]:
    """All layers that a space can have, in order of computation, for the choices in `values`.

    A block that is left out changes neither size nor channels of what passes it, so the layers behind it need not know.

    Args:
        space: Of the choices.
        values: Gene name to value; a gene that does not act may be missing.
    """
    found = [
        Layer(
            "stem",
            "conv",
            kernel=3,
            stride=space.stem_stride,
            input_size=space.input_shape[:2],
            output_size=_divide(space.input_shape[:2], space.stem_stride),
            input_channels=space.input_shape[2],
            output_channels=values["stem.width"],
            weight_bits=FIXED_BITS,
            input_bits=FIXED_BITS,
            output_bits=values["stem.activation_bits"],
            relu=True,
        )
    ]
    for number, stage in enumerate(space.stages, 1):
        name = f"stage{number}"
        for block in range(1, max(stage.depths) + 1):
            active = values[f"{name}.depth"] >= block
            if np.any(active):
                found += _block_layers(values, stage, name, block, found[-1], active)
    return found + _head_layers(space, values, found[-1])


def _block_layers(values, stage: Stage, name: str, number: int, last: Layer, active: bool | np.ndarray) -> list[Layer]:
    block = f"{name}.block{number}"
    hidden = last.output_channels * values[f"{block}.expansion"]
    shapes = {
        "expand": {"kind": "pointwise", "kernel": 1, "output_channels": hidden},
        "depthwise": {"kind": "depthwise", "kernel": values[f"{block}.kernel"], "output_channels": hidden},
        "project": {"kind": "pointwise", "kernel": 1, "output_channels": values[f"{name}.width"]},
    }
    found = []
    for layer in stage.layers:
        stride = stage.stride if layer == "depthwise" and number == 1 else 1
        linear = layer == "project"
        last = Layer(
            f"{block}.{layer}",
            **shapes[layer],
            stride=stride,
            input_size=last.output_size,
            output_size=_divide(last.output_size, stride),
            input_channels=last.output_channels,
            weight_bits=values[f"{block}.{layer}.weight_bits"],
            input_bits=last.output_bits,
            output_bits=FIXED_BITS if linear else values[f"{block}.{layer}.activation_bits"],
            relu=not linear,
            residual=linear and number > 1,
            active=active,
        )
        found.append(last)
    return found


def _head_layers(space: "SearchSpace", values: Mapping[str, Number], last: Layer) -> list[Layer]:
    head = Layer(
        "head",
        "pointwise",
        kernel=1,
        stride=1,
        input_size=last.output_size,
        output_size=last.output_size,
        input_channels=last.output_channels,
        output_channels=values["head.width"],
        weight_bits=values["head.weight_bits"],
        input_bits=last.output_bits,
        output_bits=values["head.activation_bits"],
        relu=True,
    )
    classifier = Layer(
        "classifier",
        "dense",
        kernel=1,
        stride=1,
        input_size=(1, 1),
        output_size=(1, 1),
        input_channels=head.output_channels,
        output_channels=space.num_classes,
        weight_bits=FIXED_BITS,
        input_bits=FIXED_BITS,
        output_bits=FIXED_BITS,
        relu=False,
    )
    return [head, classifier]


def _divide(size: tuple[Number, Number], stride: int) -> tuple[Number, Number]:
    """Rounded up, as SAME padding does."""
    return -(-size[0] // stride), -(-size[1] // stride)
