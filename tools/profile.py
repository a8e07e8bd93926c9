"""Makes the latency table of a device, with the latency of each block of a search space, from which a search predicts subnets.

    daqu-profile --space=mobilenet_v2_28 --device=host --output=host.json
    daqu-profile --space=mobilenet_v2_28 --device=raspberry_pi:pi@raspberrypi.local --output=pi.json

What was timed is kept in --store, so that the same command goes on where it was cut off, and so that a space that shares blocks
with another needs less time.
"""

import os
import pathlib

from absl import flags

from daqu_tf import spaces, targets
from daqu_tf.errors import DaquError
from daqu_tf.latency.store import DEFAULT_STORE, MeasurementStore
from daqu_tf.spaces.fitting import fitted
from daqu_tf.tools import command, device_flags

_SPACE = flags.DEFINE_string("space", None, f"The search space: {', '.join(spaces.SPACES)}, or a .json file.")
_TARGET = flags.DEFINE_string("target", None, f"The target: {', '.join(targets.TARGETS)}; by default the one that fits the device.")
_DATASET = flags.DEFINE_string(
    "dataset", None, "The data set, as daqu-run takes it, if its images or classes differ from those of the space."
)
_OUTPUT = flags.DEFINE_string("output", None, "The .json file to which the table is written.")
_DEVICE = flags.DEFINE_string("device", "host", device_flags.DEVICE_HELP)
_STORE = flags.DEFINE_string(
    "store", DEFAULT_STORE, "The SQLite file that keeps all that was timed; name another one to time anew."
)
_REPEATS = flags.DEFINE_integer(
    "repeats", 2, "The number of times that every file is timed, in another order each time.", lower_bound=2
)
_SUBNETS = flags.DEFINE_integer(
    "subnets", 24, "The number of whole subnets for the correction, and of others for the error.", lower_bound=8
)
_SEED = flags.DEFINE_integer("seed", 0, "The seed of the orders and of the choice of subnets.", lower_bound=0)


def _profile(argv: list[str]) -> None:
    del argv
    path = pathlib.Path(_OUTPUT.value)
    if path.suffix != ".json" or not os.access(path.resolve().parent, os.W_OK):
        raise DaquError(f"`output` must be a .json file in a folder that can be written to, but received {path}.")
    nominal = _space()
    from daqu_tf.devices import Patience, connect_with
    from daqu_tf.latency.profiling import Settings, profile
    from daqu_tf.pipeline.progress import Progress, bar

    settings = Settings(_REPEATS.value, calibration=_SUBNETS.value, validation=_SUBNETS.value, seed=_SEED.value)
    store = MeasurementStore(pathlib.Path(_STORE.value).expanduser())
    progress = Progress()
    device = connect_with(_DEVICE.value, patience=Patience(notify=progress.warn), **device_flags.options())
    target = targets.for_device(device.identity(), _TARGET.value)
    space = target.restrict(nominal)
    progress.begin("latency table")
    try:
        table = profile(
            device, space, target.storage, store, settings, lambda what, *of: progress.update(f"{what} {bar(*of)}", None)
        )
    except BaseException:
        progress.abandon()
        raise
    table.save(path)
    progress.end(str(path))
    print(table.summary())


def _space() -> spaces.SearchSpace:
    if not _DATASET.value:
        return spaces.get(_SPACE.value)
    from daqu_tf import data

    dataset = data.load(_DATASET.value, _SEED.value)
    return fitted(_SPACE.value, dataset.image_shape, dataset.num_classes)


def main() -> None:
    """The console script."""
    command.main(_profile, __doc__, required=("space", "output"), modules=(__name__, device_flags.__name__))


if __name__ == "__main__":
    main()
