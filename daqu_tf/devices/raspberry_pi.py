"""A Raspberry Pi, or any other Linux board, as a device: through ssh, with nothing but a Python and a runtime on it."""

import contextlib
import hashlib
import io
import json
import math
import pathlib
import subprocess
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np

from daqu_tf.devices import runner
from daqu_tf.devices.errors import DeviceError, DeviceLostError, DeviceSetupError, DeviceTimeoutError, ModelError
from daqu_tf.devices.python_device import PythonDevice, one_line, one_of, read_answer
from daqu_tf.devices.ssh import SshConnection

_RUNNER = pathlib.Path(__file__).with_name("runner.py")
# The folder of files in the user's home folder on the board. A file is named by the hash of its content, so that none is ever stale
# or copied twice.
_CACHE = ".cache/daqu_tf"
_HASHES = 'cd "$1" 2>/dev/null || exit 0; shift; sha256sum "$@" 2>/dev/null; exit 0'
# A file is put there whole or not at all: a connection that is cut leaves at most a file of another name, which is removed.
_PUT = (
    'umask 077; mkdir -p "$1" && cd "$1" || exit 1; trap "rm -f $$.part" EXIT; '
    'cat >"$$.part" && [ "$(sha256sum <"$$.part" | cut -c1-64)" = "$2" ] && mv -f "$$.part" "$3"'
)
# With a command after it, the shell stays, and turns the signal that a process dies of into a status.
_RUN = '"$@"; exit $?'
_FETCH = 'cat "$1"'
_TEMPERATURES = (
    'for zone in /sys/class/thermal/thermal_zone*; do echo "$(cat "$zone/type") $(cat "$zone/temp")"; done 2>/dev/null; exit 0'
)
_REMOVE = 'rm -f "$@"'
_NOT_STARTED = (126, 127)  # The program is not executable, or not found.
_CHECK_SECONDS = 20  # Longer than ssh takes to find out that the board does not answer.
_NUMPY = b"\x93NUMPY"


class RaspberryPiDevice(PythonDevice):
    """Runs `.tflite` files on a Linux board with the LiteRT or the tflite-runtime that its Python has.

    Whoever can `ssh` to the board without being asked anything can use it; root is not needed. The runner and the files are copied
    to `~/.cache/daqu_tf` there, once; that folder may be deleted at any time.

    Args:
        address: `[user@]host[:port]`, with an IPv6 address in brackets, or a name in the user's ssh config.
        threads: The number of threads of the runtime.
        cpu: The first cpu that the process is pinned to; None takes the fastest ones, of equal ones the last.
        timeout_seconds: The time for each file after which a process that gives no answer is ended.
        python: The Python on the board, by name or path; a path that begins with `~/` is in the home folder on the board.
    """

    kind = "raspberry_pi"

    def __init__(
        self, address: str, threads: int = 1, cpu: int | None = None, timeout_seconds: float = 300.0, python: str = "python3"
    ):
        if threads < 1 or (cpu is not None and cpu < 0):
            raise DeviceSetupError(f"`threads` must be at least 1 and `cpu` at least 0, but received {threads} and {cpu}.")
        if not python or python.startswith("-") or not python.isprintable():
            raise DeviceSetupError(f"`python` must be the name or path of a Python on the board, but received {python!r}.")
        self.threads = threads
        self.python = f"./{python[2:]}" if python.startswith("~/") else python
        self.timeout_seconds = timeout_seconds
        self._cpus = None if cpu is None else list(range(cpu, cpu + threads))
        self._ssh = SshConnection(address)
        self.address = address
        self.name = f"{self.kind}:{address}"

    def close(self) -> None:
        """Ends the connection, which otherwise ends when the device is garbage-collected."""
        self._ssh.close()

    def check(self) -> None:
        """Raises `DeviceLostError` if the board does not answer."""
        self._ssh.run("true", timeout_seconds=_CHECK_SECONDS)

    def temperature_celsius(self) -> float | None:
        """The temperature of the board's processor in degrees Celsius; None where the board does not tell it."""
        said = self._ssh.run(_TEMPERATURES, timeout_seconds=_CHECK_SECONDS).stdout.decode(errors="replace")
        parts = (line.strip().rpartition(" ") for line in said.splitlines())
        return runner.hottest((kind, reading) for kind, _, reading in parts)

    def _run(self, paths: Sequence[str], request: dict[str, Any]) -> dict[str, Any]:
        files = [(".py", _RUNNER.read_bytes()), *((".tflite", pathlib.Path(path).read_bytes()) for path in paths)]
        program, *models = self._place(files)
        request = request | {"models": models, "threads": self.threads, "cpus": self._cpus}
        # The board itself ends a process that hangs, since nothing else does when ssh is gone.
        seconds = self.timeout_seconds * max(1, len(paths))
        request["alarm_seconds"] = math.ceil(seconds) + 5
        question = json.dumps(request).encode()
        try:
            done = self._ssh.run(_RUN, self.python, program, stdin=question, timeout_seconds=seconds)
        except DeviceTimeoutError as error:
            self.check()  # If the board answers, the process hangs.
            fault = ModelError if paths else DeviceSetupError
            raise fault(
                f"{one_of(paths) or self.python} gave no answer within {seconds:g} s on {self.address} and is ended: "
                "give a longer timeout or a smaller model."
            ) from error
        self._check_started(done)
        done.stdout = done.stdout.decode(errors="replace")
        return read_answer(self.name, one_of(paths), done)

    def _predict(self, path: str, images: np.ndarray | None) -> tuple[np.ndarray, dict[str, Any]]:
        name = f"{_CACHE}/{uuid.uuid4().hex}"
        source, sink = f"{name}.images.npy", f"{name}.outputs.npy"
        try:
            if images is not None:
                self._put(_npy(images), source)
            answer = self._run([path], {"task": "predict", "images": None if images is None else source, "outputs": sink})
            found = self._ssh.run(_FETCH, sink, timeout_seconds=self.timeout_seconds).stdout
        finally:
            with contextlib.suppress(DeviceError):
                self._ssh.run(_REMOVE, source, sink)
        # The output of a login script may come first.
        return np.load(io.BytesIO(found[max(found.find(_NUMPY), 0) :]), allow_pickle=False), answer

    def _fingerprint(self, device: dict[str, Any]) -> dict[str, Any]:
        return {"address": self.address} | super()._fingerprint(device)

    def _place(self, files: Sequence[tuple[str, bytes]]) -> list[str]:
        """Copies files, given by suffix and content, to the board unless they are there, and gives their paths on it."""
        names = [hashlib.sha256(content).hexdigest() + suffix for suffix, content in files]
        lines = self._ssh.run(_HASHES, _CACHE, *names).stdout.decode(errors="replace").splitlines()
        for name, (_, content) in zip(names, files):
            if f"{name[:64]}  {name}" not in lines:
                self._put(content, f"{_CACHE}/{name}")
        return [f"{_CACHE}/{name}" for name in names]

    def _put(self, content: bytes, path: str) -> None:
        folder, _, name = path.rpartition("/")
        digest = hashlib.sha256(content).hexdigest()
        done = self._ssh.run(_PUT, folder, digest, name, stdin=content, timeout_seconds=self.timeout_seconds)
        if "No space left" in done.stderr or "quota exceeded" in done.stderr:
            raise DeviceSetupError(f"The disk of {self.address} is full: free some space; ~/{_CACHE} there may be deleted.")
        if done.returncode and not done.stderr.strip():
            raise DeviceLostError(f"A file changed on its way to {self.address}: look at its network and its disk, then try again.")
        if done.returncode:
            reason = one_line(done.stderr)
            raise DeviceSetupError(
                f"A file could not be copied to ~/{_CACHE} of {self.address} ({reason}): mend that, then try again."
            )

    def _check_started(self, done: subprocess.CompletedProcess) -> None:
        if done.returncode in _NOT_STARTED:
            raise DeviceSetupError(
                f"`python` {self.python} cannot be started on {self.address} ({one_line(done.stderr)}): "
                "install it there (on Debian: apt-get install python3) or name another."
            )


def _npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()
