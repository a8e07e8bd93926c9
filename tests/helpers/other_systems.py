"""Processes that find what Windows and macOS have not: no calls that pin to a cpu, no locks of files, no limits of a process."""

import os
import pathlib
import subprocess
import sys

from places import ROOT

# Python runs a module of this name first, in child processes as well.
HIDE = """
import os, signal, sys
for name in ("sched_getaffinity", "sched_setaffinity", "sysconf", "sysconf_names"):
    delattr(os, name)
del signal.alarm
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
"""


def call(folder: pathlib.Path, *arguments: str, **options) -> subprocess.CompletedProcess:
    """Runs this Python there.

    Args:
        folder: A new file is put there.
        *arguments: Of Python.
        **options: Of `subprocess.run`.
    """
    (folder / "sitecustomize.py").write_text(HIDE)
    paths = [str(folder), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=300, **options)
