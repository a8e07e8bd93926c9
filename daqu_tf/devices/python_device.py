"""The base of devices on which a Python runs `runner`: its requests, and its answers, which are never trusted."""

import abc
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from daqu_tf.devices import steadiness
from daqu_tf.devices.base import Device, check_timing
from daqu_tf.devices.errors import DeviceError, DeviceSetupError, ModelError
from daqu_tf.devices.measurement import Latency, identity

_MAGIC = b"TFL3"


class PythonDevice(Device):
    """Times and runs `.tflite` files with a Python that has a runtime; a subclass says where that Python is.

    Attributes:
        kind: The kind of the device, such as `host`.
        threads: The number of threads of the runtime.
    """

    kind: str
    threads: int
    _described: dict[str, Any] | None = None

    def identity(self) -> dict[str, Any]:
        """The identity of the device, for which its Python is asked once.

        Raises:
            DeviceLostError: The device does not answer.
            DeviceSetupError: The device has no runtime.
        """
        if self._described is None:
            answer = self._run([], {"task": "describe"})
            try:
                fingerprint = self._fingerprint(answer["device"])
                self._described = identity(fingerprint, answer["runtime"], answer["runtime_version"], self.threads)
            except (KeyError, TypeError) as error:
                raise DeviceSetupError(f"The Python of {self.name} answers garbage: see what starts when it starts.") from error
        return dict(self._described)

    def measure(self, model_path: str | os.PathLike, **settings: Any) -> Latency:
        """Times a model in a fresh process, by default in about half a second for a small one.

        Args:
            model_path: The path of the `.tflite` file.
            **settings: The arguments of `Device.measure` after the path.
        """
        (latency,) = self._measure([model_path], **settings)
        return latency

    def measure_batch(self, model_paths: Sequence[str | os.PathLike], **settings: Any) -> list[Latency]:
        """Times many small models once each, all in one process, or each in its own if one of them does not run.

        Args:
            model_paths: The paths of the `.tflite` files.
            **settings: The arguments of `Device.measure` after the path.
        """
        try:
            return self._measure(model_paths, **settings)
        except ModelError:  # In processes of their own, the models that run are told from those that do not.
            return super().measure_batch(model_paths, **settings)

    def _measure(
        self,
        model_paths: Sequence[str | os.PathLike],
        min_runs: int = 50,
        min_seconds: float = 0.2,
        max_warmup_seconds: float = 1.0,
    ) -> list[Latency]:
        check_timing(min_runs, min_seconds, max_warmup_seconds)
        paths = [_checked(path) for path in model_paths]
        hashes = [hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest() for path in paths]
        settings = {"min_runs": min_runs, "min_seconds": min_seconds, "max_warmup_seconds": max_warmup_seconds}
        self._cool_down()
        start = time.monotonic()
        answer = self._run(paths, {"task": "measure"} | settings)
        elapsed_us = (time.monotonic() - start) * 1e6
        try:
            found = [self._latency(elapsed_us, **each) for _, each in zip(paths, answer["answers"], strict=True)]
            if [each.sha256 for each in found] != hashes:
                raise ValueError("other files were timed")
            return found
        except DeviceError:  # It is a ValueError too.
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(
                f"{one_of(paths)} was answered with other fields than expected ({one_line(str(error))}): run it again."
            ) from error

    def outputs(self, model_path: str | os.PathLike, images: np.ndarray | None = None) -> tuple[np.ndarray, float, int]:
        """Runs a model on images (N, H, W, C) and gives its raw outputs (N, classes) with their scale and zero point."""
        path = _checked(model_path)
        try:
            raw, answer = self._predict(path, None if images is None else np.asarray(images, np.float32))
            return raw, answer["scale"], answer["zero_point"]
        except DeviceError:  # It is a ValueError too.
            raise
        except (KeyError, ValueError, EOFError) as error:
            raise ModelError(f"The outputs of {path} came back garbled ({one_line(str(error))}): run it again.") from error

    @abc.abstractmethod
    def _run(self, paths: Sequence[str], request: dict[str, Any]) -> dict[str, Any]:
        """Sends one request about the models in `paths` to a fresh process, and gives its answer."""

    @abc.abstractmethod
    def _predict(self, path: str, images: np.ndarray | None) -> tuple[np.ndarray, dict[str, Any]]:
        """The raw outputs of a model, and the answer of the process."""

    def _latency(
        self, elapsed_us: float, samples_us: list[float], device: dict[str, Any], conditions: dict[str, Any], **others: Any
    ) -> Latency:
        taken = tuple(map(float, samples_us))
        if not taken or not {"before", "after"} <= conditions.keys():
            raise ValueError("no samples, or no conditions")
        samples = steadiness.possible(taken, elapsed_us, self.name)
        latency = Latency(
            samples_us=samples,
            run_medians_us=(float(np.median(samples)),),
            device=self._fingerprint(device),
            conditions=(conditions,),
            **others,
        )
        flags = [("clock", len(samples) < len(taken)), ("spread", latency.relative_spread > steadiness.SPREAD)]
        return self._judged(latency, *(flag for flag, raised in flags if raised))

    def _fingerprint(self, device: dict[str, Any]) -> dict[str, Any]:
        """The fingerprint of the device: what the runner says about the machine, and what only this side knows."""
        return {"kind": self.kind} | device | {"delegate": "xnnpack"}  # These runtimes apply XNNPACK by themselves.


def _checked(model_path: str | os.PathLike) -> str:
    path = os.path.abspath(model_path)
    try:
        with open(path, "rb") as file:
            head = file.read(8)
    except OSError as error:
        raise ModelError(f"The model {path} cannot be read ({error.strerror}): give the path of a .tflite file.") from error
    if head[4:] != _MAGIC:
        what = "is empty" if not head else "is not a .tflite file"
        raise ModelError(f"The model {path} {what}: export it again.")
    return path


def one_of(paths: Sequence[str]) -> str | None:
    """The name for the models of a request in messages; None if there are none."""
    return f"{paths[0]} or another of {len(paths)} files" if len(paths) > 1 else next(iter(paths), None)


def read_answer(device: str, path: str | None, done: subprocess.CompletedProcess) -> dict[str, Any]:
    """The answer of a finished process.

    Args:
        device: The name of the device.
        path: The name of the model or models in messages; None if the request has none.
        done: The process.

    Raises:
        ModelError: The process failed because of the model.
        DeviceSetupError: The process failed whatever the model.
    """
    lines = done.stdout.splitlines()
    try:
        answer = json.loads(lines[-1])
        reason = answer.get("error")
    except (IndexError, ValueError, AttributeError, RecursionError):
        answer, reason = {}, _cause_of_death(done)
    if reason and (path is None or answer.get("setup")):
        raise DeviceSetupError(f"{device} runs no models ({one_line(str(reason))}): mend that, then try again.")
    if reason:
        raise ModelError(f"{path} could not be run ({one_line(str(reason))}): export it again or leave it out.")
    return answer


def _cause_of_death(done: subprocess.CompletedProcess) -> str:
    # A shell reports a signal as its number and 128.
    number = -done.returncode if done.returncode < 0 else done.returncode - 128
    if number > 0 and number in signal.valid_signals():
        return f"the runtime crashed with {signal.Signals(number).name}"
    last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
    return last[0] if last else f"the process ended with status {done.returncode} and no answer"


def one_line(text: str) -> str:
    """A text as part of one sentence: on one line, without a full stop, and at most 300 characters long."""
    return " ".join(text.split()).rstrip(".")[:300]
