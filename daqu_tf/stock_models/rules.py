"""What each stock layer becomes in a file: the rules by which a graph is built, layer by layer, and what they refuse."""

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from daqu_tf.errors import DaquError
from daqu_tf.keras import keras
from daqu_tf.spaces.bits import FIXED_BITS, FLOAT_BITS
from daqu_tf.stock_models.placement import RELU
from daqu_tf.stock_models.quantizers import KERNELS, last_function, refused
from daqu_tf.stock_models.scheme import QuantizeLayer
from daqu_tf.stock_models.switching import SwitchableTensor
from daqu_tf.targets.builder import GraphBuilder, Kernel
from daqu_tf.targets.storage import Storage
from daqu_tf.tflite.base import same_pads
from daqu_tf.tflite.graph import FloatTensor, QuantizedTensor, Tensor
from daqu_tf.tflite.operators import Add, GlobalAveragePool, MaxPool, Minimum, Pad, Reshape

layers = keras.layers
LOGITS = {"softmax", "sigmoid"}  # The functions that may stand behind logits, at the end of a model.
PLAIN = {"data_format": "channels_last", "groups": 1, "dilation_rate": (1, 1), "depth_multiplier": 1}
KINDS = {layers.Dense: "dense", layers.DepthwiseConv2D: "depthwise"}
UNPADDED = ((0, 0), (0, 0))
ONE = 127  # The integer that stands for 1.0 in the kernel of a layer that only scales.
unwritable = functools.partial(refused, what="exported")
TINY = float(np.finfo(np.float32).tiny)


@dataclasses.dataclass(frozen=True)
class _Padded:
    """A tensor with zeros around it, which most convolutions add by themselves."""

    name: str
    tensor: Tensor
    pads: tuple[tuple[int, int], tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Unrounded:
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


Value = Tensor | _Padded | Unrounded


class StockGraphBuilder:
    """Adds layers to a graph; each rule takes a stock layer and the values that it reads."""

    def __init__(self, tensors: list[SwitchableTensor], storage: Storage):
        for tensor in tensors:
            if not (2 <= (bits := active_bits(tensor)) <= 8 or bits == FLOAT_BITS):
                raise DaquError(
                    f"layer {tensor.layer!r}: the {tensor.role} has {bits} bits: set bits from 2 to 8, or 32 for float."
                )
        # A tensor at 32 bits is treated as if it had no quantizer.
        self.quantizers = {(tensor.layer, tensor.role): tensor for tensor in tensors if active_bits(tensor) != FLOAT_BITS}
        # The attribute of the layer itself may be the rounded kernel.
        self.kernels = {tensor.layer: tensor.kernel for tensor in tensors if tensor.kernel is not None}
        self.graph = GraphBuilder(storage)
        self.biases: list[tuple[Unrounded, np.ndarray]] = []  # Each with the offset that the stored bias stands for.

    def add(self, layer: keras.layers.Layer, values: list[Value], is_last: bool) -> Value:
        """Adds a layer with its function and its quantizer, and gives the value that it leaves behind."""
        value = _RULES[type(layer)](self, layer, *values)
        function = last_function(layer)
        if function in RELU:
            value = _rectified(layer, value)
        if isinstance(value, Unrounded):
            value = dataclasses.replace(value, name=layer.name)
        if (layer.name, "activation") in self.quantizers:
            value = self.rounded(layer, value)
        if function not in RELU | {"linear"} and not (is_last and function in LOGITS):
            raise unwritable(layer, f"the file has no {function}, and only at the end of a model a softmax or sigmoid can stand")
        return value

    def image(self, layer: keras.layers.Layer) -> Tensor:
        """Adds the input of the model."""
        (shape,) = layer.output_shape
        if None in shape[1:]:
            raise unwritable(layer, f"its shape is {shape}: build the model for images of one size")
        if (layer.name, "activation") not in self.quantizers:
            return self.graph.declare(FloatTensor(layer.name, (1, *shape[1:])))
        step, *_, highest = self.codes(layer.name)
        return self.graph.declare(QuantizedTensor(layer.name, (1, *shape[1:]), step, 127 - highest))

    def kernel(self, layer: keras.layers.Layer, value: Value) -> Unrounded:
        """The value of a convolution or dense layer."""
        if type(layer) is layers.Dense:
            return Unrounded(layer.name, layer, (self.stored(value),))
        stride = layer.strides[0]
        source, padding = self.padding(layer, value, stride)
        return Unrounded(layer.name, layer, (source,), stride, padding)

    def padding(self, layer: keras.layers.Layer, value: Value, stride: int) -> tuple[Tensor, str]:
        """The tensor that a convolution reads, and its padding; a ZeroPadding2D that adds what SAME does needs no operator."""
        if layer.padding == "same":
            return self.stored(value), "SAME"
        unpadded, pads = (value.tensor, value.pads) if isinstance(value, _Padded) else (self.stored(value), UNPADDED)
        same = (same_pads(size, kernel, stride) for size, kernel in zip(unpadded.shape[1:3], layer.kernel_size))
        return (unpadded, "SAME") if pads == tuple(same) else (self.stored(value), "VALID")

    def normalization(self, layer: keras.layers.Layer, value: Value) -> Unrounded:
        """The value of a batch normalization, which is folded into the kernel that it stands behind, or computed by itself."""
        if isinstance(value, Unrounded) and type(value.layer) in KERNELS and value.norm is None and value.relu_limit is None:
            normalized = dataclasses.replace(value, norm=layer)
        else:
            normalized = Unrounded(layer.name, layer, (self.stored(value),), norm=layer)
        if list(layer.axis) != [len(self.shape(normalized)) - 1]:
            raise unwritable(layer, f"its axis is {list(layer.axis)}: normalize the last one")
        return normalized

    def rescaled(self, layer: keras.layers.Layer, value: Value) -> Unrounded:
        """The value of a rescaling by a number or by one number for each channel."""
        source = self.stored(value)
        if max(np.size(layer.scale), np.size(layer.offset)) not in (1, source.shape[-1]):
            raise unwritable(layer, "its `scale` or `offset` is no number for each channel: give one, or as many as channels")
        return Unrounded(layer.name, layer, (source,))

    def sum(self, layer: keras.layers.Layer, *values: Value) -> Unrounded:
        """The value of a residual sum."""
        if len(values) != 2:
            raise unwritable(layer, f"it adds {len(values)} tensors: add two at a time")
        return Unrounded(layer.name, layer, tuple(map(self.stored, values)))

    def pool(self, layer: keras.layers.Layer, value: Value) -> Unrounded:
        """The value of a global average."""
        return Unrounded(layer.name, layer, (self.stored(value),))

    def max_pool(self, layer: keras.layers.Layer, value: Value) -> Tensor:
        """Adds a max pooling."""
        source = self.stored(value)
        size, stride = tuple(layer.pool_size), layer.strides[0]
        return self.graph.move(MaxPool(source.name, layer.name, size, stride, layer.padding.upper()), source)

    def zeros(self, layer: keras.layers.Layer, value: Value) -> _Padded:
        """The value of a zero padding."""
        (above, below), (left, right) = layer.padding
        return _Padded(layer.name, self.stored(value), ((above, below), (left, right)))

    def reshaped(self, layer: keras.layers.Layer, value: Value) -> Tensor:
        """Adds a reshape, if it changes the shape."""
        source = self.stored(value)
        shape = tuple(layer.compute_output_shape(source.shape))
        return source if shape == source.shape else self.graph.move(Reshape(source.name, layer.name, shape), source)

    def unchanged(self, layer: keras.layers.Layer, value: Value) -> Value:
        """The value of a layer that does nothing but apply its function, if it has one."""
        return value

    def stored(self, value: Value) -> Tensor:
        """The value as a tensor of the file, which is real if no quantizer rounds it."""
        if isinstance(value, Unrounded):
            return self.unrounded(value)
        if isinstance(value, _Padded):
            added = self.graph.tensors.get(value.name)
            return added or self.graph.move(Pad(value.tensor.name, value.name, value.pads), value.tensor)
        return value

    def unrounded(self, value: Unrounded) -> Tensor:
        """The value as a tensor of real numbers."""
        return self.graph.tensors.get(value.name) or self.real(value, value.name, value.relu_limit)

    def real(self, value: Unrounded, name: str, relu_limit: float | None) -> Tensor:
        """The value as a tensor of real numbers with that name, clipped by its ReLU."""
        if relu_limit is not None and type(value.layer) is layers.GlobalAveragePooling2D:
            pooled = self.computed(value, FloatTensor(f"{name}.pooled", self.shape(value)), relu=False)
            value = Unrounded(name, _ONCE, (pooled,))  # The operator of a pool clips nothing in float.
        if relu_limit in (None, math.inf):
            return self.computed(value, FloatTensor(name, self.shape(value)), relu=relu_limit is not None)
        unclipped = self.computed(value, FloatTensor(f"{name}.unclipped", self.shape(value)), relu=True)
        return self.graph.add(Minimum(unclipped.name, name, relu_limit), FloatTensor(name, unclipped.shape))

    def rounded(self, layer: keras.layers.Layer, value: Value) -> Tensor:
        """The value as a rounded tensor: a ReLU clips at 0, and int8 itself at the highest code, which therefore is 127."""
        if not isinstance(value, Unrounded):
            raise unwritable(layer, "its input is rounded already, and no operator of the file rounds it once more")
        step, lowest, highest = self.codes(layer.name, value.relu_limit)
        is_pool = type(value.layer) is layers.GlobalAveragePooling2D
        if is_pool and value.relu_limit not in (None, math.inf):
            raise unwritable(layer, "the operator of an average clips at no limit: put the ReLU before the average")
        if highest - lowest < 255 and (lowest < 0 or is_pool):
            raise unwritable(layer, "only behind a ReLU of a kernel or sum an output has less than 8 bits: set its bits to 8")
        if self.graph.storage.in_float:
            is_narrow = value.relu_limit is not None and highest < 255
            return self.real(value, layer.name, highest * step if is_narrow else value.relu_limit)
        return self.computed(value, QuantizedTensor(layer.name, self.shape(value), step, 127 - highest), relu=lowest == 0)

    def shape(self, value: Unrounded) -> tuple[int, ...]:
        """The shape of the value."""
        first = value.inputs[0].shape
        if type(value.layer) is layers.Add or type(value.layer) in _SCALING:
            return first
        if value.padding == "SAME":  # It may come from a ZeroPadding2D, which the layer does not know.
            return (1, *(-(-size // value.stride) for size in first[1:3]), getattr(value.layer, "filters", None) or first[-1])
        return (1, *value.layer.compute_output_shape((None, *first[1:]))[1:])

    def computed(self, value: Unrounded, output: Tensor, relu: bool) -> Tensor:
        """Adds the operator that computes a value and writes it to `output`."""
        name = output.name
        if type(value.layer) is layers.Add:
            a, b = value.inputs
            return self.graph.add(Add(a.name, b.name, output.name, relu), output)
        (source,) = value.inputs
        if type(value.layer) is layers.GlobalAveragePooling2D:
            return self.graph.add(GlobalAveragePool(source.name, output.name, value.layer.keepdims), output)
        kernel, shape = self.trained(value), output.shape
        factor, offset = factor_and_offset(value, len(kernel.rows))
        if is_flat := type(value.layer) in _SCALING and len(shape) == 2:
            source, output = self.pixel(source), dataclasses.replace(output, name=f"{output.name}.pixel", shape=(1, 1, *shape))
        output, written = self.graph.add_weighted(kernel, source, output, factor, offset, relu)
        if is_flat:
            output = self.graph.move(Reshape(output.name, name, shape), output)
        if not np.array_equal(written, offset):  # A real bias needs no rounding.
            self.biases.append((value, written))
        return output

    def pixel(self, value: Tensor) -> Tensor:
        """Adds a reshape of features to an image of one pixel."""
        return self.graph.move(Reshape(value.name, f"{value.name}.as_pixel", (1, 1, *value.shape)), value)

    def trained(self, value: Unrounded) -> Kernel:
        """The trained weights of a value's layer, at its active bits; a layer that only scales has ones."""
        layer, kind = value.layer, KINDS.get(type(value.layer), "conv")
        if type(layer) in _SCALING:
            channels = value.inputs[0].shape[-1]
            return Kernel.of("depthwise", np.ones((1, 1, channels, 1)), np.full(channels, 1 / ONE), FIXED_BITS)
        if tensor := self.quantizers.get((layer.name, "weight")):
            return Kernel.of(
                kind, self.kernels[layer.name].numpy(), _step(tensor), active_bits(tensor), value.stride, value.padding
            )
        own = layer.depthwise_kernel if type(layer) is layers.DepthwiseConv2D else layer.kernel
        return Kernel.of(kind, self.kernels.get(layer.name, own).numpy(), None, FLOAT_BITS, value.stride, value.padding)

    def codes(self, name: str, relu_limit: float | None = None) -> tuple[float, int, int]:
        """The step, the lowest and the highest code of a layer's activation."""
        tensor = self.quantizers[name, "activation"]
        step = _step(tensor)
        lowest, highest = tensor.quantizer.code_range(active_bits(tensor))
        if relu_limit is not None:
            lowest, highest = 0, round(min(highest, relu_limit / max(float(step), TINY)))
        return float(step), lowest, highest


_SCALING = {layers.BatchNormalization, layers.Rescaling}  # Alone, each is a depthwise convolution of one pixel.
_ONCE = layers.Rescaling(1.0)

_RULES: dict[type, Callable[..., Value]] = {
    QuantizeLayer: StockGraphBuilder.unchanged,
    layers.Conv2D: StockGraphBuilder.kernel,
    layers.DepthwiseConv2D: StockGraphBuilder.kernel,
    layers.Dense: StockGraphBuilder.kernel,
    layers.BatchNormalization: StockGraphBuilder.normalization,
    layers.Rescaling: StockGraphBuilder.rescaled,
    layers.Add: StockGraphBuilder.sum,
    layers.GlobalAveragePooling2D: StockGraphBuilder.pool,
    layers.MaxPooling2D: StockGraphBuilder.max_pool,
    layers.ZeroPadding2D: StockGraphBuilder.zeros,
    layers.Flatten: StockGraphBuilder.reshaped,
    layers.Reshape: StockGraphBuilder.reshaped,
    **dict.fromkeys(
        (layers.ReLU, layers.Activation, layers.Softmax, layers.Dropout, layers.SpatialDropout2D), StockGraphBuilder.unchanged
    ),
}


def check_plain(layer: keras.layers.Layer) -> None:
    """Raises `DaquError` for a layer that has no rule, or an argument that the file cannot express."""
    if type(layer) not in _RULES:
        names = ", ".join(sorted(kind.__name__ for kind in _RULES if kind is not QuantizeLayer))
        raise unwritable(layer, f"the file has no operator for it: use only {names}")
    if layer.compute_dtype != "float32":
        raise unwritable(layer, f"it computes in {layer.compute_dtype}: build the model in float32")
    for name, only in PLAIN.items():
        if (found := getattr(layer, name, only)) != only:
            raise unwritable(layer, f"its `{name}` is {found!r}: only {only!r} can be written")
    if len(set(strides := getattr(layer, "strides", (1, 1)))) > 1:
        raise unwritable(layer, f"its `strides` are {strides}: take the same along height and width")
    if isinstance(layer, layers.Softmax) and layer.axis not in (-1, len(layer.output_shape) - 1):
        raise unwritable(layer, f"its `axis` is {layer.axis}: take the last one")


def _rectified(layer: keras.layers.Layer, value: Value) -> Unrounded:
    """The value with the ReLU of a layer behind it."""
    if not isinstance(value, Unrounded) or value.relu_limit is not None:
        reason = "what its ReLU reads is a tensor of the file already, rounded or because another layer reads it"
        raise unwritable(layer, f"{reason}: put it directly behind a convolution, batch normalization or sum that is read once")
    if isinstance(layer, layers.ReLU):
        return dataclasses.replace(value, relu_limit=math.inf if layer.max_value is None else float(layer.max_value))
    return dataclasses.replace(value, relu_limit=6.0 if last_function(layer) == "relu6" else math.inf)


def active_bits(tensor: SwitchableTensor) -> int:
    """The active bits of a tensor."""
    return int(tensor.variables["bits"])


def _step(tensor: SwitchableTensor) -> np.ndarray:
    """The step of a tensor at its active bits, computed as in training."""
    return tf.exp(tensor.quantizer.log_step(tensor.variables, active_bits(tensor))).numpy()


def factor_and_offset(value: Unrounded, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """The factor and the offset (output channels,) of what follows the kernel."""
    layer, norm = value.layer, value.norm
    if type(layer) is layers.Rescaling:
        return np.broadcast_to(np.float64(layer.scale), channels), np.broadcast_to(np.float64(layer.offset), channels)
    bias = _float64(layer.bias) if has_bias(layer) else np.zeros(channels)
    if norm is None:
        return np.ones(channels), bias
    gamma = _float64(norm.gamma) if norm.scale else np.ones(channels)
    beta = _float64(norm.beta) if norm.center else np.zeros(channels)
    factor = gamma / np.sqrt(_float64(norm.moving_variance) + norm.epsilon)
    return factor, beta + (bias - _float64(norm.moving_mean)) * factor


def has_bias(layer: keras.layers.Layer) -> bool:
    """Whether a layer adds a bias of its own."""
    return bool(getattr(layer, "use_bias", False))


def _float64(variable: tf.Variable) -> np.ndarray:
    return variable.numpy().astype(np.float64)
