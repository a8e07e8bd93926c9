"""Bits: those that are fixed, those that mean real numbers, and the integers that so many bits hold."""

from collections.abc import Sequence

# Of stem weights, classifier, network input and every tensor that is no ReLU's: few or sensitive, and a signed activation of
# fewer bits would need a clamp of its own in the file. The sum of a basic block is the residual stream, and stays there too.
FIXED_BITS = 8
FLOAT_BITS = 32  # Of what is not quantized.
MIXED_PRECISIONS = ("none", "float16", "bfloat16")  # Types of float arithmetic in training.


def weight_range(bits: int) -> tuple[int, int]:
    """Symmetric codes of a weight: -(2^(b-1) - 1) .. 2^(b-1) - 1, so that every container can hold a sign change."""
    limit = 2 ** (bits - 1) - 1
    return -limit, limit


def activation_range(bits: int, signed: bool) -> tuple[int, int]:
    """Codes of an activation: 0 .. 2^b - 1 after a ReLU, -2^(b-1) .. 2^(b-1) - 1 of a linear output."""
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def next_bits(alphabet: Sequence[int], bits: int) -> int:
    """The lowest of an ascending bit alphabet that is at least `bits`; its highest where none is."""
    return next((each for each in alphabet if each >= bits), alphabet[-1])
