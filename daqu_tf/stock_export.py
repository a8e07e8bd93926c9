"""A switchable model of the user's own as a `.tflite` file of its trained integers: what `export.py` is for searched networks.

    model = make_switchable(stock)
    initialise_steps(model, images)
    set_bits(model, weight_bits=4, activation_bits=8)
    ...  # Train.
    round_biases(model)
    export_tflite(model, "model.tflite")

An operator of the file ends where `stock_models.py` has a quantizer: batch normalization is folded into the kernel before it, and
a ReLU clips where int8 itself does. Dropout is left out, and so is a softmax or sigmoid at the end: the file puts out logits.
"""

import dataclasses
import math
import os

import numpy as np
import tensorflow as tf

from daqu_tf import targets
from daqu_tf.errors import DaquError
from daqu_tf.export import fold, save, trained_codes, weighted
from daqu_tf.keras import QuantizeWrapper, keras
from daqu_tf.stock_models import (
    KERNELS,
    RELU,
    QuantizeLayer,
    StockQuantizer,
    SwitchableTensor,
    all_switchable,
    functional,
    last_function,
    quantized,
)
from daqu_tf.targets import Target
from daqu_tf.tflite_graph import Graph, QuantizedTensor
from daqu_tf.tflite_operators import Add, GlobalAveragePool, MaxPool, Operator, Pad, Reshape, same_pads

layers = keras.layers
CONTAINERS = {"auto": "litert_cpu", "int8": "litert_cpu_int8"}  # The targets that decide so.
LOGITS = {"softmax", "sigmoid"}  # Left out at the end, where they change nothing in the order of the outputs.
PLAIN = {"data_format": "channels_last", "groups": 1, "dilation_rate": (1, 1), "depth_multiplier": 1}
UNPADDED = ((0, 0), (0, 0))


@dataclasses.dataclass(frozen=True)
class _Padded:
    """A tensor in zeros, which most convolutions add themselves."""

    name: str
    tensor: QuantizedTensor
    pads: tuple[tuple[int, int], tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class _Unrounded:
    """What an operator computes before it rounds: batch normalization and a ReLU may still join it.

    Attributes:
        layer: With which it begins.
        inputs: What that reads.
        window: Stride and padding of a convolution.
        norm: The batch normalization.
        relu_limit: Where the ReLU clips, if there is one.
    """

    layer: keras.layers.Layer
    inputs: tuple[QuantizedTensor, ...]
    window: dict[str, int | str] = dataclasses.field(default_factory=dict)
    norm: keras.layers.Layer | None = None
    relu_limit: float | None = None


_Value = QuantizedTensor | _Padded | _Unrounded


@dataclasses.dataclass(frozen=True)
class _Kernel:
    """What a target chooses a container for."""

    weight_bits: int
    input_channels: int
    is_pointwise: bool


class _Builder:
    """Collects tensors and operators in order; each rule takes a stock layer and what it reads."""

    def __init__(self, tensors: list[SwitchableTensor], target: Target):
        self.quantizers = {(tensor.layer, tensor.role): tensor for tensor in tensors}
        self.target = target
        self.tensors: dict[str, QuantizedTensor] = {}
        self.operators: list[Operator] = []
        self.biases: list[tuple[_Unrounded, np.ndarray]] = []  # And what the int32 ones stand for.

    def add(self, layer: keras.layers.Layer, values: list[_Value], is_last: bool) -> _Value:
        """A layer with its function and its quantizer; returns what it leaves."""
        _check_plain(layer)
        value = _RULES[type(layer)](self, layer, *values)
        function = last_function(layer)
        if function in RELU:
            value = _rectified(layer, value)
        if (layer.name, "activation") in self.quantizers:
            value = self.rounded(layer, value)
        if function not in RELU | {"linear"} and not (is_last and function in LOGITS):
            raise _refused(layer, f"the file has no {function}, and only at the end of a model a softmax or sigmoid is left out")
        return value

    def image(self, layer: keras.layers.Layer) -> QuantizedTensor:
        """The model's input."""
        (shape,) = layer.output_shape
        if None in shape[1:]:
            raise _refused(layer, f"its shape is {shape}: build the model for images of one size")
        if (layer.name, "activation") not in self.quantizers:
            raise _refused(layer, "no quantizer rounds the images: give `quantize_apply` the `SwitchableScheme`")
        step, *_, highest = self.codes(layer.name)
        return self.declare(QuantizedTensor(layer.name, (1, *shape[1:]), step, 127 - highest))

    def kernel(self, layer: keras.layers.Layer, value: _Value) -> _Unrounded:
        """A convolution or dense layer."""
        if (layer.name, "weight") not in self.quantizers:
            raise _refused(layer, "float layers cannot be exported yet: give it a quantizer of its weights")
        if type(layer) is layers.Dense:
            return _Unrounded(layer, (self.stored(value),))
        stride = layer.strides[0]
        source, padding = self.padding(layer, value, stride)
        return _Unrounded(layer, (source,), {"stride": stride, "padding": padding})

    def padding(self, layer: keras.layers.Layer, value: _Value, stride: int) -> tuple[QuantizedTensor, str]:
        """What a convolution reads, and its padding: where a ZeroPadding2D adds what SAME does, it needs no operator."""
        if layer.padding == "same":
            return self.stored(value), "SAME"
        unpadded, pads = (value.tensor, value.pads) if isinstance(value, _Padded) else (self.stored(value), UNPADDED)
        same = (same_pads(size, kernel, stride) for size, kernel in zip(unpadded.shape[1:3], layer.kernel_size))
        return (unpadded, "SAME") if pads == tuple(same) else (self.stored(value), "VALID")

    def normalization(self, layer: keras.layers.Layer, value: _Value) -> _Unrounded:
        """Batch normalization, which is folded into a kernel."""
        follows = isinstance(value, _Unrounded) and type(value.layer) in KERNELS
        if not follows or value.norm or value.relu_limit is not None:
            raise _refused(layer, "it can only be folded into a convolution or dense layer: put it directly behind one")
        if list(layer.axis) != [len(value.inputs[0].shape) - 1]:
            raise _refused(layer, f"its axis is {list(layer.axis)}: normalize the last one")
        return dataclasses.replace(value, norm=layer)

    def sum(self, layer: keras.layers.Layer, *values: _Value) -> _Unrounded:
        """A residual sum."""
        if len(values) != 2:
            raise _refused(layer, f"it adds {len(values)} tensors: add two at a time")
        return _Unrounded(layer, tuple(map(self.stored, values)))

    def pool(self, layer: keras.layers.Layer, value: _Value) -> _Unrounded:
        """A global average."""
        return _Unrounded(layer, (self.stored(value),))

    def max_pool(self, layer: keras.layers.Layer, value: _Value) -> QuantizedTensor:
        """The largest of each window."""
        source = self.stored(value)
        size, stride = tuple(layer.pool_size), layer.strides[0]
        return self.moved(MaxPool(source.name, layer.name, size, stride, layer.padding.upper()), source)

    def zeros(self, layer: keras.layers.Layer, value: _Value) -> _Padded:
        """Zeros around a tensor."""
        return _Padded(layer.name, self.stored(value), tuple(map(tuple, layer.padding)))

    def reshaped(self, layer: keras.layers.Layer, value: _Value) -> QuantizedTensor:
        """Another shape, if it is another one."""
        source = self.stored(value)
        shape = tuple(layer.compute_output_shape(source.shape))
        return source if shape == source.shape else self.moved(Reshape(source.name, layer.name, shape), source)

    def unchanged(self, layer: keras.layers.Layer, value: _Value) -> _Value:
        """A layer that is nothing but its function, if that."""
        return value

    def stored(self, value: _Value) -> QuantizedTensor:
        """The value as a tensor of the file."""
        if isinstance(value, _Unrounded):
            raise _refused(value.layer, "no quantizer rounds its output: give it `activation_bits`")
        if isinstance(value, QuantizedTensor):
            return value
        return self.tensors.get(value.name) or self.moved(Pad(value.tensor.name, value.name, value.pads), value.tensor)

    def moved(self, operator: Operator, source: QuantizedTensor) -> QuantizedTensor:
        """The output of an operator that takes integers as they are."""
        self.operators.append(operator)
        shape = operator.output_shape(source.shape)
        return self.declare(dataclasses.replace(source, name=operator.output, shape=shape))

    def rounded(self, layer: keras.layers.Layer, value: _Value) -> QuantizedTensor:
        """The output of an operator that rounds. A ReLU clips at 0, int8 itself at the highest code, which therefore is 127."""
        if not isinstance(value, _Unrounded):
            raise _refused(layer, "its input is rounded already, and no operator of the file rounds it once more")
        step, lowest, highest = self.codes(layer.name, value.relu_limit)
        is_pool = type(value.layer) is layers.GlobalAveragePooling2D
        if highest - lowest < 255 and (lowest < 0 or is_pool):
            raise _refused(layer, "only behind a ReLU of a kernel or sum an output has less than 8 bits: set its bits to 8")
        operator = self.operator(value, layer.name, step, relu=lowest == 0)
        self.operators.append(operator)
        shape = operator.output_shape(*(tensor.shape for tensor in value.inputs))
        return self.declare(QuantizedTensor(layer.name, shape, step, 127 - highest))

    def operator(self, value: _Unrounded, output: str, scale: float, relu: bool) -> Operator:
        """What computes a value and writes it as `output`."""
        names = (*(tensor.name for tensor in value.inputs), output)
        if type(value.layer) is layers.Add:
            return Add(*names, relu=relu)
        if type(value.layer) is layers.GlobalAveragePooling2D:
            return GlobalAveragePool(*names, keepdims=value.layer.keepdims)
        tensor = self.quantizers[value.layer.name, "weight"]
        (bits, step), kernel, kind = _precision(tensor), tensor.kernel.numpy(), _kind(value.layer)
        factor, offset = _factor_and_offset(value, len(step))
        codes = trained_codes(kind, kernel, step, bits)
        codes, scales, bias, written = fold(codes, step, factor, offset, value.inputs[0].scale, scale)
        self.biases.append((value, written))
        arguments = {"weight_scales": scales, "bias": bias, "relu": relu}
        container = self.target.container(_Kernel(bits, value.inputs[0].shape[-1], kind in ("dense", "pointwise")))
        return weighted(kind, container, names, codes, kernel.shape[:2], value.window, **arguments)

    def codes(self, name: str, relu_limit: float | None = None) -> tuple[float, int, int]:
        """Step, lowest and highest code of an activation."""
        tensor = self.quantizers[name, "activation"]
        bits, step = _precision(tensor)
        lowest, highest = tensor.quantizer.code_range(bits)
        if relu_limit is not None:
            lowest, highest = 0, round(min(highest, relu_limit / float(step)))
        return float(step), lowest, highest

    def declare(self, tensor: QuantizedTensor) -> QuantizedTensor:
        """Adds a tensor to the file."""
        self.tensors[tensor.name] = tensor
        return tensor


_RULES = {
    QuantizeLayer: _Builder.unchanged,
    layers.Conv2D: _Builder.kernel,
    layers.DepthwiseConv2D: _Builder.kernel,
    layers.Dense: _Builder.kernel,
    layers.BatchNormalization: _Builder.normalization,
    layers.Add: _Builder.sum,
    layers.GlobalAveragePooling2D: _Builder.pool,
    layers.MaxPooling2D: _Builder.max_pool,
    layers.ZeroPadding2D: _Builder.zeros,
    layers.Flatten: _Builder.reshaped,
    layers.Reshape: _Builder.reshaped,
    **dict.fromkeys((layers.ReLU, layers.Activation, layers.Softmax, layers.Dropout, layers.SpatialDropout2D), _Builder.unchanged),
}


def _refused(layer: keras.layers.Layer, reason: str) -> DaquError:
    return DaquError(f"layer {layer.name!r} of type {type(layer).__name__} cannot be exported because {reason}.")


def _check_plain(layer: keras.layers.Layer) -> None:
    if type(layer) not in _RULES:
        names = ", ".join(sorted(kind.__name__ for kind in _RULES if kind is not QuantizeLayer))
        raise _refused(layer, f"the file has no operator for it: use only {names}")
    for name, only in PLAIN.items():
        if (found := getattr(layer, name, only)) != only:
            raise _refused(layer, f"its `{name}` is {found!r}: only {only!r} can be written")
    if len(set(strides := getattr(layer, "strides", (1, 1)))) > 1:
        raise _refused(layer, f"its `strides` are {strides}: take the same along height and width")


def _kind(layer: keras.layers.Layer) -> str:
    if type(layer) is not layers.Conv2D:
        return "dense" if type(layer) is layers.Dense else "depthwise"
    return "pointwise" if (*layer.kernel_size, *layer.strides) == (1, 1, 1, 1) else "conv"


def _rectified(layer: keras.layers.Layer, value: _Value) -> _Unrounded:
    """The value behind the ReLU of a layer."""
    if not isinstance(value, _Unrounded) or value.relu_limit is not None:
        raise _refused(layer, "its ReLU follows a rounding: put it directly behind a convolution, batch normalization or sum")
    if isinstance(layer, layers.ReLU):
        return dataclasses.replace(value, relu_limit=math.inf if layer.max_value is None else float(layer.max_value))
    return dataclasses.replace(value, relu_limit=6.0 if last_function(layer) == "relu6" else math.inf)


def _precision(tensor: SwitchableTensor) -> tuple[int, np.ndarray]:
    """The active width, and its step, as in training."""
    bits = int(tensor.variables["bits"])
    if not 2 <= bits <= 8:
        raise DaquError(
            f"layer {tensor.layer!r}: the {tensor.role} has {bits} bits, and float layers cannot be exported yet: "
            "set bits from 2 to 8."
        )
    return bits, tf.exp(tensor.quantizer.log_step(tensor.variables, bits)).numpy()


def _factor_and_offset(value: _Unrounded, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """What follows the kernel, for each output channel."""
    layer, norm = value.layer, value.norm
    bias = _float64(layer.bias) if layer.use_bias else np.zeros(channels)
    if norm is None:
        return np.ones(channels), bias
    gamma = _float64(norm.gamma) if norm.scale else np.ones(channels)
    beta = _float64(norm.beta) if norm.center else np.zeros(channels)
    factor = gamma / np.sqrt(_float64(norm.moving_variance) + norm.epsilon)
    return factor, beta + (bias - _float64(norm.moving_mean)) * factor


def _float64(variable: tf.Variable) -> np.ndarray:
    return variable.numpy().astype(np.float64)


def to_graph(model: keras.Model, container: str = "auto") -> Graph:
    """The integer graph of a model at its active bits, which are 2 to 8; its output are logits.

    Args:
        model: From `make_switchable` or `quantize_apply`, calibrated by `initialise_steps`, with one input and one output.
        container: `auto` stores pointwise convolutions and dense layers of at most 4 bits as packed INT4, `int8` none.

    Raises:
        DaquError: A layer cannot be written, has 32 bits, or has no steps yet.
    """
    builder, output = _build(model, container)
    return Graph(tuple(builder.tensors.values()), tuple(builder.operators), model.input_names[0], output)


def export_tflite(model: keras.Model, path: str | os.PathLike, container: str = "auto") -> None:
    """Writes a model to `path`, after reading the bytes back and comparing every integer and scale.

    The file reads int8 images: round(x / scale), with the scale of its input and x as the model takes it.

    Args:
        model: As for `to_graph`.
        path: Of the `.tflite` file; it is there whole or not at all.
        container: As for `to_graph`.

    Raises:
        DaquError: The model cannot be written, or the file; or the file does not hold what was trained.
    """
    save(to_graph(model, container), path)


def round_biases(model: keras.Model) -> None:
    """Moves offsets to what the file's int32 biases hold exactly, so that the model computes what its file does.

    A bias counts in input scale x weight scale, which at 2 or 3 weight bits is a good part of an output step.

    Args:
        model: As for `to_graph`. Offsets of batch normalization change, or biases where there are none.

    Raises:
        DaquError: As `to_graph`.
    """
    for value, written in _build(model, "int8")[0].biases:
        factor, offset = _factor_and_offset(value, len(written))
        if value.norm is not None and value.norm.center:
            value.norm.beta.assign_add(written - offset)
        elif value.layer.use_bias:
            value.layer.bias.assign_add(np.divide(written - offset, factor, out=np.zeros_like(factor), where=factor != 0))


def _build(model: keras.Model, container: str) -> tuple[_Builder, str]:
    """All tensors and operators, and the name of the output."""
    if container not in CONTAINERS:
        raise DaquError(f"`container` must be one of {', '.join(CONTAINERS)}, but received {container!r}: choose one of these.")
    model = functional(model)
    builder = _Builder(_calibrated(model), targets.get(CONTAINERS[container]))
    (first,), (last,) = model._input_layers, model._output_layers
    values = {first.name: builder.image(first)}
    for _, nodes in sorted(model._nodes_by_depth.items(), reverse=True):
        for node in nodes:
            layer = node.layer
            if layer is first:
                continue
            if layer.name in values:
                raise _refused(layer, "it is called more than once: give each call a layer of its own")
            stock = layer.layer if isinstance(layer, QuantizeWrapper) else layer
            values[layer.name] = builder.add(stock, [values[parent.layer.name] for parent in node.parent_nodes], layer is last)
    return builder, builder.stored(values[last.name]).name


def _calibrated(model: keras.Model) -> list[SwitchableTensor]:
    """The quantized tensors, if all are of this package and have steps."""
    tensors = all_switchable(model)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        received = f"{len(model.inputs)} and {len(model.outputs)}"
        raise DaquError(f"`model` must have one input and one output, but has {received}: export a part that has.")
    for layer in model.layers:
        if any(not isinstance(quantizer, StockQuantizer) for _, _, quantizer, *_ in quantized(layer)):
            raise _refused(layer, "a quantizer of it is not of `daqu_tf`: give `quantize_apply` the `SwitchableScheme`")
    if not any(tensor.variables["log_step"].numpy().any() for tensor in tensors):
        raise DaquError(f"`model` must have steps, but those of {model.name!r} were never set: call `initialise_steps` first.")
    return tensors
