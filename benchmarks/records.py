"""What every benchmark writes: one JSON file with command, machine, versions, seeds, results and bars."""

import datetime
import importlib.metadata
import os
import pathlib
import shlex
import subprocess
import sys
from typing import Any

from daqu_tf import files

RESULTS = pathlib.Path(__file__).parent / "results"
_PACKAGES = ("tensorflow", "tf_keras", "tensorflow-model-optimization", "keras-tuner", "ai-edge-litert", "numpy")


def bar(name: str, value: float, limit: float, direction: str, unit: str) -> dict[str, Any]:
    """One claim: `value` must be `at_most` or `at_least` `limit`."""
    return {"name": name, "value": value, "limit": limit, "direction": direction, "unit": unit}


def write(name: str, seeds: list[int], results: Any, bars: list[dict[str, Any]]) -> pathlib.Path:
    """Writes `results/NAME.json` and returns its path."""
    RESULTS.mkdir(exist_ok=True)
    arguments = [pathlib.Path(sys.argv[0]).name, *(_without_folders(argument) for argument in sys.argv[1:])]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=RESULTS).stdout.strip()
    files.write_json(
        RESULTS / f"{name}.json",
        {
            "command": shlex.join(["python", f"benchmarks/{arguments[0]}", *arguments[1:]]),
            "commit": commit,
            "date": datetime.date.today().isoformat(),
            "machine": {
                "cpu": _cpu(),
                "cores": os.cpu_count(),
                "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            },
            "versions": {package: importlib.metadata.version(package) for package in _PACKAGES},
            "seeds": seeds,
            "results": results,
            "bars": bars,
        },
    )
    return RESULTS / f"{name}.json"


def _without_folders(argument: str) -> str:
    """A flag whose path is reduced to its last part: where things lie on one machine is nobody else's affair."""
    name, equals, value = argument.partition("=")
    return f"{name}{equals}{pathlib.Path(value).name}" if "/" in value else argument


def _cpu() -> str:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines() if pathlib.Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
