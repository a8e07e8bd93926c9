"""This machine as a device; models run in processes of their own, so that one that crashes harms nothing."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from daqu_tf import machine
from daqu_tf.devices import runner
from daqu_tf.devices.errors import DeviceSetupError, ModelError
from daqu_tf.devices.python_device import PythonDevice, one_of, read_answer

_RUNNER = pathlib.Path(__file__).with_name("runner.py")


class HostDevice(PythonDevice):
    """Runs `.tflite` files on this machine, with LiteRT, or with tflite-runtime where that is what is installed.

    Args:
        threads: The number of threads of the runtime.
        cpu: The first cpu that the process is pinned to; None takes the fastest ones, of equal ones the last.
        timeout_seconds: The time for each file after which a process that gives no answer is ended.
        python: The Python that runs the files, by default this one; that of another environment has another runtime.
    """

    kind = name = "host"
    max_celsius = 95.0  # Many processors of desktops and laptops are built for that.

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

    def temperature_celsius(self) -> float | None:
        """The temperature of the hottest zone of this machine in degrees Celsius; None where the system does not tell it."""
        return runner.conditions()["temperature_celsius"]

    def encode(self, path: str | os.PathLike, images: np.ndarray | None) -> tuple[np.ndarray, dict[str, Any]]:
        """The inputs that `outputs` would give a model, and the form of its outputs, for devices that do not know them.

        Args:
            path: The path of the `.tflite` file.
            images: The images (N, H, W, C), float32 in [0, 1]; None takes one random image of the file's shape.

        Returns:
            The inputs (N, H, W, C) in the file's own type, and a dict with `output_shape`, `output_type`, `scale` and `zero_point`.
        """
        return self._exchange(os.fspath(path), {"task": "encode"}, images, "inputs")

    def _predict(self, path: str, images: np.ndarray | None) -> tuple[np.ndarray, dict[str, Any]]:
        return self._exchange(path, {"task": "predict"}, images, "outputs")

    def _exchange(
        self, path: str, request: dict[str, Any], images: np.ndarray | None, wanted: str
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Sends images to a process, and gives the array and the answer that come back."""
        with tempfile.TemporaryDirectory(prefix="daqu_") as folder:
            source, sink = os.path.join(folder, "images.npy"), os.path.join(folder, "found.npy")
            if images is not None:
                np.save(source, images)
            answer = self._run([path], request | {"images": None if images is None else source, wanted: sink})
            return np.load(sink, allow_pickle=False), answer

    def _run(self, paths: Sequence[str], request: dict[str, Any]) -> dict[str, Any]:
        seconds = self.timeout_seconds * max(1, len(paths))
        request = request | {"models": list(paths), "threads": self.threads, "cpus": self._cpus}
        try:
            done = subprocess.run(
                # The runner is called by its path, since it needs nothing of the package and no search path that leads to it.
                [self.python, str(_RUNNER)],
                input=json.dumps(request),
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=seconds,
            )
        except subprocess.TimeoutExpired as error:
            raise ModelError(
                f"{one_of(paths) or self.python} gave no answer within {seconds:g} s and was ended: "
                "give a longer timeout or a smaller model."
            ) from error
        except OSError as error:
            raise DeviceSetupError(
                f"`python` {self.python} cannot be started ({error.strerror}): name that of an environment with a runtime."
            ) from error
        return read_answer(self.name, one_of(paths), done)


def _choose_cpus(threads: int, cpu: int | None) -> list[int]:
    """The cpus that the process is pinned to; none where the system cannot pin."""
    allowed, available = machine.cpus(), machine.cores()
    if not 1 <= threads <= available:
        raise DeviceSetupError(f"`threads` must be 1 to {available}, the cpus of this machine, but received {threads}.")
    if cpu is None or not allowed:
        return runner.by_speed(allowed)[-threads:]
    firsts = allowed[: available - threads + 1]
    if cpu not in firsts:
        choice = ", ".join(map(str, firsts))
        raise DeviceSetupError(f"`cpu` must be one of {choice} for {threads} thread(s), but received {cpu}.")
    first = allowed.index(cpu)
    return allowed[first : first + threads]
