"""Makes a folder with Debian's adb client, unpacked and not installed, whose `adb` is called like any other.

    python tests/devices/adb_root.py .adb

As `arm_root.py`: the machine stays as it is, and root is not needed. A second call does nothing.
"""

import pathlib
import sys

from arm_root import make_once, output

# adb's own; the C and C++ libraries are this machine's.
PACKAGES = ("adb", "android-libbase", "android-liblog", "android-libcutils", "android-libboringssl", "libusb-1.0-0")
STARTER = """#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
libraries=$(echo "$here"/debian/usr/lib/*-linux-gnu*)
LD_LIBRARY_PATH=$libraries:$libraries/android exec "$here/debian/usr/lib/android-sdk/platform-tools/adb" "$@"
"""


def fill(folder: pathlib.Path) -> None:
    """Unpacks the client, beside an `adb` that starts it."""
    unpack(folder / "debian", folder.absolute() / "apt")
    (folder / "adb").write_text(STARTER)
    (folder / "adb").chmod(0o755)


def unpack(root: pathlib.Path, apt: pathlib.Path) -> None:
    """Unpacks the packages, by an apt with a state of its own."""
    for needed in (root, apt / "lists/partial", apt / "archives/partial"):
        needed.mkdir(parents=True)
    (apt / "status").touch()
    folders = (f"Dir::State={apt}", f"Dir::State::status={apt}/status", f"Dir::Cache={apt}")
    settings = (*folders, "APT::Sandbox::User=root", "Debug::NoLocking=true", "Acquire::Languages=none")
    command = ("apt-get", "--quiet=2", *(f"--option={setting}" for setting in settings))
    output(*command, "update")
    output("env", f"--chdir={apt}/archives", *command, "download", *PACKAGES)
    for package in (apt / "archives").glob("*.deb"):
        output("dpkg-deb", "--extract", str(package), str(root))


if __name__ == "__main__":
    make_once(pathlib.Path(sys.argv[1]), pathlib.Path(__file__), "the adb client; once, seconds, 3 MB to download", fill)
