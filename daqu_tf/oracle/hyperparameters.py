"""KerasTuner's hyperparameters as the choices of a surrogate search."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from daqu_tf.errors import DaquError
from daqu_tf.pareto.choices import LEVELS, Choices, Conditions

if TYPE_CHECKING:
    import keras_tuner


def choices_of(hyperparameters: "keras_tuner.HyperParameters", conditions: Mapping[str, Conditions] | None = None) -> Choices:
    """The choices that KerasTuner's hyperparameters of any kind give.

    A number with more than `LEVELS` values, or without a step, has `LEVELS` + 1 values, evenly on its own scale.

    Args:
        hyperparameters: The hyperparameters, which hold the whole space.
        conditions: Conditions by the name of a hyperparameter, beside those under which it is registered.

    Raises:
        DaquError: There are no hyperparameters, two have one name, or a condition names one that does not stand before its own.
    """
    if hyperparameters is None or not hyperparameters.space:
        raise DaquError("`hyperparameters` must hold the whole search space, but received none: register everything in it.")
    options, gates = {}, dict(conditions or {})
    for parameter in hyperparameters.space:
        if parameter.name in options:
            raise DaquError(f"`{parameter.name}` must be registered once, but is there twice: give each branch a name of its own.")
        options[parameter.name] = _values(parameter)
        if parameter.conditions:
            own = tuple((condition.name, tuple(condition.values)) for condition in parameter.conditions)
            gates[parameter.name] = (*gates.get(parameter.name, ()), *own)
    order = list(options)
    for name, parents in gates.items():
        for parent, _ in parents:
            if name not in options or parent not in order[: order.index(name)]:
                raise DaquError(f"`conditions` must name parents that are registered first, but received `{parent}` of `{name}`.")
    return Choices(options, gates)


def _values(parameter: Any) -> tuple[Any, ...]:
    kind = type(parameter).__name__
    if kind == "Fixed":
        return (parameter.value,)
    if kind == "Boolean":
        return (False, True)
    if kind == "Choice":
        return tuple(parameter.values)
    if parameter.step is not None:
        steps = list(parameter.values)
        if len(steps) <= LEVELS:
            return tuple(steps)
    # The values lie on KerasTuner's own scale, linear or logarithmic, and end just below 1, where its integers end.
    values = [parameter.prob_to_value(prob) for prob in np.linspace(0, 1 - 1e-9, LEVELS + 1).tolist()]
    if kind == "Float" and parameter.step is None:
        values[-1] = parameter.max_value
    return tuple(dict.fromkeys(values))
