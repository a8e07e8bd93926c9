"""The user's `adb` client: commands and files for one phone, and one sentence for whatever goes wrong.

adb joins what follows `shell` into one string for a shell on the phone, so commands are given as lists and quoted here.
"""

import os
import re
import shlex
import subprocess
import uuid
from collections.abc import Sequence

from daqu_tf.devices.errors import DeviceError, DeviceLostError, DeviceSetupError, DeviceTimeoutError

# Words of adb itself, the kind of fault that they mean, and the sentence for it.
_FAULTS = (
    (
        r"device unauthorized|device still authorizing",
        DeviceLostError,
        "{serial} has not allowed this machine: unlock it and accept its question about USB debugging.",
    ),
    (r"device offline", DeviceLostError, "{serial} is offline: plug it in again, or restart adb with `adb kill-server`."),
    (
        r"(no|insufficient) permissions",
        DeviceSetupError,
        "adb has no permission for {serial}: install android-sdk-platform-tools-common, then plug it in.",
    ),
    (
        r"device '.*' not found|no devices|device not found",
        DeviceLostError,
        "There is no device {serial}: plug it in, and see `adb devices`.",
    ),
    (
        r"No space left on device|ENOSPC",
        DeviceSetupError,
        "The storage of {serial} is full: free some, or empty /data/local/tmp there.",
    ),
    (
        r"Permission denied|Read-only file system",
        DeviceSetupError,
        "{serial} takes no file ({reason}): make /data/local/tmp of the device writable for adb.",
    ),
)
_OTHER_SYSTEMS = ("recovery", "sideload", "rescue", "bootloader")  # In which a phone stays until somebody starts Android.
_CHECK_SECONDS = 20


class Adb:
    """One phone, as the adb client reaches it.

    Its methods raise `DeviceLostError`, of which `DeviceTimeoutError` is a kind, and `DeviceSetupError`.

    Args:
        serial: The serial of the phone, as `adb devices` shows it; None takes the only device that is connected.
        adb: The adb client, by name or path.
        timeout_seconds: The time after which a command that gives no answer is ended.
    """

    def __init__(self, serial: str | None = None, adb: str | os.PathLike = "adb", timeout_seconds: float = 300.0):
        self._adb = os.fspath(adb)
        self.timeout_seconds = timeout_seconds
        self.serial = ""
        self.serial = self._only_serial() if serial is None else _checked(serial)

    def shell(self, command: Sequence[str]) -> tuple[int, str]:
        """Runs a command on the phone and gives its exit status and its output, errors included.

        Args:
            command: The program and its arguments, which are quoted here.
        """
        return self.script(shlex.join(command))

    def script(self, script: str) -> tuple[int, str]:
        """Runs a shell script on the phone and gives its exit status and its output, errors included.

        Args:
            script: The script, in which everything that is not constant must be quoted already.
        """
        # adb reports the exit status of newer phones only, and cannot tell the end of the output from a broken connection. The last
        # line tells both.
        end = uuid.uuid4().hex
        done = self._run("shell", f"{{ {script}\n}} 2>&1; status=$?; echo; echo {end} $status")
        output, found, status = done.stdout.replace("\r\n", "\n").rpartition(f"\n{end} ")
        if not found or not status.strip().isdigit():
            raise self._fault(done.stderr)  # The output of the phone itself is missing.
        return int(status), output

    def push(self, path: str | os.PathLike, remote: str) -> None:
        """Copies a file to the phone."""
        done = self._run("push", os.path.abspath(path), remote)
        if done.returncode:
            raise self._fault(f"{done.stderr}\n{done.stdout}")

    def pull(self, remote: str, path: str | os.PathLike) -> None:
        """Copies a file from the phone."""
        done = self._run("pull", remote, os.path.abspath(path))
        if done.returncode:
            raise self._fault(f"{done.stderr}\n{done.stdout}")

    def check(self) -> None:
        """Raises `DeviceLostError` or `DeviceSetupError` if the phone does not answer a command that takes no time."""
        if self._call("-s", self.serial, "shell", "true", timeout_seconds=_CHECK_SECONDS).returncode:
            self.shell(["true"])  # It raises the error that says what is wrong.

    def states(self) -> dict[str, str]:
        """The state of every device that adb knows by its serial, such as `device`, `offline` or `unauthorized`."""
        done = self._call("devices")
        if done.returncode:
            reason = _last_line(done.stderr)
            raise DeviceLostError(f"adb's server does not answer ({reason}): try `adb kill-server`, then `adb start-server`.")
        rows = [line.split("\t") for line in done.stdout.splitlines() if "\t" in line]
        return {serial: state.strip() for serial, state in rows}

    def _only_serial(self) -> str:
        states = self.states()
        if len(states) == 1:
            return _checked(next(iter(states)))
        if not states:
            raise DeviceLostError("There is no device: plug one in with USB debugging switched on, and see `adb devices`.")
        raise DeviceSetupError(f"There are {len(states)} devices, {', '.join(sorted(states))}: name the one to use by its serial.")

    def _run(self, *arguments: str) -> subprocess.CompletedProcess:
        return self._call("-s", self.serial, *arguments)

    def _call(self, *arguments: str, timeout_seconds: float | None = None) -> subprocess.CompletedProcess:
        timeout_seconds = timeout_seconds or self.timeout_seconds
        command = [self._adb, *arguments]
        try:
            return subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=timeout_seconds,
            )
        except subprocess.TimeoutExpired as error:
            raise DeviceTimeoutError(
                f"{self.serial or 'adb'} gave no answer within {timeout_seconds:g} s: restart it, or give a longer timeout."
            ) from error
        except OSError as error:
            raise DeviceSetupError(
                f"The adb client {self._adb!r} cannot be started ({error.strerror}): "
                "install it (on Debian: apt-get install adb) or name it with `adb`."
            ) from error

    def _fault(self, said: str) -> DeviceError:
        """The error for a command that did not end, from what adb said."""
        for pattern, kind, sentence in _FAULTS:
            if re.search(pattern, said):
                return kind(sentence.format(serial=self.serial, reason=_last_line(said)))
        state = self.states().get(self.serial)
        if state in _OTHER_SYSTEMS:
            return DeviceSetupError(f"{self.serial} has not started Android, but {state}: call `adb -s {self.serial} reboot`.")
        if state != "device":
            return DeviceLostError(f"{self.serial} went away in the middle of a command: plug it in again and repeat.")
        return DeviceLostError(f"The answer of {self.serial} was cut short ({_last_line(said)}): try again, with another cable.")


def _checked(serial: str) -> str:
    if not serial or serial.startswith("-") or not serial.isprintable():
        raise DeviceSetupError(f"`serial` must be one that `adb devices` shows, but received {serial!r}.")
    return serial


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip().rstrip(".")[:200] if lines else "adb said nothing"
