"""The part of a supernet's weights that one subnet has: the first channels, the centre of the kernels, and its steps.

It is plain NumPy, and imports no TensorFlow.
"""

from collections.abc import Mapping

import numpy as np

from daqu_tf.spaces.bits import FIXED_BITS
from daqu_tf.spaces.layer import Layer
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.subnet import Subnet

Arrays = Mapping[str, np.ndarray]
EPSILON = 1e-3  # The epsilon of batch normalization, as in Keras.


def cut(space: SearchSpace, subnet: Subnet, arrays: Arrays) -> dict[str, np.ndarray]:
    """The weights, statistics and steps of a subnet by name.

    Args:
        space: The space of the supernet.
        subnet: The subnet.
        arrays: The supernet's weights by name, as `Supernet.arrays()` gives them.
    """
    part: dict[str, np.ndarray] = {}
    for layer in space.layers(subnet):
        part |= _cut_layer(layer, arrays)
    return part


def _cut_layer(layer: Layer, arrays: Arrays) -> dict[str, np.ndarray]:
    channels, kernel = layer.output_channels, arrays[f"{layer.name}/kernel"]
    part = {f"{layer.name}/kernel_log_step": arrays[f"{layer.name}/kernel_log_step"][:, :channels]}
    part |= {f"{name}/activation_log_step": arrays[f"{name}/activation_log_step"] for name in layer.tensors}
    if layer.kind == "dense":
        part[f"{layer.name}/bias"] = arrays[f"{layer.name}/bias"][:channels]
        return part | {f"{layer.name}/kernel": kernel[: layer.input_channels, :channels]}
    start = (kernel.shape[0] - layer.kernel) // 2
    middle = kernel[start : start + layer.kernel, start : start + layer.kernel]
    whole = (slice(channels),) if layer.kind == "depthwise" else (slice(layer.input_channels), slice(channels))
    active = (slice(None), slice(None), *whole)
    part[f"{layer.name}/kernel"] = middle[active]
    for name in ("gamma", "beta", "moving_mean", "moving_variance"):
        part[f"{layer.name}.normalize/{name}"] = arrays[f"{layer.name}.normalize/{name}"][:channels]
    return part


def step(space: SearchSpace, arrays: Arrays, name: str, bits: int) -> np.ndarray:
    """The learned step of a tensor, of shape () or (channels,), computed in float32 as in training.

    Args:
        space: The space of the network that the arrays are from.
        arrays: The network's weights by name, as `Network.arrays()` gives them.
        name: The name of the logarithms of the steps, which have one row for each entry of the bit alphabet, such as
            `stem/kernel_log_step`.
        bits: The bits of the tensor.
    """
    steps = np.exp(arrays[name].astype(np.float32))
    searched = space.activation_bits if name.endswith("activation_log_step") else space.weight_bits
    alphabet = searched if len(steps) == len(searched) and bits in searched else (FIXED_BITS,)
    return steps[alphabet.index(bits)]
