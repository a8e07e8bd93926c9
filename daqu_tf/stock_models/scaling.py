"""The integer weight of an operator that only scales, chosen over all 256 integers that it may read."""

import numpy as np

from daqu_tf.stock_models.values import Unrounded
from daqu_tf.tflite.graph import QuantizedTensor, Tensor

LARGEST = 127  # The largest integer that may stand for the factor.


def scaling_weight(value: Unrounded, output: Tensor, relu: bool) -> int:
    """The integer for the factor with which the fewest outputs differ from what real numbers are rounded to, nearly always none.

    A bias counts in steps of the input and the weight, so that it is only near to the shift. Where a result lies halfway between
    two integers, as the hard sigmoid of 0 does, that decides. With another integer for the same factor the steps are others (ours).

    Args:
        value: The value of a layer that only scales.
        output: The tensor that is written.
        relu: Whether outputs below 0.0 become 0.0.

    Returns:
        The integer, from 64 to 127; the largest where tensors are real, or each channel has a factor of its own.
    """
    (source,), factor, shift = value.inputs, value.factor, value.shift
    if value.norm is not None or np.ndim(factor) or np.ndim(shift) or not factor:
        return LARGEST
    if not (isinstance(source, QuantizedTensor) and isinstance(output, QuantizedTensor)):
        return LARGEST
    scale, zero_point = output.scale, output.zero_point

    def rounded(reals: np.ndarray) -> np.ndarray:
        return np.clip(np.rint(reals / scale), 0 if relu else -128 - zero_point, 127 - zero_point)

    codes = np.arange(-128, 128) - source.zero_point
    weights = np.arange(LARGEST, LARGEST // 2, -1)[:, np.newaxis]
    units = source.scale * np.abs(factor) / weights
    found = rounded((np.sign(factor) * weights * codes + np.rint(shift / units)) * units)
    differing = np.count_nonzero(found != rounded(codes * source.scale * factor + shift), axis=1)
    return int(weights[np.argmin(differing), 0])
