"""The switchable quantizer of stock layers, and the configuration that says what TFMOT quantizes in one of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from daqu_tf.errors import DaquError
from daqu_tf.keras import QuantizeConfig, QuantizeWrapper, keras
from daqu_tf.spaces.bits import FLOAT_BITS
from daqu_tf.supernet.quantizers import SwitchableQuantizer

layers = keras.layers
Activation = Callable[[tf.Tensor], tf.Tensor]
OBSERVED_VALUES = 65_536  # So many values of an activation are enough for its steps; searching with all of them takes minutes.
KERNELS = {layers.Conv2D: ("kernel", 3), layers.DepthwiseConv2D: ("depthwise_kernel", 2), layers.Dense: ("kernel", 1)}
FIXED_SCALE = {"softmax", "sigmoid", "tanh"}  # Their integer kernels choose the output's scale; TFMOT rounds the input.


@keras.utils.register_keras_serializable("daqu_tf")
class StockQuantizer(SwitchableQuantizer):
    """A switchable quantizer whose active bits are a variable of the layer, beside the steps; at first they are 32."""

    observes = False  # Whether the next call sets the steps from its tensor, which then passes unchanged.

    def build(self, tensor_shape: tf.TensorShape, name: str, layer: keras.layers.Layer) -> dict[str, tf.Variable]:
        """Adds the logarithms of the steps and the active bits to a layer.

        Args:
            tensor_shape: The shape of the tensor that is quantized.
            name: The name of the tensor, with which those of the variables begin.
            layer: The layer that gets the variables.

        Returns:
            The variables `log_step` and `bits` by name.
        """
        layer.built = True  # TFMOT's QuantizeLayer does not set it, and a .keras file would build the layer twice.
        _know_inner_weights(layer)
        in_float = keras.initializers.Constant(FLOAT_BITS)
        bits = layer.add_weight(name=f"{name}_bits", shape=[], dtype=tf.int32, initializer=in_float, trainable=False)
        return {**super().build(tensor_shape, name, layer), "bits": bits}

    def __call__(self, inputs: tf.Tensor, training: Any, weights: Mapping[str, tf.Variable], **kwargs: Any) -> tf.Tensor:
        """The tensor `inputs`, fake-quantized at the active bits; at 32 bits it is unchanged."""
        if self.observes:
            self.initialise(weights, self._sample(inputs.numpy()), self.alphabet)
            return tf.identity(inputs)
        # The quantizer is made anew, since one object of the user's may serve many layers, each with bits of its own.
        return SwitchableQuantizer(**self.get_config(), bits=weights["bits"].read_value)(inputs, training, weights)

    def _sample(self, values: np.ndarray) -> np.ndarray:
        if self.channel_axis is not None or values.size <= OBSERVED_VALUES:
            return values
        return values.flat[np.random.default_rng(0).integers(0, values.size, OBSERVED_VALUES)]


def _know_inner_weights(layer: keras.layers.Layer) -> None:
    """Puts the weights of a wrapped layer before those of the quantizer, also where the wrapper comes from a file.

    From a file, TFMOT lists the weights before the layer is built. They would come last, and the arrays of an .h5 file would go to
    the wrong variables.
    """
    known = layer._trainable_weights
    inner = layer.layer.trainable_weights if isinstance(layer, QuantizeWrapper) else []
    known.extend([weight for weight in inner if not any(weight is other for other in known)])


@keras.utils.register_keras_serializable("daqu_tf")
class StockQuantizeConfig(QuantizeConfig):
    """What TFMOT quantizes in one stock layer, as `make_switchable` chooses it or as `quantize_annotate_layer` takes it.

    Args:
        weight_bits: The bit alphabet of the kernel of a Conv2D, DepthwiseConv2D or Dense, which is quantized symmetrically for each
            output channel; empty for float.
        activation_bits: The bit alphabet of the output; empty for float.
        signed: Whether the output may be negative.
    """

    def __init__(self, weight_bits: Sequence[int] = (), activation_bits: Sequence[int] = (), signed: bool = False):
        self.weight_bits, self.activation_bits, self.signed = tuple(weight_bits), tuple(activation_bits), signed

    def get_weights_and_quantizers(self, layer: keras.layers.Layer) -> list[tuple[tf.Variable, StockQuantizer]]:
        """The kernel of the layer and its quantizer; empty if the kernel is in float."""
        if not self.weight_bits:
            return []
        if type(layer) not in KERNELS:
            raise refused(layer, "`weight_bits` are for Conv2D, DepthwiseConv2D and Dense: leave them empty")
        attribute, axis = KERNELS[type(layer)]
        return [(getattr(layer, attribute), StockQuantizer(self.weight_bits, channel_axis=axis))]

    def set_quantize_weights(self, layer: keras.layers.Layer, quantize_weights: Sequence[tf.Tensor]) -> None:
        """Puts the fake-quantized kernel into the layer for one call."""
        for weight in quantize_weights:
            setattr(layer, KERNELS[type(layer)][0], weight)

    def get_activations_and_quantizers(self, layer: keras.layers.Layer) -> list[tuple[Activation, StockQuantizer]]:
        """The activation function of the layer and a quantizer, if TFMOT has to quantize the input of the function."""
        return [(layer.activation, quantizer) for quantizer in self._quantizers(layer, before=True)]

    def set_quantize_activations(self, layer: keras.layers.Layer, quantize_activations: Sequence[Activation]) -> None:
        """Puts TFMOT's quantizing functions into the layer."""
        for activation in quantize_activations:
            layer.activation = activation

    def get_output_quantizers(self, layer: keras.layers.Layer) -> list[StockQuantizer]:
        """The quantizer of the layer's output; empty if it has none."""
        return self._quantizers(layer, before=False)

    def _quantizers(self, layer: keras.layers.Layer, before: bool) -> list[StockQuantizer]:
        wanted = self.activation_bits and before == (last_function(layer) in FIXED_SCALE)
        return [StockQuantizer(self.activation_bits, signed=self.signed)] if wanted else []

    def get_config(self) -> dict[str, Any]:
        """The arguments as JSON values."""
        return {"weight_bits": list(self.weight_bits), "activation_bits": list(self.activation_bits), "signed": self.signed}


def refused(layer: keras.layers.Layer, reason: str, what: str = "quantized") -> DaquError:
    """The error for a layer that cannot be quantized, or exported.

    Args:
        layer: The layer.
        reason: The reason and the remedy, as part of a sentence.
        what: The word for what cannot be done with the layer, such as `exported`.
    """
    return DaquError(f"layer {layer.name!r} of type {type(layer).__name__} cannot be {what} because {reason}.")


def last_function(layer: keras.layers.Layer) -> str:
    """The name of the function that a layer applies last, such as `linear`, `relu` or `softmax`."""
    if isinstance(layer, layers.ReLU):
        return "leaky_relu" if layer.negative_slope or layer.threshold else "relu"
    if isinstance(layer, layers.Softmax):
        return "softmax"
    activation = getattr(layer, "activation", None)
    activation = getattr(activation, "activation", activation)  # TFMOT's quantizing function holds the stock one.
    return "linear" if activation is None else getattr(activation, "__name__", type(activation).__name__)
