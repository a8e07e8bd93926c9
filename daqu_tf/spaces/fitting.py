"""A family of networks for images of any size: how often they are halved on the way to the pool."""

import dataclasses
import math

from daqu_tf.spaces.named import get
from daqu_tf.spaces.space import SearchSpace

FAMILIES = ("resnet", "mobilenet_v2", "mobilenet_v1", "mobilenet_v3")
POOLED_SIDE = 3.5  # The least pixels a side that are pooled, as people's networks have them: 4 of 32 or 64, 7 of 224.
MOST_HALVINGS = 5
_ROOM = 1024


def fitted(name: str, input_shape: tuple[int, int, int], num_classes: int) -> SearchSpace:
    """The space of a name for images and classes; a family of `FAMILIES` halves large images more often and small ones less.

    Args:
        name: The name of a space, or the path of a `.json` file.
        input_shape: The height, width and channels of the images.
        num_classes: The number of classes.

    Raises:
        DaquError: There is no such space, or the images are too small for one that is no family.
    """
    space = get(name)
    if name in FAMILIES:  # It is halved where there is room, of which the images may have too little before.
        space = _with_halvings(space.for_images((_ROOM, _ROOM, input_shape[2]), num_classes), halvings(input_shape))
    return space.for_images(input_shape, num_classes)


def halvings(input_shape: tuple[int, int, int]) -> int:
    """How often images are halved on the way to the pool, by their sides: 3 times from 28 pixels on, 4 from 56 and 5 from 112."""
    height, width, _ = input_shape
    short, long = sorted((height, width))
    if short == 1:  # A signal, which is halved along its length.
        short = long
    wanted = math.floor(math.log2(math.sqrt(short * long) / POOLED_SIDE))
    return max(0, min(MOST_HALVINGS, wanted, math.floor(math.log2(short))))


def _with_halvings(space: SearchSpace, wanted: int) -> SearchSpace:
    """The family with so many strides of 2: those at the front go first, and further ones come at the end."""
    while (count := round(math.log2(space.stride))) != wanted:
        stages, last = list(space.stages), space.stages[-1]
        halving = next((index for index, stage in enumerate(stages) if stage.stride == 2), 0)
        if count > wanted and space.stem_stride == 2:
            space = dataclasses.replace(space, stem_stride=1)
            continue
        by_hand = space.by_hand
        if count > wanted:
            stages[halving] = dataclasses.replace(stages[halving], stride=1)
        elif last.stride == 1:
            stages[-1] = dataclasses.replace(last, stride=2)
        elif count == MOST_HALVINGS - 1 and stages[0].block == "basic":  # Where ResNets have a pool.
            stages[0] = dataclasses.replace(stages[0], widths=space.stem_widths, stride=2)
        else:
            stages.append(dataclasses.replace(last, widths=_wider(last.widths), depths=last.depths[:2], stride=2))
            space = dataclasses.replace(space, head_widths=_wider(space.head_widths))
            by_hand = (*by_hand, (f"stage{len(stages)}.depth", 1))
        space = dataclasses.replace(space, stages=tuple(stages), by_hand=by_hand)
    return space


def _wider(widths: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(round(1.5 * width / 8) * 8 for width in widths)
