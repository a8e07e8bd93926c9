"""A run of blocks at one resolution, as a search space describes it."""

import dataclasses
from typing import Any

import numpy as np

from daqu_tf.errors import DaquError
from daqu_tf.fields import typed
from daqu_tf.spaces.layer import RELUS

BLOCKS = ("inverted_residual", "basic", "separable")
ACTIVATIONS = (*RELUS, "hard_swish")


@dataclasses.dataclass(frozen=True)
class Stage:
    """A run of blocks at one resolution; the first block has the stride.

    An `inverted_residual` block (Sandler et al., CVPR 2018; with squeeze-excite and hard-swish, Howard et al., ICCV 2019)
    expands, convolves each channel and projects; where the only expansion is 1, nothing is expanded. A `basic` block (He et al.,
    CVPR 2016) is two full convolutions, of which the first has the elastic kernel and the expanded channels; a stage's first
    block has a pointwise convolution in its shortcut, unless the stage keeps its channels. A `separable` block (Howard et al.,
    arXiv:1704.04861) convolves each channel and then all of them at each pixel, with the activation behind both and no residual.

    Attributes:
        widths: The choices for the output channels of the blocks; if empty, the stage keeps the channels that it reads. Its first
            block, which then has stride 1, adds its input as the others do, as MobileNetV2 does wherever the shapes agree.
        depths: The choices for the number of blocks.
        kernels: The choices for the side of a block's elastic kernel; all are odd.
        expansions: The choices for the ratio of hidden to input channels, or, in a basic block, of hidden to output channels; in a
            separable block 1 alone.
        stride: The stride of the first block; the others have stride 1.
        block: The kind of block, one of `BLOCKS`.
        activation: The activation of the blocks, one of `ACTIVATIONS`; basic blocks need `relu`. A `relu6` clips at 6 in float
            alone: with few bits, the learned step says where it clips.
        squeeze_excite: Whether squeeze-excite weighs the channels after the depthwise convolution.

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

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def keeps_width(self) -> bool:
        """Whether the stage has as many channels as it reads, so that all of its blocks add their input."""
        return not self.widths

    @property
    def expands(self) -> bool:
        """Whether inverted residual blocks have an expanding layer."""
        return self.expansions != (1,)

    def adds_input(self, number: int) -> bool:
        """Whether a block adds its input as it is.

        Args:
            number: The number of the block, from 1.
        """
        return self.block != "separable" and (number > 1 or self.keeps_width)

    def layer_names(self, number: int) -> tuple[str, ...]:
        """The names of a block's layers with weights, in order of computation.

        Args:
            number: The number of the block, from 1.
        """
        if self.block == "basic":
            return ("conv1", "conv2") if self.adds_input(number) else ("conv1", "conv2", "shortcut")
        if self.block == "separable":
            return ("depthwise", "project")
        weighing = ("squeeze", "excite") if self.squeeze_excite else ()
        return (*["expand"] * self.expands, "depthwise", *weighing, "project")

    def searched_activations(self, number: int) -> tuple[str, ...]:
        """The names of a block's layers whose output bits are searched: a ReLU writes it and a layer with weights reads it.

        What a block leaves behind has fixed bits, so that blocks may be left out. With squeeze-excite, the product behind `excite`
        counts instead of the output of the depthwise convolution.

        Args:
            number: The number of the block, from 1.
        """
        relu = self.activation in RELUS
        searched = {"expand": relu, "depthwise": relu and not self.squeeze_excite, "excite": relu, "squeeze": True, "conv1": True}
        return tuple(layer for layer in self.layer_names(number) if searched.get(layer, False))


_KINDS = {
    tuple[int, int, int]: "height, width and channels in whole numbers",
    tuple[Stage, ...]: "a list of stages",
    tuple[tuple[str, tuple[int, ...]], ...]: "a list of pairs of a gene's name and a list of whole numbers",
    tuple[tuple[str, int], ...]: "a list of pairs of a gene's name and a whole number",
}


def check_fields(choices: Any) -> None:
    """Turns the lists in a dataclass into tuples, and NumPy's numbers into Python's.

    Args:
        choices: A frozen `Stage` or `SearchSpace`, which is changed in place.

    Raises:
        DaquError: A field has a value of another kind (the field is named).
    """
    for field in dataclasses.fields(choices):
        value = typed(field.name, field.type, getattr(choices, field.name), _KINDS)
        if field.type in (int, tuple[int, int, int]) and np.min(value) < 1:
            raise DaquError(f"`{field.name}` must be at least 1, but received {value}.")
        object.__setattr__(choices, field.name, value)
