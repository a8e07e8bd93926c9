"""The fields of frozen dataclasses: of the right kind, and from JSON."""

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
    """`value`, of the field or argument `name`, as a `kind`: lists become tuples, NumPy's numbers Python's.

    Args:
        name: For the message.
        kind: A type, or a tuple or union of types.
        value: What came.
        kinds: How further kinds are called in the message.

    Raises:
        DaquError: It is of another kind.
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
    """The first place in which two JSON objects differ, in words; empty where they are equal.

    Args:
        there: The object that was written before.
        here: The object that is true now.
        shown: How a value is written in the message.
        name: What the objects are called inside a larger one, for the message.
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
    """`typed`, for every field of a frozen dataclass."""
    for field in dataclasses.fields(instance):
        object.__setattr__(instance, field.name, typed(field.name, field.type, getattr(instance, field.name), kinds))


def from_json(cls: type, content: Any, what: str) -> Any:
    """An instance of the dataclass `cls`.

    Args:
        cls: With a field for every key.
        content: A JSON object.
        what: What it is, for messages.

    Raises:
        DaquError: A field is missing, unknown, or has a value that none can have (it is named).
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
