"""What each operator of a `Graph` must compute, in float64 from the integers; independent of any runtime."""

import numpy as np

from daqu_tf.tflite.graph import Graph, QuantizedTensor
from daqu_tf.tflite.operators import (
    Add,
    AddConstant,
    Concatenate,
    GlobalAveragePool,
    Logistic,
    MaxPool,
    Multiply,
    Operator,
    Pad,
    Quantize,
    Reshape,
    Softmax,
)
from daqu_tf.tflite.weighted import Conv2D, DepthwiseConv2D, FullyConnected


def run(graph: Graph, values: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the int8 values of every activation tensor, by name, for int8 input `values`."""
    results = {graph.input: values}
    for operator in graph.operators:
        results[operator.output] = compute(graph, operator, *(results[name] for name in operator.inputs))
    return results


def compute(graph: Graph, operator: Operator, *inputs: np.ndarray) -> np.ndarray:
    """Returns the int8 output of one operator for int8 `inputs`."""
    output = reals(graph, operator, *inputs)
    return quantize(graph.tensor(operator.output), np.maximum(output, 0) if _has_relu(operator) else output)


def reals(graph: Graph, operator: Operator, *inputs: np.ndarray) -> np.ndarray:
    """Returns the real output of one operator for int8 `inputs`, before ReLU and rounding."""
    sources = [graph.tensor(name) for name in operator.inputs]
    output = _FUNCTIONS[type(operator)](operator, *map(dequantize, sources, inputs))
    if hasattr(operator, "bias"):
        output = output + operator.bias * (sources[0].scale * operator.weight_scales.astype(np.float64))
    return output


def _has_relu(operator: Operator) -> bool:
    return getattr(operator, "relu", False)


def dequantize(tensor: QuantizedTensor, values: np.ndarray) -> np.ndarray:
    return (values.astype(np.float64) - tensor.zero_point) * tensor.scale


def quantize(tensor: QuantizedTensor, reals: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(reals / tensor.scale) + tensor.zero_point, -128, 127).astype(np.int8)


def patches(operator: Operator, values: np.ndarray, size: tuple[int, int], outside: float = 0.0) -> np.ndarray:
    """(1, H, W, C) to (1, rows, columns, C, *size); SAME padding is of real zeros, as 0.0 is exact, or of `outside`."""
    stride = operator.stride
    if operator.padding == "SAME":
        pads = [(0, 0), _pads(values.shape[1], size[0], stride), _pads(values.shape[2], size[1], stride), (0, 0)]
        values = np.pad(values, pads, constant_values=outside)
    windows = np.lib.stride_tricks.sliding_window_view(values, size, axis=(1, 2))
    return windows[:, ::stride, ::stride]


def _pads(size: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _conv(operator: Conv2D | DepthwiseConv2D, values: np.ndarray, equation: str) -> np.ndarray:
    return np.einsum(equation, patches(operator, values, operator.weights.shape[1:3]), _weights(operator))


def _weights(operator: Operator) -> np.ndarray:
    """Real weights."""
    last = np.moveaxis(operator.weights, operator.channels_axis, -1) * operator.weight_scales.astype(np.float64)
    return np.moveaxis(last, -1, operator.channels_axis)


def _softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


_FUNCTIONS = {
    Conv2D: lambda operator, values: _conv(operator, values, "nxychw,ohwc->nxyo"),
    DepthwiseConv2D: lambda operator, values: _conv(
        operator, values.repeat(operator.weights.shape[3] // values.shape[3], -1), "nxychw,ohwc->nxyc"
    ),
    FullyConnected: lambda operator, values: values @ _weights(operator).T,
    Add: lambda operator, a, b: a + b,
    AddConstant: lambda operator, values: values + operator.constant,
    Multiply: lambda operator, a, b: a * b,
    Concatenate: lambda operator, *parts: np.concatenate(parts, -1),
    GlobalAveragePool: lambda operator, values: values.mean((1, 2), keepdims=operator.keepdims),
    Quantize: lambda operator, values: values,
    Softmax: lambda operator, values: _softmax(values),
    Logistic: lambda operator, values: 1 / (1 + np.exp(-values)),
    MaxPool: lambda operator, values: patches(operator, values, operator.size, -np.inf).max((4, 5)),
    Pad: lambda operator, values: np.pad(values, [(0, 0), *operator.pads, (0, 0)]),
    Reshape: lambda operator, values: values.reshape(operator.shape),
}
