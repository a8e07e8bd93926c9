"""The form of a graph that the kernels of old runtimes round best."""

import dataclasses

import numpy as np

from daqu_tf.tflite.graph import Graph, QuantizedTensor
from daqu_tf.tflite.operators import Operator
from daqu_tf.tflite.weighted import Weighted

_WIDEST_BIAS = 2**30  # It leaves room in int32 for the sum of products.


# The share of a convolution's outputs that are a step off on tflite-runtime 2.14, on x86 and ARM alike: 25% where a product is 0.31
# output steps, 12% at 0.16, 4% at 0.04, 0.3% at 0.005, and none from 0.5 to 1. From 1 on, ARM's depthwise kernel rounds to even
# steps.
def widened(graph: Graph) -> Graph:
    """The graph with INT8 weights of few bits multiplied by powers of two, and their scales divided by them (ours).

    The real numbers stay the same. The form is for kernels without a delegate; tflite-runtime has no delegate for int8. Where the
    product of two integers is less than half an output step, these kernels round a sum twice, first to multiples of a step / 2^n
    that is hardly finer than a product. So a product should be very small, or else half an output step to a whole one, where all
    kernels round once.
    """
    scales = {tensor.name: tensor.scale for tensor in graph.tensors if isinstance(tensor, QuantizedTensor)}
    return dataclasses.replace(graph, operators=tuple(_widened(operator, scales) for operator in graph.operators))


def _widened(operator: Operator, scales: dict[str, float]) -> Operator:
    if not isinstance(operator, Weighted) or operator.container != "INT8" or operator.in_float:
        return operator
    spare_bits = 8 - operator.weight_bits
    product_steps = operator.bias_scales(scales[operator.input]) / scales[operator.output]
    _, exponents = np.frexp(product_steps)  # The exponent is 0 from half a step to a step, 1 from there to two steps, and so on.
    factors = 2 ** np.where(exponents < 0, spare_bits, np.minimum(exponents, spare_bits))
    factors = np.where(np.abs(operator.bias.astype(np.int64)) * factors <= _WIDEST_BIAS, factors, 1)
    shape = [-1 if axis == operator.channels_axis else 1 for axis in range(operator.weights_ndim)]
    weights, bias = operator.weights * factors.reshape(shape), operator.bias * factors
    narrower = operator.weight_scales / factors.astype(np.float32)
    return dataclasses.replace(operator, weights=weights.astype(np.int8), weight_scales=narrower, bias=bias.astype(np.int32))
