"""A stand-in for the adb daemon of a phone: the real adb client connects to it over TCP.

It speaks adb's transport (CNXN, AUTH, OPEN, OKAY, WRTE, CLSE), with `shell:` in both versions and `sync:`. Commands run for real,
in /bin/sh, with a private folder in place of `/data/local/tmp` and `/sys`, and first on PATH its `bin`, for what only phones have.
"""

import contextlib
import pathlib
import queue
import shlex
import socket
import struct
import subprocess
import threading

OTHER_SYSTEMS = ("recovery", "sideload")  # Whose phones refuse every service here.
CNXN, AUTH, OPEN, OKAY, WRTE, CLSE = (
    int.from_bytes(name, "little") for name in (b"CNXN", b"AUTH", b"OPEN", b"OKAY", b"WRTE", b"CLSE")
)
TOKEN, SIGNATURE, PUBLIC_KEY = 1, 2, 3
VERSION, MAX_PAYLOAD = 0x01000001, 256 * 1024
STDOUT, EXIT = 1, 3
FAULTS = (
    "ask",  # Wants the client's key, and accepts it.
    "unauthorized",  # Wants the client's key, and waits for a user who never says yes.
    "offline",  # Takes the connection and says nothing.
    "unplug",  # Ends the connection in the middle of benchmark_model's output.
    "truncate",  # Loses the second half of benchmark_model's output.
    "hang",  # benchmark_model gives no answer.
    "freeze",  # Nothing does, from benchmark_model on.
    "disk_full",  # Pushes find no space.
    "corrupt",  # Pushed files arrive with a wrong byte.
)
PROPERTIES = {
    "ro.product.model": "Pixel Stand-In",
    "ro.soc.model": "",
    "ro.board.platform": "gs101",
    "ro.product.cpu.abi": "arm64-v8a",
    "ro.build.version.release": "14",
}


class Adbd:
    """One phone on a port of this machine.

    Args:
        root: Its private folder; `root/bin` comes first on PATH. Nothing in its name may need quoting.
        fault: One of `FAULTS`, or None; may be changed at any time.
        features: `shell_v2`, or nothing for a phone before Android 7.
    """

    def __init__(self, root: pathlib.Path, fault: str | None = None, features: str = "shell_v2"):
        self.root, self.fault, self.features = root, fault, features
        self.commands: list[str] = []
        self.pushed: list[str] = []
        self.authorized = self.frozen = False
        self._port = 0
        self.start()
        self.serial = f"127.0.0.1:{self._port}"
        for folder in ("bin", "sys", "data/local/tmp"):
            (root / folder).mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Plugs the phone in, for the first time or again."""
        self.stopped = threading.Event()
        self._connections: list[Connection] = []
        self._socket = socket.create_server(("127.0.0.1", self._port))
        self._port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, args=(self._socket, self.stopped), daemon=True).start()

    def stop(self) -> None:
        """Unplugs the phone."""
        self.stopped.set()
        for each in (self._socket, *(connection.socket for connection in self._connections)):
            with contextlib.suppress(OSError):  # It was cut already.
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def local(self, text: str) -> str:
        """A command or path with the private folder in place of the phone's."""
        return text.replace("/data/local/tmp", f"{self.root}/data/local/tmp").replace("/sys/", f"{self.root}/sys/")

    def _serve(self, server: socket.socket, stopped: threading.Event) -> None:
        while not stopped.is_set():
            try:
                client, _ = server.accept()
            except OSError:
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connections.append(Connection(self, client))
            threading.Thread(target=self._connections[-1].run, daemon=True).start()


class Connection:
    """One adb server that is connected."""

    def __init__(self, phone: Adbd, client: socket.socket):
        self.phone, self.socket = phone, client
        self.lock = threading.Lock()
        self.streams: dict[int, Stream] = {}

    def run(self) -> None:
        """Answers until the other side goes."""
        try:
            while True:
                command, first, second, size, _, _ = struct.unpack("<6I", self.read(24))
                self.answer(command, first, second, self.read(size))
        except OSError:
            for stream in self.streams.values():
                stream.inbox.put(None)

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            if not (piece := self.socket.recv(size - len(data))):
                raise ConnectionError
            data += piece
        return data

    def send(self, command: int, first: int, second: int, data: bytes = b"") -> None:
        header = struct.pack("<6I", command, first, second, len(data), sum(data) & 0xFFFFFFFF, command ^ 0xFFFFFFFF)
        with self.lock:
            self.socket.sendall(header + data)

    def answer(self, command: int, first: int, second: int, data: bytes) -> None:
        if command == CNXN:
            self.welcome(bool(self.phone.fault in ("ask", "unauthorized")))
        elif command == AUTH:
            # No key is known here, so that every signature is answered by another token, until the client sends its public key.
            if first == SIGNATURE:
                self.welcome(True)
            elif first == PUBLIC_KEY and self.phone.fault == "ask":
                self.phone.authorized = b"\0" in data
                self.welcome(False)
        elif command == OPEN:
            stream = self.streams[first] = Stream(self, first, data.rstrip(b"\0").decode())
            threading.Thread(target=stream.run, daemon=True).start()
        elif first in self.streams:
            self.streams[first].inbox.put((command, data))

    def welcome(self, ask: bool) -> None:
        if self.phone.fault == "offline":
            return
        if ask:
            self.send(AUTH, TOKEN, 0, bytes(range(20)))
        else:
            system = self.phone.fault if self.phone.fault in OTHER_SYSTEMS else "device"
            banner = f"{system}::ro.product.name=stand_in;ro.product.model=Stand_In;features={self.phone.features}"
            self.send(CNXN, VERSION, MAX_PAYLOAD, banner.encode())


class Stream:
    """One service that the client has opened; both sides call it by the client's number."""

    def __init__(self, connection: Connection, number: int, service: str):
        self.connection, self.phone, self.number, self.service = connection, connection.phone, number, service
        self.inbox: queue.Queue = queue.Queue()
        self.received = b""

    def run(self) -> None:
        name, _, argument = self.service.partition(":")
        try:
            if self.phone.fault in OTHER_SYSTEMS:
                return self.connection.send(CLSE, 0, self.number)
            self.send(OKAY)
            if name.startswith("shell"):
                self.shell(argument, "v2" in name.split(","))
            elif name == "sync":
                self.sync()
            self.send(CLSE)
        except OSError:
            pass  # The client has gone, or the phone was unplugged.

    def send(self, command: int, data: bytes = b"") -> None:
        self.connection.send(command, self.number, self.number, data)

    def write(self, data: bytes) -> None:
        """Sends data and waits until it was taken."""
        for start in range(0, len(data), 65536):
            self.send(WRTE, data[start : start + 65536])
            while self.take()[0] != OKAY:
                pass

    def take(self) -> tuple[int, bytes]:
        """The next message; data is kept in `received`."""
        message = self.inbox.get()
        if message is None or message[0] == CLSE:
            raise ConnectionError
        if message[0] == WRTE:
            self.received += message[1]
            self.send(OKAY)
        return message

    def read(self, size: int) -> bytes:
        while len(self.received) < size:
            self.take()
        data, self.received = self.received[:size], self.received[size:]
        return data

    def shell(self, command: str, second_version: bool) -> None:
        self.phone.commands.append(command)
        fault = self.phone.fault if "--graph=" in command else None
        self.phone.frozen |= fault == "freeze"
        if fault == "hang" or (self.phone.frozen and self.phone.fault == "freeze"):
            self.phone.stopped.wait()
            raise ConnectionError
        status, output = self.execute(command)
        if fault in ("unplug", "truncate"):
            output = output[: len(output) // 2]
        if second_version:
            self.write(struct.pack("<BI", STDOUT, len(output)) + output)
        else:
            self.write(output.replace(b"\n", b"\r\n"))  # As a terminal does.
        if fault == "unplug":
            self.phone.stop()
        if second_version:
            self.write(struct.pack("<BIB", EXIT, 1, status))

    def execute(self, command: str) -> tuple[int, bytes]:
        """Runs a command; both its outputs are one."""
        environment = {"PATH": f"{self.phone.root}/bin:/usr/bin:/bin", "ROOT": str(self.phone.root)}
        done = subprocess.run(
            ["/bin/sh", "-c", self.phone.local(command)],
            cwd=self.phone.root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        return done.returncode % 256, done.stdout

    def sync(self) -> None:
        while True:
            name, size = struct.unpack("<4sI", self.read(8))
            if name == b"QUIT":
                return
            argument = self.read(size).decode()
            {b"STAT": self.stat, b"SEND": self.receive_file, b"RECV": self.send_file}[name](argument)

    def stat(self, path: str) -> None:
        try:
            found = pathlib.Path(self.phone.local(path)).stat()
            self.write(struct.pack("<4s3I", b"STAT", found.st_mode, found.st_size, int(found.st_mtime)))
        except OSError:
            self.write(struct.pack("<4s3I", b"STAT", 0, 0, 0))

    def receive_file(self, argument: str) -> None:
        remote, _, mode = argument.rpartition(",")
        self.phone.pushed.append(remote)
        file = self.receive_data()
        if self.phone.fault == "disk_full":
            return self.fail("write failed: No space left on device")
        if self.phone.fault == "corrupt":
            file = bytes([file[0] ^ 1]) + file[1:]
        path = pathlib.Path(self.phone.local(remote))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file)
        path.chmod(int(mode) & 0o777)
        self.write(struct.pack("<4sI", b"OKAY", 0))

    def receive_data(self) -> bytes:
        pieces = []
        while True:
            name, size = struct.unpack("<4sI", self.read(8))
            if name == b"DONE":  # Its number is a time.
                return b"".join(pieces)
            pieces.append(self.read(size))

    def send_file(self, path: str) -> None:
        try:
            file = pathlib.Path(self.phone.local(path)).read_bytes()
        except OSError as error:
            return self.fail(f"open failed: {error.strerror}")
        pieces = [file[start : start + 65536] for start in range(0, len(file), 65536)]
        self.write(b"".join(struct.pack("<4sI", b"DATA", len(piece)) + piece for piece in pieces))
        self.write(struct.pack("<4sI", b"DONE", 0))

    def fail(self, reason: str) -> None:
        self.write(struct.pack("<4sI", b"FAIL", len(reason)) + reason.encode())


def furnish(root):
    """Gives a phone its properties, four cores and two sensors."""
    cases = "\n".join(f"{name}) echo {shlex.quote(value)};;" for name, value in PROPERTIES.items())
    write_script(root / "bin/getprop", f'case "$1" in\n{cases}\nesac')
    for cpu in range(4):
        scaling = root / f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_"
        write(scaling.with_name("scaling_governor"), "schedutil" if cpu < 2 else "performance")
        write(scaling.with_name("scaling_max_freq"), str(1803000 + 333000 * cpu))
        write(scaling.with_name("cpuinfo_max_freq"), str(1900000 + 333000 * cpu))
    for index, (kind, value) in enumerate(
        [("battery", "55000"), ("cpu-0-0", "41200"), ("BIG CPU", "43700"), ("cpu-1", "-40"), ("soc", "97")]
    ):
        write(root / f"sys/class/thermal/thermal_zone{index}/type", kind)
        write(root / f"sys/class/thermal/thermal_zone{index}/temp", value)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")
    return path


def write_script(path, text):
    write(path, f"#!/bin/sh\n{text}").chmod(0o755)
    return path
