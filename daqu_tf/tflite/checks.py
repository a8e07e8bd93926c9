"""What every tensor of a file must keep to; each message names the tensor."""

import numpy as np

from daqu_tf.errors import DaquError


def check_integers(values: np.ndarray, limit: int, name: str, what: str) -> None:
    """Raises `DaquError` unless all values are integers in [-limit, limit].

    Args:
        values: The values, of any shape.
        limit: The largest magnitude.
        name: The name of the tensor.
        what: What the values are to the tensor, for the message.
    """
    require(np.issubdtype(values.dtype, np.integer), name, f"{what} must be integers, but received {values.dtype}; round them")
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    message = f"{what} must be in [{-limit}, {limit}], but received [{low}, {high}]; clip them or choose another container"
    require(-limit <= low and high <= limit, name, message)


def check_numbers(values: np.ndarray | np.floating, name: str, what: str) -> None:
    """Raises `DaquError` unless all values are finite real numbers.

    Args:
        values: The values, of any shape.
        name: The name of the tensor.
        what: What the values are to the tensor, for the message.
    """
    good = np.issubdtype(values.dtype, np.floating) and np.all(np.isfinite(values))
    received = f"{values.dtype}, {values.min()} to {values.max()}"
    require(bool(good), name, f"{what} must be finite real numbers, but received {received}; train the network anew or clip them")


def check_scales(scales: np.ndarray | np.floating, name: str, what: str) -> None:
    """Raises `DaquError` unless all scales are normal float32 numbers above 0.

    Args:
        scales: The scales, of any shape.
        name: The name of the tensor.
        what: What the scales are to the tensor, for the message.
    """
    # XNNPACK leaves operators with subnormal scales to slower kernels.
    good = np.all((scales >= np.finfo(np.float32).tiny) & np.isfinite(scales))
    received = "" if good else f"{np.min(scales)} to {np.max(scales)}"
    require(bool(good), name, f"{what} must be normal float32 numbers above 0, but received {received}; choose other scales")


def require(condition: bool, tensor: str, message: str) -> None:
    """Raises `DaquError` that names the tensor unless the condition holds.

    Args:
        condition: What must hold.
        tensor: The name of the tensor.
        message: What is wrong with the tensor, and the remedy, without a full stop.
    """
    if not condition:
        raise DaquError(f"Tensor {tensor!r}: {message}.")
