"""What devices share on which a Python runs `runner.py`: its requests, and its answers, which are never trusted."""

import abc
import json
import os
import signal
import subprocess
from typing import Any

import numpy as np

from daqu_tf.devices.base import Device, DeviceError, Latency, check_timing

_MAGIC = b"TFL3"


class PythonDevice(Device):
    """Times and runs `.tflite` files by a Python that has a runtime; where that is, a kind of device says."""

    kind: str

    def measure(
        self,
        model_path: str | os.PathLike,
        min_runs: int = 50,
        min_seconds: float = 0.2,
        max_warmup_seconds: float = 1.0,
    ) -> Latency:
        """Times a model; see `Device.measure`. By default it takes about half a second for a small model."""
        check_timing(min_runs, min_seconds, max_warmup_seconds)
        path = _checked(model_path)
        settings = {"min_runs": min_runs, "min_seconds": min_seconds, "max_warmup_seconds": max_warmup_seconds}
        answer = self._run(path, {"task": "measure"} | settings)
        try:
            return self._latency(**answer)
        except (TypeError, ValueError) as error:
            raise DeviceError(
                f"{path} was answered with other fields than expected ({one_line(str(error))}): run it again."
            ) from error

    def outputs(self, model_path: str | os.PathLike, images: np.ndarray | None = None) -> tuple[np.ndarray, float, int]:
        """Runs a model on images and returns what it puts out, untouched.

        Args:
            model_path: A `.tflite` file with one input, of batch size 1, and one output.
            images: float32, shape (N, H, W, C), in [0, 1]; quantized by the input's own scale and zero point. None takes one
                image of the file's shape, random and the same on every device.

        Returns:
            The outputs, shape (N, classes), in the file's own type; their scale and zero point, 0.0 and 0 if float.

        Raises:
            DeviceError: The model does not run or takes other images.
        """
        path = _checked(model_path)
        try:
            raw, answer = self._predict(path, None if images is None else np.asarray(images, np.float32))
            return raw, answer["scale"], answer["zero_point"]
        except (KeyError, ValueError, EOFError) as error:
            raise DeviceError(f"The outputs of {path} came back garbled ({one_line(str(error))}): run it again.") from error

    def predict(self, model_path: str | os.PathLike, images: np.ndarray) -> np.ndarray:
        """Returns the logits of images as float32, shape (N, classes); see `outputs` for the arguments and errors."""
        raw, scale, zero_point = self.outputs(model_path, images)
        return (raw.astype(np.float32) - zero_point) * np.float32(scale) if scale else raw.astype(np.float32)

    @abc.abstractmethod
    def _run(self, path: str, request: dict[str, Any]) -> dict[str, Any]:
        """Sends one request to a fresh process and returns its answer."""

    @abc.abstractmethod
    def _predict(self, path: str, images: np.ndarray | None) -> tuple[np.ndarray, dict[str, Any]]:
        """Returns the raw outputs and the answer."""

    def _latency(self, samples_us: list[float], device: dict[str, Any], conditions: dict[str, Any], **others: Any) -> Latency:
        samples = tuple(map(float, samples_us))
        if not samples:
            raise ValueError("no samples")
        device = {"kind": self.kind} | device
        return Latency(
            samples_us=samples, run_medians_us=(float(np.median(samples)),), device=device, conditions=(conditions,), **others
        )


def _checked(model_path: str | os.PathLike) -> str:
    path = os.path.abspath(model_path)
    try:
        with open(path, "rb") as file:
            head = file.read(8)
    except OSError as error:
        raise DeviceError(f"The model {path} cannot be read ({error.strerror}): give the path of a .tflite file.") from error
    if head[4:] != _MAGIC:
        what = "is empty" if not head else "is not a .tflite file"
        raise DeviceError(f"The model {path} {what}: export it again.")
    return path


def read_answer(path: str, done: subprocess.CompletedProcess) -> dict[str, Any]:
    """Reads the answer of a finished process, or raises its failure as one sentence."""
    lines = done.stdout.splitlines()
    try:
        answer = json.loads(lines[-1])
        reason = answer.get("error")
    except (IndexError, ValueError, AttributeError, RecursionError):
        answer, reason = {}, _cause_of_death(done)
    if reason:
        raise DeviceError(f"{path} could not be run ({one_line(str(reason))}): export it again or leave it out.")
    return answer


def _cause_of_death(done: subprocess.CompletedProcess) -> str:
    # A shell says it with 128 more.
    number = -done.returncode if done.returncode < 0 else done.returncode - 128
    if number > 0 and number in signal.valid_signals():
        return f"the runtime crashed with {signal.Signals(number).name}"
    last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
    return last[0] if last else f"the process ended with status {done.returncode} and no answer"


def one_line(text: str) -> str:
    """A text, whatever it was, as a part of one sentence."""
    return " ".join(text.split()).rstrip(".")[:300]
