"""The bits that are fixed, the bits that mean float, and the integers that fit in a number of bits."""

from collections.abc import Sequence

# Bits of the stem's weights, the classifier, the network's input and every tensor that no ReLU writes. They are few or sensitive,
# and a signed activation of fewer bits would need a clamp of its own in the file. The sum of a basic block has 8 bits too, since it
# is the residual stream.
FIXED_BITS = 8
FLOAT_BITS = 32  # Bits of a tensor that is not quantized.
MIXED_PRECISIONS = ("none", "float16", "bfloat16")  # Types in which training may compute; "none" means float32.


def weight_range(bits: int) -> tuple[int, int]:
    """The lowest and highest integer of a weight, -(2^(b-1) - 1) and 2^(b-1) - 1: symmetric, so that a sign change always fits."""
    limit = 2 ** (bits - 1) - 1
    return -limit, limit


def activation_range(bits: int, signed: bool) -> tuple[int, int]:
    """The lowest and highest integer of an activation: 0 and 2^b - 1 after a ReLU, -2^(b-1) and 2^(b-1) - 1 if it is signed."""
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def next_bits(alphabet: Sequence[int], bits: int) -> int:
    """The lowest entry of an ascending bit alphabet that is at least `bits`, or the highest entry if all are lower."""
    return next((each for each in alphabet if each >= bits), alphabet[-1])
