"""The generated classes of the file format, and how the format stores integers."""

import functools
from types import ModuleType

import numpy as np

IDENTIFIER = b"TFL3"  # Bytes 4 to 7 of every file.


@functools.cache
def schema() -> ModuleType:
    """The module of the generated classes of the file format, which is imported late because it loads the runtime."""
    from ai_edge_litert import schema_py_generated

    return schema_py_generated


def pack_int4(values: np.ndarray) -> np.ndarray:
    """Packs integers in [-8, 7] into bytes, two in each, the earlier one in the low half.

    Args:
        values: The integers, of any shape.

    Returns:
        The bytes (ceil(size / 2),), uint8.
    """
    nibbles = values.astype(np.int8).ravel().view(np.uint8) & 0xF
    nibbles = np.append(nibbles, np.zeros(nibbles.size % 2, np.uint8))
    return nibbles[0::2] | nibbles[1::2] << 4


def unpack_int4(packed: np.ndarray, size: int) -> np.ndarray:
    """The integers (size,) in packed bytes, int8: the inverse of `pack_int4`."""
    nibbles = np.stack([packed & 0xF, packed >> 4], axis=1).ravel()[:size]
    return ((nibbles ^ 8).astype(np.int8) - 8).astype(np.int8)


def int32(*values: int) -> np.ndarray:
    """Whole numbers (n,) in little-endian int32, as the file stores shapes and lists of tensors."""
    return np.array(values, "<i4")
