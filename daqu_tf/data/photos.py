"""The way from a photo to what a model reads: decoded, cropped, brought to size, and made the numbers of the model's input.

This is the one definition of that way. Data sets are made of photos by it, a file and its manifest state it, and whoever calls a
model in an application does the same.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from daqu_tf.errors import DaquError

GREY, RGB = "grey", "RGB"
CENTRE = "centre"
TRIANGLE = "antialiased triangle"
HIGHEST_PIXEL = 255

_MODES = {GREY: "L", RGB: "RGB"}  # Pillow's names of what a photo is brought to.
_LOWEST_CODE = {"int8": -128, "uint8": 0}
_SIXTEEN_BITS = 65535 // HIGHEST_PIXEL  # 16 bits count in this part of the steps of 8 bits.
_READ_ANEW = "export the model again"

Size = tuple[int, int]  # Height and width.
Photo = str | os.PathLike | IO[bytes]


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What becomes of a photo before a model reads it.

    Attributes:
        size: The height and width of what the model reads, in pixels.
        input_type: The type of what the model reads: `int8`, `uint8` or `float32`.
        input_range: The numbers that the network takes for pixels of 0 and of 255.
        channels: The channels, in their order: `RGB` or `grey`.
        source_size: The height and width of the images that the network was trained with, to which a photo is brought first; None
            where these are of `size`, or not known.
        scale: The scale of the input, by which real numbers become integers; None where the model reads real numbers.
        zero_point: The integer that stands for 0.0; None where the model reads real numbers.
        crop: The part of a photo that is seen: `centre`, the largest rectangle around the centre with the proportions of the images
            that the network was trained with.
        filter: How the photo is brought to a size: `antialiased triangle`, as Pillow does it with BILINEAR, and `tf.image.resize`
            with `antialias=True`.
    """

    size: Size
    input_type: str
    input_range: tuple[float, float] = (0.0, 1.0)
    channels: str = RGB
    source_size: Size | None = None
    scale: float | None = None
    zero_point: int | None = None
    crop: str = CENTRE
    filter: str = TRIANGLE

    @property
    def sizes(self) -> tuple[Size, ...]:
        """The heights and widths that a photo is brought to, one after the other."""
        return (self.size,) if self.source_size in (None, self.size) else (self.source_size, self.size)

    @property
    def takes_pixels(self) -> bool:
        """Whether the integers that the model reads are pixels, in int8 less 128."""
        if self.scale is None or self.zero_point is None:
            return False
        # A file may make up by itself for a black that lies between two of its integers.
        black = self.zero_point - _LOWEST_CODE[self.input_type] + self.input_range[0] / self._step
        return abs(self.scale / self._step - 1) < 1e-6 and abs(black) < 0.501

    @property
    def _step(self) -> float:
        """The difference of the numbers that two neighbouring pixels stand for."""
        return (self.input_range[1] - self.input_range[0]) / HIGHEST_PIXEL

    def pixels(self, photo: Photo) -> np.ndarray:
        """The pixels (height, width, channels) of a photo at the size that the model reads, uint8.

        Args:
            photo: The path of the photo, or its open file.

        Raises:
            DaquError: The photo cannot be read.
        """
        return _pixels(decode(photo, self.channels), self.sizes)

    def numbers(self, pixels: np.ndarray) -> np.ndarray:
        """What the model reads of pixels, in the type of its input.

        Args:
            pixels: The pixels (..., height, width, channels), uint8.
        """
        if self.takes_pixels:
            return (pixels.astype(np.int16) + _LOWEST_CODE[self.input_type]).astype(self.input_type)
        real = self.input_range[0] + pixels * self._step
        if self.scale is None or self.zero_point is None:
            return real.astype(np.float32)
        limits = np.iinfo(self.input_type)
        return np.clip(np.rint(real / self.scale) + self.zero_point, limits.min, limits.max).astype(self.input_type)

    def formula(self, pixel: str) -> str:
        """What `numbers` computes of one pixel, before it is cut to the limits of the type, as an expression.

        Args:
            pixel: The name that stands for the pixel in the expression.
        """
        if self.takes_pixels:
            return f"{pixel} - 128" if self.input_type == "int8" else pixel
        low, high = self.input_range
        real = f"{pixel} / {HIGHEST_PIXEL / (high - low):.9g}" + (f" {'+-'[low < 0]} {abs(low):.9g}" if low else "")
        if self.scale is None or self.zero_point is None:
            return real
        real = f"({real})" if low else real
        return f"round({real} / {self.scale:.9g}) {'+-'[self.zero_point < 0]} {abs(self.zero_point)}"

    def text(self) -> str:
        """The way of a photo in sentences, for people who write an application."""
        (height, width), *others = self.sizes
        colors = "one grey channel" if self.channels == GREY else "red, green and blue"
        then = "".join(f", and then to {width} x {height}" for height, width in others)
        shape = "square" if height == width else f"rectangle of {width} to {height}"
        return (
            f"Decode the photo, turned as its EXIF orientation says, to 8 bits of {colors}, transparent parts on white. Cut out "
            f"the largest {shape} around its centre. Bring it to {width} x {height} pixels (width x height){then}, with an "
            "antialiased triangle filter, which is BILINEAR of Pillow and `antialias=True` of `tf.image.resize`; plain bilinear "
            f"sampling, which skips pixels, is something else. Round to 8 bits, and feed {self._fed()} as {self.input_type}."
        )

    def _fed(self) -> str:
        return "them as they are" if (formula := self.formula("pixel")) == "pixel" else f"`{formula}`"

    def to_json(self) -> dict[str, Any]:
        """All of it as a JSON object, without what does not apply."""
        found = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}
        return {name: value for name, value in found.items() if value is not None}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Preprocessing":
        """The inverse of `to_json`.

        Raises:
            DaquError: Something is missing, or is a way that this version does not know.
        """
        known = {"crop": (CENTRE,), "filter": (TRIANGLE,), "channels": (GREY, RGB), "input_type": ("int8", "uint8", "float32")}
        try:
            for name, values in known.items():
                if content[name] not in values:
                    raise DaquError(
                        f"`{name}` of a preprocessing must be one of {', '.join(values)}, but received {content[name]!r}: use the "
                        "version of daqu_tf that wrote it."
                    )
            names = [field.name for field in dataclasses.fields(cls) if field.name in content]
            given: dict[str, Any] = {name: content[name] for name in names}
            given |= {name: tuple(map(int, given[name])) for name in ("size", "source_size") if name in given}
            low, high = map(float, content["input_range"])
            return cls(**given | {"input_range": (low, high)})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, DaquError):
                raise
            raise DaquError(f"A preprocessing is none ({type(error).__name__}: {error}): {_READ_ANEW}.") from error


def channels_of(count: int) -> str:
    """The name of the channels of images with one or three of them."""
    return GREY if count == 1 else RGB


def pixels_of(photo: Photo, channels: str, size: Size, least_side: int = 1) -> np.ndarray:
    """The pixels (height, width, channels) of a photo as one of the images that a network is trained with, uint8.

    Args:
        photo: The path of the photo, or its open file.
        channels: The channels: `RGB` or `grey`.
        size: The height and width of the image.
        least_side: The fewest pixels that the photo must have along each side.

    Raises:
        DaquError: The photo cannot be read, or is too small.
    """
    picture = decode(photo, channels)
    if min(picture.size) < least_side:
        raise DaquError(f"{_named(photo)} has {picture.width} x {picture.height} pixels, which show nothing: leave it out.")
    return _pixels(picture, (size,))


def decode(photo: Photo, channels: str) -> Image.Image:
    """A photo of any kind as a picture with 8 bits a channel, turned as its EXIF orientation says.

    Transparent parts are seen on white, 16 bits become 8, and of several pictures in a file the first one is taken.

    Args:
        photo: The path of the photo, or its open file.
        channels: The channels: `RGB` or `grey`.

    Raises:
        DaquError: The photo cannot be read.
    """
    what = _named(photo)
    try:
        with Image.open(photo) as picture:
            turned = ImageOps.exif_transpose(picture)  # Whatever is not decoded yet is decoded here.
            return _in_eight_bits(turned, what).convert(_MODES[channels])
    except DaquError:
        raise
    except FileNotFoundError as error:
        raise DaquError(f"{what} does not exist: give the path of a photo.") from error
    except PermissionError as error:
        raise DaquError(f"{what} may not be read: allow it with chmod, or leave it out.") from error
    except Exception as error:  # Bytes that are no image, or only a part of one, can raise anything in its reader.
        is_unknown = isinstance(error, UnidentifiedImageError)
        reason = "no format that is known" if is_unknown else " ".join(str(error).split()).rstrip(".")
        raise DaquError(f"{what} cannot be read as an image ({reason}): save it as JPEG or PNG, or leave it out.") from error


def _named(photo: Photo) -> str:
    return str(os.fspath(photo) if isinstance(photo, str | os.PathLike) else getattr(photo, "name", "The photo"))


def _in_eight_bits(picture: Image.Image, what: str) -> Image.Image:
    """The picture with at most 8 bits a channel and without transparent parts."""
    if picture.mode.startswith("I"):
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > HIGHEST_PIXEL * _SIXTEEN_BITS:
            raise DaquError(f"{what} has pixels of more than 16 bits: save it with 8 bits.")
        return Image.fromarray(np.rint(values / _SIXTEEN_BITS).astype(np.uint8))
    if picture.mode == "F":
        raise DaquError(f"{what} has pixels of real numbers, of which nothing says what is white: save it with 8 bits.")
    if not picture.has_transparency_data:
        return picture
    layer = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)


def _pixels(picture: Image.Image, sizes: tuple[Size, ...]) -> np.ndarray:
    """The pixels (height, width, channels) of the centre of a picture, brought to one size after the other."""
    picture = _centre(picture, sizes[0])
    for height, width in sizes:
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(picture)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _centre(picture: Image.Image, size: Size) -> Image.Image:
    """The largest part of a picture around its centre that has the proportions of a size."""
    height, width = size
    zoom = min(picture.width / width, picture.height / height)
    cut_width, cut_height = max(1, round(width * zoom)), max(1, round(height * zoom))
    left, top = (picture.width - cut_width) // 2, (picture.height - cut_height) // 2
    return picture.crop((left, top, left + cut_width, top + cut_height))


def in_folder(path: pathlib.Path) -> list[pathlib.Path]:
    """The paths of all files below a folder that are not hidden, sorted.

    Raises:
        DaquError: There is none.
    """
    inside = (each for each in path.rglob("*") if each.is_file())
    found = sorted(each for each in inside if not any(part.startswith(".") for part in each.relative_to(path).parts))
    if not found:
        raise DaquError(f"The folder {path} holds no files: name one that holds photos.")
    return found
