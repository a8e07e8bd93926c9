"""A stand-in for a board: Debian's sshd on a port of its own, in whose home folder a Python runs ARM kernels under qemu."""

import contextlib
import getpass
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).parents[2]
SSHD, PYTHON = ROOT / ".arm/sshd", ROOT / ".arm/ai-edge-litert/python"
CONFIG = """Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
StrictModes no
UsePAM no
PidFile none
AuthenticationMethods publickey
PermitRootLogin prohibit-password
SetEnv HOME={folder}/home PATH={folder}/home/bin:/usr/bin:/bin
"""
# What root needs for sshd is there for this one process only, in a mount namespace; the machine stays as it is.
AS_ROOT = """set -e
cp /etc/passwd "$1/passwd"
echo 'sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin' >>"$1/passwd"
mount --bind "$1/passwd" /etc/passwd
mount -t tmpfs none /run
mkdir -m 755 /run/sshd
shift
exec "$@"
"""
# The user's own client, with a config and known hosts of the test.
CLIENT = """#!/bin/sh
echo "$*" >>'{folder}/calls'
exec '{ssh}' -F '{folder}/ssh_config' "$@"
"""
CLIENT_CONFIG = """Host *
IdentityFile {folder}/user_key
IdentitiesOnly yes
IdentityAgent none
UserKnownHostsFile {folder}/known_hosts
GlobalKnownHostsFile none
"""


class Board:
    """Runs until `stop`. `home` is the home folder there, `bin` a folder for PATH with the `ssh` that gets in."""

    def __init__(self, folder: pathlib.Path):
        self.folder, self.home, self.bin = folder, folder / "home", folder / "bin"
        self.cache = self.home / ".cache/daqu_tf"
        self.home.mkdir(), self.bin.mkdir()
        for name in ("host_key", "user_key", "other_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.user = getpass.getuser()
        self.address = f"{self.user}@127.0.0.1:{self.port}"
        (folder / "sshd_config").write_text(CONFIG.format(folder=folder, port=self.port))
        (folder / "ssh_config").write_text(CLIENT_CONFIG.format(folder=folder))
        (self.bin / "ssh").write_text(CLIENT.format(folder=folder, ssh=shutil.which("ssh")))
        (self.bin / "ssh").chmod(0o755)
        self.know("host_key")
        self.start()

    def know(self, key: str | None) -> None:
        """Makes this the host key that the client knows, or makes it know none."""
        lines = "" if key is None else f"[127.0.0.1]:{self.port} {(self.folder / f'{key}.pub').read_text()}"
        (self.folder / "known_hosts").write_text(lines)

    def start(self) -> None:
        """Starts sshd and waits until it listens."""
        libraries = ":".join(str(path) for path in SSHD.glob("usr/lib/*-linux-gnu"))
        command = [str(SSHD / "usr/sbin/sshd"), "-D", "-e", "-f", str(self.folder / "sshd_config")]
        if os.geteuid() == 0 and not pathlib.Path("/run/sshd").is_dir():  # Which is there if Debian's own server runs.
            command = ["unshare", "--mount", "--propagation=private", "sh", "-c", AS_ROOT, "sh", str(self.folder), *command]
        with open(self.folder / "log", "a") as log:
            # A session of its own, so that it ends with all that it started, and nothing else does.
            environment = os.environ | {"LD_LIBRARY_PATH": libraries}
            self.process = subprocess.Popen(command, stderr=log, env=environment, start_new_session=True)
        for _ in range(100):
            if self.process.poll() is not None:
                break
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise RuntimeError(f"sshd did not start: {(self.folder / 'log').read_text()}")

    def connections(self) -> list[int]:
        """The processes of sshd that serve a connection."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(child) for child in children]

    def cut(self) -> None:
        """Ends all connections."""
        for each in self.connections():
            os.kill(each, signal.SIGKILL)

    def freeze(self) -> None:
        """Stops sshd and its connections, as a board does that hangs: nothing is closed, and nothing answers."""
        for each in (self.process.pid, *self.connections()):
            os.kill(each, signal.SIGSTOP)

    def thaw(self) -> None:
        """Lets all that `freeze` has stopped go on."""
        for each in (*self.connections(), self.process.pid):
            os.kill(each, signal.SIGCONT)

    @staticmethod
    def wait_until(condition, seconds=10):
        """Waits for something that happens there."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.05)

    @contextlib.contextmanager
    def meanwhile(self, work):
        """Does something in a thread of its own, while the body runs."""
        thread = threading.Thread(target=work)
        thread.start()
        yield
        thread.join()

    def stop(self) -> None:
        """Ends sshd and its connections."""
        self.cut()
        self.process.terminate()
        self.process.wait(10)

    def script(self, name: str, text: str) -> str:
        """Puts a program there, as a fake Python; returns its path."""
        path = self.home / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    def calls(self) -> int:
        """How often the client was called, but for closing connections, which happens at any time."""
        path = self.folder / "calls"
        return sum("-O exit" not in line for line in path.read_text().splitlines()) if path.exists() else 0


def is_usable() -> bool:
    """Whether `make test-devices` has set up all that there must be."""
    return SSHD.exists() and PYTHON.exists() and shutil.which("ssh") is not None and bool(pwd.getpwuid(os.getuid()).pw_shell)
