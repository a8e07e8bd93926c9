"""What every tensor of a file must keep to; the messages name it."""

import numpy as np

from daqu_tf.errors import DaquError


def check_integers(values: np.ndarray, limit: int, name: str, what: str) -> None:
    """Raises `DaquError` unless all values are integers within `limit` of 0."""
    require(np.issubdtype(values.dtype, np.integer), name, f"{what} must be integers, but received {values.dtype}")
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    require(-limit <= low and high <= limit, name, f"{what} must be in [{-limit}, {limit}], but received [{low}, {high}]")


def check_numbers(values: np.ndarray | np.floating, name: str, what: str) -> None:
    """Raises `DaquError` unless all values are finite."""
    good = np.issubdtype(values.dtype, np.floating) and np.all(np.isfinite(values))
    require(bool(good), name, f"{what} must be finite real numbers, but received {values.dtype}, {values.min()} to {values.max()}")


def check_scales(scales: np.ndarray | np.floating, name: str, what: str) -> None:
    """Raises `DaquError` unless all scales are such that kernels take them."""
    # XNNPACK leaves operators with subnormal scales to slower kernels.
    good = np.all((scales >= np.finfo(np.float32).tiny) & np.isfinite(scales))
    received = "" if good else f"{np.min(scales)} to {np.max(scales)}"
    require(bool(good), name, f"{what} must be normal float32 numbers above 0, but received {received}")


def require(condition: bool, tensor: str, message: str) -> None:
    """Raises `DaquError` that names the tensor unless the condition holds."""
    if not condition:
        raise DaquError(f"tensor {tensor!r}: {message}")
