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
from daqu_tf.stock_models.placement import CLIPPING, RELU, SCALING, UNCLIPPED, WEIGHTED, clips_at, only_scales
from daqu_tf.stock_models.quantizers import KERNELS, last_function, refused
from daqu_tf.stock_models.scaling import scaling_weight
from daqu_tf.stock_models.scheme import QuantizeLayer
from daqu_tf.stock_models.switching import SwitchableTensor
from daqu_tf.stock_models.values import Padded, Unrounded, Value, factor_and_offset
from daqu_tf.targets.builder import GraphBuilder, Kernel
from daqu_tf.targets.storage import Storage
from daqu_tf.tflite.base import same_pads
from daqu_tf.tflite.graph import FloatTensor, QuantizedTensor, Tensor
from daqu_tf.tflite.operators import Add, Concatenate, GlobalAveragePool, MaxPool, Minimum, Multiply, Pad, Reshape

layers = keras.layers
LOGITS = {"softmax", "sigmoid"}  # The functions that may stand behind logits, at the end of a model.
PLAIN = {"data_format": "channels_last", "groups": 1, "dilation_rate": (1, 1)}
KINDS = {layers.Dense: "dense", layers.DepthwiseConv2D: "depthwise"}
UNPADDED = ((0, 0), (0, 0))
unwritable = functools.partial(refused, what="exported")
TINY = float(np.finfo(np.float32).tiny)


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
        if function in CLIPPING:
            value = self.clipped(layer, value)
        if isinstance(value, Unrounded):
            value = dataclasses.replace(value, name=layer.name)
        if (layer.name, "activation") in self.quantizers and type(layer) is not layers.Concatenate:  # It rounded its parts.
            value = self.rounded(layer, value)
        if function not in CLIPPING | {"linear"} and not (is_last and function in LOGITS):
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
        unpadded, pads = (value.tensor, value.pads) if isinstance(value, Padded) else (self.stored(value), UNPADDED)
        same = (same_pads(size, kernel, stride) for size, kernel in zip(unpadded.shape[1:3], layer.kernel_size))
        return (unpadded, "SAME") if pads == tuple(same) else (self.stored(value), "VALID")

    def normalization(self, layer: keras.layers.Layer, value: Value) -> Unrounded:
        """The value of a batch normalization, which is folded into the kernel that it stands behind, or computed by itself."""
        if isinstance(value, Unrounded) and type(value.layer) in KERNELS and value.is_plain:
            normalized = dataclasses.replace(value, norm=layer)
        else:
            normalized = Unrounded(layer.name, layer, (self.stored(value),), norm=layer)
        if list(layer.axis) != [len(self.shape(normalized)) - 1]:
            raise unwritable(layer, f"its axis is {list(layer.axis)}: normalize the last one")
        return normalized

    def rescaled(self, layer: keras.layers.Layer, value: Value) -> Unrounded:
        """The value of a rescaling by a number or by one number for each channel."""
        scale, offset = np.asarray(layer.scale, np.float64), np.asarray(layer.offset, np.float64)
        is_weighted = isinstance(value, Unrounded) and type(value.layer) in WEIGHTED
        if not (isinstance(value, Unrounded) and is_weighted and (value.relu_limit is None or only_scales(layer))):
            value = Unrounded(layer.name, layer, (self.stored(value),))
        result = value.scaled(scale, offset)
        if max(scale.size, offset.size) not in (1, self.shape(result)[-1]):
            raise unwritable(layer, "its `scale` or `offset` is no number for each channel: give one, or as many as channels")
        return result

    def clipped(self, layer: keras.layers.Layer, value: Value) -> Unrounded:
        """The value with the function of a layer behind it, one of `CLIPPING`."""
        function = last_function(layer)
        if not (isinstance(value, Unrounded) and value.relu_limit is None and _clips(value.layer, function)):
            value = Unrounded(layer.name, _ONCE, (self.stored(value),))
        value = value.scaled(0.2, 0.5) if function == "hard_sigmoid" else value  # As Keras defines it.
        return dataclasses.replace(value, relu_limit=clips_at(layer))

    def combined(self, layer: keras.layers.Layer, *values: Value) -> Unrounded:
        """The value of a sum or a product."""
        if len(values) != 2:
            raise unwritable(layer, f"it combines {len(values)} tensors: take two at a time")
        tensors = sorted(map(self.stored, values), key=lambda tensor: -math.prod(tensor.shape))
        (_, *sides, _), second = tensors[0].shape, tensors[1].shape
        if type(layer) is layers.Multiply and second != tensors[0].shape and not (sides and second[:-1] == (1, 1, 1)):
            raise unwritable(
                layer, "its tensors differ in shape: multiply by as many, or by one for each channel, as (1, 1, channels)"
            )
        return Unrounded(layer.name, layer, tuple(tensors))

    def pool(self, layer: keras.layers.Layer, value: Value) -> Unrounded:
        """The value of a global average."""
        return Unrounded(layer.name, layer, (self.stored(value),))

    def average_pool(self, layer: keras.layers.Layer, value: Value) -> Unrounded:
        """The value of an average over windows, which is a depthwise convolution with one weight."""
        source, stride = self.stored(value), layer.strides[0]
        pads = [same_pads(size, window, stride) for size, window in zip(source.shape[1:3], layer.pool_size)]
        if layer.padding == "same" and pads != [(0, 0)] * 2:
            raise unwritable(layer, "its windows reach beyond the image, where they are smaller: give it `padding='valid'`")
        return Unrounded(layer.name, layer, (source,), stride)

    def concatenated(self, layer: keras.layers.Layer, *values: Value) -> Tensor:
        """Adds a concatenation, whose inputs are written with its scale if it has one."""
        shapes = [self.shape(value) if isinstance(value, Unrounded) else self.stored(value).shape for value in values]
        if layer.axis not in (-1, len(shapes[0]) - 1):
            raise unwritable(layer, f"its `axis` is {layer.axis}: take the last one")
        shape = (*shapes[0][:-1], sum(part[-1] for part in shapes))
        if (layer.name, "activation") not in self.quantizers or self.graph.storage.in_float:
            parts = list(map(self.stored, values))
            return self.graph.add(Concatenate(tuple(part.name for part in parts), layer.name), FloatTensor(layer.name, shape))
        step, _, highest = self.codes(layer.name)
        output = QuantizedTensor(layer.name, shape, step, 127 - highest)
        parts = [self.part(value, f"{layer.name}.part{place}", output) for place, value in enumerate(values, 1)]
        return self.graph.add(Concatenate(tuple(part.name for part in parts), layer.name), output)

    def part(self, value: Value, name: str, whole: QuantizedTensor) -> Tensor:
        """The value as a tensor with the scale of a concatenation that it is a part of."""
        if not isinstance(value, Unrounded):
            value = Unrounded(name, _ONCE, (self.stored(value),))
        relu = value.relu_limit is not None or whole.zero_point == -128
        return self.computed(value, dataclasses.replace(whole, name=name, shape=self.shape(value)), relu)

    def largest(self, layer: keras.layers.Layer, value: Value) -> Tensor:
        """Adds a global maximum."""
        source = self.stored(value)
        _, height, width, _ = source.shape
        pooled = self.graph.move(MaxPool(source.name, f"{layer.name}.window", (height, width), 1), source)
        return self.reshaped(layer, pooled)

    def max_pool(self, layer: keras.layers.Layer, value: Value) -> Tensor:
        """Adds a max pooling."""
        source = self.stored(value)
        size, stride = tuple(layer.pool_size), layer.strides[0]
        return self.graph.move(MaxPool(source.name, layer.name, size, stride, layer.padding.upper()), source)

    def zeros(self, layer: keras.layers.Layer, value: Value) -> Padded:
        """The value of a zero padding."""
        (above, below), (left, right) = layer.padding
        return Padded(layer.name, self.stored(value), ((above, below), (left, right)))

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
        if isinstance(value, Padded):
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
        if type(value.layer) in (layers.Add, layers.Multiply, layers.BatchNormalization, layers.Rescaling):
            return first
        if value.padding == "SAME":  # It may come from a ZeroPadding2D, which the layer does not know.
            channels = getattr(value.layer, "filters", None) or first[-1] * value.layer.depth_multiplier
            return (1, *(-(-size // value.stride) for size in first[1:3]), channels)
        return (1, *value.layer.compute_output_shape((None, *first[1:]))[1:])

    def computed(self, value: Unrounded, output: Tensor, relu: bool) -> Tensor:
        """Adds the operator that computes a value and writes it to `output`."""
        name = output.name
        if type(value.layer) is layers.Add:
            a, b = value.inputs
            return self.graph.add(Add(a.name, b.name, output.name, relu), output)
        if type(value.layer) is layers.Multiply:
            a, b = value.inputs
            return self.graph.add(Multiply(a.name, b.name, output.name), output)
        (source,) = value.inputs
        if type(value.layer) is layers.GlobalAveragePooling2D:
            return self.graph.add(GlobalAveragePool(source.name, output.name, value.layer.keepdims), output)
        kernel, shape = self.trained(value, output, relu), output.shape
        factor, offset = factor_and_offset(value, len(kernel.rows))
        if is_flat := type(value.layer) in SCALING and len(shape) == 2:
            source, output = self.pixel(source), dataclasses.replace(output, name=f"{output.name}.pixel", shape=(1, 1, *shape))
        output, written = self.graph.add_weighted(kernel, source, output, factor, offset, relu)
        if is_flat:
            output = self.graph.move(Reshape(output.name, name, shape), output)
        if not np.array_equal(written, offset):  # A real bias needs no rounding.
            self.biases.append((value, written))
        return output

    def pixel(self, value: Tensor) -> Tensor:
        """Features as an image of one pixel, by a reshape that is added unless it is there."""
        name = f"{value.name}.as_pixel"
        return self.graph.tensors.get(name) or self.graph.move(Reshape(value.name, name, (1, 1, *value.shape)), value)

    def trained(self, value: Unrounded, output: Tensor, relu: bool) -> Kernel:
        """The trained weights of a value's layer, at its active bits; a layer that only scales has ones."""
        layer, kind = value.layer, KINDS.get(type(value.layer), "conv")
        if type(layer) in SCALING:
            channels, window = value.inputs[0].shape[-1], getattr(layer, "pool_size", (1, 1))
            weight, one = 1 / math.prod(window), scaling_weight(value, output, relu)
            kernel, steps = np.full((*window, channels, 1), weight), np.full(channels, weight / one)
            return Kernel.of("depthwise", kernel, steps, FIXED_BITS, value.stride, "VALID")
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


_ONCE = layers.Rescaling(1.0)

_RULES: dict[type, Callable[..., Value]] = {
    QuantizeLayer: StockGraphBuilder.unchanged,
    layers.Conv2D: StockGraphBuilder.kernel,
    layers.DepthwiseConv2D: StockGraphBuilder.kernel,
    layers.Dense: StockGraphBuilder.kernel,
    layers.BatchNormalization: StockGraphBuilder.normalization,
    layers.Rescaling: StockGraphBuilder.rescaled,
    layers.Add: StockGraphBuilder.combined,
    layers.Multiply: StockGraphBuilder.combined,
    layers.Concatenate: StockGraphBuilder.concatenated,
    layers.AveragePooling2D: StockGraphBuilder.average_pool,
    layers.GlobalAveragePooling2D: StockGraphBuilder.pool,
    layers.GlobalMaxPooling2D: StockGraphBuilder.largest,
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


def _clips(layer: keras.layers.Layer, function: str) -> bool:
    """Whether the operator of a layer computes a function of `CLIPPING` too."""
    return type(layer) in WEIGHTED or (function in RELU and type(layer) not in UNCLIPPED)


def active_bits(tensor: SwitchableTensor) -> int:
    """The active bits of a tensor."""
    return int(tensor.variables["bits"])


def _step(tensor: SwitchableTensor) -> np.ndarray:
    """The step of a tensor at its active bits, computed as in training."""
    return tf.exp(tensor.quantizer.log_step(tensor.variables, active_bits(tensor))).numpy()
