"""The graph of a switchable model of your own, as `export.subnet_graph` makes it for searched subnets.

An operator of the file ends where the model has a quantizer: batch normalization is folded into the kernel before it, and a ReLU
clips where int8 itself does. Dropout is left out. The graph ends with logits; a softmax or sigmoid behind them is `encoding`'s.
"""

import collections
from typing import Any

import numpy as np

from daqu_tf.errors import DaquError
from daqu_tf.keras import QuantizeWrapper, keras
from daqu_tf.spaces.bits import FLOAT_BITS
from daqu_tf.stock_models.placement import FUNCTIONS, functional
from daqu_tf.stock_models.quantizers import StockQuantizer, last_function
from daqu_tf.stock_models.rules import (
    LOGITS,
    StockGraphBuilder,
    active_bits,
    check_plain,
    unwritable,
)
from daqu_tf.stock_models.switching import SwitchableTensor, all_switchable, quantized, switchable_tensors
from daqu_tf.stock_models.values import Unrounded, Value, factor_and_offset, has_bias
from daqu_tf.targets.storage import Storage
from daqu_tf.tflite.graph import FloatTensor, Graph


def to_graph(model: keras.Model, storage: Storage) -> Graph:
    """The graph of a model at its active bits, which gives logits.

    Args:
        model: A model from `make_switchable` or TFMOT's `quantize_apply` with one input and one output, whose steps
            `initialise_steps` has set.
        storage: The storage, which decides the containers.

    Raises:
        DaquError: A layer cannot be written, or has no steps yet.
    """
    builder, source, sink = _exact(model, storage)
    return builder.graph.graph(source, sink)


def round_biases(model: keras.Model, storage: Storage) -> None:
    """Rounds offsets to what a file's int32 biases hold exactly, so that the model computes what its file does.

    Args:
        model: The model, as `to_graph` takes it. The offsets of batch normalization change, or where there are none, biases, or
            else means.
        storage: How the file will store the model.

    Raises:
        DaquError: A layer cannot be written, or has no steps yet.
    """
    for value, written in _exact(model, storage)[0].biases:
        factor, offset = factor_and_offset(value, len(written))
        if value.norm is not None and value.norm.center:
            value.norm.beta.assign_add(_quotient(written - offset, value.factor))
            continue
        change = _quotient(written - offset, factor)
        if has_bias(value.layer):
            value.layer.bias.assign_add(change)
        elif value.norm is not None:
            value.norm.moving_mean.assign_sub(change)


def _quotient(change: np.ndarray, factor: float | np.ndarray) -> np.ndarray:
    """A change divided by factors; where these are 0, nothing changes."""
    return np.divide(change, factor, out=np.zeros_like(change), where=np.not_equal(factor, 0))


def activation_bits(model: keras.Model) -> list[int]:
    """The active bits of all activations that have a quantizer."""
    return [active_bits(tensor) for tensor in switchable_tensors(model) if tensor.role == "activation"]


def ending(model: keras.Model) -> str:
    """The function behind the logits of a model: `softmax`, `sigmoid` or `none`."""
    (last,) = functional(model)._output_layers
    function = last_function(last.layer if isinstance(last, QuantizeWrapper) else last)
    return function if function in LOGITS else "none"


def _exact(model: keras.Model, storage: Storage) -> tuple[StockGraphBuilder, str, str]:
    """The builder with all tensors and operators of a calibrated model, and the names of input and output."""
    model = functional(model)
    _check_ends(model)
    return _build(model, StockGraphBuilder(_calibrated(model, storage), storage))


def refusals(model: keras.Model) -> list[str]:
    """One sentence for each layer of a model that no file can hold, with its remedy; steps that were never set are no hindrance.

    Args:
        model: A functional model, stock or as `to_graph` takes it.
    """
    found: list[str] = []
    quantizers = switchable_tensors(model)
    try:
        _check_ends(model)
        builder, source, sink = _build(model, StockGraphBuilder(quantizers, Storage("auto" if quantizers else "float32")), found)
        if not quantizers and not found:  # Scales tell nothing before they are set, but shapes do.
            builder.graph.graph(source, sink).check()
    except DaquError as error:
        found.append(str(error))
    return found


def _build(model: keras.Model, builder: StockGraphBuilder, refused: list[str] | None = None) -> tuple[StockGraphBuilder, str, str]:
    """The builder with all tensors and operators of a model, and the names of input and output.

    Args:
        model: The functional model.
        builder: The builder, which is still empty.
        refused: The list that gets the reasons why layers cannot be written; None raises the first.
    """
    (first,), (last,) = model._input_layers, model._output_layers
    values: dict[str, Value | None] = {first.name: builder.image(first)}
    nodes = [node for _, nodes in sorted(model._nodes_by_depth.items(), reverse=True) for node in nodes]
    readers = collections.Counter(parent.layer.name for node in nodes for parent in node.parent_nodes)
    for node in nodes:
        if node.layer is first:
            continue
        try:
            value = _value(builder, node, values, node.layer is last)
            if isinstance(value, Unrounded) and readers[node.layer.name] > 1:  # It is computed once.
                value = builder.stored(value)
        except DaquError as error:
            if refused is None:
                raise
            refused.append(str(error))
            value = None
        values[node.layer.name] = value
    return builder, first.name, builder.stored(_known(builder, values[last.name], model.outputs[0])).name


def _value(builder: StockGraphBuilder, node: Any, values: dict[str, Value | None], is_last: bool) -> Value | None:
    """The value that a call of a layer leaves behind; None if it is part of a layer that was refused."""
    layer = node.layer.layer if isinstance(node.layer, QuantizeWrapper) else node.layer
    if node.layer.name in values:
        raise unwritable(layer, "it is called more than once: give each call a layer of its own")
    check_plain(layer)
    read = [values[parent.layer.name] for parent in node.parent_nodes]
    if None in read and type(layer) in FUNCTIONS:
        return None
    return builder.add(layer, [_known(builder, value, tensor) for value, tensor in zip(read, node.keras_inputs)], is_last)


def _known(builder: StockGraphBuilder, value: Value | None, tensor: Any) -> Value:
    """The value, or some tensor of the shape of a Keras tensor in place of one that was refused."""
    shape = (size or 1 for size in tensor.shape)
    return builder.graph.declare(FloatTensor(tensor.name, tuple(shape))) if value is None else value


def _check_ends(model: keras.Model) -> None:
    """Refuses a model with more than one input or output."""
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        received = f"{len(model.inputs)} and {len(model.outputs)}"
        raise DaquError(f"`model` must have one input and one output, but has {received}: export a part that has.")


def _calibrated(model: keras.Model, storage: Storage) -> list[SwitchableTensor]:
    """The quantized tensors of a model, all of which must be of this package and have steps."""
    tensors = switchable_tensors(model) if storage.in_float else all_switchable(model)
    for layer in model.layers:
        if any(not isinstance(quantizer, StockQuantizer) for _, _, quantizer, *_ in quantized(layer)):
            raise unwritable(layer, "a quantizer of it is not of `daqu_tf`: give `quantize_apply` the `SwitchableScheme`")
    rounding = [tensor for tensor in tensors if active_bits(tensor) != FLOAT_BITS]
    if rounding and not any(tensor.variables["log_step"].numpy().any() for tensor in rounding):
        raise DaquError(f"`model` must have steps, but those of {model.name!r} were never set: call `initialise_steps` first.")
    return tensors
