"""The search space around a trained network: which blocks it is made of, and what may be left out of them.

MobileNetV1, MobileNetV2 and ResNets of basic blocks are known, by their layers and not by their names.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

from daqu_tf.errors import DaquError
from daqu_tf.keras import keras
from daqu_tf.spaces.layer import RELUS
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.stage import Stage
from daqu_tf.stock_models.reading import POOL, SCALE, Element, Mark, Sum, TrainedUnit, elements_of, refuse

SHARES = (0.5, 0.75, 1.0)  # Of the network's channels, blocks and expansions, which smaller ones have.
RESOLUTION_SHARES = (0.5, 0.625, 0.75, 0.875, 1.0)
_LEAST_SIDE = 8
_FAMILIES = "MobileNetV1, MobileNetV2 and ResNets of basic blocks are known"


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of the network.

    Attributes:
        kind: The kind, one of `spaces.stage.BLOCKS`.
        units: The units by the names that a search space gives them.
        ratio: The ratio of hidden to input channels, or, in a basic block, of hidden to output channels.
        adds: Whether the block adds its input as it is.
    """

    kind: str
    units: dict[str, TrainedUnit]
    ratio: int
    adds: bool

    @property
    def width(self) -> int:
        """The channels of the output."""
        return self.units["conv2" if self.kind == "basic" else "project"].channels

    @property
    def first(self) -> TrainedUnit:
        """The unit with the elastic kernel, the stride and the activation."""
        return self.units["conv1" if self.kind == "basic" else "depthwise"]

    @property
    def form(self) -> tuple:
        """What all blocks of a stage have in common, but for the stride of its first block."""
        return self.kind, self.ratio, self.first.kernel, self.first.activation, self.width


@dataclasses.dataclass(frozen=True)
class Recognised:
    """A network in the terms of a search space.

    Attributes:
        model: The network.
        stem: The first unit.
        stages: The blocks of each stage.
        head: The pointwise unit before the pool; None if there is none.
        classifier: The last unit; None of a network without.
        scales: The layers that scale the input, in order.
    """

    model: keras.Model
    stem: TrainedUnit
    stages: tuple[tuple[Block, ...], ...]
    head: TrainedUnit | None
    classifier: TrainedUnit | None
    scales: tuple[keras.layers.Layer, ...]

    @property
    def units(self) -> dict[str, TrainedUnit]:
        """All units by the names that the layers have in the search space."""
        named = {"stem": self.stem}
        for number, blocks in enumerate(self.stages, 1):
            for place, block in enumerate(blocks, 1):
                named |= {f"stage{number}.block{place}.{name}": unit for name, unit in block.units.items()}
        ends = {"head": self.head, "classifier": self.classifier}
        return named | {name: unit for name, unit in ends.items() if unit is not None}

    def space(self, input_shape: tuple[int, int, int], num_classes: int, input_zero: float) -> SearchSpace:
        """The search space whose largest subnet is the network.

        Args:
            input_shape: The height, width and channels of the images at the highest resolution.
            num_classes: The number of classes.
            input_zero: The pixel that is 0 to the network, as a share of white.
        """
        stages = tuple(_stage(blocks) for blocks in self.stages)
        kernels = [
            (f"stage{number}.block{block}.kernel", blocks[0].first.kernel)
            for number, blocks in enumerate(self.stages, 1)
            for block in range(1, len(blocks) + 1)
        ]
        space = SearchSpace(
            name=self.model.name,
            input_shape=input_shape,
            num_classes=num_classes,
            stem_widths=_shares(self.stem.channels),
            stem_stride=self.stem.stride,
            stages=stages,
            head_widths=_shares(self.head.channels) if self.head else (),
            activation=self.stem.activation,
            by_hand=tuple(kernels),
            input_zero=input_zero,
        )
        least = max(_LEAST_SIDE, -(-space.stride * input_shape[0] // min(input_shape[:2])))
        sides = {round(share * input_shape[0] / _LEAST_SIDE) * _LEAST_SIDE for share in RESOLUTION_SHARES}
        resolutions = {side for side in sides if least <= side < input_shape[0]} | {input_shape[0]}
        return dataclasses.replace(space, resolutions=tuple(sorted(resolutions)))


def recognise(model: keras.Model) -> Recognised:
    """What a functional model is, in the terms of a search space.

    Raises:
        DaquError: The model has something that no space has (the layer is named).
    """
    elements = elements_of(model)
    before = list(itertools.takewhile(lambda each: isinstance(each, Mark), elements))
    scales = tuple(each.layer for each in before if isinstance(each, Mark) and each.kind == SCALE)
    body = [each for each in elements[len(before) :] if not isinstance(each, Mark) or each.kind in (POOL, SCALE)]
    if late := [each.layer for each in body if isinstance(each, Mark) and each.kind == SCALE]:
        refuse(late[0], "it scales what is no image any more")
    pool = next((index for index, each in enumerate(body) if isinstance(each, Mark)), len(body))
    convolutions, end = body[:pool], body[pool + 1 :]
    if not convolutions or not isinstance(convolutions[0], TrainedUnit) or convolutions[0].kind != "conv":
        raise DaquError(f"`init_from` must begin with a convolution, but {model.name!r} does not: {_FAMILIES}.")
    stem, rest = convolutions[0], convolutions[1:]
    if stem.kernel != 3 or stem.activation not in RELUS:
        refuse(stem.layer, "the first convolution of a search space is one of 3x3 pixels with relu or relu6")
    head = rest.pop() if rest and isinstance(rest[-1], TrainedUnit) and rest[-1].is_pointwise and _is_head(rest) else None
    if isinstance(head, TrainedUnit) and head.activation != stem.activation:
        refuse(head.layer, f"its activation is {head.activation}, and that of the first convolution {stem.activation}")
    stages = _stages(list(_blocks(rest)))
    return Recognised(model, stem, stages, head if isinstance(head, TrainedUnit) else None, _classifier(end), scales)


def _is_head(rest: Sequence[Element]) -> bool:
    """Whether the last unit is a head, and not the end of a separable block."""
    before, last = rest[-2] if len(rest) > 1 else None, rest[-1]
    behind_depthwise = isinstance(before, TrainedUnit) and before.kind == "depthwise"
    return isinstance(last, TrainedUnit) and last.activation in RELUS and last.stride == 1 and not behind_depthwise


def _classifier(end: Sequence[Element]) -> TrainedUnit | None:
    if not end:
        return None
    (first, *others) = end
    if others or not isinstance(first, TrainedUnit) or first.norm is not None or not (first.kind == "dense" or first.is_pointwise):
        layer = next(each.layer for each in (*others, first) if isinstance(each, TrainedUnit | Mark))
        refuse(layer, "behind the pool there may be one dense layer, the classifier")
    return first


def _blocks(elements: Sequence[Element]) -> Iterator[Block]:
    """The blocks of a network, without stem and head."""
    left = list(elements)
    while left:
        units = list(itertools.takewhile(lambda each: isinstance(each, TrainedUnit), left))
        first = left[0]
        if isinstance(first, Sum):
            yield _with_sum(first)
            taken = 1
        else:
            taken = 2 if isinstance(first, TrainedUnit) and first.kind == "depthwise" else 3
            if len(units) < taken:
                refuse(first.layer, f"it begins no block of a search space: {_FAMILIES}")
            yield _inverted_residual([each for each in units[:taken] if isinstance(each, TrainedUnit)], adds=False)
        left = left[taken:]


def _with_sum(element: Sum) -> Block:
    units = element.units
    if not units:
        raise DaquError("`init_from` has a sum of a tensor and itself, which cannot be taken.")
    if any(unit.kind == "depthwise" for unit in units):
        if element.shortcut or element.activation != "linear":
            refuse(units[0].layer, "the sum behind it has a convolution on its other path, or an activation")
        return _inverted_residual(units, adds=True)
    return _basic(element)


def _basic(element: Sum) -> Block:
    first, *others = element.units
    if len(others) != 1 or others[0].kernel != 3 or others[0].stride != 1 or others[0].activation != "linear":
        refuse(first.layer, "a sum of full convolutions has two on its path, the second one of 3x3 without activation")
    (second,) = others
    shortcut = element.shortcut
    if first.activation != "relu" or element.activation != "relu":
        refuse(first.layer, "blocks of two full convolutions have relu, behind the first one and behind the sum")
    if shortcut and (shortcut.kernel != 1 or shortcut.activation != "linear" or shortcut.stride != first.stride):
        refuse(shortcut.layer, "the other path of a sum may have one convolution of 1x1 with the stride of the block")
    if first.channels % second.channels:
        refuse(first.layer, f"its {first.channels} channels are no multiple of the block's {second.channels}")
    units = {"conv1": first, "conv2": second} | ({"shortcut": shortcut} if shortcut else {})
    return Block("basic", units, first.channels // second.channels, shortcut is None)


def _inverted_residual(units: Sequence[TrainedUnit], adds: bool) -> Block:
    """A block around a depthwise convolution: an inverted residual, or, with an activation at its end, a separable one."""
    *before, depthwise, project = units
    if depthwise.kind != "depthwise" or not project.is_pointwise or project.stride != 1 or len(before) > 1:
        refuse(units[0].layer, f"it begins no block of a search space: {_FAMILIES}")
    if depthwise.activation not in RELUS:
        refuse(depthwise.layer, f"its activation is {depthwise.activation}, and relu and relu6 are known")
    if not before and project.activation == depthwise.activation and not adds:
        return Block("separable", {"depthwise": depthwise, "project": project}, 1, False)
    if project.activation != "linear":
        refuse(project.layer, f"its activation is {project.activation}, where blocks that expand have none")
    read = int(units[0].layer.input_shape[-1])
    expand = before[0] if before else None
    if expand and (not expand.is_pointwise or expand.stride != 1 or expand.activation != depthwise.activation):
        refuse(expand.layer, "a block expands by a convolution of 1x1 with the activation of its depthwise one")
    if expand and (expand.channels % read or expand.channels == read):
        refuse(expand.layer, f"its {expand.channels} channels are no multiple of the {read} that it reads")
    named = ({"expand": expand} if expand else {}) | {"depthwise": depthwise, "project": project}
    return Block("inverted_residual", named, expand.channels // read if expand else 1, adds)


def _stages(blocks: Sequence[Block]) -> tuple[tuple[Block, ...], ...]:
    """The blocks in runs of one form, in which those but the first have stride 1 and add their input, if the kind adds."""
    stages: list[list[Block]] = []
    for block in blocks:
        joins = bool(stages) and block.form == stages[-1][0].form and block.first.stride == 1
        if joins and (block.adds or block.kind == "separable"):
            stages[-1].append(block)
        else:
            stages.append([block])
    return tuple(map(tuple, stages))


def _stage(blocks: Sequence[Block]) -> Stage:
    first = blocks[0]
    return Stage(
        widths=() if first.adds else _shares(first.width),
        depths=tuple(range(1, len(blocks) + 1)),
        kernels=tuple(range(3, first.first.kernel + 1, 2)) or (first.first.kernel,),
        expansions=_ratios(first.ratio) if first.kind == "inverted_residual" else (first.ratio,),
        stride=first.first.stride,
        block=first.kind,
        activation=first.first.activation,
    )


def _shares(channels: int) -> tuple[int, ...]:
    """The widths of smaller networks, multiples of eight, and the network's own."""
    return tuple(sorted({max(8, round(share * channels / 8) * 8) for share in SHARES[:-1] if share * channels >= 8} | {channels}))


def _ratios(ratio: int) -> tuple[int, ...]:
    return tuple(sorted({max(2, round(share * ratio)) for share in SHARES[:-1] if ratio > 2} | {ratio}))
