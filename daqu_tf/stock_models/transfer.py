"""The weights of a trained network as those of a supernet, of which it is the largest subnet.

Subnets have the first channels of every layer, so that channels are sorted: those that matter most come first. That changes nothing
of what the network computes.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from daqu_tf.errors import DaquError
from daqu_tf.keras import keras
from daqu_tf.spaces.architecture import walk
from daqu_tf.spaces.layer import Layer
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.stock_models.reading import TrainedUnit
from daqu_tf.stock_models.recognition import Recognised
from daqu_tf.supernet.supernet import Supernet
from daqu_tf.supernet.weights import EPSILON

RANGES = ((-1.0, 1.0), (0.0, 1.0), (0.0, 255.0))
_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def input_range(network: Recognised, images: np.ndarray) -> tuple[float, float]:
    """The numbers that a network takes for black and for white, once its own scaling of the input is done.

    Layers that scale pixels from 0 to 255 say it. Without such, it is the usual range with which the first convolution has the
    means and variances that batch normalization keeps of its training (ours).

    Args:
        network: The network.
        images: Images (count, height, width, channels) of the kind that it will see, in [0, 1].

    Raises:
        DaquError: A layer scales the channels of the input differently.
    """
    if network.scales:
        low, high = 0.0, 255.0
        for layer in network.scales:
            low, high = (_scaled(layer, value) for value in (low, high))
        return low, high
    norm = network.stem.norm
    if norm is None:
        return 0.0, 1.0
    mean, variance = norm.moving_mean.numpy(), norm.moving_variance.numpy()

    def distance(limits: tuple[float, float]) -> float:
        low, high = limits
        found = network.stem.layer(tf.constant(low + _in_channels(images, network.stem) * (high - low), tf.float32))
        means, variances = (each.numpy() for each in tf.nn.moments(found, [0, 1, 2]))
        spread = np.sqrt(variance + norm.epsilon)
        return float(np.mean(np.abs(means - mean) / spread + np.abs(np.log((variances + 1e-6) / (variance + 1e-6)))))

    return min(RANGES, key=distance)


def _scaled(layer: keras.layers.Layer, value: float) -> float:
    """What a `Rescaling` or `Normalization` makes of a pixel."""
    if isinstance(layer, keras.layers.Rescaling):
        factors, offsets = np.ravel(layer.scale), np.ravel(layer.offset)
    else:
        deviation = np.maximum(np.sqrt(np.ravel(layer.variance)), keras.backend.epsilon())
        factors, offsets = 1 / deviation, -np.ravel(layer.mean) / deviation
    if np.ptp(factors) > 1e-6 * np.abs(factors).max() or np.ptp(offsets) > 1e-6 * max(np.abs(offsets).max(), 1):
        raise DaquError(
            f"`init_from` has layer {layer.name!r}, which scales each channel differently: leave it out of the network."
        )
    return float(value * factors[0] + offsets[0])


def _in_channels(images: np.ndarray, stem: TrainedUnit) -> np.ndarray:
    return np.repeat(images, stem.layer.input_shape[-1] // images.shape[-1], axis=-1)


def input_zero(limits: tuple[float, float]) -> float:
    """The pixel that is 0 to a network, as a share of white; where none is, the nearest end."""
    low, high = limits
    return float(np.clip(-low / (high - low), 0.0, 1.0))


@dataclasses.dataclass(frozen=True)
class Start:
    """A trained network as the start of a supernet.

    Attributes:
        space: The space whose largest subnet the network is.
        arrays: The supernet's weights by name; a classifier of other classes has random ones, and no step is set.
        keeps_classifier: Whether the classifier is the network's own.
    """

    space: SearchSpace
    arrays: dict[str, np.ndarray]
    keeps_classifier: bool


def start_from(
    network: Recognised,
    images: np.ndarray,
    num_classes: int,
    seed: int = 0,
    restrict: Callable[[SearchSpace], SearchSpace] = lambda space: space,
) -> Start:
    """A supernet that begins as a trained network.

    Args:
        network: The network.
        images: Some training images (count, height, width, channels), in [0, 1], of the size at which the supernet begins.
        num_classes: The number of classes. The classifier is the network's own where that has as many.
        seed: The seed of the weights of another classifier.
        restrict: Leaves out of the space what a target has no use for.

    Raises:
        DaquError: The network reads images in colour, but takes other channels than there are.
    """
    read = int(network.stem.layer.input_shape[-1])
    if read != images.shape[-1] and images.shape[-1] != 1:
        raise DaquError(f"`init_from` takes images of {read} channels, but those of the data set have {images.shape[-1]}.")
    limits = input_range(network, images)
    space = restrict(network.space(images.shape[1:], num_classes, input_zero(limits)))
    keras.utils.set_random_seed(seed)
    random = Supernet(space).arrays()
    units = network.units
    keeps = "classifier" in units and units["classifier"].channels == num_classes
    arrays, largest = dict(random), space.layers(space.largest())
    for layer in largest:
        if layer.name in units and (keeps or layer.name != "classifier"):
            arrays |= _arrays_of(layer, units[layer.name])
    _read_pixels(arrays, limits, images.shape[-1])
    _measure_norms(arrays, network, images, limits)
    _sort(arrays, largest)
    return Start(space, {name: arrays[name].astype(random[name].dtype) for name in random}, keeps)


def _arrays_of(layer: Layer, unit: TrainedUnit) -> dict[str, np.ndarray]:
    """The weights of a layer and of the normalization behind it, a bias in its mean."""
    kernel, *bias = unit.layer.get_weights()
    offset = bias[0].astype(np.float64) if bias else np.zeros(unit.channels)
    if layer.kind == "dense":
        return {f"{layer.name}/kernel": kernel.reshape(-1, unit.channels), f"{layer.name}/bias": offset}
    gamma, beta, mean, variance = np.ones(unit.channels), np.zeros(unit.channels), np.zeros(unit.channels), np.ones(unit.channels)
    if (norm := unit.norm) is not None:
        mean, variance = (each.numpy().astype(np.float64) for each in (norm.moving_mean, norm.moving_variance))
        gamma = norm.gamma.numpy().astype(np.float64) if norm.scale else gamma
        beta = norm.beta.numpy().astype(np.float64) if norm.center else beta
    epsilon = norm.epsilon if norm is not None else 0.0
    own = np.maximum(variance + epsilon - EPSILON, 0.0)
    gamma = gamma * np.sqrt((own + EPSILON) / (variance + epsilon))
    values = dict(zip(_NORM, (gamma, beta, mean - offset, own)))
    return {f"{layer.name}/kernel": kernel} | {f"{layer.name}.normalize/{name}": value for name, value in values.items()}


def _read_pixels(arrays: dict[str, np.ndarray], limits: tuple[float, float], channels: int) -> None:
    """Lets the stem read pixels in [0, 1] less the zero of the space, of as many channels as there are."""
    low, high = limits
    kernel = arrays["stem/kernel"].astype(np.float64)
    if kernel.shape[2] != channels:
        kernel = kernel.sum(axis=2, keepdims=True)
    arrays["stem/kernel"] = kernel * (high - low)
    # What a zero outside [0, 1] leaves over is the same at every pixel, but for the border.
    rest = low + input_zero(limits) * (high - low)
    arrays["stem.normalize/moving_mean"] = arrays["stem.normalize/moving_mean"] - rest * kernel.sum(axis=(0, 1, 2))


def _measure_norms(arrays: dict[str, np.ndarray], network: Recognised, images: np.ndarray, limits: tuple[float, float]) -> None:
    """Gives layers without normalization one that changes nothing, by the means and variances of the images.

    Training and recalibration use those of their own images, so that any others would change what the network computes.
    """
    bare = {name: unit for name, unit in network.units.items() if unit.norm is None and name != "classifier"}
    if not bare:
        return
    low, high = (0.0, 255.0) if network.scales else limits
    images = _in_channels(images, network.stem) * (high - low) + low
    if None not in (size := network.model.input_shape[1:3]):
        images = tf.image.resize(images, size, antialias=True)
    read = keras.Model(network.model.inputs, [unit.layer.input for unit in bare.values()])(images)
    for (name, unit), given in zip(bare.items(), read if isinstance(read, list) else [read]):
        linear = type(unit.layer).from_config(unit.layer.get_config() | {"activation": "linear"})
        linear.build(given.shape)
        linear.set_weights(unit.layer.get_weights())
        mean, variance = (each.numpy().astype(np.float64) for each in tf.nn.moments(linear(given), [0, 1, 2]))
        bias = -arrays[f"{name}.normalize/moving_mean"]
        values = (np.sqrt(variance + EPSILON), mean, mean - bias, variance)
        arrays |= {f"{name}.normalize/{leaf}": value for leaf, value in zip(_NORM, values)}


@dataclasses.dataclass(eq=False)
class _Channels:
    """The channels of a tensor, which a sum makes one with those of another.

    Attributes:
        other: The channels that these are one with; None where they stand for all of them.
    """

    other: "_Channels | None" = None

    def root(self) -> "_Channels":
        """The one that stands for all that are one with these."""
        return self if self.other is None else self.other.root()


def sorted_channels(arrays: Mapping[str, np.ndarray], layers: Sequence[Layer]) -> dict[str, np.ndarray]:
    """The weights of a network as those of a supernet of which it is the largest subnet, with no step set.

    Args:
        arrays: The weights of the network by name, as `Network.arrays()` gives them.
        layers: The layers of the network.
    """
    found = {name: np.zeros_like(array) if name.endswith("_log_step") else array.copy() for name, array in arrays.items()}
    _sort(found, layers)
    return found


def _sort(arrays: dict[str, np.ndarray], layers: Sequence[Layer]) -> None:
    """Sorts channels by how much they matter: the weights that read them, times the scales of the normalizations behind them."""
    reads: dict[str, _Channels] = {}
    writes: dict[str, _Channels] = {}

    def run(layer: Layer, x: _Channels, other: _Channels) -> _Channels:
        written = x if layer.kind == "depthwise" else other if layer.gates else _Channels()
        reads[layer.name], writes[layer.name] = x, written
        if layer.residual and written.root() is not other.root():
            written.root().other = other.root()
        return written

    image = _Channels()
    walk(layers, image, run)
    scores: dict[_Channels, np.ndarray] = {}
    scales: dict[_Channels, np.ndarray] = {}
    for layer in layers:
        kernel = np.abs(arrays[f"{layer.name}/kernel"]).astype(np.float64)
        if layer.kind != "depthwise" and reads[layer.name] is not image:
            read = reads[layer.name].root()
            scores[read] = scores.get(read, 0.0) + kernel.reshape(-1, *kernel.shape[-2:]).sum(axis=(0, 2))
        if layer.kind != "dense":
            written = writes[layer.name].root()
            scales[written] = scales.get(written, 0.0) + np.abs(arrays[f"{layer.name}.normalize/gamma"])
    orders = {channels: np.argsort(-score * scales.get(channels, 1.0), kind="stable") for channels, score in scores.items()}
    for layer in layers:
        kernel = arrays[f"{layer.name}/kernel"]
        if layer.kind != "depthwise" and (order := orders.get(reads[layer.name].root())) is not None:
            kernel = np.take(kernel, order, axis=-2)
        if (order := orders.get(writes[layer.name].root())) is not None:
            kernel = np.take(kernel, order, axis=2 if layer.kind == "depthwise" else -1)
            by_channel = (f"{layer.name}/bias", *(f"{layer.name}.normalize/{leaf}" for leaf in _NORM))
            arrays |= {name: arrays[name][order] for name in by_channel if name in arrays}
        arrays[f"{layer.name}/kernel"] = kernel
