"""What every operator of a .tflite file is, and those that have a kernel."""

import dataclasses
import math
from typing import Any, ClassVar, TypeVar

import numpy as np

from daqu_tf.tflite.checks import require

Shape = tuple[int, ...]

PADDINGS = ("SAME", "VALID")
SameOperator = TypeVar("SameOperator", bound="BaseOperator")


class BaseOperator:
    """An operator is named by its output; two are equal if all their fields are, element by element."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]
    output: str
    # A file in which one `step` is this many output scales or more does not run, or runs wrongly, on some kernels.
    max_steps: ClassVar[float] = math.inf

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(np.array_equal(value, vars(other)[name]) for name, value in vars(self).items())

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the activation tensors it reads."""
        raise NotImplementedError

    def reading(self: SameOperator, *names: str) -> SameOperator:
        """The same operator of other tensors."""
        raise NotImplementedError

    def check(self) -> None:
        """Raises `DaquError` if its constants cannot be stored."""

    def check_types(self, output: str, *inputs: str) -> None:
        """Raises `DaquError` if it does not compute with these types of its tensors."""
        good = output in ("INT8", "FLOAT32") and set(inputs) == {output}
        message = f"{type(self).__name__} needs INT8 throughout, or FLOAT32, but reads {', '.join(inputs)} and writes {output}"
        require(good, self.output, message)

    def step(self, *input_scales: float) -> float:
        """Largest real change of the output when one integer that goes into it changes by 1."""
        return max(input_scales)

    def check_scales(self, output_scale: float, *input_scales: float) -> None:
        """Raises `DaquError` if kernels could not compute with these scales of its tensors."""
        steps = self.step(*input_scales) / output_scale
        message = f"one step of its operands must be less than {self.max_steps} output scales, but is {steps:.4g}"
        require(steps < self.max_steps, self.output, f"{message}; raise its scale")


class UnaryOperator(BaseOperator):
    """An operator on one tensor."""

    input: str

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the activation tensors it reads."""
        return (self.input,)

    def reading(self: SameOperator, *names: str) -> SameOperator:
        """The same operator of other tensors."""
        return dataclasses.replace(self, input=names[0])


class WindowedOperator(UnaryOperator):
    """An operator that passes a window over its tensor."""

    stride: int
    padding: str


def same_pads(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after the values of one axis under SAME padding."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def strided(operator: WindowedOperator, shape: Shape, window: tuple[int, ...]) -> tuple[int, ...]:
    """Height and width after a window has passed over `shape`."""
    same, stride = operator.padding == "SAME", operator.stride
    require_input(same or (shape[1] >= window[0] and shape[2] >= window[1]), operator, shape)
    return tuple(-(-(size if same else size - kernel + 1) // stride) for size, kernel in zip(shape[1:3], window))


def check_window(operator: WindowedOperator) -> None:
    """Raises `DaquError` unless stride and padding are ones that there are."""
    require(operator.stride >= 1, operator.output, f"stride must be at least 1, but received {operator.stride}")
    good = operator.padding in PADDINGS
    require(good, operator.output, f"padding must be one of {list(PADDINGS)}, but received {operator.padding!r}")


def require_input(condition: bool, operator: BaseOperator, *shapes: Shape) -> None:
    """Raises `DaquError` that names operator and shapes unless the condition holds."""
    given = " and ".join(map(str, shapes))
    require(condition, operator.output, f"{type(operator).__name__} cannot take input of shape {given}; change one of them")
