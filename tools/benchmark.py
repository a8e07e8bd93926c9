"""Times `.tflite` files on this machine, on boards or on phones, each in a process of its own, in turn.

daqu-benchmark runs/digits/models/m00.tflite runs/digits/models/m01.tflite
daqu-benchmark --device=host --device=raspberry_pi:pi@raspberrypi.local runs/digits/models/m00.tflite

A doubtful time is taken again, and flagged if it stays doubtful: `spread` means that calls differ, `run_spread` that processes do,
`throttled` that the device was hot or slowed down, and `clock` that its clock jumped. A device that is lost is waited for.
"""

import os
import pathlib
import sys
from concurrent import futures
from typing import Any

import numpy as np
from absl import flags

from daqu_tf import files
from daqu_tf.errors import DaquError
from daqu_tf.tools import command, device_flags

_DEVICES = flags.DEFINE_multi_string("device", ["host"], f"{device_flags.DEVICE_HELP} Several such flags work side by side.")
_REPEATS = flags.DEFINE_integer("repeats", 3, "The number of processes for each file.", lower_bound=1)
_JSON = flags.DEFINE_string("json", None, "A .json file to which all samples are written; by default they are not.")


def _benchmark(argv: list[str]) -> None:
    if not argv:
        raise DaquError("No file to time: name one or more .tflite files.")
    if _JSON.value and not os.access(pathlib.Path(_JSON.value).resolve().parent, os.W_OK):
        raise DaquError(f"{_JSON.value} cannot be written: choose another --json.")
    from daqu_tf.devices import Patience, connect_with

    patience = Patience(notify=lambda sentence: print(sentence, file=sys.stderr))
    devices = {text: connect_with(text, patience=patience, **device_flags.options()) for text in _DEVICES.value}
    found, faults = _measure(devices, argv)
    rows = [(text, path, each) for text, latencies in found.items() for path, each in zip(argv, latencies)]
    timed = [row for row in rows if not isinstance(row[2], DaquError)]
    _print_table(timed)
    # The outputs are compared after the timing, which that would disturb.
    parities = {(text, path): _parity_of(devices[text], path) for text, path, _ in timed if text != "host"}
    for (text, path), parity in parities.items():
        print(f"{text}: {path} {_say(parity)}")
    if _JSON.value:
        files.write_json(_JSON.value, [_row(*row, parities.get(row[:2])) for row in timed])
    faults |= {(text, path): error for text, path, error in rows if isinstance(error, DaquError)}
    if faults:
        raise DaquError(" ".join(f"{text}: {error}" if len(devices) > 1 else str(error) for (text, _), error in faults.items()))


def _measure(devices: dict[str, Any], paths: list[str]) -> tuple[dict[str, list[Any]], dict[tuple[str, str], DaquError]]:
    """The latency or the error of each file on each device, and the errors of devices that could not work."""
    from daqu_tf.devices import DeviceError

    with futures.ThreadPoolExecutor(len(devices)) as pool:
        running = {text: pool.submit(device.measure_each, paths, repeats=_REPEATS.value) for text, device in devices.items()}
    found: dict[str, list[Any]] = {}
    faults: dict[tuple[str, str], DaquError] = {}
    for text, each in running.items():
        try:
            found[text] = each.result()
        except DeviceError as error:
            faults[text, ""] = error
    return found, faults


def _print_table(rows: list[tuple[str, str, Any]]) -> None:
    if not rows:
        return
    names = {text for text, _, _ in rows}
    width = max(map(len, names)) if len(names) > 1 else 0
    column = f"  {'device':{width}}" if width else ""
    print(f"{'median us':>10} {'p90 us':>9} {'spread':>7} {'kB':>8}{column}  file")
    for text, path, latency in rows:
        column = f"  {text:{width}}" if width else ""
        kilobytes = pathlib.Path(path).stat().st_size / 1000
        figures = f"{latency.median_us:10.1f} {latency.p90_us:9.1f} {latency.relative_spread:7.1%} {kilobytes:8.1f}"
        flags = f"  ({', '.join(latency.flags)})" if latency.flags else ""
        print(f"{figures}{column}  {path}{flags}")


def _parity_of(device: Any, path: str) -> dict[str, Any]:
    """How far the outputs of a file on a device are from those of this machine, for one fixed image."""
    from daqu_tf.devices import DeviceError, HostDevice

    try:
        here, there = (each.outputs(path)[0] for each in (HostDevice(), device))
        return _parity(here, there)
    except DeviceError as error:
        return {"error": str(error)}


def _parity(here: np.ndarray, there: np.ndarray) -> dict[str, Any]:
    if (here.shape, here.dtype) != (there.shape, there.dtype):
        return {"error": f"it puts out {there.dtype} of shape {there.shape}, not {here.dtype} of shape {here.shape}."}
    largest = float(np.abs(here.astype(np.float64) - there).max())
    if here.dtype.kind != "f":
        return {"largest_difference": largest, "unit": "steps"}
    return {"largest_difference": largest / max(float(np.ptp(here)), 1e-30), "unit": "range"}


def _say(parity: dict[str, Any]) -> str:
    if "error" in parity:
        return f"was not compared with the host: {parity['error']}"
    largest = parity["largest_difference"]
    if not largest:
        return "gives the very outputs of the host."
    amount = f"{largest:g} steps" if parity["unit"] == "steps" else f"{largest:.1e} of its range"
    return f"differs from the host by at most {amount}."


def _row(text: str, path: str, latency: Any, parity: dict[str, Any] | None) -> dict[str, Any]:
    return {"file": path, "device_name": text, **latency.to_json(), "parity_with_host": parity}


def main() -> None:
    """The console script."""
    command.main(_benchmark, __doc__, modules=(__name__, device_flags.__name__), positional=True)


if __name__ == "__main__":
    main()
