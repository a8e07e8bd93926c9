"""The numbers that black and white have in the images as given, and what is doubtful about them."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from daqu_tf.data.images import Images
from daqu_tf.errors import DaquError

_USUAL = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))
_HALF_STEP = 0.5 / 255  # What 8 bits cannot tell apart, as a share of the range.
_NARROW = 0.1
_SAMPLED_PIXELS = 200_000


@dataclasses.dataclass(frozen=True)
class PixelRange:
    """The range of the pixels as given, which becomes [0, 1].

    Attributes:
        offset: The number that becomes 0.
        scale: The difference between the numbers that become 1 and 0.
        notes: Sentences that say what a user should check.
    """

    offset: float
    scale: float
    notes: tuple[str, ...] = ()


def range_of(name: str, x_train: Images, others: Mapping[str, Images], stated: tuple[float, float] | None) -> PixelRange:
    """Decides which range images have: [0, 255] for uint8, else a usual range that the training images fill, else their own.

    Usual are [0, 1], [-1, 1] where pixels lie below -0.5, and [0, 255] where pixels lie above 127.5; half a step of 8 bits beyond
    is forgiven. A range that had to be guessed is said in a note.

    Args:
        name: The name of the data set, for messages.
        x_train: The training images, as given.
        others: The images of the other splits that are compared with those of `x_train`, by split.
        stated: The lowest and the highest number that pixels of this source may have, where that is known.

    Raises:
        DaquError: All pixels are alike, or a split has another scale than the training images.
    """
    if x_train.source.dtype == np.uint8:
        return PixelRange(0.0, 255.0, _narrow(name, *_ends_of_bytes(x_train), (0.0, 255.0)))
    pixels = x_train.given()
    low, high = _ends(pixels)
    if low == high:
        raise DaquError(f"All pixels of `x_train` of {name} are {low:g}: give images with content.")
    usual = stated or _usual(low, high)
    first, last = usual or (low, high)
    notes = _narrow(name, low, high, usual) if usual else (_guessed(name, pixels, low, high),)
    for split, given in others.items():
        images = given.given()
        _check_scale(name, (low, high), (first, last), split, images)
        notes += _doubts(name, (first, last), split, images)
    return PixelRange(first, last - first, notes)


def _ends(x: np.ndarray) -> tuple[float, float]:
    return float(x.min()), float(x.max())


def _ends_of_bytes(images: Images) -> tuple[float, float]:
    """The lowest and the highest pixel, of as many images as it takes to see that they are far enough apart."""
    low, high = 255.0, 0.0
    for part in images.parts():
        low, high = min(low, float(part.min())), max(high, float(part.max()))
        if high - low >= _NARROW * 255:
            break
    return low, high


def _usual(low: float, high: float) -> tuple[float, float] | None:
    """The usual range that pixels from `low` to `high` fill, if there is one: the smallest, of which they reach the outer half."""
    reached = {(0.0, 1.0): True, (-1.0, 1.0): low < -0.5 - _HALF_STEP, (0.0, 255.0): high > 127.5}
    for first, last in _USUAL:
        slack = _HALF_STEP * (last - first)
        if reached[first, last] and low >= first - slack and high <= last + slack:
            return first, last
    return None


def _narrow(name: str, low: float, high: float, usual: tuple[float, float]) -> tuple[str, ...]:
    first, last = usual
    if high - low >= _NARROW * (last - first):
        return ()
    return (
        f"The pixels of `x_train` of {name} go from {low:g} to {high:g} only, which is little of the range [{first:g}, {last:g}] "
        "that they are taken to have: scale the images if these are black and white.",
    )


def _guessed(name: str, images: np.ndarray, low: float, high: float) -> str:
    """What is said where the range of the training images had to be taken for that of all images."""
    pixels = images.reshape(-1)
    some = pixels[:: max(1, pixels.size // _SAMPLED_PIXELS)]
    inner_low, inner_high = np.percentile(some.astype(np.float64), (0.5, 99.5))
    most = ""
    if inner_high - inner_low < 2 * _NARROW * (high - low):
        most = f", though 99% of them lie from {inner_low:g} to {inner_high:g}"
    return (
        f"The pixels of `x_train` of {name} fill none of the usual ranges [0, 1], [-1, 1] and [0, 255]: {low:g} is taken for "
        f"black and {high:g} for white, the lowest and the highest that occur{most}. "
        "Scale the images to [0, 1] if they mean another range."
    )


def _check_scale(name: str, train: tuple[float, float], taken: tuple[float, float], split: str, images: np.ndarray) -> None:
    """Refuses a split on another scale, which clipping would turn into noise, or which would be nearly black."""
    (low, high), scale, (other_low, other_high) = train, taken[1] - taken[0], _ends(images)
    is_outside = other_high > taken[0] + 2 * scale or other_low < taken[0] - scale
    is_signed = taken == (0.0, 1.0) and _usual(other_low, other_high) == (-1.0, 1.0)
    is_tiny = taken in _USUAL and _is_tiny(images, high - low)
    if is_outside or is_signed or is_tiny:
        raise DaquError(
            f"The pixels of {name} range from {low:g} to {high:g} in train but from {other_low:g} to "
            f"{other_high:g} in {split}: scale both splits alike."
        )


def _is_tiny(images: np.ndarray, span: float) -> bool:
    low, high = _ends(images)
    return high - low < _NARROW * _NARROW * span


def _doubts(name: str, taken: tuple[float, float], split: str, images: np.ndarray) -> tuple[str, ...]:
    """What is said of a split whose scale may be another, or whose outliers are cut off."""
    (first, last), (low, high) = taken, _ends(images)
    slack = _HALF_STEP * (last - first)
    if taken == (-1.0, 1.0) and low >= 0:
        return (
            f"The pixels of `x_{split}` of {name} lie within [0, 1] but those of `x_train` within [-1, 1]: are both scaled alike?",
        )
    if taken not in _USUAL and _is_tiny(images, last - first):
        return (f"The pixels of `x_{split}` of {name} go from {low:g} to {high:g} only: are they scaled like those of `x_train`?",)
    if low >= first - slack and high <= last + slack:
        return ()
    outside = np.count_nonzero(images < first - slack) + np.count_nonzero(images > last + slack)
    return (
        f"{outside} of the {images.size} pixels of `x_{split}` of {name} lie outside [{first:g}, {last:g}], the range of "
        "`x_train`, and are clipped to it.",
    )
