"""Makes a folder with Pythons for ARM that run on this machine, under qemu, each with the runtime of some phone or board.

    python tests/devices/arm_root.py .arm

After that `.arm/tflite-runtime/python` and `.arm/ai-edge-litert/python` are called like any Python. Debian's packages are unpacked,
not installed, by an apt with a state of its own: the machine stays as it is, and root is not needed. A second call does nothing.
`.arm/sshd` has an ssh server for this machine.
What the kernels compute is what they do on a board; the time that they take is not.
"""

import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable

PACKAGES = ("python3.11-minimal", "libpython3.11-stdlib", "libstdc++6")
# With what the ssh client, which has to be installed, does not need as well.
SSH_PACKAGES = ("openssh-server", "libwrap0", "libnsl2", "libtirpc3")
RUNTIMES = {"tflite-runtime": "2.14.0", "ai-edge-litert": "1.4.0"}  # The last one there is; the first that takes our INT4.
NUMPY = "1.26.4"  # The last one that tflite-runtime was built for.
PLATFORMS = ("manylinux_2_34_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
STARTER = """#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
PYTHONPATH=$here exec "$here/../debian/usr/bin/qemu-aarch64-static" -L "$here/../debian" "$here/../debian/usr/bin/python3.11" "$@"
"""


def make_once(folder: pathlib.Path, script: pathlib.Path, what: str, fill: Callable[[pathlib.Path], None]) -> None:
    """Makes a folder, or leaves it as it is if this very script has made it.

    Args:
        folder: To be made.
        script: That makes it.
        what: What is unpacked there, and what that takes, for people.
        fill: Puts it into the folder that it is given.
    """
    stamp = folder / "made_by.py"
    if stamp.exists() and stamp.read_bytes() == script.read_bytes():
        return
    if folder.exists() and not stamp.exists():
        sys.exit(f"{folder} exists, and this script has not made it: name another folder.")
    print(f"Unpacking into {folder}: {what} ...", flush=True)
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    fill(unfinished)
    shutil.rmtree(unfinished / "apt")
    shutil.copy(script, unfinished / stamp.name)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)  # Whatever kills this before, the next call starts anew.


def fill(folder: pathlib.Path) -> None:
    """Unpacks the Pythons with their runtimes, and the ssh server."""
    apt = folder.absolute() / "apt"
    unpack_debian(folder / "debian", apt)
    for runtime, version in RUNTIMES.items():
        install_runtime(folder / runtime, f"{runtime}=={version}")
    unpack_sshd(folder / "sshd", apt)


def unpack_debian(root: pathlib.Path, apt: pathlib.Path) -> None:
    """Unpacks Python for ARM with all that it needs, and qemu for this machine."""
    for needed in (root, apt / "lists/partial", apt / "archives/partial"):
        needed.mkdir(parents=True)
    (apt / "status").touch()  # Nothing is installed there, so apt downloads whatever a package needs.
    here, command = architecture(), apt_get(apt)
    output(*command, "update")
    output(*command, "install", "--yes", "--download-only", "--no-install-recommends", *PACKAGES, f"qemu-user-static:{here}")
    for package in (apt / "archives").glob("*.deb"):
        # Of qemu one machine of two dozen.
        only = ["./usr/bin/qemu-aarch64-static"] if package.name.startswith("qemu-user-static_") else []
        contents = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], check=True, stdout=subprocess.PIPE).stdout
        subprocess.run(["tar", "--extract", f"--directory={root}", *only], check=True, input=contents)


def unpack_sshd(root: pathlib.Path, apt: pathlib.Path) -> None:
    """Unpacks an ssh server for this machine."""
    root.mkdir()
    packages = [f"{package}:{architecture()}" for package in SSH_PACKAGES]
    subprocess.run([*apt_get(apt), "download", *packages], check=True, cwd=root)
    for package in root.glob("*.deb"):
        output("dpkg-deb", "--extract", str(package), str(root))
        package.unlink()


def architecture() -> str:
    """What Debian calls this machine's processor."""
    return output("dpkg", "--print-architecture").strip()


def apt_get(apt: pathlib.Path) -> tuple[str, ...]:
    """The command of an apt for ARM and this machine that keeps all that it knows in a folder."""
    folders = (f"Dir::State={apt}", f"Dir::State::status={apt}/status", f"Dir::Cache={apt}")
    machines = ("APT::Architecture=arm64", "APT::Architectures::=arm64", f"APT::Architectures::={architecture()}")
    settings = (*folders, *machines, "APT::Sandbox::User=root", "Debug::NoLocking=true", "Acquire::Languages=none")
    return ("apt-get", "--quiet=2", *(f"--option={setting}" for setting in settings))


def install_runtime(folder: pathlib.Path, requirement: str) -> None:
    """Unpacks the wheels of one runtime, beside a `python` that has it."""
    platforms = [f"--platform={platform}" for platform in PLATFORMS]
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", f"--target={folder}"]
    output(*pip, "--only-binary=:all:", "--no-deps", "--python-version=311", *platforms, requirement, f"numpy=={NUMPY}")
    starter = folder / "python"
    starter.write_text(STARTER)
    starter.chmod(0o755)


def output(*command: str) -> str:
    """What a command prints; if it fails, that is the end."""
    try:
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    except FileNotFoundError:
        sys.exit(f"There is no {command[0]}: Pythons for ARM are set up on Debian only.")
    except subprocess.CalledProcessError as error:
        sys.exit(
            f"{pathlib.Path(command[0]).name} failed with status {error.returncode}, as it says above: mend that, then call again."
        )


if __name__ == "__main__":
    make_once(pathlib.Path(sys.argv[1]), pathlib.Path(__file__), "Pythons for ARM; once, about a minute, 120 MB to download", fill)
