"""The base of all operators of a `.tflite` file, and the checks that several of them share."""

import dataclasses
import math
from typing import Any, ClassVar, TypeVar

import numpy as np

from daqu_tf.tflite.checks import require

Shape = tuple[int, ...]

PADDINGS = ("SAME", "VALID")
SameOperator = TypeVar("SameOperator", bound="BaseOperator")


class BaseOperator:
    """An operator of a `.tflite` file, which is named by its output.

    Two operators are equal if all their fields are equal, element by element.
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]
    output: str
    # Some kernels refuse a file, or compute it wrongly, if one `step` is this many output scales or more.
    max_steps: ClassVar[float] = math.inf

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(np.array_equal(value, vars(other)[name]) for name, value in vars(self).items())

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the activation tensors that the operator reads."""
        raise NotImplementedError

    def reading(self: SameOperator, *names: str) -> SameOperator:
        """This operator with other inputs, given by their names."""
        raise NotImplementedError

    def check(self) -> None:
        """Raises `DaquError` if a constant of the operator cannot be stored."""

    def check_types(self, output: str, *inputs: str) -> None:
        """Raises `DaquError` if the operator does not compute with these types of its output and inputs."""
        good = output in ("INT8", "FLOAT32") and set(inputs) == {output}
        message = f"{type(self).__name__} needs INT8 throughout, or FLOAT32, but reads {', '.join(inputs)} and writes {output}"
        require(good, self.output, f"{message}; give all its tensors one type")

    def step(self, *input_scales: float) -> float:
        """The largest real change of the output when one integer that goes into it changes by 1."""
        return max(input_scales)

    def check_scales(self, output_scale: float, *input_scales: float) -> None:
        """Raises `DaquError` if kernels cannot compute with these scales of the output and the inputs."""
        steps = self.step(*input_scales) / output_scale
        message = f"one step of its operands must be less than {self.max_steps} output scales, but is {steps:.4g}"
        require(steps < self.max_steps, self.output, f"{message}; raise the output's scale")


class UnaryOperator(BaseOperator):
    """An operator on one tensor."""

    input: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the activation tensors that the operator reads."""
        return (self.input,)

    def reading(self: SameOperator, *names: str) -> SameOperator:
        """This operator with other inputs, given by their names."""
        return dataclasses.replace(self, input=names[0])


class WindowedOperator(UnaryOperator):
    """An operator that passes a window over its tensor."""

    stride: int
    padding: str


def same_pads(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """The number of zeros before and after the values of one axis under SAME padding."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def strided(operator: WindowedOperator, shape: Shape, window: tuple[int, ...]) -> tuple[int, ...]:
    """The height and width of the output when the operator's window passes over a tensor.

    Args:
        operator: An operator with `stride` and `padding`.
        shape: The shape (1, height, width, channels) of the tensor.
        window: The height and width of the window.
    """
    same, stride = operator.padding == "SAME", operator.stride
    require_input(same or (shape[1] >= window[0] and shape[2] >= window[1]), operator, shape)
    return tuple(-(-(size if same else size - kernel + 1) // stride) for size, kernel in zip(shape[1:3], window))


def check_window(operator: WindowedOperator) -> None:
    """Raises `DaquError` unless the operator's stride is at least 1 and its padding is one of `PADDINGS`."""
    require(operator.stride >= 1, operator.output, f"stride must be at least 1, but received {operator.stride}; raise it")
    good = operator.padding in PADDINGS
    require(
        good, operator.output, f"padding must be one of {list(PADDINGS)}, but received {operator.padding!r}; choose one of these"
    )


def require_input(condition: bool, operator: BaseOperator, *shapes: Shape) -> None:
    """Raises `DaquError` that names the operator and its input shapes unless the condition holds."""
    given = " and ".join(map(str, shapes))
    require(condition, operator.output, f"{type(operator).__name__} cannot take input of shape {given}; change one of them")
