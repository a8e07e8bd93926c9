"""Makes a folder with Debian's adb client, unpacked and not installed, whose `adb` is called like any other.

    python tests/devices/adb_root.py .adb

As `arm_root.py`: the machine stays as it is, and root is not needed. A second call does nothing.
"""

import pathlib
import shutil
import sys

from arm_root import output

# adb's own; the C and C++ libraries are this machine's.
PACKAGES = ("adb", "android-libbase", "android-liblog", "android-libcutils", "android-libboringssl", "libusb-1.0-0")
STARTER = """#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
libraries=$(echo "$here"/debian/usr/lib/*-linux-gnu*)
LD_LIBRARY_PATH=$libraries:$libraries/android exec "$here/debian/usr/lib/android-sdk/platform-tools/adb" "$@"
"""


def make(folder: pathlib.Path) -> None:
    """Makes the folder, or leaves it as it is if this very script has made it."""
    script, stamp = pathlib.Path(__file__), folder / "made_by.py"
    if stamp.exists() and stamp.read_bytes() == script.read_bytes():
        return
    if folder.exists() and not stamp.exists():
        sys.exit(f"{folder} exists, and this script has not made it: name another folder.")
    print(f"Unpacking the adb client into {folder} (the first time: seconds, 3 MB to download) ...", flush=True)
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unpack(unfinished / "debian", unfinished.absolute() / "apt")
    (unfinished / "adb").write_text(STARTER)
    (unfinished / "adb").chmod(0o755)
    shutil.rmtree(unfinished / "apt")
    shutil.copy(script, unfinished / stamp.name)
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)  # Whatever kills this before, the next call starts anew.


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
    make(pathlib.Path(sys.argv[1]))
