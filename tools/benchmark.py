"""Times `.tflite` files on this machine, on boards or on phones, each in a process of its own, in turn.

daqu-benchmark runs/digits/models/m00.tflite runs/digits/models/m01.tflite
daqu-benchmark --device=host --device=raspberry_pi:pi@raspberrypi.local runs/digits/models/m00.tflite
"""

import os
import pathlib
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import numpy as np
from absl import flags

from daqu_tf import atomic
from daqu_tf.errors import DaquError
from daqu_tf.tools import command, device_flags

_DEVICES = flags.DEFINE_multi_string("device", ["host"], f"{device_flags.DEVICE_HELP} Given several times, they work side by side.")
_REPEATS = flags.DEFINE_integer("repeats", 3, "Processes for each file.", lower_bound=1)
_JSON = flags.DEFINE_string("json", None, "File for all samples; none by default.")


def _benchmark(argv: list[str]) -> None:
    if not argv:
        raise DaquError("No file to time: name one or more .tflite files.")
    if _JSON.value and not os.access(pathlib.Path(_JSON.value).resolve().parent, os.W_OK):
        raise DaquError(f"{_JSON.value} cannot be written: choose another --json.")
    from daqu_tf.devices import connect_with

    devices = {text: connect_with(text, **device_flags.options()) for text in _DEVICES.value}
    latencies, faults = _measure(devices, argv)
    _print_table(argv, latencies)
    # After the timing, which it would disturb.
    parities = {text: _parities(devices[text], argv) for text in latencies if text != "host"}
    for text, found in parities.items():
        for path, parity in zip(argv, found):
            print(f"{text}: {path} {_say(parity)}")
    if _JSON.value:
        atomic.write_json(_JSON.value, [_row(*each) for each in _timed(argv, latencies, parities)])
    if faults:
        raise DaquError(" ".join(faults))


def _measure(devices: dict[str, Any], paths: list[str]) -> tuple[dict[str, list], list[str]]:
    """Returns the latencies of each device that gave them, and what the others had to say."""
    from daqu_tf.devices import DeviceError

    with futures.ThreadPoolExecutor(len(devices)) as pool:
        running = {text: pool.submit(device.measure_many, paths, repeats=_REPEATS.value) for text, device in devices.items()}
    latencies, faults = {}, []
    for text, each in running.items():
        try:
            latencies[text] = each.result()
        except DeviceError as error:
            faults.append(f"{text}: {error}" if len(devices) > 1 else str(error))
    return latencies, faults


def _print_table(paths: list[str], latencies: dict[str, list]) -> None:
    if not latencies:
        return
    width = max(map(len, latencies)) if len(latencies) > 1 else 0
    column = f"  {'device':{width}}" if width else ""
    print(f"{'median us':>10} {'p90 us':>9} {'spread':>7} {'kB':>8}{column}  file")
    for text, each in latencies.items():
        column = f"  {text:{width}}" if width else ""
        for path, latency in zip(paths, each):
            kilobytes = pathlib.Path(path).stat().st_size / 1000
            figures = f"{latency.median_us:10.1f} {latency.p90_us:9.1f} {latency.relative_spread:7.1%} {kilobytes:8.1f}"
            print(f"{figures}{column}  {path}")


def _parities(device: Any, paths: list[str]) -> list[dict[str, Any]]:
    """How far the outputs of each file are from this machine's, for one fixed image."""
    from daqu_tf.devices import DeviceError, HostDevice

    found = []
    for path in paths:
        try:
            here, there = (each.outputs(path)[0] for each in (HostDevice(), device))
            found.append(_parity(here, there))
        except DeviceError as error:
            found.append({"error": str(error)})
    return found


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


def _timed(paths: list[str], latencies: dict[str, list], parities: dict[str, list]) -> Iterator[tuple]:
    for text, each in latencies.items():
        yield from zip([text] * len(paths), paths, each, parities.get(text, [None] * len(paths)))


def _row(text: str, path: str, latency: Any, parity: dict[str, Any] | None) -> dict[str, Any]:
    return {"file": path, "device_name": text, **latency.to_json(), "parity_with_host": parity}


def main() -> None:
    """The console script."""
    command.main(_benchmark, __doc__, modules=(__name__, device_flags.__name__), positional=True)


if __name__ == "__main__":
    main()
