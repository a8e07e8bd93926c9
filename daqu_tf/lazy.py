"""Public names that are imported on first use, since TensorFlow takes seconds and `--help` must not."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def attach(
    package: str, modules: Mapping[str, str], packages: Sequence[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package that imports its names on first use.

    Args:
        package: The `__name__` of the package.
        modules: The module that defines each public name, relative to the package, as in `{"run": "pipeline.pipeline"}`.
        packages: The packages inside it that can be named without an import of their own.
    """

    def getattribute(name: str) -> Any:
        if name in modules:
            return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)
        if name in packages:
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def names() -> list[str]:
        return sorted({*vars(importlib.import_module(package)), *modules, *packages})

    return getattribute, names
