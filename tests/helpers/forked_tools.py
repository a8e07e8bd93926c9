"""Tools in processes forked from one that has imported what they import: each call is a process, and takes none of its seconds.

For calls that end with a sentence. What a tool does all the way is called as a user does, and so is what must start quickly.
"""

import os
import pathlib
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping

from search_processes import forked

SECONDS = 120.0  # After which a call counts as hung.


def call(tool: str, *flags: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run` of `python -m daqu_tf.tools.TOOL FLAGS`, with output as text, here and now."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = [pathlib.Path(folder, name) for name in ("stdout", "stderr")]
        variables = dict(os.environ if environment is None else environment)
        process = forked(_main, f"daqu_tf.tools.{tool}", flags, outputs, variables)
        process.join(SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
        return subprocess.CompletedProcess([tool, *flags], process.exitcode, *(path.read_text() for path in outputs))


def _main(module, flags, outputs, variables):
    os.environ.clear()
    os.environ.update(variables)
    for descriptor, path in enumerate(outputs, 1):  # By number: a tool, and TensorFlow, know no other way.
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", buffering=1, closefd=False) for descriptor in (1, 2))
    sys.argv = [module, *flags]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
