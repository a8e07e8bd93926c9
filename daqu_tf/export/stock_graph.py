"""The graph of a switchable model of your own, as `subnet_graph` makes it for searched subnets.

An operator of the file ends where the model has a quantizer: batch normalization is folded into the kernel before it, and a ReLU
clips where int8 itself does. Dropout is left out. The graph ends with logits; a softmax or sigmoid behind them is `encoding`'s.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from daqu_tf.errors import DaquError
from daqu_tf.export.builder import GraphBuilder, Kernel
from daqu_tf.keras import QuantizeWrapper, keras
from daqu_tf.spaces.bits import FLOAT_BITS
from daqu_tf.stock_models.models import SwitchableTensor, all_switchable, functional, quantized, switchable_tensors
from daqu_tf.stock_models.placement import RELU
from daqu_tf.stock_models.quantizers import KERNELS, StockQuantizer, last_function
from daqu_tf.stock_models.scheme import QuantizeLayer
from daqu_tf.targets.storage import Storage
from daqu_tf.tflite.base import same_pads
from daqu_tf.tflite.graph import FloatTensor, Graph, QuantizedTensor, Tensor
from daqu_tf.tflite.operators import Add, GlobalAveragePool, MaxPool, Minimum, Pad, Reshape

layers = keras.layers
LOGITS = {"softmax", "sigmoid"}  # The functions that may stand behind logits, at the end of a model.
PLAIN = {"data_format": "channels_last", "groups": 1, "dilation_rate": (1, 1), "depth_multiplier": 1}
KINDS = {layers.Dense: "dense", layers.DepthwiseConv2D: "depthwise"}
UNPADDED = ((0, 0), (0, 0))
TINY = float(np.finfo(np.float32).tiny)


@dataclasses.dataclass(frozen=True)
class _Padded:
    """A tensor with zeros around it, which most convolutions add by themselves."""

    name: str
    tensor: Tensor
    pads: tuple[tuple[int, int], tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class _Unrounded:
    """The output of an operator before it is rounded, which batch normalization and a ReLU may still join.

    Attributes:
        name: The name of the last layer that belongs to it.
        layer: The first layer that belongs to it.
        inputs: The tensors that this layer reads.
        stride: The stride of a convolution.
        padding: The padding of a convolution, `SAME` or `VALID`.
        norm: The batch normalization; None if there is none.
        relu_limit: The number at which the ReLU clips, infinite for a plain one; None if there is no ReLU.
    """

    name: str
    layer: keras.layers.Layer
    inputs: tuple[Tensor, ...]
    stride: int = 1
    padding: str = "VALID"
    norm: keras.layers.Layer | None = None
    relu_limit: float | None = None


_Value = Tensor | _Padded | _Unrounded


class _Builder:
    """Adds layers to a graph; each rule takes a stock layer and the values that it reads."""

    def __init__(self, tensors: list[SwitchableTensor], storage: Storage):
        for tensor in tensors:
            if not (2 <= (bits := _bits(tensor)) <= 8 or bits == FLOAT_BITS):
                raise DaquError(
                    f"layer {tensor.layer!r}: the {tensor.role} has {bits} bits: set bits from 2 to 8, or 32 for float."
                )
        # A tensor at 32 bits is treated as if it had no quantizer.
        self.quantizers = {(tensor.layer, tensor.role): tensor for tensor in tensors if _bits(tensor) != FLOAT_BITS}
        # The attribute of the layer itself may be the rounded kernel.
        self.kernels = {tensor.layer: tensor.kernel for tensor in tensors if tensor.kernel is not None}
        self.graph = GraphBuilder(storage)
        self.biases: list[tuple[_Unrounded, np.ndarray]] = []  # Each with the offset that the stored bias stands for.

    def add(self, layer: keras.layers.Layer, values: list[_Value], is_last: bool) -> _Value:
        """Adds a layer with its function and its quantizer, and gives the value that it leaves behind."""
        _check_plain(layer)
        value = _RULES[type(layer)](self, layer, *values)
        function = last_function(layer)
        if function in RELU:
            value = _rectified(layer, value)
        if isinstance(value, _Unrounded):
            value = dataclasses.replace(value, name=layer.name)
        if (layer.name, "activation") in self.quantizers:
            value = self.rounded(layer, value)
        if function not in RELU | {"linear"} and not (is_last and function in LOGITS):
            raise _refused(layer, f"the file has no {function}, and only at the end of a model a softmax or sigmoid can stand")
        return value

    def image(self, layer: keras.layers.Layer) -> Tensor:
        """Adds the input of the model."""
        (shape,) = layer.output_shape
        if None in shape[1:]:
            raise _refused(layer, f"its shape is {shape}: build the model for images of one size")
        if (layer.name, "activation") not in self.quantizers:
            return self.graph.declare(FloatTensor(layer.name, (1, *shape[1:])))
        step, *_, highest = self.codes(layer.name)
        return self.graph.declare(QuantizedTensor(layer.name, (1, *shape[1:]), step, 127 - highest))

    def kernel(self, layer: keras.layers.Layer, value: _Value) -> _Unrounded:
        """The value of a convolution or dense layer."""
        if type(layer) is layers.Dense:
            return _Unrounded(layer.name, layer, (self.stored(value),))
        stride = layer.strides[0]
        source, padding = self.padding(layer, value, stride)
        return _Unrounded(layer.name, layer, (source,), stride, padding)

    def padding(self, layer: keras.layers.Layer, value: _Value, stride: int) -> tuple[Tensor, str]:
        """The tensor that a convolution reads, and its padding; a ZeroPadding2D that adds what SAME does needs no operator."""
        if layer.padding == "same":
            return self.stored(value), "SAME"
        unpadded, pads = (value.tensor, value.pads) if isinstance(value, _Padded) else (self.stored(value), UNPADDED)
        same = (same_pads(size, kernel, stride) for size, kernel in zip(unpadded.shape[1:3], layer.kernel_size))
        return (unpadded, "SAME") if pads == tuple(same) else (self.stored(value), "VALID")

    def normalization(self, layer: keras.layers.Layer, value: _Value) -> _Unrounded:
        """The value of a batch normalization, which is folded into a kernel."""
        if (
            not isinstance(value, _Unrounded)
            or type(value.layer) not in KERNELS
            or value.norm is not None
            or value.relu_limit is not None
        ):
            raise _refused(layer, "it can only be folded into a convolution or dense layer: put it directly behind one")
        if list(layer.axis) != [len(value.inputs[0].shape) - 1]:
            raise _refused(layer, f"its axis is {list(layer.axis)}: normalize the last one")
        return dataclasses.replace(value, norm=layer)

    def sum(self, layer: keras.layers.Layer, *values: _Value) -> _Unrounded:
        """The value of a residual sum."""
        if len(values) != 2:
            raise _refused(layer, f"it adds {len(values)} tensors: add two at a time")
        return _Unrounded(layer.name, layer, tuple(map(self.stored, values)))

    def pool(self, layer: keras.layers.Layer, value: _Value) -> _Unrounded:
        """The value of a global average."""
        return _Unrounded(layer.name, layer, (self.stored(value),))

    def max_pool(self, layer: keras.layers.Layer, value: _Value) -> Tensor:
        """Adds a max pooling."""
        source = self.stored(value)
        size, stride = tuple(layer.pool_size), layer.strides[0]
        return self.graph.move(MaxPool(source.name, layer.name, size, stride, layer.padding.upper()), source)

    def zeros(self, layer: keras.layers.Layer, value: _Value) -> _Padded:
        """The value of a zero padding."""
        (above, below), (left, right) = layer.padding
        return _Padded(layer.name, self.stored(value), ((above, below), (left, right)))

    def reshaped(self, layer: keras.layers.Layer, value: _Value) -> Tensor:
        """Adds a reshape, if it changes the shape."""
        source = self.stored(value)
        shape = tuple(layer.compute_output_shape(source.shape))
        return source if shape == source.shape else self.graph.move(Reshape(source.name, layer.name, shape), source)

    def unchanged(self, layer: keras.layers.Layer, value: _Value) -> _Value:
        """The value of a layer that does nothing but apply its function, if it has one."""
        return value

    def stored(self, value: _Value) -> Tensor:
        """The value as a tensor of the file, which is real if no quantizer rounds it."""
        if isinstance(value, _Unrounded):
            return self.unrounded(value)
        if isinstance(value, _Padded):
            added = self.graph.tensors.get(value.name)
            return added or self.graph.move(Pad(value.tensor.name, value.name, value.pads), value.tensor)
        return value

    def unrounded(self, value: _Unrounded) -> Tensor:
        """The value as a tensor of real numbers."""
        return self.graph.tensors.get(value.name) or self.real(value, value.name, value.relu_limit)

    def real(self, value: _Unrounded, name: str, relu_limit: float | None) -> Tensor:
        """The value as a tensor of real numbers with that name, clipped by its ReLU."""
        if relu_limit is not None and type(value.layer) is layers.GlobalAveragePooling2D:
            raise _refused(value.layer, "in float no operator is a ReLU behind it: put the ReLU before it")
        if relu_limit in (None, math.inf):
            return self.computed(value, FloatTensor(name, self.shape(value)), relu=relu_limit is not None)
        unclipped = self.computed(value, FloatTensor(f"{name}.unclipped", self.shape(value)), relu=True)
        return self.graph.add(Minimum(unclipped.name, name, relu_limit), FloatTensor(name, unclipped.shape))

    def rounded(self, layer: keras.layers.Layer, value: _Value) -> Tensor:
        """The value as a rounded tensor: a ReLU clips at 0, and int8 itself at the highest code, which therefore is 127."""
        if not isinstance(value, _Unrounded):
            raise _refused(layer, "its input is rounded already, and no operator of the file rounds it once more")
        step, lowest, highest = self.codes(layer.name, value.relu_limit)
        is_pool = type(value.layer) is layers.GlobalAveragePooling2D
        if highest - lowest < 255 and (lowest < 0 or is_pool):
            raise _refused(layer, "only behind a ReLU of a kernel or sum an output has less than 8 bits: set its bits to 8")
        if self.graph.storage.in_float:
            is_narrow = value.relu_limit is not None and highest < 255
            return self.real(value, layer.name, highest * step if is_narrow else value.relu_limit)
        return self.computed(value, QuantizedTensor(layer.name, self.shape(value), step, 127 - highest), relu=lowest == 0)

    def shape(self, value: _Unrounded) -> tuple[int, ...]:
        """The shape of the value."""
        first = value.inputs[0].shape
        if type(value.layer) is layers.Add:
            return first
        computed = value.layer.compute_output_shape((None, *first[1:]))[1:]
        if value.padding == "SAME":  # It may come from a ZeroPadding2D, which the layer does not know.
            computed = (*(-(-size // value.stride) for size in first[1:3]), computed[-1])
        return (1, *computed)

    def computed(self, value: _Unrounded, output: Tensor, relu: bool) -> Tensor:
        """Adds the operator that computes a value and writes it to `output`."""
        if type(value.layer) is layers.Add:
            a, b = value.inputs
            return self.graph.add(Add(a.name, b.name, output.name, relu), output)
        (source,) = value.inputs
        if type(value.layer) is layers.GlobalAveragePooling2D:
            return self.graph.add(GlobalAveragePool(source.name, output.name, value.layer.keepdims), output)
        kernel = self.trained(value)
        factor, offset = _factor_and_offset(value, len(kernel.rows))
        output, written = self.graph.add_weighted(kernel, source, output, factor, offset, relu)
        if not np.array_equal(written, offset):  # A real bias needs no rounding.
            self.biases.append((value, written))
        return output

    def trained(self, value: _Unrounded) -> Kernel:
        """The trained weights of a value's layer, at its active bits."""
        layer, kind = value.layer, KINDS.get(type(value.layer), "conv")
        if tensor := self.quantizers.get((layer.name, "weight")):
            return Kernel.of(kind, self.kernels[layer.name].numpy(), _step(tensor), _bits(tensor), value.stride, value.padding)
        own = layer.depthwise_kernel if type(layer) is layers.DepthwiseConv2D else layer.kernel
        return Kernel.of(kind, self.kernels.get(layer.name, own).numpy(), None, FLOAT_BITS, value.stride, value.padding)

    def codes(self, name: str, relu_limit: float | None = None) -> tuple[float, int, int]:
        """The step, the lowest and the highest code of a layer's activation."""
        tensor = self.quantizers[name, "activation"]
        step = _step(tensor)
        lowest, highest = tensor.quantizer.code_range(_bits(tensor))
        if relu_limit is not None:
            lowest, highest = 0, round(min(highest, relu_limit / max(float(step), TINY)))
        return float(step), lowest, highest


_RULES: dict[type, Callable[..., _Value]] = {
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
    if isinstance(layer, layers.Softmax) and layer.axis not in (-1, len(layer.output_shape) - 1):
        raise _refused(layer, f"its `axis` is {layer.axis}: take the last one")


def _rectified(layer: keras.layers.Layer, value: _Value) -> _Unrounded:
    """The value with the ReLU of a layer behind it."""
    if not isinstance(value, _Unrounded) or value.relu_limit is not None:
        reason = "what its ReLU reads is a tensor of the file already, rounded or because another layer reads it"
        raise _refused(layer, f"{reason}: put it directly behind a convolution, batch normalization or sum that is read once")
    if isinstance(layer, layers.ReLU):
        return dataclasses.replace(value, relu_limit=math.inf if layer.max_value is None else float(layer.max_value))
    return dataclasses.replace(value, relu_limit=6.0 if last_function(layer) == "relu6" else math.inf)


def _bits(tensor: SwitchableTensor) -> int:
    """The active bits of a tensor."""
    return int(tensor.variables["bits"])


def _step(tensor: SwitchableTensor) -> np.ndarray:
    """The step of a tensor at its active bits, computed as in training."""
    return tf.exp(tensor.quantizer.log_step(tensor.variables, _bits(tensor))).numpy()


def _factor_and_offset(value: _Unrounded, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """The factor and the offset (output channels,) of what follows the kernel."""
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


def to_graph(model: keras.Model, storage: Storage) -> Graph:
    """The graph of a model at its active bits, which gives logits.

    Args:
        model: A model from `make_switchable` or TFMOT's `quantize_apply` with one input and one output, whose steps
            `initialise_steps` has set.
        storage: The storage, which decides the containers.

    Raises:
        DaquError: A layer cannot be written, or has no steps yet.
    """
    builder, source, sink = _build(model, storage)
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
    for value, written in _build(model, storage)[0].biases:
        factor, offset = _factor_and_offset(value, len(written))
        if value.norm is not None and value.norm.center:
            value.norm.beta.assign_add(written - offset)
        elif value.layer.use_bias or value.norm is not None:
            change = np.divide(written - offset, factor, out=np.zeros_like(factor), where=factor != 0)
            if value.layer.use_bias or value.norm is None:
                value.layer.bias.assign_add(change)
            else:
                value.norm.moving_mean.assign_sub(change)


def activation_bits(model: keras.Model) -> list[int]:
    """The active bits of all activations that have a quantizer."""
    return [_bits(tensor) for tensor in switchable_tensors(model) if tensor.role == "activation"]


def ending(model: keras.Model) -> str:
    """The function behind the logits of a model: `softmax`, `sigmoid` or `none`."""
    (last,) = functional(model)._output_layers
    function = last_function(last.layer if isinstance(last, QuantizeWrapper) else last)
    return function if function in LOGITS else "none"


def _build(model: keras.Model, storage: Storage) -> tuple[_Builder, str, str]:
    """The builder with all tensors and operators of a model, and the names of input and output."""
    model = functional(model)
    builder = _Builder(_calibrated(model, storage), storage)
    (first,), (last,) = model._input_layers, model._output_layers
    values: dict[str, _Value] = {first.name: builder.image(first)}
    for _, nodes in sorted(model._nodes_by_depth.items(), reverse=True):
        for node in nodes:
            layer = node.layer
            if layer is first:
                continue
            if layer.name in values:
                raise _refused(layer, "it is called more than once: give each call a layer of its own")
            stock = layer.layer if isinstance(layer, QuantizeWrapper) else layer
            values[layer.name] = builder.add(stock, [values[parent.layer.name] for parent in node.parent_nodes], layer is last)
    return builder, first.name, builder.stored(values[last.name]).name


def _calibrated(model: keras.Model, storage: Storage) -> list[SwitchableTensor]:
    """The quantized tensors of a model, all of which must be of this package and have steps."""
    tensors = switchable_tensors(model) if storage.in_float else all_switchable(model)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        received = f"{len(model.inputs)} and {len(model.outputs)}"
        raise DaquError(f"`model` must have one input and one output, but has {received}: export a part that has.")
    for layer in model.layers:
        if any(not isinstance(quantizer, StockQuantizer) for _, _, quantizer, *_ in quantized(layer)):
            raise _refused(layer, "a quantizer of it is not of `daqu_tf`: give `quantize_apply` the `SwitchableScheme`")
    rounding = [tensor for tensor in tensors if _bits(tensor) != FLOAT_BITS]
    if rounding and not any(tensor.variables["log_step"].numpy().any() for tensor in rounding):
        raise DaquError(f"`model` must have steps, but those of {model.name!r} were never set: call `initialise_steps` first.")
    return tensors
