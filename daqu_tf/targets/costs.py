"""What subnets cost, from their layers alone, without building a network.

Each cost is computed over layers whose fields are numbers for one subnet and arrays for thousands at once (`of_many`).
"""

from collections.abc import Callable, Mapping

import numpy as np

from daqu_tf.errors import DaquError
from daqu_tf.spaces.bits import FLOAT_BITS
from daqu_tf.spaces.layer import Layer, N, Number
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.subnet import Subnet
from daqu_tf.targets.target import Target

_ALIGNMENT = 16  # Bytes to which constants in a .tflite file are aligned.
# Bytes of structure for each layer with a kernel, for each sum, average or product, for each hard-swish, and for the file itself.
# They are fitted to 200 files of nine spaces, within 2.2% of each, and after DEFLATE to 168 files of seven, within 7%.
_STRUCTURE, _DEFLATED_STRUCTURE = (334, 44, 343, 653), (75, 138, 130, 640)
# Bytes for each weight after DEFLATE, by container and bits, and bytes for each channel.
_DEFLATED = {
    "INT8": {2: 0.25, 3: 0.43, 4: 0.58, 5: 0.69, 6: 0.80, 7: 0.90, 8: 1.0},
    "INT4": {2: 0.225, 3: 0.36, 4: 0.45},
}
_DEFLATED_A_CHANNEL = 12.5


def macs(space: SearchSpace, subnet: Subnet) -> int:
    """The multiply-accumulates of a subnet for one image."""
    return _macs(space.layers(subnet))


def macs_of_many(space: SearchSpace, genomes: np.ndarray) -> np.ndarray:
    """The multiply-accumulates (count,) of the subnets with genomes (count, genes), for one image each."""
    return np.asarray(_macs(space.layer_table(genomes)))


def parameters(space: SearchSpace, subnet: Subnet) -> int:
    """The parameters in the file of a subnet, where batch normalization is folded: kernels, and one bias per output channel."""
    return _parameters(space.layers(subnet))


def bitops(space: SearchSpace, subnet: Subnet) -> int:
    """The bit operations of a subnet for one image: multiply-accumulates times weight bits times input bits, over all layers."""
    return _bitops(space.layers(subnet))


def bit_packed_bytes(space: SearchSpace, subnet: Subnet) -> int:
    """The bytes of all weights at their own bits, each tensor rounded up to whole bytes, and of biases at 32 bits."""
    return _bit_packed_bytes(space.layers(subnet))


def peak_activation_bytes(space: SearchSpace, subnet: Subnet) -> int:
    """The most bytes of activations in memory at once, one for each value: an operator's inputs and output, and what waits."""
    return int(_peak_activation_bytes(space.layers(subnet)))


def file_bytes(space: SearchSpace, subnet: Subnet, target: Target) -> int:
    """The estimated size in bytes of the `.tflite` file, within three percent.

    Raises:
        DaquError: A tensor of the subnet is in float.
    """
    check_integer(subnet)
    return int(_file_bytes(space.layers(subnet), target))


def deflated_bytes(space: SearchSpace, subnet: Subnet, target: Target) -> int:
    """The estimated size in bytes of the `.tflite` file after DEFLATE, within some percent, as it depends on the trained weights.

    Raises:
        DaquError: A tensor of the subnet is in float.
    """
    check_integer(subnet)
    return int(_deflated_bytes(space.layers(subnet), target))


def of_many(space: SearchSpace, genomes: np.ndarray, target: Target) -> dict[str, np.ndarray]:
    """All costs of many subnets, at about 100,000 subnets a second.

    Args:
        space: The space that the genomes belong to.
        genomes: The genomes (count, genes) of the subnets; entries of genes that do not act may have any value.
        target: The target, which decides the containers of the weights.

    Returns:
        The costs (count,) by name, in the unit of the function of that name.
    """
    layers = space.layer_table(genomes)
    costs = {name: cost(layers) for name, cost in _COSTS.items()}
    costs |= {name: cost(layers, target) for name, cost in _TARGET_COSTS.items()}
    return {name: np.asarray(values) for name, values in costs.items()}


def sample(
    space: SearchSpace, target: Target, rng: np.random.Generator, limits: Mapping[str, float], attempts: int = 100_000
) -> Subnet:
    """A random subnet, uniform over those that keep within limits.

    Args:
        space: The space to draw from.
        target: The target, which decides the containers of the weights.
        rng: The source of all random numbers.
        limits: The upper limit of each cost by its name, as in `{"macs": 1e6, "file_bytes": 60_000}`.
        attempts: The number of subnets to try.

    Raises:
        DaquError: `limits` names an unknown cost, or none of the attempts keeps within the limits.
    """
    for name, most in limits.items():
        if name not in COSTS or not isinstance(most, int | float):
            raise DaquError(f"`limits` must be numbers by the names {', '.join(COSTS)}, but received {name!r}: {most!r}.")
    least = dict.fromkeys(limits, np.inf)
    for start in range(0, attempts, batch := 1000):
        genomes = space.sample_genomes(rng, min(batch, attempts - start))
        costs = of_many(space, genomes, target)
        good = np.all([costs[name] <= most for name, most in limits.items()], axis=0)
        if good.any():
            return space.from_genome(genomes[np.argmax(good)])
        least = {name: min(least[name], costs[name].min()) for name in limits}
    found = ", ".join(f"{name} of {value:,.0f}" for name, value in least.items())
    raise DaquError(f"None of {attempts:,} subnets keeps within `limits` {dict(limits)} (the least seen: {found}): raise them.")


def _total(layers: list[Layer[N]], figure: Callable[[Layer[N]], N]) -> N:
    return sum(figure(layer) * layer.active for layer in layers)


def _macs(layers: list[Layer[N]]) -> N:
    return _total(layers, lambda layer: layer.macs)


def _parameters(layers: list[Layer[N]]) -> N:
    return _total(layers, lambda layer: layer.weights + layer.output_channels)


def _bitops(layers: list[Layer[N]]) -> N:
    return _total(layers, lambda layer: layer.macs * layer.weight_bits * layer.input_bits)


def _bit_packed_bytes(layers: list[Layer[N]]) -> N:
    return _total(layers, lambda layer: -(-layer.weights * layer.weight_bits // 8) + 4 * layer.output_channels)


def _peak_activation_bytes(layers: list[Layer[N]]) -> Number:
    peak: Number = 0
    pooled: Number = 0
    for layer in layers:
        written = layer.output_values
        alive: Number = layer.input_size[0] * layer.input_size[1] * layer.input_channels + written
        if layer.pools:
            alive = np.maximum(alive, pooled + layer.input_channels)
        if layer.gates:  # Both factors and the product take more than squeeze-excite's own two layers.
            alive = np.maximum(alive, 2 * pooled + written)
        if layer.activation == "hard_swish":  # It is a product too: of the tensor and its gate.
            alive = np.maximum(alive, 3 * written)
        if layer.residual:  # The second addend is held.
            alive = np.maximum(alive, 2 * written)
        peak = np.maximum(peak, (alive + layer.held) * layer.active)
        pooled = pooled if layer.kind == "dense" else written
    return peak


def _file_bytes(layers: list[Layer], target: Target) -> Number:
    def constants(layer: Layer) -> Number:
        packed = target.packs(layer)
        weights = layer.weights * (1 - packed) + (layer.weights + 1) // 2 * packed
        # Each channel has a bias and two scales.
        return _aligned(weights) + _aligned(4 * layer.output_channels) + 8 * layer.output_channels

    return _structure(layers, *_STRUCTURE) + _total(layers, constants) + _zero_point_bytes(layers)


def _structure(layers: list[Layer[N]], kernel: int, operator: int, hard_swish: int, file: int) -> N:
    def bytes_of(layer: Layer[N]) -> N:
        further = bool(layer.residual) + layer.pools + layer.gates
        return kernel + operator * further + hard_swish * (layer.activation == "hard_swish")

    return file + _total(layers, bytes_of)


def _zero_point_bytes(layers: list[Layer[N]]) -> N:
    """The bytes of zero points: eight for each channel, stored once for every number of channels that occurs."""
    channels = np.sort(np.stack(np.broadcast_arrays(*(layer.output_channels * layer.active for layer in layers))), axis=0)
    first = np.diff(channels, axis=0, prepend=0) != 0
    return (8 * channels * first).sum(axis=0)


def _deflated_bytes(layers: list[Layer], target: Target) -> Number:
    tables = [np.array([_DEFLATED[name].get(bits, 0.0) for bits in range(9)]) for name in ("INT8", "INT4")]

    def constants(layer: Layer) -> Number:
        rate = np.where(target.packs(layer), tables[1][layer.weight_bits], tables[0][layer.weight_bits])
        return layer.weights * rate + _DEFLATED_A_CHANNEL * layer.output_channels

    return _structure(layers, *_DEFLATED_STRUCTURE) + _total(layers, constants)


def _aligned(size: N) -> N:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


_COSTS = {
    "parameters": _parameters,
    "macs": _macs,
    "bitops": _bitops,
    "bit_packed_bytes": _bit_packed_bytes,
    "peak_activation_bytes": _peak_activation_bytes,
}
_TARGET_COSTS = {"file_bytes": _file_bytes, "deflated_bytes": _deflated_bytes}
COSTS = (*_COSTS, *_TARGET_COSTS)


def check_integer(subnet: Subnet) -> None:
    """Raises `DaquError` if a tensor of the subnet is in float, so that no integer file can hold it."""
    for name, value in subnet.bits.items():
        if value == FLOAT_BITS:
            raise DaquError(f"`{name}` must be 2 to 8 bits in a file of integers, but received {value}: choose other bits.")
