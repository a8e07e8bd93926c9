"""The part of a supernet's weights that one subnet has: first channels, centre of the kernels. Plain NumPy."""

from collections.abc import Mapping

import numpy as np

from daqu_tf.space import Layer, SearchSpace, Subnet

Arrays = Mapping[str, np.ndarray]


def cut(space: SearchSpace, subnet: Subnet, arrays: Arrays) -> dict[str, np.ndarray]:
    """The subnet's weights, statistics and steps.

    Args:
        space: Of the supernet.
        subnet: Whose part it is.
        arrays: `Supernet.arrays()`.
    """
    part = {name: arrays[name] for name in ("pooled/activation_log_step", "logits/activation_log_step", "classifier/bias")}
    for layer in space.layers(subnet):
        part |= _cut_layer(layer, arrays)
    return part


def _cut_layer(layer: Layer, arrays: Arrays) -> dict[str, np.ndarray]:
    channels, kernel = layer.output_channels, arrays[f"{layer.name}/kernel"]
    steps = {f"{layer.name}/kernel_log_step": arrays[f"{layer.name}/kernel_log_step"][:, :channels]}
    if layer.kind == "dense":
        return steps | {f"{layer.name}/kernel": kernel[: layer.input_channels]}
    start = (kernel.shape[0] - layer.kernel) // 2
    centre = kernel[start : start + layer.kernel, start : start + layer.kernel]
    if layer.kind == "depthwise":
        part = steps | {f"{layer.name}/kernel": centre[:, :, :channels]}
    else:
        part = steps | {f"{layer.name}/kernel": centre[:, :, : layer.input_channels, :channels]}
    for name in ("gamma", "beta", "moving_mean", "moving_variance"):
        part[f"{layer.name}.normalize/{name}"] = arrays[f"{layer.name}.normalize/{name}"][:channels]
    tensors = [f"{layer.name}.normalize"] + [f"{layer.name.rpartition('.')[0]}.sum"] * layer.residual
    return part | {f"{name}/activation_log_step": arrays[f"{name}/activation_log_step"] for name in tensors}
