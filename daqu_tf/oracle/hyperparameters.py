"""KerasTuner's hyperparameters as the choices of a surrogate search."""

import collections
import json
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from daqu_tf.errors import DaquError
from daqu_tf.fields import difference
from daqu_tf.pareto.choices import LEVELS, Choices, Conditions
from daqu_tf.pareto.incoming import named, number, shown

if TYPE_CHECKING:
    import keras_tuner
    from keras_tuner.engine.trial import Trial


def check_any(hyperparameters: "keras_tuner.HyperParameters", why: str = "") -> None:
    """Refuses a space without hyperparameters.

    Args:
        hyperparameters: The hyperparameters.
        why: What is known of the reason, for the message.

    Raises:
        DaquError: There are none.
    """
    if not hyperparameters.space:
        raise DaquError(
            f"`hyperparameters` must hold the whole search space, but received none{why}: register everything in it, or ask for it "
            "in the model."
        )


def check_names(space: Iterable[Any]) -> None:
    """Refuses a space in which two hyperparameters have one name, which KerasTuner allows under different conditions.

    Args:
        space: The hyperparameters.

    Raises:
        DaquError: Two have one name.
    """
    for name, count in collections.Counter(parameter.name for parameter in space).items():
        if count > 1:
            raise DaquError(f"`{name}` must be registered once, but is there twice: give each branch a name of its own.")


def _described(hyperparameters: "keras_tuner.HyperParameters") -> dict[str, dict[str, Any]]:
    """What KerasTuner writes of each hyperparameter, by name; last the default, which often follows from the rest."""
    found = {}
    for parameter in hyperparameters.space:
        written = {"kind": type(parameter).__name__, **parameter.get_config()}
        written.pop("default", None)
        found[parameter.name] = json.loads(json.dumps({**written, "default": parameter.default}))
    return found


def changed(there: "keras_tuner.HyperParameters", here: "keras_tuner.HyperParameters", needed: Iterable[str] = ()) -> str:
    """A text that says where a space differs from what it was; empty where it does not. It may have grown.

    Args:
        there: The hyperparameters as they were.
        here: The hyperparameters as they are now, of which some may not be known yet.
        needed: The names of those that must be known.
    """
    before, now = _described(there), _described(here)
    for name, what in before.items():
        if name in now and (where := difference(what, now[name], json.dumps, f"space.{name}")):
            return where
        if name not in now and name in needed:
            return f"`space.{name}` is there and not here"
    return ""


def choices_of(
    hyperparameters: "keras_tuner.HyperParameters",
    conditions: Mapping[str, Conditions] | None = None,
    given: Any = (),
) -> Choices:
    """The choices that KerasTuner's hyperparameters of any kind give.

    A number with more than `LEVELS` values, or without a step, has `LEVELS` + 1 values, evenly on its own scale.

    Args:
        hyperparameters: The hyperparameters, which hold the whole space.
        conditions: Conditions by the name of a hyperparameter, beside those under which it is registered.
        given: A list of values by name that are to be had exactly, though a number has too many for all to be searched.

    Raises:
        DaquError: Two hyperparameters have one name, or a condition names one that does not stand before its own.
    """
    check_names(hyperparameters.space)
    options, gates = {}, {name: _gate(name, parents) for name, parents in named("conditions", conditions or {}).items()}
    for parameter in hyperparameters.space:
        options[parameter.name] = _with(_values(parameter), parameter, given)
        if parameter.conditions:
            own = tuple((condition.name, tuple(condition.values)) for condition in parameter.conditions)
            gates[parameter.name] = (*gates.get(parameter.name, ()), *own)
    order = list(options)
    for name, parents in gates.items():
        for parent, _ in parents:
            if name not in options or parent not in order[: order.index(name)]:
                raise DaquError(f"`conditions` must name parents that are registered first, but received `{parent}` of `{name}`.")
    return Choices(options, gates)


def overwritten(trial: "Trial", proposed: Mapping[str, Any]) -> str:
    """Which value of a trial is not the one that was proposed, for people; empty where all are. Others may have been added.

    Args:
        trial: The trial, as it has run.
        proposed: The trial's values, as they were proposed.
    """
    sent = trial.hyperparameters.values  # With what a worker has added, whose default is not searched.
    for name, value in proposed.items():
        if name not in sent:
            return f"`{name}`, proposed as {value!r}, is missing"
        if not np.array_equal(sent[name], value):
            return f"`{name}` is {sent[name]!r}, but {value!r} was proposed"
    return ""


def keep_proposed(trial: "Trial", proposed: Mapping[str, Any]) -> None:
    """Gives a trial the values back that were proposed, with a warning where `run_trial` has changed one.

    What was measured counts for them: with the values that it was proposed, `run_trial` came to that.

    Args:
        trial: The trial, as it has run.
        proposed: The trial's values, as they were proposed.
    """
    if differing := overwritten(trial, proposed):
        warnings.warn(
            f"Trial {trial.trial_id} was changed while it ran: {differing}. Its metrics are kept for the values that were "
            "proposed: do not write to `trial.hyperparameters.values`, but to a copy.",
            stacklevel=3,
        )
        trial.hyperparameters.values.update(proposed)


def _gate(name: str, parents: Any) -> Conditions:
    try:
        found: list[tuple[Any, Any]] = [
            (parent, values if isinstance(values, str) else tuple(values)) for parent, values in parents
        ]
    except (TypeError, ValueError):
        found = [(None, ())]
    if not all(isinstance(parent, str) and isinstance(values, tuple) for parent, values in found):
        raise DaquError(
            f"`conditions` must have the form name: [(parent, [values])], but received {shown(parents)} for `{name}`: put parents, "
            "and the values of each, into lists."
        )
    return tuple(found)


def _with(values: tuple[Any, ...], parameter: Any, given: Any) -> tuple[Any, ...]:
    """The values of a number of which not all are searched, and those that are given besides."""
    if len(values) <= LEVELS or type(parameter).__name__ not in ("Int", "Float"):
        return values
    further = {number(one.get(parameter.name)) for one in (given if isinstance(given, list) else []) if isinstance(one, Mapping)}
    legal = {value for value in further if parameter.min_value <= value <= parameter.max_value}
    if type(parameter).__name__ == "Int":
        legal = {int(value) for value in legal if value == int(value)}
    return tuple(sorted({*values, *legal}))


def _values(parameter: Any) -> tuple[Any, ...]:
    kind = type(parameter).__name__
    if kind == "Fixed":
        return (parameter.value,)
    if kind == "Boolean":
        return (False, True)
    if kind == "Choice":
        return tuple(parameter.values)
    if parameter.step is not None and parameter._get_n_values() <= LEVELS:
        return tuple(parameter.values)
    # The values lie on KerasTuner's own scale, linear or logarithmic, and end just below 1, where its integers end.
    values = [parameter.prob_to_value(prob) for prob in np.linspace(0, 1 - 1e-9, LEVELS + 1).tolist()]
    if kind == "Float" and parameter.step is None:
        values[-1] = parameter.max_value
    return tuple(dict.fromkeys(values))
