"""Times `.tflite` files on this machine, each in a process of its own, in turn.

daqu-benchmark runs/digits/models/m00.tflite runs/digits/models/m01.tflite
"""

import os
import pathlib

from absl import flags

from daqu_tf import atomic
from daqu_tf.errors import DaquError
from daqu_tf.tools import command

_THREADS = flags.DEFINE_integer("threads", 1, "Threads of the runtime.", lower_bound=1)
_REPEATS = flags.DEFINE_integer("repeats", 3, "Processes for each file.", lower_bound=1)
_JSON = flags.DEFINE_string("json", None, "File for all samples; none by default.")


def _benchmark(argv: list[str]) -> None:
    if not argv:
        raise DaquError("No file to time: name one or more .tflite files.")
    if _JSON.value and not os.access(pathlib.Path(_JSON.value).resolve().parent, os.W_OK):
        raise DaquError(f"{_JSON.value} cannot be written: choose another --json.")
    from daqu_tf.devices import HostDevice

    latencies = HostDevice(threads=_THREADS.value).measure_many([pathlib.Path(path) for path in argv], repeats=_REPEATS.value)
    print(f"{'median us':>10} {'p90 us':>9} {'spread':>7} {'kB':>8}  file")
    for path, latency in zip(argv, latencies):
        kilobytes = pathlib.Path(path).stat().st_size / 1000
        print(f"{latency.median_us:10.1f} {latency.p90_us:9.1f} {latency.relative_spread:7.1%} {kilobytes:8.1f}  {path}")
    if _JSON.value:
        atomic.write_json(_JSON.value, [{"file": path, **latency.to_json()} for path, latency in zip(argv, latencies)])


def main() -> None:
    """The console script."""
    command.main(_benchmark, __doc__, modules=(__name__,), positional=True)


if __name__ == "__main__":
    main()
