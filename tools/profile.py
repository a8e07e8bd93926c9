"""Makes the latency table of a device: what each block of a search space takes there. A search can then price subnets by it.

    daqu-profile --space=mobilenet_v2_28 --device=host --output=host.json
    daqu-profile --space=mobilenet_v2_28 --device=raspberry_pi:pi@raspberrypi.local --output=pi.json

What was timed is kept in --store, so that the same command goes on where it was cut off, and so that a space that shares blocks
with another needs less.
"""

import os
import pathlib

from absl import flags

from daqu_tf import spaces, targets
from daqu_tf.errors import DaquError
from daqu_tf.tools import command, device_flags

_SPACE = flags.DEFINE_string("space", None, f"Search space: {', '.join(spaces.SPACES)}, or a .json file.")
_TARGET = flags.DEFINE_string("target", "litert_cpu", f"What the networks are for: {', '.join(targets.TARGETS)}.")
_DATASET = flags.DEFINE_string(
    "dataset", None, "Data set that the space is for, if its images or classes are others, as of daqu-run."
)
_OUTPUT = flags.DEFINE_string("output", None, "The .json file of the table.")
_STORE = flags.DEFINE_string("store", "~/.cache/daqu_tf/latencies.sqlite", "SQLite file in which all that was timed is kept.")
_REPEATS = flags.DEFINE_integer("repeats", 2, "Times that every file is timed, in another order each time.", lower_bound=2)
_SUBNETS = flags.DEFINE_integer("subnets", 24, "Whole subnets for the correction, and as many others for the error.", lower_bound=8)
_SEED = flags.DEFINE_integer("seed", 0, "Of the orders and the choice of subnets.", lower_bound=0)
_BAR = 24  # Letters of the bar.


def _profile(argv: list[str]) -> None:
    del argv
    path = pathlib.Path(_OUTPUT.value)
    if path.suffix != ".json" or not os.access(path.resolve().parent, os.W_OK):
        raise DaquError(f"`output` must be a .json file in a folder that can be written to, but received {path}.")
    target = targets.get(_TARGET.value)
    space = target.restrict(_space())
    from daqu_tf.measurements import MeasurementStore
    from daqu_tf.profiling import Settings, profile

    settings = Settings(_REPEATS.value, calibration=_SUBNETS.value, validation=_SUBNETS.value, seed=_SEED.value)
    store = MeasurementStore(pathlib.Path(_STORE.value).expanduser())
    table = profile(device_flags.connect_one(), space, target.storage, store, settings, _Bars())
    table.save(path)
    print(_summary(table))
    print(f"The table: {path}")


def _space() -> spaces.SearchSpace:
    space = spaces.get(_SPACE.value)
    if not _DATASET.value:
        return space
    from daqu_tf import data

    dataset = data.load(_DATASET.value, _SEED.value)
    return space.for_images(dataset.image_shape, dataset.num_classes)


class _Bars:
    """Shows how far each turn is."""

    def __init__(self):
        from daqu_tf.progress import Progress

        self._progress, self._what = Progress(), ""

    def __call__(self, what: str, done: int, total: int) -> None:
        if what != self._what:
            self._progress.begin(what)
            self._what = what
        filled = _BAR * done // total
        self._progress.update(f"[{'#' * filled}{'.' * (_BAR - filled)}] {done} of {total}", None)
        if done == total:
            self._progress.end(f"{total} files")


def _summary(table) -> str:
    evidence, error = table.evidence, table.evidence["validation"]
    low, high = error["range_us"]
    drift = ", ".join(f"{share:+.1%}" for share in evidence["drift"][1:])
    return (
        f"{evidence['blocks']} blocks in {evidence['minutes']:.1f} minutes; later turns differ from the first by {drift}; "
        f"{evidence['unsteady_blocks']} blocks stayed unsteady.\n"
        f"On {error['subnets']} other subnets of {low:.1f} to {high:.1f} us its error is {error['median_error']:.1%} in the median "
        f"and {error['p90_error']:.1%} at the 90th percentile, Kendall's tau {error['kendall_tau']:.3f}.\n"
        f"Timed twice, the device differs from itself by {error['control_median_error']:.1%} and "
        f"{error['control_p90_error']:.1%}, tau {error['control_kendall_tau']:.3f}."
    )


def main() -> None:
    """The console script."""
    command.main(_profile, __doc__, required=("space", "output"), modules=(__name__, device_flags.__name__))


if __name__ == "__main__":
    main()
