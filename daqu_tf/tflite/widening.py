"""By which powers of two few-bit weights are multiplied in a file, and their scales divided: the same real numbers.

It costs hardly a byte after DEFLATE, and two things get better. One unit of a bias is input scale x weight scale, which at 2 or 3
weight bits is a good part of an output step: where weights are multiplied by 64, it is as fine as at 8 bits. And kernels that round
twice, first to multiples of a step / 2^n that is hardly finer than a product of two integers, round small products well (ours).
"""

from collections.abc import Callable

import numpy as np

# (Integers (channels, rest), products of two integers in output steps (channels,), the largest integer of the container) to
# powers of two (channels,).
Widening = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


def finest(codes: np.ndarray, product_steps: np.ndarray, widest: int) -> np.ndarray:
    """The largest powers of two with which the container still holds the weights, for kernels that round once.

    Args:
        codes: Trained integers, (channels, rest).
        product_steps: Products of two integers in output steps, (channels,), which do not matter here.
        widest: The largest integer that the container holds.

    Returns:
        (channels,) powers of two, at least 1; 1 for a channel of zeros.
    """
    largest = np.abs(codes.astype(np.int64)).max(axis=1, initial=0)
    return np.where(largest > 0, 2 ** np.floor(np.log2(widest / np.maximum(largest, 1))).astype(np.int64), 1)


# The share of a convolution's outputs that are a step off on tflite-runtime 2.14, on x86 and ARM alike: 25% where a product is 0.31
# output steps, 12% at 0.16, 4% at 0.04, 0.3% at 0.005, and none from 0.5 to 1. From 1 on, ARM's depthwise kernel rounds to even
# steps.
def for_double_rounding(codes: np.ndarray, product_steps: np.ndarray, widest: int) -> np.ndarray:
    """The powers of two for kernels that round twice: products become small, or else half a step to a step, where all round once.

    Args:
        codes: Trained integers, (channels, rest).
        product_steps: Products of two integers in output steps, (channels,).
        widest: The largest integer that the container holds.

    Returns:
        (channels,) powers of two, at least 1.
    """
    most = finest(codes, product_steps, widest)
    _, exponents = np.frexp(product_steps)  # 0 from half a step to a step, 1 from there to two, and so on.
    return np.where(exponents < 0, most, np.minimum(2 ** np.maximum(exponents, 0).astype(np.int64), most))
