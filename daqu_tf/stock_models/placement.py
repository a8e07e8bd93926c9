"""The places of quantizers in a functional model, which are where the integer kernels of a `.tflite` round."""

import math

import numpy as np

from daqu_tf.errors import DaquError
from daqu_tf.keras import keras
from daqu_tf.spaces.bits import FIXED_BITS
from daqu_tf.stock_models.quantizers import FIXED_SCALE, KERNELS, StockQuantizeConfig, last_function, layers

SELECTING = {  # Their outputs are values of their inputs, so there is nothing to round.
    layers.InputLayer, layers.MaxPooling2D, layers.GlobalMaxPooling2D, layers.Flatten, layers.Reshape, layers.Permute,
    layers.ZeroPadding2D, layers.Cropping2D, layers.UpSampling2D, layers.Dropout, layers.SpatialDropout2D,
}  # fmt: skip
COMBINING = {
    layers.Add, layers.Average, layers.Multiply, layers.Maximum, layers.Minimum, layers.Concatenate,
    layers.AveragePooling2D, layers.GlobalAveragePooling2D,
}  # fmt: skip
FUNCTIONS = {
    layers.BatchNormalization, layers.Rescaling, layers.Subtract, layers.Activation, layers.ReLU, layers.LeakyReLU,
    layers.PReLU, layers.ELU, layers.Softmax,
}  # fmt: skip
RELU = {"relu", "relu6"}
CLIPPING = RELU | {"hard_sigmoid"}  # The functions that integers compute as they saturate.
SCALING = {layers.BatchNormalization, layers.Rescaling, layers.AveragePooling2D}  # Alone, each is a depthwise convolution.
WEIGHTED = KERNELS.keys() | SCALING  # A factor behind one of these goes into the weights of its operator.
UNCLIPPED = {layers.Multiply, layers.Concatenate}  # Their operators do not clip.
NONNEGATIVE = RELU | {"softmax", "sigmoid", "hard_sigmoid"}


class Placement:
    """Knows which layer feeds which in a functional model, and where quantizers belong therefore.

    Args:
        model: A functional model of stock layers.

    Attributes:
        producers: The layers that feed each layer, by its name.
        consumers: The layers that each layer feeds, by its name; None stands for an output of the model.
    """

    def __init__(self, model: keras.Model):
        nodes = [node for nodes in model._nodes_by_depth.values() for node in nodes]
        self.producers: dict[str, list[keras.layers.Layer]] = {node.layer.name: [] for node in nodes}
        self.consumers: dict[str, list[keras.layers.Layer | None]] = {node.layer.name: [] for node in nodes}
        for node in nodes:
            for parent in node.parent_nodes:
                self.producers[node.layer.name].append(parent.layer)
                self.consumers[parent.layer.name].append(node.layer)
        for layer in model._output_layers:
            self.consumers[layer.name].append(None)

    def config(
        self, layer: keras.layers.Layer, weight_bits: tuple[int, ...], activation_bits: tuple[int, ...]
    ) -> StockQuantizeConfig | None:
        """What is quantized in a layer; None if nothing is.

        Args:
            layer: The layer.
            weight_bits: The bit alphabet of weights that are searched.
            activation_bits: The bit alphabet of activations that are searched.
        """
        weights: tuple[int, ...] = ()
        activations: tuple[int, ...] = ()
        if type(layer) in KERNELS:
            weights = (FIXED_BITS,) if self._is_first(layer) or self._is_last(layer) else weight_bits
        if self._is_rounded(layer):
            activations = activation_bits if self._is_searched(layer) else (FIXED_BITS,)
        signed = not self._is_nonnegative(layer) or last_function(layer) in FIXED_SCALE
        return StockQuantizeConfig(weights, activations, signed) if weights or activations else None

    def _is_first(self, layer: keras.layers.Layer) -> bool:
        """Whether an input reaches `layer` through no other kernel."""
        return any(
            isinstance(producer, layers.InputLayer) or (type(producer) not in KERNELS and self._is_first(producer))
            for producer in self.producers[layer.name]
        )

    def _is_last(self, layer: keras.layers.Layer) -> bool:
        """Whether `layer` reaches an output through no other kernel."""
        return any(
            consumer is None or (type(consumer) not in KERNELS and self._is_last(consumer))
            for consumer in self.consumers[layer.name]
        )

    def _is_searched(self, layer: keras.layers.Layer) -> bool:
        """Whether the last function is a ReLU, but not that of a residual sum or an average, which stays at 8 bits."""
        behind = {type(producer) for producer in self.producers[layer.name]} if type(layer) not in KERNELS else set()
        return last_function(layer) in RELU and behind.isdisjoint((layers.Add, layers.GlobalAveragePooling2D))

    def _is_rounded(self, layer: keras.layers.Layer) -> bool:
        """Whether an integer kernel rounds the output of `layer`."""
        if type(layer) in SELECTING or (type(layer) not in KERNELS and last_function(layer) in FIXED_SCALE):
            return False
        return not self._is_fused(layer)

    def _is_fused(self, layer: keras.layers.Layer) -> bool:
        """Whether the only consumer is computed together with `layer`.

        That is batch normalization behind a kernel, a function that clips or a factor behind it, or a concatenation.
        """
        if len(self.consumers[layer.name]) != 1 or type(layer) in SELECTING:
            return False
        (consumer,) = self.consumers[layer.name]
        if consumer is None:
            return False
        kind, function = type(consumer), last_function(layer)
        if kind is layers.Concatenate:
            return self._is_written(layer) and not self._saturates(layer)
        if kind is layers.Rescaling:
            return self._is_weighted(layer) and (function == "linear" or (function in CLIPPING and only_scales(consumer)))
        if function != "linear" or kind not in (layers.BatchNormalization, layers.ReLU, layers.Activation):
            return False
        if kind is layers.BatchNormalization:
            return type(layer) in KERNELS
        follows = last_function(consumer)
        return (follows in RELU and type(layer) not in UNCLIPPED) or (follows in CLIPPING and self._is_weighted(layer))

    def _is_written(self, layer: keras.layers.Layer) -> bool:
        """Whether one operator computes `layer` at any scale: one with weights, an average, or a sum with its ReLU."""
        if type(layer) in (layers.Add, layers.GlobalAveragePooling2D) or self._is_weighted(layer):
            return True
        behind = {type(producer) for producer in self.producers[layer.name] if self._is_fused(producer)}
        return type(layer) in (layers.ReLU, layers.Activation) and behind == {layers.Add}

    def _saturates(self, layer: keras.layers.Layer) -> bool:
        """Whether what `layer` gives is clipped at a number above 0."""
        (producer, *others) = self.producers[layer.name] or [None]
        behind = type(layer) is layers.Rescaling and not others and self._is_fused(producer) and self._saturates(producer)
        return behind or clips_at(layer) not in (None, math.inf)

    def _is_weighted(self, layer: keras.layers.Layer) -> bool:
        """Whether the operator that computes `layer`, a function perhaps, is one with weights."""
        if type(layer) in WEIGHTED:
            return True
        if type(layer) not in (layers.ReLU, layers.Activation) or last_function(layer) not in CLIPPING:
            return False
        (producer,) = self.producers[layer.name]
        return not self._is_fused(producer) or self._is_weighted(producer)

    def _is_nonnegative(self, layer: keras.layers.Layer) -> bool:
        if last_function(layer) in NONNEGATIVE:
            return True
        producers = self.producers[layer.name]
        keeps_sign = type(layer) in SELECTING | COMBINING or only_scales(layer)
        return keeps_sign and bool(producers) and all(map(self._is_nonnegative, producers))


def clips_at(layer: keras.layers.Layer) -> float | None:
    """The number at which the last function of a layer clips, infinite for a plain ReLU; None if it is none of `CLIPPING`."""
    function = last_function(layer)
    if function not in CLIPPING:
        return None
    if isinstance(layer, layers.ReLU):
        return math.inf if layer.max_value is None else float(layer.max_value)
    return {"relu": math.inf, "relu6": 6.0, "hard_sigmoid": 1.0}[function]


def only_scales(layer: keras.layers.Layer) -> bool:
    """Whether a layer does nothing but multiply by one number above 0."""
    return type(layer) is layers.Rescaling and np.ndim(layer.scale) == 0 and layer.scale > 0 and not np.any(layer.offset)


def functional(model: keras.Model) -> keras.Model:
    """A Sequential or functional model as a functional one with the same layers.

    Raises:
        DaquError: The model is neither of these, or is not built.
    """
    if not isinstance(model, keras.Model) or not (isinstance(model, keras.Sequential) or model._is_graph_network):
        kind = type(model)
        if kind.__module__.split(".")[0] == "keras" or any(base.__module__.startswith("keras.") for base in kind.__mro__):
            raise DaquError(
                f"`model` is a {kind.__name__} of Keras 3, but must be of tf_keras: build it with `import tf_keras as keras`."
            )
        raise DaquError(
            f"`model` must be a functional or Sequential tf_keras model, but received a {kind.__name__}: write it as one."
        )
    if not model._is_graph_network:
        raise DaquError(f"`model` must be built, but {model.name!r} is not: give its first layer an `input_shape`.")
    return keras.Model(model.inputs, model.outputs, name=model.name)
