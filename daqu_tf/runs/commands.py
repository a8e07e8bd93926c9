"""The command lines that make a model, as its manifest and the card of its run show them."""

import dataclasses
import os
import pathlib
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from daqu_tf.runs.config import RunConfig
from daqu_tf.targets.storage import Storage

_DEFAULTS = {field.name: field.default for field in dataclasses.fields(RunConfig)}
_PATHS = (
    "dataset",
    "output_dir",
    "schedule",
    "space",
    "latency_table",
    "benchmark_model",
    "supernet_from",
    "init_from",
    "teacher",
)  # May hold one.
_SCHEDULED = ("warmup", "precision_transfer", "epochs")  # What a schedule takes the place of.


def run_command(tool: str, settings: Mapping[str, Any], shown: Callable[[str], str]) -> str:
    """What begins a run or goes on with it, with the settings that are not the defaults.

    Args:
        tool: The stages: `run`, `search` or `train`.
        settings: `RunConfig.to_json()`, or what is known of it.
        shown: From a path to how it is written.
    """
    dropped = _SCHEDULED if settings.get("schedule") else ()
    chosen = {name: value for name, value in settings.items() if name not in dropped and value != _DEFAULTS.get(name)}
    return _line(tool, {name: shown(str(value)) if name in _PATHS else value for name, value in chosen.items()})


def fine_tuning_command(folder: pathlib.Path, subnet: str, how: Mapping[str, Any]) -> str:
    """What fine-tunes one subnet of a run; `how` has the fields of a `FineTuning`."""
    length = {"fine_tuning_steps": how["steps"]} if how["steps"] else {"fine_tuning_minutes": how["seconds"] / 60}
    flags = {"output_dir": from_here(folder), "subnet": from_here(subnet)} | length
    return _line("train", flags | {"fine_tuning_distillation": how["distillation"]})


def export_command(
    folder: pathlib.Path, subnet: str, fine_tuned: bool | None, path: pathlib.Path, storage: Storage, usual: Storage
) -> str:
    """What exports one subnet of a run to a file; `usual` is the storage of the run's target."""
    weights = {} if fine_tuned is None else {"fine_tuned" if fine_tuned else "nofine_tuned": True}
    flags = {"run": from_here(folder), "subnet": from_here(subnet), **weights, "output": from_here(path)}
    return _line("export", flags | {name: value for name, value in vars(storage).items() if value != vars(usual)[name]})


def from_here(path: str | os.PathLike) -> str:
    """A path as seen from the working folder, if it lies in there; else as it is."""
    path, here = pathlib.PurePath(path), os.getcwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _line(tool: str, flags: Mapping[str, Any]) -> str:
    """For a shell: the console script and its flags, without those that are None, False, 0 or empty."""
    each = [(name, one) for name, value in flags.items() for one in (value if isinstance(value, list) else [value])]
    return shlex.join([f"daqu-{tool}", *(_flag(name, value) for name, value in each if value)])


def _flag(name: str, value: Any) -> str:
    if value is True:
        return f"--{name}"
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return f"--{name}={value if isinstance(value, float) and float(short) != value else short}"
