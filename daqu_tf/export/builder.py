"""Grows the `Graph` of a network from trained kernels and normalizations, in integers, in real numbers, or in both.

Between int8 tensors the trained integers are what is stored, times a power of two for each channel where they have few bits: batch
normalization only changes the per-channel scale of the weights, and the sign of channels whose gamma is negative. Where a tensor or a kernel is real, so is the operator; what it reads or writes
otherwise is converted.
"""

import dataclasses

import numpy as np

from daqu_tf.spaces.bits import weight_range
from daqu_tf.targets.storage import Storage
from daqu_tf.tflite.graph import FloatTensor, Graph, QuantizedTensor, Tensor
from daqu_tf.tflite.operators import AddConstant, Dequantize, MaxPool, Minimum, Operator, Pad, Quantize, Reshape
from daqu_tf.tflite.weighted import CONTAINER_LIMITS, FLOAT_CONTAINERS, Conv2D, DepthwiseConv2D, FullyConnected, Weighted
from daqu_tf.tflite.widening import Widening, finest, for_double_rounding

# A channel whose weights cannot move its output by this share of a step is a constant: its tiny scale would be illegal.
DEAD_STEPS = 1e-2
CONSTANT_PARTS = 4095  # Of an output step.
LEAST_SCALE = 1e-30  # Of weights between real tensors: one below it is as good as none.
MOST_STEPS = 255.5  # Of the output in one unit of the accumulator: more saturates all the same, and 256 is more than kernels take.


@dataclasses.dataclass(frozen=True)
class Kernel:
    """The trained weights of a layer.

    Attributes:
        kind: `dense`, `depthwise` or another convolution.
        rows: Integers or, of a float layer, real numbers; (output channels, rest).
        steps: Of the integers (output channels,); None where the numbers are real.
        weight_bits: 2 to 8, or 32.
        size: Height and width.
        stride: Of a convolution.
        padding: Of a convolution.
    """

    kind: str
    rows: np.ndarray
    steps: np.ndarray | None
    weight_bits: int
    size: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str = "SAME"

    @classmethod
    def of(
        cls, kind: str, kernel: np.ndarray, steps: np.ndarray | None, bits: int, stride: int = 1, padding: str = "SAME"
    ) -> "Kernel":
        """From a kernel as Keras has it, and the steps (output channels,) of its integers, if it is quantized."""
        rows = kernel[..., 0] if kind == "depthwise" else kernel
        rows = np.moveaxis(rows, -1, 0).reshape(rows.shape[-1], -1)
        if steps is not None:
            rows = np.clip(np.round(rows / steps[:, None]), *weight_range(bits)).astype(np.int32)
        size = kernel.shape[:2] if kernel.ndim == 4 else (1, 1)
        return cls(kind, rows, steps, bits, size, stride, padding)

    @property
    def is_pointwise(self) -> bool:
        """Whether it is the same matrix product at every pixel."""
        return self.kind == "dense" or (self.kind != "depthwise" and (*self.size, self.stride) == (1, 1, 1))

    @property
    def input_channels(self) -> int:
        """Of what it reads, where it is pointwise."""
        return self.rows.shape[1]

    def real(self) -> np.ndarray:
        """The weights as real numbers (output channels, rest)."""
        return self.rows.astype(np.float64) if self.steps is None else self.rows * self.steps.astype(np.float64)[:, None]

    def operator(
        self, names: tuple[str, str], container: str, rows: np.ndarray, scales: np.ndarray, bias: np.ndarray, relu: bool
    ) -> Conv2D | DepthwiseConv2D | FullyConnected:
        """What computes with `rows`; a pointwise convolution that is stored as INT4 is a FULLY_CONNECTED.

        XNNPACK takes no INT4 CONV_2D, and runs the FULLY_CONNECTED as fast as INT8.
        """
        if self.kind == "dense" or (self.is_pointwise and container == "INT4"):
            return FullyConnected(*names, rows, scales, bias, container, relu)
        if self.kind == "depthwise":
            rows = rows.T.reshape(1, *self.size, -1)
            return DepthwiseConv2D(*names, rows, scales, bias, self.stride, relu, self.padding, container)
        rows = rows.reshape(len(rows), *self.size, -1)
        return Conv2D(*names, rows, scales, bias, self.stride, relu, self.padding, container)


class GraphBuilder:
    """Collects tensors and operators in the order in which they run.

    Args:
        storage: Decides the containers, and whether all tensors are real.
    """

    def __init__(self, storage: Storage):
        self.storage = storage
        self.tensors: dict[str, Tensor] = {}
        self.operators: list[Operator] = []

    def graph(self, source: str, sink: str) -> Graph:
        """What has been collected, between its two ends."""
        return Graph(tuple(self.tensors.values()), tuple(self.operators), source, sink)

    def declare(self, tensor: Tensor) -> Tensor:
        """Adds a tensor; in a float file it is real."""
        if self.storage.in_float:
            tensor = FloatTensor(tensor.name, tensor.shape)
        self.tensors[tensor.name] = tensor
        return tensor

    def add(self, operator: Operator, output: Tensor, real: bool = False) -> Tensor:
        """Adds an operator with the tensor that it writes; an operand of another type is converted.

        Args:
            operator: Between tensors that were declared and `output`.
            output: As the network was trained.
            real: Whether the tensor is real although `output` is not, as all are in a float file: where fewer than 8 bits or a gate
                need it, it is clipped as int8 would be.
        """
        inputs, real = [self.tensors[name] for name in operator.inputs], real or self.storage.in_float
        in_integers = all(isinstance(tensor, QuantizedTensor) for tensor in (*inputs, output)) and not real
        if in_integers and not (isinstance(operator, Weighted) and operator.in_float):
            return self._append(operator, output)
        operator = operator.reading(*(self._real(tensor) for tensor in inputs))
        if isinstance(output, FloatTensor):
            return self._append(operator, output)
        if real:
            return self._add_clipped(operator, output)
        unrounded = FloatTensor(f"{output.name}.unrounded", output.shape)
        self._append(dataclasses.replace(operator, output=unrounded.name), unrounded)
        return self._append(Quantize(unrounded.name, output.name), output)

    def _append(self, operator: Operator, output: Tensor) -> Tensor:
        self.operators.append(operator)
        return self.declare(output)

    def _real(self, tensor: Tensor) -> str:
        """The name of the tensor, or of its real numbers."""
        if isinstance(tensor, FloatTensor):
            return tensor.name
        name = f"{tensor.name}.real"
        if name not in self.tensors:
            self._append(Dequantize(tensor.name, name), FloatTensor(name, tensor.shape))
        return name

    def _add_clipped(self, operator: Operator, output: QuantizedTensor) -> Tensor:
        """Adds an operator with real output, and what int8 would do by saturating at fewer than its 255 steps or as a gate."""
        relu = getattr(operator, "relu", False)
        is_gate = False
        if isinstance(operator, Weighted | AddConstant) and not relu and output.zero_point == -128:
            operator, is_gate = dataclasses.replace(operator, relu=True), True
        clipped = FloatTensor(output.name, output.shape)
        if not is_gate and not (relu and output.zero_point > -128):
            return self._append(operator, clipped)
        unclipped = FloatTensor(f"{output.name}.unclipped", output.shape)
        self._append(dataclasses.replace(operator, output=unclipped.name), unclipped)
        return self._append(Minimum(unclipped.name, output.name, (127 - output.zero_point) * output.scale), clipped)

    def add_weighted(
        self, kernel: Kernel, x: Tensor, output: Tensor, factor: np.ndarray, offset: np.ndarray, relu: bool, real: bool = False
    ) -> tuple[Tensor, np.ndarray]:
        """Adds the operator with a kernel, and what follows it up to the rounding.

        Args:
            kernel: Of the layer.
            x: What it reads.
            output: What it writes.
            factor: What normalization multiplies by (output channels,).
            offset: And what it adds (output channels,).
            relu: Whether a ReLU follows.
            real: As for `add`.

        Returns:
            The output, and the offset that the file's bias stands for (output channels,).
        """
        x, container = self.tensors[x.name], self.storage.of(kernel)
        names = (x.name, output.name)
        real = real or self.storage.in_float
        if real or isinstance(x, FloatTensor) or isinstance(output, FloatTensor) or kernel.steps is None:
            if not self.storage.in_float and container in CONTAINER_LIMITS:  # Runtimes would round what it reads.
                container = "FLOAT32"
            rows, scales = _real_rows(kernel, container, factor)
            bias = np.asarray(offset, np.float32)
            return self.add(kernel.operator(names, container, rows, scales, bias, relu), output, real), offset
        widening = for_double_rounding if self.storage.runtime == "tflite_runtime" else finest
        widest = CONTAINER_LIMITS[container]
        rows, scales, bias, written = fold(kernel.rows, kernel.steps, factor, offset, x.scale, output.scale, widest, widening)
        return self.add(kernel.operator(names, container, rows, scales, bias, relu), output), written

    def move(self, operator: MaxPool | Pad | Reshape, source: Tensor) -> Tensor:
        """Adds an operator that takes numbers as they are."""
        output = dataclasses.replace(source, name=operator.output, shape=operator.output_shape(source.shape))
        return self._append(operator, output)


def _real_rows(kernel: Kernel, container: str, factor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (output channels, rest) and their scales, if they have any, of an operator between real tensors."""
    if kernel.steps is None or container in FLOAT_CONTAINERS:
        return kernel.real() * factor[:, None], np.zeros(0)
    scales = np.abs(factor) * kernel.steps
    dead = scales < LEAST_SCALE
    rows = np.where(dead[:, None], 0, kernel.rows * np.where(factor < 0, -1, 1)[:, None])
    return rows.astype(np.int8), np.where(dead, 1.0, scales)


def fold(
    codes: np.ndarray,
    step: np.ndarray,
    factor: np.ndarray,
    offset: np.ndarray,
    input_scale: float,
    output_scale: float,
    widest: int,
    widening: Widening = finest,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Folds batch normalization into scale and sign of the weights, and makes constants of dead channels.

    Where one unit of the accumulator already is more than the output's whole range, a smaller scale, which runtimes can
    hold, saturates just the same.

    Args:
        codes: Trained integers (channels, rest).
        step: Their steps (channels,).
        factor: gamma / sigma (channels,).
        offset: beta - mean * gamma / sigma (channels,).
        input_scale: Step of the tensor that is read.
        output_scale: Step of the tensor that is written.
        widest: The largest integer that the container holds.
        widening: By which powers of two the weights are multiplied, and their scales divided, so that biases are finer.

    Returns:
        Weights int8 (channels, rest), their scales float32 (channels,), int32 bias (channels,), and the offset that the
        bias stands for (channels,).
    """
    scale = np.abs(factor) * step
    reach = np.abs(codes).sum(axis=1) * 255.0 * input_scale * scale
    limit = 2**30  # Leaves room in int32 for the accumulator.
    # A bias beyond it belongs to a channel that its weights move by less than a step, too.
    dead = (reach < DEAD_STEPS * output_scale) | (np.abs(offset) > limit * input_scale * scale)
    codes = np.where(dead[:, None], 0, codes * np.where(factor < 0, -1, 1)[:, None])
    # A constant needs only a scale at which its bias is exact to a small part of an output step: an odd one, so that none lies
    # halfway between two integers, where float32 and the file may round to either.
    scale = np.where(dead, output_scale / input_scale / CONSTANT_PARTS, scale).astype(np.float32)
    unit = np.float64(input_scale) * scale
    power = widening(codes, unit / output_scale, widest)
    power = np.where(np.abs(offset) * power <= limit * unit, power, 1)
    bias = np.clip(np.round(offset / (unit / power)), -limit, limit)
    scale = np.minimum(scale, np.float32(MOST_STEPS * output_scale / input_scale)) / power.astype(np.float32)
    return (codes * power[:, None]).astype(np.int8), scale, bias.astype(np.int32), bias * (unit / power)
