"""Graphs with random weights, built as subnets are exported, which are timed for a latency table.

Weights are the same for equal blocks of all spaces, and so is the hash of their files.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np

from daqu_tf.export.subnet_graph import LayerBuilder, to_graph
from daqu_tf.latency.blocks import TIMED_BITS, TimedBlock
from daqu_tf.spaces.bits import FIXED_BITS
from daqu_tf.spaces.layer import Layer
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.subnet import Subnet
from daqu_tf.targets.storage import Storage
from daqu_tf.tflite.graph import FloatTensor, Graph, QuantizedTensor

_STEP = 0.05  # The step of activations; any that keeps channels from being constants will do.


def of_block(space: SearchSpace, block: TimedBlock, storage: Storage) -> Graph:
    """The graph of one block of a space, with random weights."""
    narrowed = tuple((name, values) for name, values in space.narrowed if not name.endswith("_bits"))
    space = dataclasses.replace(space, weight_bits=TIMED_BITS, activation_bits=(FIXED_BITS,), narrowed=narrowed)
    subnet = Subnet(tuple((f"{layer.name}.weight_bits", layer.weight_bits) for layer in block.layers))
    builder = LayerBuilder(space, subnet, _arrays(block.layers, space), storage)
    shape = (1, *block.input_shape)
    source = FloatTensor("input", shape) if storage.in_float else QuantizedTensor("input", shape, _STEP, 0)
    return builder.chain(builder.graph.declare(source), block.layers)


def of_subnet(space: SearchSpace, subnet: Subnet, storage: Storage) -> Graph:
    """The graph of a whole subnet of a space, with random weights."""
    return to_graph(space, subnet, _arrays(space.layers(subnet), space), storage)


def _arrays(layers: Iterable[Layer], space: SearchSpace) -> dict[str, np.ndarray]:
    """The weights, steps for all bits of the space, and statistics of layers, by the names of `StaticNetwork.arrays()`."""
    rng = np.random.default_rng(0)
    return {name: array for layer in layers for name, array in _arrays_of(layer, space, rng).items()}


def _arrays_of(layer: Layer, space: SearchSpace, rng: np.random.Generator) -> dict[str, np.ndarray]:
    channels, side = layer.output_channels, layer.kernel
    shape = (channels, 1) if layer.kind == "depthwise" else (layer.input_channels, channels)
    shape = shape if layer.kind == "dense" else (side, side, *shape)
    kernel = rng.uniform(-1, 1, shape).astype(np.float32)
    steps = np.array([[1 / (2 ** (bits - 1) - 1)] * channels for bits in space.weight_bits], np.float32)
    found = {f"{layer.name}/kernel": kernel, f"{layer.name}/kernel_log_step": np.log(steps)}
    found |= {
        f"{name}/activation_log_step": np.log(np.full(len(space.activation_bits), _STEP, np.float32)) for name in layer.tensors
    }
    if layer.kind == "dense":
        return found | {f"{layer.name}/bias": np.zeros(channels, np.float32)}
    constants = {"gamma": 1, "beta": 0, "moving_mean": 0, "moving_variance": 1}
    return found | {f"{layer.name}.normalize/{name}": np.full(channels, value, np.float32) for name, value in constants.items()}
