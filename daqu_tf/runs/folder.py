"""The output folder of a run: whose it is, the settings it was made with, and the time that it has used."""

import contextlib
import dataclasses
import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

from daqu_tf import machine
from daqu_tf.devices import kind_of
from daqu_tf.errors import DaquError
from daqu_tf.runs.config import FILES, RunConfig

LOCK = ".lock"
# Settings that say where a job runs, not what it does: a resumed one may have others.
WHERE = ("output_dir", "strategy", "workers", "device", "python", "benchmark_model", "max_celsius", "cool_seconds")
# Of `config.json`, what has to be equal beside the settings.
_COMPARED = {
    "dataset": "images",
    "schedule": "training schedule",
    "search_space": "search space",
    "latency_table": "latency table",
}
# What runs of an earlier version do not say.
_DEFAULTS = {field.name: field.default for field in dataclasses.fields(RunConfig) if field.default is not dataclasses.MISSING}
# What a run writes, and --overwrite deletes; `config.json` goes last, since it is what marks the folder as a run's.
CONTENTS = (
    "clock.json", "timeline.json", "training.csv", "checkpoints", "tensorboard", "supernet.npz", "device.json",
    "latency_table.json", "search", "finalists.json",
    "finalists", "fine_tuned", "models", "pareto.json", "pareto.csv", "pareto.png", "report.html", "config.json",
)  # fmt: skip


@contextlib.contextmanager
def locked(folder: pathlib.Path):
    """Makes the folder where it is missing, and keeps other processes out of it.

    Raises:
        DaquError: It cannot be written to, or another process works in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("w")
    except OSError as error:
        raise DaquError(f"{folder} cannot be written to ({error.strerror}): choose another --output_dir.") from error
    with lock:
        try:
            machine.lock(lock, wait=False)
        except OSError as error:
            raise DaquError(f"Another process is working in {folder}: wait for it, or choose another --output_dir.") from error
        yield


def check(config: RunConfig, overwrite: bool) -> None:
    """Refuses a folder that is not this run's, before anything slow is done.

    Raises:
        DaquError: The folder is a file, holds something else, or a run with other settings that may not be overwritten.
    """
    folder = config.folder
    if folder.exists() and not folder.is_dir():
        raise DaquError(f"{folder} is a file: choose a folder as --output_dir.")
    if not folder.exists():
        return
    strangers = [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]
    if strangers and not _settings(folder):
        raise DaquError(f"{folder} holds other things than a run: choose an empty or a new folder as --output_dir.")
    if (changed := changes(folder, config)) and not overwrite:
        raise DaquError(
            f"{folder} holds a run with other settings ({changed}): give the same, another --output_dir, or --overwrite."
        )


def changes(folder: pathlib.Path, config: RunConfig, content: Mapping[str, Any] | None = None) -> str:
    """What differs from the run in the folder, for people; empty where nothing does or there is no run.

    Args:
        folder: The run's.
        config: The settings now.
        content: Of `config.json` now, where that is known already; what it leaves out is not compared.
    """
    settings = _settings(folder)
    if not settings:
        return ""
    before, now = _DEFAULTS | settings["flags"], config.to_json()
    names = [name for name in now if name not in WHERE and before.get(name) != now[name]]
    # Another address is another place; another kind of device is not.
    names += ["device"] if kind_of(before["device"]) != kind_of(now["device"]) else []
    # A file may be elsewhere now: what it holds is compared below.
    names = [name for name in names if not _is_file(name, before.get(name)) or not _is_file(name, now[name])]
    differing = [f"--{name} was {before.get(name)}" for name in names]
    for name, what in _COMPARED.items():
        if content and name in content and json.loads(json.dumps(content[name])) != settings.get(name):
            differing.append(f"the {what} had another content")
    return ", ".join(differing)


def _is_file(name: str, value: Any) -> bool:
    return isinstance(value, str) and name in FILES and value.endswith(FILES[name])


def clear(folder: pathlib.Path) -> None:
    """Deletes what a run has written, and nothing else."""
    for name in CONTENTS:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _settings(folder: pathlib.Path) -> dict[str, Any] | None:
    """The content of `config.json` if a run wrote it."""
    with contextlib.suppress(OSError, ValueError):
        value = json.loads((folder / "config.json").read_text())
        if isinstance(value, dict) and isinstance(value.get("flags"), dict) and isinstance(value.get("dataset"), dict):
            return value
    return None


def config_of(folder: pathlib.Path) -> RunConfig:
    """The settings of the run in `folder`.

    Raises:
        DaquError: There is no run, or one of another version.
    """
    settings = _settings(folder)
    if settings is None or not settings["flags"].keys() <= _DEFAULTS.keys() | {"dataset", "output_dir"}:
        raise DaquError(f"{folder} holds no run of this version of daqu_tf: name the --output_dir of a run.")
    return RunConfig(**settings["flags"])
