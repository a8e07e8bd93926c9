"""Commands on another machine, through the user's own OpenSSH client with its config, keys and known hosts."""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import weakref

from daqu_tf.devices.errors import DeviceError, DeviceLostError, DeviceSetupError, DeviceTimeoutError

# No character of an address means anything to a shell, to which an ssh config may pass it (ProxyCommand).
_ADDRESS = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_.][A-Za-z0-9_.+-]*)@)?(?P<host>[A-Za-z0-9_.][\w.-]*|\[[0-9A-Fa-f:.]+\])(?::(?P<port>\d{1,5}))?",
    re.ASCII,
)
_CONNECT_SECONDS = 10
_IDLE_SECONDS = 60  # The time after which a connection that nobody closed ends by itself.
# Words of ssh, the kind of fault that they mean, and a sentence about it; the first that fits counts. `{0}` is how ssh is called by
# hand. A name that cannot be found may be that of a board without power, where boards announce their names themselves (mDNS).
_FAULTS = (
    (
        "IDENTIFICATION HAS CHANGED",
        DeviceSetupError,
        "has another host key than before: if it was set up anew, call `ssh-keygen -R` for it, then `ssh {0}` once",
    ),
    (
        "Host key verification failed",
        DeviceSetupError,
        "has a host key that is not known yet: call `ssh {0}` once and compare the key",
    ),
    (
        "UNKNOWN port 65535",  # The other end of a proxy.
        DeviceSetupError,
        "is behind a jump host or proxy that does not lead there: see what `ssh {0}` says, and mend ~/.ssh/config",
    ),
    (
        "no matching",
        DeviceSetupError,
        "and this machine's ssh have no algorithm in common: update the older one, or see what `ssh {0}` says and allow it",
    ),
    (
        "Bad owner or permissions",
        DeviceSetupError,
        "was not called, since others may write to ssh's own config: call `chmod 600 ~/.ssh/config`",
    ),
    ("Permission denied", DeviceSetupError, "lets this user's keys not in: call `ssh-copy-id {0}`, or name the user as user@host"),
    ("Could not resolve hostname", DeviceLostError, "cannot be found: look for a slip in its name, or give its IP address"),
    (
        "Connection refused",
        DeviceLostError,
        "refuses connections: enable ssh there (on a Raspberry Pi, `sudo raspi-config`) or give its port",
    ),
    ("timed out", DeviceLostError, "does not answer: look whether it is on and in this network"),
    ("No route to host", DeviceLostError, "cannot be reached: look whether it is on and in this network"),
    ("Network is unreachable", DeviceLostError, "cannot be reached: look whether this machine has a network"),
    (
        "Bad configuration option",
        DeviceSetupError,
        "was not called, since ssh does not understand its own config: mend ~/.ssh/config",
    ),
)


# Words of a connection that ended, which the next may not. What else ssh says is a fault that waiting does not mend.
_BROKEN = re.compile(
    r"closed by|connection (to \S+ )?closed|reset by|broken pipe|mux_client|control socket|client_loop|lost connection|timeout|"
    r"connection abort|host is down|temporary failure|kex_exchange_identification|banner exchange|shutdown|^$",
    re.IGNORECASE,
)


class SshConnection:
    """One connection that all commands share, so that each takes milliseconds.

    It is closed when this object is garbage-collected or the process exits.

    Args:
        address: `[user@]host[:port]`, with an IPv6 address in brackets, or a name in the user's ssh config.
    """

    def __init__(self, address: str):
        self.address = address
        match = _ADDRESS.fullmatch(address)
        if not match or not 1 <= int(match["port"] or 22) <= 65535:
            raise DeviceSetupError(f"The address must be user@host or user@host:port, but received {address!r}.")
        user, host, port = match.groups()
        self._by_hand = " ".join([*(["-p", port] if port else []), f"{user}@{host}" if user else host])
        self._folder = tempfile.mkdtemp(prefix="daqu_")  # Only this user can read it.
        self._command = ["ssh", "-T", "-a", "-x"]
        for name, value in _options(self._folder).items():
            self._command += ["-o", f"{name}={value}"]
        self._command += ["-l", user] if user else []
        self._command += ["-p", port] if port else []
        self._command += ["--", host.strip("[]")]
        self.close = weakref.finalize(self, _close, self._command, self._folder)

    def run(self, script: str, *arguments: str, stdin: bytes = b"", timeout_seconds: float = 60.0) -> subprocess.CompletedProcess:
        """Runs a POSIX shell script in the user's home folder on the other machine.

        Args:
            script: A fixed text on one line, without backslashes and exclamation marks, which some login shells expand.
            *arguments: The values of `$1`, `$2` and so on, which are quoted so that no shell reads them.
            stdin: The bytes that the script reads.
            timeout_seconds: The time after which the script is given up.

        Returns:
            The finished process, with bytes as stdout, text as stderr, and the exit status of the script.

        Raises:
            DeviceLostError: The machine cannot be reached, or the connection broke.
            DeviceTimeoutError: The script did not end in time.
            DeviceSetupError: The machine refuses the user or has another host key, or there is no ssh here.
        """
        pieces = ["sh", "-c", f"LC_ALL=C; export LC_ALL; cd || exit 1; {script}", "sh", *arguments]
        # Errors go to a file, since a pipe would stay open for as long as some versions of ssh keep the connection.
        with tempfile.TemporaryFile() as errors:
            command = [*self._command, " ".join(map(shlex.quote, pieces))]
            try:
                done = subprocess.run(command, input=stdin, stdout=subprocess.PIPE, stderr=errors, timeout=timeout_seconds)
            except FileNotFoundError as error:
                raise DeviceSetupError(
                    "There is no ssh here: install OpenSSH's client (on Debian: apt-get install openssh-client)."
                ) from error
            except subprocess.TimeoutExpired as error:
                raise DeviceTimeoutError(
                    f"{self.address} gave no answer within {timeout_seconds:g} s: give a longer timeout, or see what it does."
                ) from error
            errors.seek(0)
            said = errors.read().decode(errors="replace")
        if done.returncode == 255 or done.returncode < 0:
            raise self._fault(said)
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout, said)

    def _fault(self, stderr: str) -> DeviceError:
        if not stderr.strip() or "kex_exchange_identification" in stderr:
            stderr += self._explanation()
        for words, kind, meaning in _FAULTS:
            if words in stderr:
                return kind(f"{self.address} {meaning.format(self._by_hand)}.")
        said = " ".join(stderr.split()).rstrip(".")[-200:]
        if not _BROKEN.search(said):
            return DeviceSetupError(f"{self.address} cannot be used by ssh ({said}): see what `ssh {self._by_hand}` says by hand.")
        said = said or "ssh does not say why"
        return DeviceLostError(f"The connection to {self.address} broke ({said}): look at its power and network, then try again.")

    def _explanation(self) -> str:
        """What ssh says of a connection that does not begin when it is asked to say more; errors alone leave out why."""
        program, *rest = self._command
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = [program, "-o", "LogLevel=INFO", *rest, "true"]
            return subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_CONNECT_SECONDS
            ).stderr
        return ""


def _options(folder: str) -> dict[str, str]:
    common = {
        "BatchMode": "yes",
        "ConnectTimeout": str(_CONNECT_SECONDS),
        "ServerAliveInterval": "5",
        "ServerAliveCountMax": "3",
        "RemoteCommand": "none",
        "ClearAllForwardings": "yes",
        "LogLevel": "ERROR",
    }
    if sys.platform == "win32":  # Whose OpenSSH cannot share a connection: every command makes its own.
        return common
    control = os.path.join(folder, "s").replace("%", "%%")
    return common | {"ControlMaster": "auto", "ControlPersist": str(_IDLE_SECONDS), "ControlPath": f'"{control}"'}


def _close(command: list[str], folder: str) -> None:
    if os.path.exists(os.path.join(folder, "s")):
        quiet = subprocess.DEVNULL
        with contextlib.suppress(OSError, subprocess.SubprocessError):  # Otherwise the connection ends by itself later.
            subprocess.run([command[0], "-O", "exit", *command[1:]], timeout=10, stdin=quiet, stdout=quiet, stderr=quiet)
    shutil.rmtree(folder, ignore_errors=True)
