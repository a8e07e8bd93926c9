"""The places of quantizers in a functional model, which are where the integer kernels of a `.tflite` round."""

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
        """Whether the only consumer is computed together with `layer`: batch normalization behind a kernel, or a ReLU."""
        if len(self.consumers[layer.name]) != 1 or last_function(layer) != "linear":
            return False
        (consumer,) = self.consumers[layer.name]
        folded = type(layer) in KERNELS and type(consumer) is layers.BatchNormalization
        return folded or (type(consumer) in (layers.ReLU, layers.Activation) and last_function(consumer) in RELU)

    def _is_nonnegative(self, layer: keras.layers.Layer) -> bool:
        if last_function(layer) in NONNEGATIVE:
            return True
        producers = self.producers[layer.name]
        return type(layer) in SELECTING | COMBINING and bool(producers) and all(map(self._is_nonnegative, producers))


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
