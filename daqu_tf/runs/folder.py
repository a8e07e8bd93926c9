"""The output folder of a run: what lies where in it, whose it is, and which settings it was made with."""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from daqu_tf import machine
from daqu_tf.data import NAMES
from daqu_tf.devices import kind_of
from daqu_tf.errors import DaquError
from daqu_tf.fields import difference
from daqu_tf.files import read_json, write_json
from daqu_tf.runs.config import FILES, RunConfig

# Of `config.json`. A run without a number is of format 1, which is like the others in all that is read. Runs before format 3 were
# trained with images that were made smaller without antialiasing.
FORMAT = 3
_ANTIALIASED = 3
# Settings that later versions brought, with what a run did that does not know them.
FORMER = {"precisions": "joint", "architectures": "search"}
# Settings that say where a job runs, not what it does: a resumed one may have others.
WHERE = ("output_dir", "strategy", "workers", "device", "python", "benchmark_model", "max_celsius", "cool_seconds", "cache_dir")
# Of `config.json`, what has to be equal beside the settings.
_COMPARED = {
    "dataset": "images",
    "schedule": "training schedule",
    "search_space": "search space",
    "latency_table": "latency table",
}


class RunFolder:
    """Where a run writes, with a path for each thing that it writes.

    Args:
        path: The folder; it need not exist yet.

    Attributes:
        path: The folder.
        clock: The seconds that the run has used.
        added: The minutes that were added to those of a finished run, and whether finalists have been chosen for them.
        timeline: The stages of the run and the seconds that each took.
        log: The figures of the supernet's training, a row a scoring.
        checkpoints: A folder of the supernet's states while it is trained.
        tensorboard: A folder with the curves of the training for TensorBoard.
        initial: The weights of a trained network, from which the supernet or the finalists begin, if they do.
        supernet: The trained supernet's weights.
        device: What the device that times files says of itself.
        table: The latency table that prices subnets in the search, if one does.
        search: The folder of the search, in which the journal of trials lies.
        journal: Every trial of the search, a line when it begins and a line when it ends.
        finalists: The members of the search's front that are fine-tuned, by name.
        finished: A folder with weights and figures of each finalist that is fine-tuned and exported.
        fine_tuned: A folder with weights and figures of subnets that were fine-tuned by name, outside of the job.
        models: A folder of `.tflite` files and their manifests.
        front: The finished members, each marked whether it is on their Pareto front.
        front_table: The finished members as a table.
        front_picture: The finished members as a picture.
        report: The page that tells a person all of it.
        config: Settings, data, space, schedule and versions: what marks the folder as a run's.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)
        self.clock = self.path / "clock.json"
        self.added = self.path / "added_minutes.json"
        self.timeline = self.path / "timeline.json"
        self.log = self.path / "training.csv"
        self.checkpoints = self.path / "checkpoints"
        self.tensorboard = self.path / "tensorboard"
        self.initial = self.path / "initial.npz"
        self.supernet = self.path / "supernet.npz"
        self.device = self.path / "device.json"
        self.table = self.path / "latency_table.json"
        self.search = self.path / "search"
        self.journal = self.search / "trials.jsonl"
        self.finalists = self.path / "finalists.json"
        self.finished = self.path / "finalists"
        self.fine_tuned = self.path / "fine_tuned"
        self.models = self.path / "models"
        self.front = self.path / "pareto.json"
        self.front_table = self.path / "pareto.csv"
        self.front_picture = self.path / "pareto.png"
        self.report = self.path / "report.html"
        self.config = self.path / "config.json"

    def weights(self, name: str) -> pathlib.Path:
        """The weights of a finalist that is fine-tuned."""
        return self.finished / f"{name}.npz"

    def figures(self, name: str) -> pathlib.Path:
        """What the manifest of a finalist says but for its latency; where it stands, the finalist is finished."""
        return self.finished / f"{name}.json"

    def finalist_checkpoints(self, name: str) -> pathlib.Path:
        """A folder of the states of a finalist while it is fine-tuned."""
        return self.finished / f"{name}.checkpoints"

    def reason(self, name: str) -> pathlib.Path:
        """Where it is written why a finalist is left out, so that a resumed job does not train it again."""
        return self.finished / f"{name}.left_out.json"

    def left_out(self, name: str) -> str:
        """Why a finalist is left out; empty where it is not."""
        return str(read_json(self.reason(name), {"reason": ""})["reason"])

    @property
    def added_minutes(self) -> float:
        """The minutes that were added to those of the settings."""
        return read_json(self.added, {"minutes": 0.0})["minutes"]

    @property
    def wants_finalists(self) -> bool:
        """Whether minutes were added for which no finalists have been chosen."""
        return not read_json(self.added, {"chosen": True})["chosen"]

    def check_adding(self, minutes: float) -> None:
        """Refuses minutes that cannot be added.

        Raises:
            DaquError: The run is not finished, or the minutes are not above 0.
        """
        if not 0 < minutes < math.inf:
            raise DaquError(f"`add_minutes` must be above 0, but received {minutes:g}.")
        if not self.report.exists():
            raise DaquError(
                f"`add_minutes` goes on with a finished run, but {self.path} holds none: run the command without it first."
            )

    def add_minutes(self, minutes: float) -> None:
        """Opens a finished run again for some more minutes, in which further finalists are chosen and fine-tuned.

        Raises:
            DaquError: The run is not finished, or the minutes are not above 0.
        """
        self.check_adding(minutes)
        write_json(self.added, {"minutes": self.added_minutes + minutes, "chosen": False})
        for product in (self.front, self.report):
            product.unlink()

    def clear(self) -> None:
        """Deletes what a run has written, and nothing else; `config.json`, which marks the folder as a run's, goes last."""
        for name, path in vars(self).items():
            if name == "path":
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Makes the folder where it is missing, and keeps other processes out of it.

        Raises:
            DaquError: The folder cannot be written to or locked, or another process works in it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("w")
        except OSError as error:
            raise DaquError(f"{self.path} cannot be written to ({error.strerror}): choose another --output_dir.") from error
        with lock:
            try:
                machine.lock(lock, wait=False)
            except BlockingIOError as error:
                message = f"Another process is working in {self.path}: wait for it, or choose another --output_dir."
                raise DaquError(message) from error
            except OSError as error:
                raise DaquError(
                    f"{self.path} cannot be locked ({error.strerror}): choose an --output_dir on a file system that has locks."
                ) from error
            yield

    def settings(self) -> dict[str, Any] | None:
        """The content of `config.json` if a run wrote it.

        Raises:
            DaquError: A later version of daqu_tf wrote it, in a form that this one does not know.
        """
        found = None
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(self.config.read_text())
        if not isinstance(found, dict) or not all(isinstance(found.get(name), dict) for name in ("flags", "dataset")):
            return None
        if (number := found.get("version", 1)) not in range(1, FORMAT + 1):
            raise DaquError(
                f"{self.config} has version {number!r}, but this daqu_tf reads 1 to {FORMAT}: take a later daqu_tf, or another "
                "--output_dir."
            )
        return found

    @property
    def skipped_pixels(self) -> bool:
        """Whether the run was begun when images were made smaller without antialiasing, so that pixels were skipped."""
        settings = self.settings()
        return settings is not None and settings.get("version", 1) < _ANTIALIASED

    def run_config(self) -> RunConfig:
        """The settings of the run in the folder.

        Raises:
            DaquError: There is no run, or a run of another version.
        """
        settings = self.settings()
        names = {field.name for field in dataclasses.fields(RunConfig)}
        if settings is None or not settings["flags"].keys() <= names:
            raise DaquError(f"{self.path} holds no run of this version of daqu_tf: name the --output_dir of a run.")
        return RunConfig(**FORMER | settings["flags"])

    def settled(self, config: RunConfig) -> RunConfig:
        """The settings with which the run in the folder goes on: those that are given, and of the others the run's own.

        So whatever the defaults become, the command that began a run goes on with it.

        Args:
            config: The settings now. Where no run stands in the folder, they are what is returned.
        """
        settings = self.settings()
        if settings is None:
            return config
        before = FORMER | settings["flags"]
        names = [field.name for field in dataclasses.fields(config) if field.name not in config.given]
        names += ["architectures"] if config.architectures == "auto" else []  # It has been decided.
        return dataclasses.replace(config, **{name: before[name] for name in names if name in before})

    def check(self, config: RunConfig, overwrite: bool) -> None:
        """Refuses a folder that is not this run's, before anything slow is done.

        Args:
            config: The settings now, as `settled` returns them.
            overwrite: Whether a run with other settings may be deleted.

        Raises:
            DaquError: The folder is a file, holds something else, or a run with other settings that may not be deleted.
        """
        if self.path.exists() and not self.path.is_dir():
            raise DaquError(f"{self.path} is a file: choose a folder as --output_dir.")
        if not self.path.exists():
            return
        strangers = [entry.name for entry in self.path.iterdir() if not entry.name.startswith(".")]
        if strangers and not self.settings():
            raise DaquError(f"{self.path} holds other things than a run: choose an empty or a new folder as --output_dir.")
        if (changed := self.difference(config)) and not overwrite:
            raise DaquError(
                f"{self.path} holds a run with other settings ({changed}): give the same, another --output_dir, or --overwrite."
            )

    def difference(self, config: RunConfig, content: Mapping[str, Any] | None = None) -> str:
        """What differs from the run in the folder, for people; empty where nothing does, or where no run stands.

        Args:
            config: The settings now, as `settled` returns them.
            content: What `config.json` would hold now, where that is known already. What it leaves out is not compared.
        """
        settings = self.settings()
        if not settings:
            return ""
        before, now = _defaults() | settings["flags"], config.to_json()
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

    def check_device(self, identity: Mapping[str, Any], overwrite: bool) -> str:
        """In what a device differs from that of the run so far, whose latencies would not go together; empty where it does not.

        Args:
            identity: What the device says of itself, as `Device.identity()` returns it.
            overwrite: Whether a run with latencies of another device may be deleted.

        Raises:
            DaquError: The device is another one, and the run may not be deleted.
        """
        before = read_json(self.device, {})
        differing = difference(before, identity) if before else ""
        if differing and not overwrite:
            raise DaquError(
                f"{self.path} holds latencies of another device or runtime ({differing}): give that one, another --output_dir, or "
                "--overwrite to begin again."
            )
        return differing


def _defaults() -> dict[str, Any]:
    """The settings that a run of an earlier version does not know, with what it did."""
    known = {field.name: field.default for field in dataclasses.fields(RunConfig) if field.default is not dataclasses.MISSING}
    return known | FORMER


def _is_file(name: str, value: Any) -> bool:
    return isinstance(value, str) and name in FILES and (value.endswith(FILES[name]) or (name == "dataset" and value not in NAMES))
