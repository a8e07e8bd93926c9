"""The fields of frozen dataclasses: checks of their kinds, and reading from JSON."""

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from daqu_tf.errors import DaquError

KINDS = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    int | None: "a whole number or null",
    tuple[int, ...]: "a list of whole numbers",
}


def typed(name: str, kind: Any, value: Any, kinds: Mapping[Any, str] = types.MappingProxyType({})) -> Any:
    """The value of a field or argument as the kind that it must have; lists become tuples, and NumPy's numbers Python's.

    Args:
        name: The name of the field or argument, for the message.
        kind: The kind: a type, or a tuple or union of types.
        value: The value.
        kinds: The names of further kinds in the message, beside `KINDS`.

    Raises:
        DaquError: The value is of another kind.
    """
    try:
        return _as(kind, value)
    except (TypeError, ValueError):
        raise DaquError(f"`{name}` must be {(KINDS | dict(kinds))[kind]}, but received {value!r}.") from None


def _as(kind: Any, value: Any) -> Any:
    if isinstance(kind, types.UnionType):
        (some,) = (part for part in typing.get_args(kind) if part is not types.NoneType)
        return None if value is None else _as(some, value)
    if parts := typing.get_args(kind):
        if isinstance(value, str | Mapping):
            raise TypeError
        items = tuple(value)
        wanted = parts[:1] * len(items) if parts[-1] is ... else parts
        return tuple(_as(part, item) for part, item in zip(wanted, items, strict=True))
    if (kind is int and isinstance(value, np.integer)) or (kind is float and type(value) is int):
        return kind(value)
    if type(value) is not kind:
        raise TypeError
    return value


def difference(there: Mapping[str, Any], here: Mapping[str, Any], shown: Callable[[Any], str] = repr, name: str = "") -> str:
    """A text that says where two JSON objects first differ; empty if they are equal.

    Args:
        there: The object that was written before.
        here: The object that is true now.
        shown: A function that gives the text of a value.
        name: The name of the objects in a larger one, with which the text begins.
    """
    for key in [*there, *here]:
        old, new = there.get(key), here.get(key)
        if old == new and (key in there) == (key in here):
            continue
        inner = f"{name}.{key}" if name else str(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            return difference(old, new, shown, inner)
        return f"`{inner}` is {shown(old)} there and {shown(new)} here"
    return ""


def check_kinds(instance: Any, kinds: Mapping[Any, str] = types.MappingProxyType({})) -> None:
    """Gives every field of a frozen dataclass the kind that it must have, in place.

    Args:
        instance: The instance of the dataclass.
        kinds: The names of further kinds in the message, beside `KINDS`.

    Raises:
        DaquError: A field has a value of another kind (the field is named).
    """
    for field in dataclasses.fields(instance):
        object.__setattr__(instance, field.name, typed(field.name, field.type, getattr(instance, field.name), kinds))


def from_json(cls: type, content: Any, what: str) -> Any:
    """The instance of a dataclass that a JSON object describes.

    Args:
        cls: The dataclass, with a field for every key of the object.
        content: The JSON object.
        what: What the object is, for messages.

    Raises:
        DaquError: A field is missing or unknown, or has a value that it cannot have (the field is named).
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}
    if not isinstance(content, Mapping):
        raise DaquError(f"{what} must be a JSON object, but received {content!r}.")
    if unknown := content.keys() - fields.keys():
        raise DaquError(f"{what} has the fields {', '.join(fields)}, but received `{min(unknown)}`.")
    needed = {name for name, field in fields.items() if field.default is dataclasses.MISSING}
    if missing := needed - content.keys():
        raise DaquError(f"{what} must have `{min(missing)}`, but received only {', '.join(content) or 'nothing'}.")
    return cls(**content)
