"""Any functional tf_keras model with bits that are switched at run time, through TFMOT's own annotate and apply.

    model = make_switchable(keras.applications.MobileNetV2(...))
    initialise_steps(model, images)
    set_bits(model, weight_bits=4, activation_bits=8)

Bits belong to tensors, and each quantizer keeps the active width of its tensor in a variable of the layer it serves, so
they are saved with the model, and one traced function serves every choice. 32 bits means float.

Quantizers sit where the integer kernels of a `.tflite` round: after the last of a group convolution, batch normalization
and ReLU, not inside it. `load_weights` fills a model built anew by `make_switchable`; a whole model comes back from
`keras.models.load_model` under TFMOT's `quantize_scope`, once this module is imported.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from daqu_tf.errors import DaquError
from daqu_tf.keras import QuantizeConfig, QuantizeWrapper, keras, tfmot
from daqu_tf.quantizers import SwitchableQuantizer
from daqu_tf.spaces_bits import FIXED_BITS, FLOAT_BITS

layers = keras.layers
transforms = tfmot.quantization.keras.default_8bit.default_8bit_transforms
QuantizeLayer = transforms.InputLayerQuantize().custom_objects()["QuantizeLayer"]  # TFMOT gives it no public name.
BITS = (2, 3, 4, 6, 8)
OBSERVED_VALUES = 65_536  # As many of an activation are enough for its steps; searching all of them takes minutes.
PREFIX = "quant_"  # As TFMOT's.

KERNELS = {layers.Conv2D: ("kernel", 3), layers.DepthwiseConv2D: ("depthwise_kernel", 2), layers.Dense: ("kernel", 1)}
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
FIXED_SCALE = {"softmax", "sigmoid", "tanh"}  # Their integer kernels choose the output's scale; TFMOT rounds the input.
NONNEGATIVE = RELU | {"softmax", "sigmoid", "hard_sigmoid"}


@keras.utils.register_keras_serializable("daqu_tf")
class StockQuantizer(SwitchableQuantizer):
    """A switchable quantizer of which the active width is a variable of the layer, next to the steps; at first 32."""

    observes = False  # Whether the next call sets the steps from the tensor, which passes unchanged.

    def build(self, tensor_shape, name: str, layer: keras.layers.Layer) -> dict[str, tf.Variable]:
        """Adds the steps and the active width to `layer`."""
        layer.built = True  # TFMOT's QuantizeLayer does not say so, and a .keras file would build it twice.
        _know_inner_weights(layer)
        width = keras.initializers.Constant(FLOAT_BITS)
        bits = layer.add_weight(name=f"{name}_bits", shape=[], dtype=tf.int32, initializer=width, trainable=False)
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


class _QuantizeInput(transforms.InputLayerQuantize):
    """TFMOT's transform that puts a QuantizeLayer behind each input, with our quantizer in it."""

    def replacement(self, match_layer):
        node = super().replacement(match_layer)
        quantizer = StockQuantizer((FIXED_BITS,), signed=True)
        node.layer["config"]["quantizer"] = keras.utils.legacy.serialize_keras_object(quantizer)
        node.layer["name"] = node.layer["config"]["name"] = PREFIX + match_layer.layer["config"]["name"]
        return node


class _QuantizeInputs(tfmot.quantization.keras.QuantizeLayoutTransform):
    def apply(self, model, layer_quantize_map):
        transformer = tfmot.quantization.keras.graph_transformations.model_transformer.ModelTransformer
        return transformer(model, [_QuantizeInput()], layer_metadata=layer_quantize_map).transform()


class _NoDefaults(tfmot.quantization.keras.QuantizeRegistry):
    def supports(self, layer):
        return False

    def get_quantize_config(self, layer):
        return None


class SwitchableScheme(tfmot.quantization.keras.QuantizeScheme):
    """The `scheme` for `quantize_apply`: inputs of the model get a switchable 8-bit quantizer, layers only what was annotated.

    TFMOT's default scheme adds quantizers of its own, always 8 bits, to inputs and to layers that feed annotated ones.
    """

    def get_layout_transformer(self):
        """Quantizes the inputs."""
        return _QuantizeInputs()

    def get_quantize_registry(self):
        """No layer has a default."""
        return _NoDefaults()


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


class Placement:
    """Who feeds whom in a functional model, and where quantizers belong for that."""

    def __init__(self, model: keras.Model):
        nodes = [node for nodes in model._nodes_by_depth.values() for node in nodes]
        self.producers = {node.layer.name: [] for node in nodes}
        self.consumers = {node.layer.name: [] for node in nodes}
        for node in nodes:
            for parent in node.parent_nodes:
                self.producers[node.layer.name].append(parent.layer)
                self.consumers[parent.layer.name].append(node.layer)
        for layer in model._output_layers:
            self.consumers[layer.name].append(None)  # The world.

    def config(self, layer, weight_bits, activation_bits) -> StockQuantizeConfig | None:
        """What to quantize of `layer`; None if nothing."""
        weights = activations = ()
        if type(layer) in KERNELS:
            weights = (FIXED_BITS,) if self._is_first(layer) or self._is_last(layer) else weight_bits
        if self._is_rounded(layer):
            activations = activation_bits if self._is_searched(layer) else (FIXED_BITS,)
        signed = not self._is_nonnegative(layer) or last_function(layer) in FIXED_SCALE
        return StockQuantizeConfig(weights, activations, signed) if weights or activations else None

    def _is_first(self, layer) -> bool:
        """Whether an input reaches `layer` through no other kernel."""
        return any(
            isinstance(producer, layers.InputLayer) or (type(producer) not in KERNELS and self._is_first(producer))
            for producer in self.producers[layer.name]
        )

    def _is_last(self, layer) -> bool:
        """Whether `layer` reaches an output through no other kernel."""
        return any(
            consumer is None or (type(consumer) not in KERNELS and self._is_last(consumer))
            for consumer in self.consumers[layer.name]
        )

    def _is_searched(self, layer) -> bool:
        """Whether a ReLU is the last function, and not one of a residual sum, which stays at 8 bits."""
        return last_function(layer) in RELU and not any(type(producer) is layers.Add for producer in self.producers[layer.name])

    def _is_rounded(self, layer) -> bool:
        """Whether an integer kernel rounds the output of `layer`."""
        if type(layer) in SELECTING or (type(layer) not in KERNELS and last_function(layer) in FIXED_SCALE):
            return False
        return not self._is_fused(layer)

    def _is_fused(self, layer) -> bool:
        """Whether the only consumer is computed in one with `layer`: batch normalization of a kernel, or a ReLU."""
        if len(self.consumers[layer.name]) != 1 or last_function(layer) != "linear":
            return False
        (consumer,) = self.consumers[layer.name]
        folded = type(layer) in KERNELS and type(consumer) is layers.BatchNormalization
        return folded or (type(consumer) in (layers.ReLU, layers.Activation) and last_function(consumer) in RELU)

    def _is_nonnegative(self, layer) -> bool:
        if last_function(layer) in NONNEGATIVE:
            return True
        producers = self.producers[layer.name]
        return type(layer) in SELECTING | COMBINING and bool(producers) and all(map(self._is_nonnegative, producers))


def make_switchable(model: keras.Model, weight_bits: Sequence[int] = BITS, activation_bits: Sequence[int] = BITS) -> keras.Model:
    """A copy of `model` of which the bits can be switched; at first all are 32, and it computes what `model` does.

    Weights of the first layers and of the last ones, and activations that do not follow a ReLU (inputs, linear outputs,
    residual sums, logits), have 8 bits only, or 32.

    Args:
        model: A built functional or Sequential model of stock layers. It stays as it is.
        weight_bits: The alphabet of the other weights.
        activation_bits: The alphabet of outputs of a ReLU.

    Returns:
        A functional model; `quant_NAME` wraps layer NAME where that has quantizers.

    Raises:
        DaquError: The model or one of its layers cannot be quantized, or an alphabet is not of widths from 2 to 8.
    """
    for name, alphabet in (("weight_bits", weight_bits), ("activation_bits", activation_bits)):
        if not (isinstance(alphabet, Sequence) and alphabet and all(bits in range(2, 9) for bits in alphabet)):
            raise DaquError(f"`{name}` must be a sequence of widths from 2 to 8, but received {alphabet!r}: give it as (2, 4, 8).")
    original = functional(model)
    _check_layers(original)
    copy = keras.models.clone_model(original)
    copy.set_weights(original.get_weights())
    graph = Placement(copy)

    def annotate(layer):
        config = graph.config(layer, tuple(weight_bits), tuple(activation_bits))
        return tfmot.quantization.keras.quantize_annotate_layer(layer, config) if config else layer

    annotated = keras.models.clone_model(copy, clone_function=annotate)
    return tfmot.quantization.keras.quantize_apply(annotated, SwitchableScheme(), PREFIX)


def functional(model: keras.Model) -> keras.Model:
    """The model as a functional one, on the same layers."""
    if not isinstance(model, keras.Model) or not (isinstance(model, keras.Sequential) or model._is_graph_network):
        kind = type(model).__name__
        raise DaquError(f"`model` must be a functional or Sequential tf_keras model, but received a {kind}: write it as one.")
    if not model._is_graph_network:
        raise DaquError(f"`model` must be built, but {model.name!r} is not: give its first layer an `input_shape`.")
    return keras.Model(model.inputs, model.outputs, name=model.name)


def _check_layers(model: keras.Model) -> None:
    """Raises DaquError for the first layer that has no rule here."""
    known = KERNELS.keys() | SELECTING | COMBINING | FUNCTIONS
    calls = [node.layer.name for nodes in model._nodes_by_depth.values() for node in nodes]
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            raise refused(layer, "it is a model within the model: call its layers one by one")
        if type(layer) not in known:
            names = ", ".join(sorted(kind.__name__ for kind in known))
            raise refused(layer, f"no rule says where its quantizers belong: use only {names}")
        if calls.count(layer.name) > 1:
            raise refused(layer, "it is called more than once: give each call a layer of its own")
        if layer.compute_dtype != "float32":
            raise refused(layer, f"it computes in {layer.compute_dtype}: build the model in float32")


@dataclasses.dataclass(frozen=True)
class SwitchableTensor:
    """A tensor of a model that has a quantizer.

    Attributes:
        layer: Name of the stock layer, or of the input.
        role: `weight` or `activation`.
        quantizer: Has `alphabet`, `signed`, `channel_axis` and `code_range`.
        variables: `log_step`, shape (widths,) or (widths, channels), and `bits`, the active width.
        kernel: The float variable of a weight.
    """

    layer: str
    role: str
    quantizer: StockQuantizer
    variables: dict[str, tf.Variable]
    kernel: tf.Variable | None = None


def switchable_tensors(model: keras.Model) -> list[SwitchableTensor]:
    """All tensors of `model` that have a quantizer of this module, in the order of its layers."""
    return [
        SwitchableTensor(name, role, quantizer, variables, kernel)
        for layer in model.layers
        for name, role, quantizer, variables, kernel in quantized(layer)
        if isinstance(quantizer, StockQuantizer)
    ]


def quantized(layer: keras.layers.Layer) -> Iterator[tuple]:
    """Name, role, quantizer, variables and kernel of each quantized tensor; TFMOT keeps them in private places."""
    if isinstance(layer, QuantizeLayer):
        yield layer.name.removeprefix(PREFIX), "activation", layer.quantizer, layer.quantizer_vars, None
    if not isinstance(layer, QuantizeWrapper):
        return
    for kernel, quantizer, variables in layer._weight_vars:
        yield layer.layer.name, "weight", quantizer, variables, kernel
    for function in layer._quantize_activations:
        yield layer.layer.name, "activation", function.quantizer, function._pre_activation_vars, None
    for quantizer in layer._output_quantizers:
        yield layer.layer.name, "activation", quantizer, layer._output_quantizer_vars, None


def initialise_steps(model: keras.Model, images: np.ndarray) -> None:
    """Sets the steps of all widths to those with the least squared error, on the weights and on float activations.

    Args:
        model: From `make_switchable` or `quantize_apply`. Its bits do not matter and stay as they are.
        images: One batch, as the model takes it.
    """
    quantizers = [tensor.quantizer for tensor in all_switchable(model)]
    try:
        for quantizer in quantizers:
            quantizer.observes = True
        model(images, training=False)
    finally:
        for quantizer in quantizers:
            quantizer.observes = False


def set_bits(
    model: keras.Model,
    weight_bits: int | Mapping[str, int] | None = None,
    activation_bits: int | Mapping[str, int] | None = None,
) -> None:
    """Switches bits, without a new trace.

    Args:
        model: From `make_switchable` or `quantize_apply`.
        weight_bits: One width for all weights, or widths by layer name, which leave other layers as they are. 32 means
            float. Tensors with a single width take that for every width but 32. None leaves all as they are.
        activation_bits: The same for outputs of layers and for inputs.

    Raises:
        DaquError: A layer has no such quantizer, or no steps for the width.
    """
    tensors = all_switchable(model)
    changes = [*_changes(tensors, "weight", weight_bits), *_changes(tensors, "activation", activation_bits)]
    for variable, bits in changes:
        variable.assign(bits)


def all_switchable(model: keras.Model) -> list[SwitchableTensor]:
    """`switchable_tensors(model)`; raises DaquError if there are none."""
    if not (tensors := switchable_tensors(model)):
        raise DaquError(f"`model` must have quantizers, but {model.name!r} has none: use what `make_switchable` returns.")
    return tensors


def _changes(tensors: list[SwitchableTensor], role: str, bits: int | Mapping[str, int] | None) -> list[tuple[tf.Variable, int]]:
    """The variables to set and their values, all of them checked."""
    named = {tensor.layer: tensor for tensor in tensors if tensor.role == role}
    widths = {} if bits is None else bits if isinstance(bits, Mapping) else _for_all(named, role, bits)
    for name, width in widths.items():
        if name not in named:
            raise DaquError(f"`{role}_bits` names {name!r}, which has no {role} quantizer: choose of {', '.join(named)}.")
        if width not in (legal := [*named[name].quantizer.alphabet, FLOAT_BITS]):
            raise DaquError(f"`{role}_bits` of {name!r} must be one of {legal}, but received {width!r}: choose one of these.")
    return [(named[name].variables["bits"], width) for name, width in widths.items()]


def _for_all(named: dict[str, SwitchableTensor], role: str, bits: int) -> dict[str, int]:
    alphabets = {name: tensor.quantizer.alphabet for name, tensor in named.items()}
    legal = sorted({FLOAT_BITS}.union(*alphabets.values()))
    if bits not in legal:
        raise DaquError(f"`{role}_bits` must be one of {legal}, but received {bits!r}: choose one of these.")
    return {name: alphabet[0] if len(alphabet) == 1 and bits != FLOAT_BITS else bits for name, alphabet in alphabets.items()}
