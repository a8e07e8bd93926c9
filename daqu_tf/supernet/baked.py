"""A subnet as a plain functional `tf_keras.Model` of stock layers, which runs, is saved and is loaded without daqu_tf."""

import numpy as np
import tensorflow as tf

from daqu_tf.keras import keras
from daqu_tf.spaces.architecture import image_size, walk
from daqu_tf.spaces.bits import FIXED_BITS, FLOAT_BITS, activation_range, weight_range
from daqu_tf.spaces.layer import RELUS, Layer
from daqu_tf.supernet import weights
from daqu_tf.supernet.supernet import StaticNetwork
from daqu_tf.supernet.weights import EPSILON


def bake(network: StaticNetwork) -> keras.Model:
    """The network as a stock model with quantized weights, and with TensorFlow's own fake quantization behind activations.

    It maps images (batch, height, width, channels) in [0, 1], at the resolution of the subnet, to logits (batch, classes). Layers
    have the names that they have in the space, and behind every quantizer there is an `Activation` that does nothing but bear the
    name of the tensor. In float, with 32 bits throughout, it is a stock network from which TFMOT's own 8-bit training may start.

    Args:
        network: The network, which has been recalibrated, since its statistics are built in.
    """
    return _Baker(network).model()


class _Baker:
    def __init__(self, network: StaticNetwork):
        self._network, self._arrays = network, network.arrays()
        self._fixed = network.subnet.fixed_bits

    def model(self) -> keras.Model:
        space, subnet = self._network.space, self._network.subnet
        shape = (*image_size(space.input_shape, subnet["resolution"]), space.input_shape[2])
        inputs = keras.Input(shape, name="image")
        x = inputs if self._fixed == FLOAT_BITS else _fake_quantized(inputs, 0.0, 1.0, FIXED_BITS)
        if space.input_zero:
            zero = space.input_zero if self._fixed == FLOAT_BITS else space.input_zero_code / 255
            x = keras.layers.Rescaling(1.0, -zero, name="image.zero")(x)
        return keras.Model(inputs, walk(space.layers(subnet), x, self._unit), name="subnet")

    def _unit(self, layer: Layer[int], x: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
        if layer.pools:
            x = self._tensor(keras.layers.GlobalAveragePooling2D(name=f"{layer.name}.average")(x), layer, "pooled")
        x = self._weighted(layer)(x)
        if layer.kind != "dense":
            names = ("gamma", "beta", "moving_mean", "moving_variance")
            statistics = [self._arrays[f"{layer.name}.normalize/{name}"] for name in names]
            x = keras.layers.BatchNormalization(epsilon=EPSILON, weights=statistics, name=f"{layer.name}.batch_normalization")(x)
        if layer.activation in RELUS:
            limit = None if layer.ceiling == np.inf or self._fixed != FLOAT_BITS else layer.ceiling
            x = keras.layers.ReLU(limit, name=f"{layer.name}.relu")(x)
        if not layer.gates:
            x = self._tensor(x, layer, "output" if layer.kind == "dense" else "normalize")
        if layer.activation == "hard_swish":
            gate = self._hard_sigmoid(x, layer, "hard_swish")
            x = self._tensor(keras.layers.Multiply()([x, gate]), layer, "hard_swish")
        if layer.gates:
            gate = self._hard_sigmoid(x, layer, "product")
            gate = keras.layers.Reshape((1, 1, layer.output_channels), name=f"{layer.name}.gate")(gate)
            x = self._tensor(keras.layers.Multiply()([other, gate]), layer, "product")
        if layer.residual:
            x = keras.layers.Add(name=f"{layer.name}.add")([x, other])
            x = keras.layers.ReLU(name=f"{layer.name}.sum_relu")(x) if layer.residual == "relu" else x
            x = self._tensor(x, layer, "sum")
        return x

    def _hard_sigmoid(self, x: tf.Tensor, layer: Layer[int], product: str) -> tf.Tensor:
        gate = keras.layers.ReLU(6.0)(x + 3.0) * (1.0 / 6.0)
        in_float = self._tensor_bits(layer, product) == FLOAT_BITS
        return gate if in_float else _fake_quantized(gate, 0.0, 1.0, FIXED_BITS)

    def _weighted(self, layer: Layer[int]) -> keras.layers.Layer:
        kernel = self._kernel(layer)
        if layer.kind == "dense":
            arrays = [kernel, self._arrays[f"{layer.name}/bias"]]
            return keras.layers.Dense(layer.output_channels, weights=arrays, name=layer.name)
        options = {"strides": layer.stride, "padding": "same", "use_bias": False, "weights": [kernel], "name": layer.name}
        if layer.kind == "depthwise":
            return keras.layers.DepthwiseConv2D(layer.kernel, **options)
        return keras.layers.Conv2D(layer.output_channels, layer.kernel, **options)

    def _kernel(self, layer: Layer[int]) -> np.ndarray:
        kernel, bits = self._arrays[f"{layer.name}/kernel"], self._bits(f"{layer.name}.weight_bits")
        if bits == FLOAT_BITS:
            return kernel
        step = weights.step(self._network.space, self._arrays, f"{layer.name}/kernel_log_step", bits)
        step = step[:, np.newaxis] if layer.kind == "depthwise" else step
        return np.clip(np.round(kernel / step), *weight_range(bits)) * step

    def _tensor(self, x: tf.Tensor, layer: Layer[int], kind: str) -> tf.Tensor:
        """The tensor `x` behind the quantizer of the layer's tensor of this kind."""
        name, bits = f"{layer.name}.{kind}", self._tensor_bits(layer, kind)
        if bits == FLOAT_BITS:
            return x
        step = float(weights.step(self._network.space, self._arrays, f"{name}/activation_log_step", bits))
        lowest, highest = activation_range(bits, layer.tensors[name])
        return keras.layers.Activation("linear", name=name)(_fake_quantized(x, lowest * step, highest * step, bits))

    def _tensor_bits(self, layer: Layer[int], kind: str) -> int:
        is_left = f"{layer.name}.{kind}" == layer.left_tensor
        return self._bits(f"{layer.name}.activation_bits") if is_left else self._fixed

    def _bits(self, gene: str) -> int:
        return self._network.subnet.values.get(gene, self._fixed)


def _fake_quantized(x: tf.Tensor, lowest: float, highest: float, bits: int) -> tf.Tensor:
    return tf.quantization.fake_quant_with_min_max_args(x, lowest, highest, bits)
