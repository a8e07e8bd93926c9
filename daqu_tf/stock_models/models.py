"""Switchable models: any functional tf_keras model with bits that are switched at run time, through TFMOT's annotate and apply.

    model = make_switchable(keras.applications.MobileNetV2(...))
    initialise_steps(model, images)
    set_bits(model, weight_bits=4, activation_bits=8)

Bits belong to tensors, and each quantizer keeps the active bits of its tensor in a variable of the layer that it serves. So bits
are saved with the model, and one traced function serves every choice. 32 bits means float.

Quantizers sit where the integer kernels of a `.tflite` round: behind the last of a group of convolution, batch normalization and
ReLU, not within it. `load_weights` fills a model built anew by `make_switchable`; a whole model comes back from
`keras.models.load_model` under TFMOT's `quantize_scope`, once this module is imported.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from daqu_tf.errors import DaquError
from daqu_tf.keras import QuantizeWrapper, keras, tfmot
from daqu_tf.spaces.bits import FLOAT_BITS
from daqu_tf.stock_models.placement import COMBINING, FUNCTIONS, SELECTING, Placement
from daqu_tf.stock_models.quantizers import KERNELS, StockQuantizer, refused
from daqu_tf.stock_models.scheme import PREFIX, QuantizeLayer, SwitchableScheme

BITS = (2, 3, 4, 6, 8)


def make_switchable(model: keras.Model, weight_bits: Sequence[int] = BITS, activation_bits: Sequence[int] = BITS) -> keras.Model:
    """A copy of a model whose bits can be switched; at first all bits are 32, and it computes what the model does.

    Weights of the first and the last layers, and activations that do not follow a ReLU (inputs, linear outputs, residual sums,
    logits), have 8 bits only, or 32.

    Args:
        model: A built functional or Sequential model of stock layers, which stays as it is.
        weight_bits: The bit alphabet of all other weights, within 2 to 8.
        activation_bits: The bit alphabet of the outputs of ReLUs, within 2 to 8.

    Returns:
        A functional model, in which `quant_NAME` wraps layer NAME where that has quantizers.

    Raises:
        DaquError: The model or one of its layers cannot be quantized, or a bit alphabet is not within 2 to 8.
    """
    for name, alphabet in (("weight_bits", weight_bits), ("activation_bits", activation_bits)):
        if not (isinstance(alphabet, Sequence) and alphabet and all(bits in range(2, 9) for bits in alphabet)):
            raise DaquError(f"`{name}` must be a sequence of bits from 2 to 8, but received {alphabet!r}: give it as (2, 4, 8).")
    original = functional(model)
    _check_layers(original)
    copy = keras.models.clone_model(original)
    copy.set_weights(original.get_weights())
    graph = Placement(copy)

    def annotate(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = graph.config(layer, tuple(weight_bits), tuple(activation_bits))
        return tfmot.quantization.keras.quantize_annotate_layer(layer, config) if config else layer

    annotated = keras.models.clone_model(copy, clone_function=annotate)
    return tfmot.quantization.keras.quantize_apply(annotated, SwitchableScheme(), PREFIX)


def functional(model: keras.Model) -> keras.Model:
    """A Sequential or functional model as a functional one with the same layers.

    Raises:
        DaquError: The model is neither of these, or is not built.
    """
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
        layer: The name of the stock layer, or of the input.
        role: The role of the tensor, `weight` or `activation`.
        quantizer: The quantizer of the tensor.
        variables: The variables of the quantizer: `log_step`, of shape (entries of the alphabet,) or (entries of the alphabet,
            channels), and `bits`, the active bits.
        kernel: The float variable of a weight; None for an activation.
    """

    layer: str
    role: str
    quantizer: StockQuantizer
    variables: dict[str, tf.Variable]
    kernel: tf.Variable | None = None


def switchable_tensors(model: keras.Model) -> list[SwitchableTensor]:
    """All tensors of a model that have a `StockQuantizer`, in the order of its layers."""
    return [
        SwitchableTensor(name, role, quantizer, variables, kernel)
        for layer in model.layers
        for name, role, quantizer, variables, kernel in quantized(layer)
        if isinstance(quantizer, StockQuantizer)
    ]


def quantized(layer: keras.layers.Layer) -> Iterator[tuple]:
    """The name, role, quantizer, variables and kernel of each quantized tensor of a layer, from TFMOT's private places."""
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
    """Sets all steps to those with the least squared error on the weights and on float activations.

    Args:
        model: A model from `make_switchable` or TFMOT's `quantize_apply`, whose bits do not matter and stay as they are.
        images: One batch of images, as the model takes it.
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
    """Switches the bits of a model, without a new trace.

    Args:
        model: A model from `make_switchable` or TFMOT's `quantize_apply`.
        weight_bits: The bits of all weights, or bits by layer name, which leave other layers as they are; 32 means float. Tensors
            with a single entry in their alphabet take that unless the bits are 32. None leaves all weights as they are.
        activation_bits: The bits of all outputs of layers and inputs of the model, or bits by layer name, in the form of
            `weight_bits`.

    Raises:
        DaquError: A layer has no quantizer of that role, or no steps for the bits.
    """
    tensors = all_switchable(model)
    changes = [*_changes(tensors, "weight", weight_bits), *_changes(tensors, "activation", activation_bits)]
    for variable, bits in changes:
        variable.assign(bits)


def all_switchable(model: keras.Model) -> list[SwitchableTensor]:
    """All tensors of a model that have a `StockQuantizer`, of which there must be one.

    Raises:
        DaquError: The model has none.
    """
    if not (tensors := switchable_tensors(model)):
        raise DaquError(f"`model` must have quantizers, but {model.name!r} has none: use what `make_switchable` returns.")
    return tensors


def _changes(tensors: list[SwitchableTensor], role: str, bits: int | Mapping[str, int] | None) -> list[tuple[tf.Variable, int]]:
    """The variables to set and their values, all of which have been checked."""
    named = {tensor.layer: tensor for tensor in tensors if tensor.role == role}
    wanted = {} if bits is None else bits if isinstance(bits, Mapping) else _for_all(named, role, bits)
    for name, value in wanted.items():
        if name not in named:
            raise DaquError(f"`{role}_bits` names {name!r}, which has no {role} quantizer: choose of {', '.join(named)}.")
        if value not in (legal := [*named[name].quantizer.alphabet, FLOAT_BITS]):
            raise DaquError(f"`{role}_bits` of {name!r} must be one of {legal}, but received {value!r}: choose one of these.")
    return [(named[name].variables["bits"], value) for name, value in wanted.items()]


def _for_all(named: dict[str, SwitchableTensor], role: str, bits: int) -> dict[str, int]:
    alphabets = {name: tensor.quantizer.alphabet for name, tensor in named.items()}
    legal = sorted({FLOAT_BITS}.union(*alphabets.values()))
    if bits not in legal:
        raise DaquError(f"`{role}_bits` must be one of {legal}, but received {bits!r}: choose one of these.")
    return {name: alphabet[0] if len(alphabet) == 1 and bits != FLOAT_BITS else bits for name, alphabet in alphabets.items()}
