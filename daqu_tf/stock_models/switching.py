"""The switchable tensors of a model: which there are, and how their steps and bits are set."""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf

from daqu_tf.errors import DaquError
from daqu_tf.keras import QuantizeWrapper, keras
from daqu_tf.spaces.bits import FLOAT_BITS
from daqu_tf.stock_models.quantizers import StockQuantizer
from daqu_tf.stock_models.scheme import PREFIX, QuantizeLayer


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
