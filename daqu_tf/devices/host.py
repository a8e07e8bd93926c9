"""This machine as a device. Every model runs in a fresh process of its own, so that one that crashes harms nothing."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np

from daqu_tf.devices.base import Device, DeviceError, Latency

_RUNNER = pathlib.Path(__file__).with_name("runner.py")
_MAGIC = b"TFL3"


class HostDevice(Device):
    """Runs `.tflite` files on this machine, with LiteRT, or with tflite-runtime where that is what is installed.

    Args:
        threads: Threads for the runtime.
        cpu: The first cpu that the process is pinned to; None takes the last ones, where interrupts are fewest.
        timeout_seconds: When a process that gives no answer is ended.
        python: The interpreter of another environment, to run files with the runtime that is installed there.
    """

    def __init__(
        self,
        threads: int = 1,
        cpu: int | None = None,
        timeout_seconds: float = 300.0,
        python: str | os.PathLike = sys.executable,
    ):
        self.threads = threads
        self.python = os.fspath(python)
        self.timeout_seconds = timeout_seconds
        self._cpus = _choose_cpus(threads, cpu)

    def measure(
        self,
        model_path: str | os.PathLike,
        min_runs: int = 50,
        min_seconds: float = 0.2,
        max_warmup_seconds: float = 1.0,
    ) -> Latency:
        """Times a model; see `Device.measure`. By default it takes about half a second for a small model."""
        if min_runs < 1 or min_seconds < 0 or max_warmup_seconds < 0:
            raise DeviceError(
                "`min_runs` must be at least 1 and the seconds at least 0, "
                f"but received {min_runs}, {min_seconds} and {max_warmup_seconds}."
            )
        answer = self._run(
            model_path,
            {
                "task": "measure",
                "min_runs": min_runs,
                "min_seconds": min_seconds,
                "max_warmup_seconds": max_warmup_seconds,
            },
        )
        samples = tuple(answer.pop("samples_us"))
        device = {"kind": "host"} | answer.pop("device")
        return Latency(samples_us=samples, run_medians_us=(float(np.median(samples)),), device=device, **answer)

    def outputs(self, model_path: str | os.PathLike, images: np.ndarray) -> tuple[np.ndarray, float, int]:
        """Runs a model on images and returns what it puts out, untouched.

        Args:
            model_path: A `.tflite` file with one input, of batch size 1, and one output.
            images: float32, shape (N, H, W, C), in [0, 1]; quantized by the input's own scale and zero point.

        Returns:
            The outputs, shape (N, classes), in the file's own type; their scale and zero point, 0.0 and 0 if float.

        Raises:
            DeviceError: The model does not run or takes other images.
        """
        with tempfile.TemporaryDirectory(prefix="daqu_") as folder:
            source, sink = os.path.join(folder, "images.npy"), os.path.join(folder, "outputs.npy")
            np.save(source, np.asarray(images, np.float32))
            answer = self._run(model_path, {"task": "predict", "images": source, "outputs": sink})
            return np.load(sink, allow_pickle=False), answer["scale"], answer["zero_point"]

    def predict(self, model_path: str | os.PathLike, images: np.ndarray) -> np.ndarray:
        """Returns the logits of images as float32, shape (N, classes); see `outputs` for the arguments and errors."""
        raw, scale, zero_point = self.outputs(model_path, images)
        return (raw.astype(np.float32) - zero_point) * np.float32(scale) if scale else raw.astype(np.float32)

    def _run(self, model_path: str | os.PathLike, request: dict[str, Any]) -> dict[str, Any]:
        """Sends one request to a fresh process and returns its answer."""
        path = os.path.abspath(model_path)
        _check_is_tflite(path)
        request = request | {"model": path, "threads": self.threads, "cpus": self._cpus}
        try:
            done = subprocess.run(
                # By its path rather than by -m: it needs nothing of the package, and no search path that leads to it.
                [self.python, str(_RUNNER)],
                input=json.dumps(request),
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=self.timeout_seconds,
            )
        except subprocess.TimeoutExpired as error:
            raise DeviceError(
                f"{path} gave no answer within {self.timeout_seconds:g} s and was ended: give a longer timeout or a smaller model."
            ) from error
        except OSError as error:
            raise DeviceError(
                f"`python` {self.python} cannot be started ({error.strerror}): name that of an environment with a runtime."
            ) from error
        return _answer(path, done)


def _choose_cpus(threads: int, cpu: int | None) -> list[int]:
    """The cpus to pin to; none where the system cannot pin."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    available = len(allowed) or os.cpu_count() or 1
    if not 1 <= threads <= available:
        raise DeviceError(f"`threads` must be 1 to {available}, the cpus of this machine, but received {threads}.")
    if cpu is None or not allowed:
        return allowed[-threads:]
    firsts = allowed[: available - threads + 1]
    if cpu not in firsts:
        choice = ", ".join(map(str, firsts))
        raise DeviceError(f"`cpu` must be one of {choice} for {threads} thread(s), but received {cpu}.")
    first = allowed.index(cpu)
    return allowed[first : first + threads]


def _check_is_tflite(path: str) -> None:
    try:
        with open(path, "rb") as file:
            head = file.read(8)
    except OSError as error:
        raise DeviceError(f"The model {path} cannot be read ({error.strerror}): give the path of a .tflite file.") from error
    if head[4:] != _MAGIC:
        what = "is empty" if not head else "is not a .tflite file"
        raise DeviceError(f"The model {path} {what}: export it again.")


def _answer(path: str, done: subprocess.CompletedProcess) -> dict[str, Any]:
    """Reads the answer of a finished process, or raises its failure as one sentence."""
    lines = done.stdout.splitlines()
    try:
        answer = json.loads(lines[-1])
        reason = answer.get("error")
    except (IndexError, ValueError, AttributeError):
        answer, reason = {}, _cause_of_death(done)
    if reason:
        raise DeviceError(f"{path} could not be run ({_one_line(reason)}): export it again or leave it out.")
    return answer


def _cause_of_death(done: subprocess.CompletedProcess) -> str:
    if done.returncode < 0:
        return f"the runtime crashed with {signal.Signals(-done.returncode).name}"
    last = [line for line in done.stderr.splitlines() if line.strip()][-1:]
    return last[0] if last else f"the process ended with status {done.returncode} and no answer"


def _one_line(text: str) -> str:
    return " ".join(text.split()).rstrip(".")[:300]
