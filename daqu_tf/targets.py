"""What a network is for: the containers its runtime has, the bits worth searching there, and the objectives."""

import dataclasses

import numpy as np

from daqu_tf.errors import DaquError
from daqu_tf.space import Layer, SearchSpace


@dataclasses.dataclass(frozen=True)
class Target:
    """A runtime and what counts on it: fewer bits are worth searching only where an objective gets cheaper.

    Attributes:
        name: The name it is found under.
        objectives: (metric, `max` or `min`); accuracy first.
        int4_fully_connected: Whether per-channel INT4 FULLY_CONNECTED runs at speed.
        activation_bits: Widths that change an objective; 8 bits where none does.
    """

    name: str
    objectives: tuple[tuple[str, str], ...]
    int4_fully_connected: bool
    activation_bits: tuple[int, ...]

    def restrict(self, space: SearchSpace) -> SearchSpace:
        """The part of `space` whose choices differ for this target; its cardinality is the effective one."""
        bits = tuple(bits for bits in space.activation_bits if bits in self.activation_bits)
        return space.restrict(activation_bits=bits or space.activation_bits[-1:])

    def container(self, layer: Layer) -> str:
        """The type the file stores the layer's weights in.

        A pointwise or dense layer of at most 4 bits is an INT4 FULLY_CONNECTED, which XNNPACK runs; it does not run an
        INT4 CONV_2D, whose fallback kernel is twice as slow as INT8.
        """
        return "INT4" if self.packs(layer) else "INT8"

    def packs(self, layer: Layer) -> bool | np.ndarray:
        """Whether the weights are stored as INT4."""
        return (layer.weight_bits <= 4) & (self.int4_fully_connected and layer.kind in ("pointwise", "dense"))


_LITERT_OBJECTIVES = (("accuracy", "max"), ("latency_us", "min"), ("file_bytes", "min"), ("deflated_bytes", "min"))
_ACCELERATOR_OBJECTIVES = (("accuracy", "max"), ("bitops", "min"), ("bit_packed_bytes", "min"))

TARGETS = {
    target.name: target
    for target in (
        Target("litert_cpu", _LITERT_OBJECTIVES, int4_fully_connected=True, activation_bits=(8,)),
        Target("litert_cpu_int8", _LITERT_OBJECTIVES, int4_fully_connected=False, activation_bits=(8,)),
        # Hardware that computes at any width. Its files still run, exactly, on int8 kernels.
        Target("accelerator", _ACCELERATOR_OBJECTIVES, int4_fully_connected=False, activation_bits=tuple(range(2, 9))),
    )
}


def get(name: str) -> Target:
    """Returns the named target.

    Raises:
        DaquError: There is no such target.
    """
    if name not in TARGETS:
        raise DaquError(f"`target` must be one of {', '.join(TARGETS)}, but received {name!r}.")
    return TARGETS[name]
