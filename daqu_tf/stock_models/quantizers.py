"""What TFMOT quantizes of one stock layer, with bits that are switched at run time."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from daqu_tf.errors import DaquError
from daqu_tf.keras import QuantizeConfig, QuantizeWrapper, keras
from daqu_tf.spaces.bits import FLOAT_BITS
from daqu_tf.supernet.quantizers import SwitchableQuantizer

layers = keras.layers
OBSERVED_VALUES = 65_536  # As many of an activation are enough for its steps; searching all of them takes minutes.
KERNELS = {layers.Conv2D: ("kernel", 3), layers.DepthwiseConv2D: ("depthwise_kernel", 2), layers.Dense: ("kernel", 1)}
FIXED_SCALE = {"softmax", "sigmoid", "tanh"}  # Their integer kernels choose the output's scale; TFMOT rounds the input.


@keras.utils.register_keras_serializable("daqu_tf")
class StockQuantizer(SwitchableQuantizer):
    """A switchable quantizer of which the active width is a variable of the layer, next to the steps; at first 32."""

    observes = False  # Whether the next call sets the steps from the tensor, which passes unchanged.

    def build(self, tensor_shape, name: str, layer: keras.layers.Layer) -> dict[str, tf.Variable]:
        """Adds the steps and the active width to `layer`."""
        layer.built = True  # TFMOT's QuantizeLayer does not say so, and a .keras file would build it twice.
        _know_inner_weights(layer)
        in_float = keras.initializers.Constant(FLOAT_BITS)
        bits = layer.add_weight(name=f"{name}_bits", shape=[], dtype=tf.int32, initializer=in_float, trainable=False)
        return {**super().build(tensor_shape, name, layer), "bits": bits}

    def __call__(self, inputs, training, weights, **kwargs):
        """Fake-quantizes `inputs` at the active width."""
        if self.observes:
            self.initialise(weights, self._sample(inputs.numpy()), self.alphabet)
            return tf.identity(inputs)
        # A quantizer of the moment: one object of the user's may serve many layers, each with bits of its own.
        return SwitchableQuantizer(**self.get_config(), bits=weights["bits"].read_value)(inputs, training, weights)

    def _sample(self, values: np.ndarray) -> np.ndarray:
        if self.channel_axis is not None or values.size <= OBSERVED_VALUES:
            return values
        return values.flat[np.random.default_rng(0).integers(0, values.size, OBSERVED_VALUES)]


def _know_inner_weights(layer: keras.layers.Layer) -> None:
    """Puts the weights of a wrapped layer before the quantizer's, also where the wrapper comes from a file.

    There TFMOT lists them before the layer is built, so they come last and an .h5 file's arrays go to the wrong places.
    """
    known = layer._trainable_weights
    inner = layer.layer.trainable_weights if isinstance(layer, QuantizeWrapper) else []
    known.extend([weight for weight in inner if not any(weight is other for other in known)])


@keras.utils.register_keras_serializable("daqu_tf")
class StockQuantizeConfig(QuantizeConfig):
    """What TFMOT quantizes of one stock layer. `make_switchable` chooses it; or give it to `quantize_annotate_layer`.

    Args:
        weight_bits: Alphabet of the kernel, symmetric per output channel: of a Conv2D, DepthwiseConv2D or Dense. Empty for float.
        activation_bits: Alphabet of the output. Empty for float.
        signed: Whether the output may be negative.
    """

    def __init__(self, weight_bits: Sequence[int] = (), activation_bits: Sequence[int] = (), signed: bool = False):
        self.weight_bits, self.activation_bits, self.signed = tuple(weight_bits), tuple(activation_bits), signed

    def get_weights_and_quantizers(self, layer):
        """The kernel and its quantizer, if it has one."""
        if not self.weight_bits:
            return []
        if type(layer) not in KERNELS:
            raise refused(layer, "`weight_bits` are for Conv2D, DepthwiseConv2D and Dense: leave them empty")
        attribute, axis = KERNELS[type(layer)]
        return [(getattr(layer, attribute), StockQuantizer(self.weight_bits, channel_axis=axis))]

    def set_quantize_weights(self, layer, quantize_weights):
        """Puts the fake-quantized kernel into the layer for one call."""
        for weight in quantize_weights:
            setattr(layer, KERNELS[type(layer)][0], weight)

    def get_activations_and_quantizers(self, layer):
        """The activation function of which TFMOT quantizes the input, if it is one of those."""
        return [(layer.activation, quantizer) for quantizer in self._quantizers(layer, before=True)]

    def set_quantize_activations(self, layer, quantize_activations):
        """Puts TFMOT's quantizing function into the layer."""
        for activation in quantize_activations:
            layer.activation = activation

    def get_output_quantizers(self, layer):
        """The quantizer of the output, if it has one."""
        return self._quantizers(layer, before=False)

    def _quantizers(self, layer, before: bool) -> list[StockQuantizer]:
        wanted = self.activation_bits and before == (last_function(layer) in FIXED_SCALE)
        return [StockQuantizer(self.activation_bits, signed=self.signed)] if wanted else []

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {"weight_bits": list(self.weight_bits), "activation_bits": list(self.activation_bits), "signed": self.signed}


def refused(layer: keras.layers.Layer, reason: str) -> DaquError:
    """What to raise for a layer that cannot be quantized."""
    return DaquError(f"layer {layer.name!r} of type {type(layer).__name__} cannot be quantized because {reason}.")


def last_function(layer: keras.layers.Layer) -> str:
    """The name of what the layer applies last: 'linear', 'relu', 'softmax'."""
    if isinstance(layer, layers.ReLU):
        return "leaky_relu" if layer.negative_slope or layer.threshold else "relu"
    if isinstance(layer, layers.Softmax):
        return "softmax"
    activation = getattr(layer, "activation", None)
    activation = getattr(activation, "activation", activation)  # TFMOT's quantizing function has the stock one in it.
    return "linear" if activation is None else getattr(activation, "__name__", type(activation).__name__)
