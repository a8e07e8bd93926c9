"""Images that stay as they were given, bytes mostly, and become numbers in [0, 1] only where they are read.

As float32 they would take four times the memory, in each of the processes of a job. Photos are not even in memory: their pixels
are mapped from a file, of which the system keeps what there is room for, once for all processes.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

PART_BYTES = 2**28  # So much of a large set is held as float32 at once.
AT_ONCE_PIXELS = 500 * 64 * 64  # As many are computed with at once; of small images, the count decides instead.


@dataclasses.dataclass(frozen=True, eq=False)
class Images(np.lib.mixins.NDArrayOperatorsMixin):
    """Some images of a source, which read like an array (N, height, width, channels) of float32 in [0, 1].

    `images[key]` reads some images, by whatever indexes NumPy's arrays, and gives an array. All else that arrays can do, such as
    `images.max()`, `images * 255` or `numpy.asarray(images)`, reads all images at once.

    Attributes:
        source: The pixels as given (count, height, width, channels), of any number type, in memory or mapped from a file.
        order: The index in `source` of each image; None takes all, as they come.
        offset: The number that becomes 0.
        scale: The difference between the numbers that become 1 and 0; what lies beyond them is clipped.
        known_ids: The `ids` of the images where they are known; else they are computed from the pixels.
    """

    source: np.ndarray
    order: np.ndarray | None = None
    offset: float = 0.0
    scale: float = 1.0
    known_ids: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.source if self.order is None else self.order)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The number of images, their height, width and channels."""
        _, height, width, channels = self.source.shape
        return len(self), height, width, channels

    @property
    def ndim(self) -> int:
        """The number of axes, 4."""
        return self.source.ndim

    @property
    def dtype(self) -> np.dtype:
        """The type of what is read, float32."""
        return np.dtype(np.float32)

    @property
    def nbytes(self) -> int:
        """The bytes of memory that the images take as given; those that are mapped take none."""
        return 0 if self.is_mapped else len(self) * self.source[:1].nbytes

    @property
    def is_mapped(self) -> bool:
        """Whether the pixels are mapped from a file."""
        array: Any = self.source
        while array is not None and not isinstance(array, np.memmap):
            array = getattr(array, "base", None)
        return array is not None

    def given(self, key: Any = slice(None)) -> np.ndarray:
        """Some images as they were given, by what indexes the first axis of an array."""
        return self.source[key] if self.order is None else self.source[self.order[key]]

    def parts(self, size: int = 256) -> Iterator[np.ndarray]:
        """All images as they were given, `size` at a time."""
        return (self.given(slice(start, start + size)) for start in range(0, len(self), size))

    def take(self, chosen: np.ndarray) -> "Images":
        """The images at some indices, without reading one."""
        order = chosen if self.order is None else self.order[chosen]
        return dataclasses.replace(self, order=order, known_ids=self.ids[chosen])

    @functools.cached_property
    def ids(self) -> np.ndarray:
        """A number (N,) for each image, uint64, which differs where pixels differ."""
        return np.concatenate([hashed(part) for part in self.parts()]) if self.known_ids is None else self.known_ids

    def __getitem__(self, key: Any) -> np.ndarray:
        rows, *others = key if isinstance(key, tuple) else (key,)
        if rows is ... or rows is None:
            return self[:][key]
        if isinstance(rows, int | np.integer):
            return self[rows : rows + 1 or None][(0, *others)]
        pixels = self.given(rows)[(slice(None), *others)].astype(np.float32)
        pixels -= self.offset
        pixels /= self.scale
        return np.clip(pixels, 0, 1, out=pixels)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (image for start in range(0, len(self), 256) for image in self[start : start + 256])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or np.float32, copy=False)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        return getattr(ufunc, method)(*(np.asarray(x) if isinstance(x, Images) else x for x in inputs), **options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # NumPy asks for some before it asks for the array.
            raise AttributeError(name)
        return getattr(self[:], name)


def first(images: Images | np.ndarray, count: int) -> Images | np.ndarray:
    """The first `count` images, or all if there are fewer, without reading one."""
    return images.take(np.arange(min(count, len(images)))) if isinstance(images, Images) else images[:count]


def hashed(images: np.ndarray) -> np.ndarray:
    """A number (N,) for each of the images (N, ...), uint64: the same for the same pixels, and else another."""
    plain = images + images.dtype.type(0) if images.dtype.kind == "f" else images  # This makes -0.0 into 0.0.
    rows = np.ascontiguousarray(plain).reshape(len(plain), -1).view(np.uint8)
    return np.frombuffer(b"".join(hashlib.blake2b(row.data, digest_size=8).digest() for row in rows), np.uint64)


def at_once(count: int, image_shape: tuple[int, ...]) -> int:
    """How many images are computed with at once, `count` unless they are large; their activations take the memory of many."""
    height, width = image_shape[:2]
    return max(1, min(count, AT_ONCE_PIXELS // (height * width)))


def parts_of(images: Images | np.ndarray) -> Iterator[np.ndarray]:
    """Images as float32 in [0, 1], all of a small set at once, but of a large one as many as memory is fine with."""
    size = max(1, PART_BYTES // (4 * int(np.prod(images.shape[1:]))))
    return (np.asarray(images[start : start + size]) for start in range(0, len(images), size))
