"""Stand-ins: a board, and phones with a server of adb of their own."""

import os
import socket
import subprocess

import adbd
import benchmark_outputs
import board as boards
import pytest
from phones import ADB, adb, wait_for


@pytest.fixture(scope="module")
def adb_server(tmp_path_factory):
    """A server of adb for these tests alone."""
    if not ADB.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"There is no {ADB}: `make test-devices` sets it up.")
    with socket.create_server(("127.0.0.1", 0)) as probe, pytest.MonkeyPatch.context() as patch:
        port = probe.getsockname()[1]
        probe.close()
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        adb("start-server")
        yield
        adb("kill-server")


@pytest.fixture
def plug_in(adb_server, tmp_path):
    """Makes a phone that the adb server knows."""
    phones, connecting = [], []

    def make(fault=None, features="shell_v2", state="device"):
        phones.append(adbd.Adbd(tmp_path / f"phone{len(phones)}", fault, features))
        adbd.furnish(phones[-1].root)
        # Of a phone that is offline the client waits ten seconds to say so.
        connecting.append(subprocess.Popen([ADB, "connect", phones[-1].serial], stdout=subprocess.DEVNULL))
        wait_for(phones[-1], state)
        return phones[-1]

    yield make
    for phone, client in zip(phones, connecting):
        adb("disconnect", phone.serial, check=False)  # After a fault it may be gone already.
        phone.stop()
        client.wait(timeout=30)


@pytest.fixture
def program(tmp_path):
    """A benchmark_model that writes its arguments to `arguments` and says what it is told."""

    def make(output=benchmark_outputs.QUICK, then="exit 0", name="benchmark_model"):
        says = f"cat <<'END'\n{output}\nEND" if output else ""
        return adbd.write_script(tmp_path / name, f'printf "%s\\n" "$@" >"$ROOT/arguments"\n{says}\n{then}')

    return make


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    if not boards.is_usable():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("There is no sshd or no Python for ARM: call `make test-devices`.")
    found = boards.Board(tmp_path_factory.mktemp("board"))
    yield found
    found.stop()


@pytest.fixture
def board(running, monkeypatch):
    monkeypatch.setenv("PATH", f"{running.bin}{os.pathsep}{os.environ['PATH']}")
    yield running
    running.know("host_key")
