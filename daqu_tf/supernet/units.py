"""Units, each a layer of the architecture with all that belongs to it, and chains of units, which are blocks."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from daqu_tf.keras import QuantizeWrapper, keras
from daqu_tf.spaces.architecture import walk
from daqu_tf.spaces.layer import Layer
from daqu_tf.supernet.layers import (
    Codes,
    ElasticBatchNormalization,
    ElasticConv2D,
    ElasticDense,
    ElasticDepthwiseConv2D,
    QuantizedProduct,
    Size,
    TensorQuantizer,
)
from daqu_tf.supernet.quantizers import SwitchableQuantizeConfig, SwitchableQuantizer


class Unit(keras.layers.Layer):
    """A layer of the architecture with all that belongs to it, each part with its quantizer.

    The parts, as far as the layer has them, are an average, the layer with weights, normalization and activation, a product and a
    sum.

    Args:
        layer: The layer, at its largest.
        quantizer: Makes a quantizer from the name of the gene of its bits, or None for fixed bits, and its other arguments.
        name: The name of the unit.
        half: The type of convolutions and matrix products: `float16`, `bfloat16`, or None for float32.
    """

    def __init__(self, layer: Layer, quantizer: Callable[..., SwitchableQuantizer], name: str, half: str | None = None):
        super().__init__(name=name)
        self.layer = layer
        self.normalize: ElasticBatchNormalization | None = None
        self.pooled: TensorQuantizer | None = None
        self.output_tensor: TensorQuantizer | None = None
        self.total: TensorQuantizer | None = None
        self.swish: QuantizedProduct | None = None
        self.product: QuantizedProduct | None = None
        axis = {"depthwise": 2, "dense": 1}.get(layer.kind, 3)
        config = SwitchableQuantizeConfig(quantizer(f"{layer.name}.weight_bits", channel_axis=axis))
        self.weighted = QuantizeWrapper(_weighted(layer, half), config, name=layer.name)
        for tensor, signed in layer.tensors.items():
            gene = f"{layer.name}.activation_bits" if tensor == layer.left_tensor else None
            behind_function = tensor.endswith((".normalize", ".output"))
            self._add_tensor(tensor, quantizer(gene, signed=signed, ceiling=layer.ceiling if behind_function else np.inf))

    def _add_tensor(self, name: str, quantizer: SwitchableQuantizer) -> None:
        kind, relu = name.rpartition(".")[2], not quantizer.signed
        if kind == "normalize":
            self.normalize = ElasticBatchNormalization(relu, quantizer, name=name)
            return
        attribute = {"output": "output_tensor", "hard_swish": "swish", "sum": "total"}.get(kind, kind)
        tensor = QuantizedProduct if kind in ("hard_swish", "product") else TensorQuantizer
        setattr(self, attribute, tensor(quantizer, relu, name=name))

    def call(
        self,
        x: tf.Tensor,
        layer: Layer,
        arguments: Mapping[str, Any],
        other: tf.Tensor | None = None,
        step: tf.Tensor | None = None,
        as_codes: bool = False,
    ) -> tf.Tensor | Codes:
        """Computes the layer with all its parts.

        Args:
            x: The input, of shape NHWC, or (batch, channels) for a dense layer that does not pool.
            layer: The layer with the active sizes, Python ints in a static network and scalar tensors in the supernet.
            arguments: The arguments `training`, `statistics_rate` and `observe` of `ElasticBatchNormalization`.
            other: The second addend of a sum, or the tensor that is gated.
            step: The step of `x` if `x` is codes, else None.
            as_codes: Whether to return codes, and their step as a second value.

        Returns:
            The output, of shape NHWC, or (batch, channels) for a dense layer that does not gate; with `as_codes`, also the step.
        """
        observe = arguments["observe"]
        if self.pooled is not None:
            x = self.pooled(tf.reduce_mean(x, [1, 2]), observe=observe)
        x = self.weighted(x, **_sizes(layer), **({} if step is None else {"step": step}))
        if self.normalize is not None:
            x = self.normalize(x, **arguments, as_codes=as_codes and self.swish is None)
        if self.output_tensor is not None:
            x = self.output_tensor(x, observe=observe)
        if self.swish is not None:
            x = self.swish(x, self.swish.gate(x), observe=observe, as_codes=as_codes)
        if self.product is not None:
            gate = self.product.gate(x)[:, tf.newaxis, tf.newaxis, :]
            x = self.product(other, gate, observe=observe, as_codes=as_codes)
        if self.total is not None:
            x = self.total(x + other, observe=observe)
        return x


def _weighted(layer: Layer, half: str | None) -> keras.layers.Layer:
    if layer.kind == "dense":
        return ElasticDense(layer.output_channels, half)
    if layer.kind == "depthwise":
        return ElasticDepthwiseConv2D(layer.kernel, layer.stride, half)
    return ElasticConv2D(layer.output_channels, layer.kernel, layer.stride, half)


def _sizes(layer: Layer) -> dict[str, Size]:
    """The active sizes of a layer with weights, by the names of the arguments of its call."""
    if layer.kind == "dense":
        return {"units": layer.output_channels}
    outputs = {} if layer.kind == "depthwise" else {"filters": layer.output_channels}
    return outputs | {"kernel_size": layer.kernel}


class UnitChain(keras.layers.Layer):
    """A block: units one behind another, with a residual where the architecture has one.

    Args:
        units: The units in order of computation.
        name: The name of the block.
    """

    def __init__(self, units: list[Unit], name: str):
        super().__init__(name=name)
        self.units = units

    def call(self, x: tf.Tensor, layers: Mapping[str, Layer], arguments: Mapping[str, Any]) -> tf.Tensor:
        """Computes the units of the block.

        Args:
            x: The input, of shape NHWC.
            layers: The layers with the active sizes by name.
            arguments: The arguments `training`, `statistics_rate` and `observe` of `ElasticBatchNormalization`.

        Returns:
            The output, of shape NHWC, or (batch, channels) behind a dense layer.
        """
        units = {unit.layer.name: (unit, after) for unit, after in zip(self.units, [*self.units[1:], None])}
        step = None

        def run(layer: Layer, x: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
            nonlocal step
            unit, after = units[layer.name]
            as_codes = after is not None and _reads_only(after.layer)
            output = unit(x, layers[layer.name], arguments, other, step, as_codes)
            x, step = output if as_codes else (output, None)
            return x

        return walk((unit.layer for unit in self.units), x, run)


def _reads_only(layer: Layer) -> bool:
    """Whether the layer only multiplies the output of the layer before it by its own kernel."""
    return not (layer.kind == "dense" or layer.is_shortcut)
