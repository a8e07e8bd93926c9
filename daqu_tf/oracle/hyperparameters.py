"""KerasTuner's hyperparameters as the choices of a search."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from daqu_tf.errors import DaquError
from daqu_tf.pareto.choices import LEVELS, Alphabet, Conditions
from daqu_tf.pareto.incoming import named, shown

if TYPE_CHECKING:
    import keras_tuner


def alphabet_of(hyperparameters: "keras_tuner.HyperParameters", conditions: Mapping[str, Conditions] | None = None) -> Alphabet:
    """The choices among KerasTuner's hyperparameters of any kind; of a number with very many values, `LEVELS` + 1 of them.

    Args:
        hyperparameters: The space.
        conditions: Further ones than those that they are registered under.

    Raises:
        DaquError: There are none, two have one name, or a condition names one that does not stand before its own.
    """
    if hyperparameters is None or not hyperparameters.space:
        raise DaquError("`hyperparameters` must hold the whole search space, but received none: register everything in it.")
    choices, gates = {}, {name: _gate(name, parents) for name, parents in named("conditions", conditions or {}).items()}
    for parameter in hyperparameters.space:
        if parameter.name in choices:
            raise DaquError(f"`{parameter.name}` must be registered once, but is there twice: give each branch a name of its own.")
        choices[parameter.name] = _values(parameter)
        if parameter.conditions:
            own = tuple((condition.name, tuple(condition.values)) for condition in parameter.conditions)
            gates[parameter.name] = (*gates.get(parameter.name, ()), *own)
    order = list(choices)
    for name, parents in gates.items():
        for parent, _ in parents:
            if name not in choices or parent not in order[: order.index(name)]:
                raise DaquError(f"`conditions` must name parents that are registered first, but received `{parent}` of `{name}`.")
    return Alphabet(choices, gates)


def _gate(name: str, parents: Any) -> Conditions:
    try:
        found = [(parent, values if isinstance(values, str) else tuple(values)) for parent, values in parents]
    except (TypeError, ValueError):
        found = [(None, ())]
    if not all(isinstance(parent, str) and isinstance(values, tuple) for parent, values in found):
        raise DaquError(
            f"`conditions` must have the form name: [(parent, [values])], but received {shown(parents)} for `{name}`: put parents, "
            "and the values of each, into lists."
        )
    return tuple(found)


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
    # KerasTuner's own scale, linear or logarithmic; just below 1, where its integers end.
    values = [parameter.prob_to_value(prob) for prob in np.linspace(0, 1 - 1e-9, LEVELS + 1).tolist()]
    if kind == "Float" and parameter.step is None:
        values[-1] = parameter.max_value
    return tuple(dict.fromkeys(values))
