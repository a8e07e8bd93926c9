"""The builder of a graph from trained kernels and normalizations, in integers, in real numbers, or in both.

Between int8 tensors, the trained integers are stored, those of few bits times a power of two for each channel: batch
normalization only changes the scale of the weights of each channel, and the sign of channels whose gamma is negative. Where a
tensor or a kernel is real, so is the operator, and tensors of integers that it reads or writes are converted.
"""

import dataclasses

import numpy as np

from daqu_tf.spaces.bits import weight_range
from daqu_tf.targets.storage import Storage
from daqu_tf.tflite.graph import FloatTensor, Graph, QuantizedTensor, Tensor
from daqu_tf.tflite.operators import AddConstant, Dequantize, MaxPool, Minimum, Operator, Pad, Quantize, Reshape
from daqu_tf.tflite.weighted import CONTAINER_LIMITS, FLOAT_CONTAINERS, Conv2D, DepthwiseConv2D, FullyConnected, Weighted
from daqu_tf.tflite.widening import Widening, finest, for_double_rounding

# A channel whose weights cannot move its output by this share of a step becomes a constant, since its tiny scale would be illegal.
DEAD_STEPS = 1e-2
CONSTANT_PARTS = 4095  # The parts of an output step in which the bias of a constant counts.
LEAST_SCALE = 1e-30  # The least scale of weights between real tensors; with a smaller one, the weights are as good as 0.
MOST_STEPS = 255.5  # The most output steps in one unit of the accumulator; more saturate all the same, and kernels refuse 256.


@dataclasses.dataclass(frozen=True)
class Kernel:
    """The trained weights of a layer.

    Attributes:
        kind: The kind of the layer: `dense`, `depthwise`, or another name for any other convolution.
        rows: The weights (output channels, rest), integers or, for a float layer, real numbers.
        steps: The steps of the integers (output channels,); None for real numbers.
        weight_bits: The bits of the weights, 2 to 8, or 32.
        size: The height and width of the kernel.
        stride: The stride of a convolution.
        padding: The padding of a convolution, `SAME` or `VALID`.
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
        """The weights of a layer, from its kernel in Keras.

        Args:
            kind: The kind of the layer: `dense`, `depthwise`, or another name for any other convolution.
            kernel: The kernel in the shape that it has in Keras.
            steps: The steps of its integers, one for each output channel, or for each input channel of a depthwise kernel; None for
                a float layer.
            bits: The bits of the weights, 2 to 8, or 32.
            stride: The stride of a convolution.
            padding: The padding of a convolution, `SAME` or `VALID`.
        """
        rows = kernel.reshape(*kernel.shape[:2], -1) if kind == "depthwise" else kernel
        rows = np.moveaxis(rows, -1, 0).reshape(rows.shape[-1], -1)
        if steps is not None:
            steps = np.repeat(steps, len(rows) // len(steps))
            rows = np.clip(np.round(rows / steps[:, None]), *weight_range(bits)).astype(np.int32)
        size = kernel.shape[:2] if kernel.ndim == 4 else (1, 1)
        return cls(kind, rows, steps, bits, size, stride, padding)

    @property
    def is_pointwise(self) -> bool:
        """Whether the layer is the same matrix product at every pixel."""
        return self.kind == "dense" or (self.kind != "depthwise" and (*self.size, self.stride) == (1, 1, 1))

    @property
    def input_channels(self) -> int:
        """The channels of the tensor that the layer reads, if it is pointwise."""
        return self.rows.shape[1]

    def real(self) -> np.ndarray:
        """The weights as real numbers (output channels, rest)."""
        return self.rows.astype(np.float64) if self.steps is None else self.rows * self.steps.astype(np.float64)[:, None]

    def operator(
        self, names: tuple[str, str], container: str, rows: np.ndarray, scales: np.ndarray, bias: np.ndarray, relu: bool
    ) -> Conv2D | DepthwiseConv2D | FullyConnected:
        """The operator of the layer; a pointwise convolution in INT4 is a FULLY_CONNECTED.

        XNNPACK takes no INT4 CONV_2D, but runs the FULLY_CONNECTED as fast as INT8.

        Args:
            names: The names of the tensors that it reads and writes.
            container: The container of the weights.
            rows: The weights (output channels, rest) as the file stores them.
            relu: Whether a ReLU follows.
            **numbers: The `weight_scales` and the `bias`.
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
        storage: The storage, which decides the containers, and whether all tensors are real.
    """

    def __init__(self, storage: Storage):
        self.storage = storage
        self.tensors: dict[str, Tensor] = {}
        self.operators: list[Operator] = []

    def graph(self, source: str, sink: str) -> Graph:
        """What has been collected, between its two ends."""
        return Graph(tuple(self.tensors.values()), tuple(self.operators), source, sink)

    def declare(self, tensor: Tensor) -> Tensor:
        """Adds a tensor, which becomes a real one in a float file, and gives it."""
        if self.storage.in_float:
            tensor = FloatTensor(tensor.name, tensor.shape)
        self.tensors[tensor.name] = tensor
        return tensor

    def add(self, operator: Operator, output: Tensor, real: bool = False) -> Tensor:
        """Adds an operator with the tensor that it writes, and gives that tensor; operands of another type are converted.

        Args:
            operator: The operator, which reads tensors that were declared and writes `output`.
            output: The tensor that is written, as the network was trained.
            real: Whether the tensor becomes real although `output` is not, as in a float file. It is then clipped as int8 would be,
                where fewer than 8 bits or a gate need that.
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
        """The name of the tensor, or of the tensor of its real numbers, which is added if it is missing."""
        if isinstance(tensor, FloatTensor):
            return tensor.name
        name = f"{tensor.name}.real"
        if name not in self.tensors:
            self._append(Dequantize(tensor.name, name), FloatTensor(name, tensor.shape))
        return name

    def _add_clipped(self, operator: Operator, output: QuantizedTensor) -> Tensor:
        """Adds an operator with a real output, and clips that where int8 would saturate: below 8 bits, or as a gate."""
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
        """Adds the operator of a layer with weights, with what follows it up to the rounding.

        Args:
            kernel: The weights of the layer.
            x: The tensor that it reads.
            output: The tensor that it writes, as the network was trained.
            factor: The factor of the normalization (output channels,).
            offset: The offset of the normalization (output channels,).
            relu: Whether a ReLU follows.
            real: Whether the tensor that is written becomes real although `output` is not.

        Returns:
            The tensor that is written, and the offset (output channels,) that the file's bias stands for.
        """
        x, container = self.tensors[x.name], self.storage.of(kernel)
        names = (x.name, output.name)
        real = real or self.storage.in_float
        if real or isinstance(x, FloatTensor) or isinstance(output, FloatTensor) or kernel.steps is None:
            if not self.storage.in_float and container in CONTAINER_LIMITS:  # Runtimes would round its input.
                container = "FLOAT32"
            rows, scales = _real_rows(kernel, container, factor)
            bias = np.asarray(offset, np.float32)
            return self.add(kernel.operator(names, container, rows, scales, bias, relu), output, real), offset
        widening = for_double_rounding if self.storage.runtime == "tflite_runtime" else finest
        widest = CONTAINER_LIMITS[container]
        rows, scales, bias, written = fold(kernel.rows, kernel.steps, factor, offset, x.scale, output.scale, widest, widening)
        return self.add(kernel.operator(names, container, rows, scales, bias, relu), output), written

    def move(self, operator: MaxPool | Pad | Reshape, source: Tensor) -> Tensor:
        """Adds an operator that moves the numbers of `source` without changing them, and gives the tensor that it writes."""
        output = dataclasses.replace(source, name=operator.output, shape=operator.output_shape(source.shape))
        return self._append(operator, output)


def _real_rows(kernel: Kernel, container: str, factor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The weights (output channels, rest) of an operator between real tensors, and their scales, if they have any."""
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
    """Folds batch normalization into the scales and signs of weights, and turns dead channels into constants.

    Where one unit of the accumulator is more than the whole range of the output, it saturates with a smaller scale too, which
    runtimes can hold.

    Args:
        codes: The trained integers of the weights (channels, rest).
        step: The steps of the integers (channels,).
        factor: The factor of the normalization, gamma / sigma (channels,).
        offset: The offset of the normalization, beta - mean * gamma / sigma (channels,).
        input_scale: The step of the tensor that is read.
        output_scale: The step of the tensor that is written.
        widest: The largest integer that the container of the weights holds.
        widening: The powers of two by which weights are multiplied, and their scales divided, so that biases are finer.

    Returns:
        The weights (channels, rest), int8; their scales (channels,), float32; the bias (channels,), int32; and the offset
        (channels,) that the bias stands for.
    """
    scale = np.abs(factor) * step
    reach = np.abs(codes).sum(axis=1) * 255.0 * input_scale * scale
    limit = 2**30  # It leaves room in int32 for the accumulator.
    # A channel with a bias beyond the limit is also moved by its weights by less than a step.
    dead = (reach < DEAD_STEPS * output_scale) | (np.abs(offset) > limit * input_scale * scale)
    codes = np.where(dead[:, None], 0, codes * np.where(factor < 0, -1, 1)[:, None])
    # A constant needs a scale at which its bias is exact to a small part of an output step. The number of parts is odd, so that no
    # bias lies halfway between two integers, where float32 and the file may round differently.
    scale = np.where(dead, output_scale / input_scale / CONSTANT_PARTS, scale).astype(np.float32)
    unit = np.float64(input_scale) * scale
    power = widening(codes, unit / output_scale, widest)
    # Where the scale is made smaller below, only whole units of the old scale add up to the same.
    is_kept = unit <= MOST_STEPS * output_scale
    power = np.where(is_kept & (np.abs(offset) * power <= limit * unit), power, 1)
    bias = np.clip(np.round(offset / (unit / power)), -limit, limit)
    scale = np.minimum(scale, np.float32(MOST_STEPS * output_scale / input_scale)) / power.astype(np.float32)
    return (codes * power[:, None]).astype(np.int8), scale, bias.astype(np.int32), bias * (unit / power)
