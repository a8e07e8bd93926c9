"""What a job needs before its first stage: space, schedule, strategy, latency table, device; and what `config.json` says of it."""

import decimal
import hashlib
import importlib.metadata
import pathlib

import daqu_tf
from daqu_tf import data, files, spaces, targets
from daqu_tf.data.dataset import describe_dataset
from daqu_tf.devices import Device, Patience, connect_with
from daqu_tf.errors import DaquError
from daqu_tf.files import read_json
from daqu_tf.latency.table import LatencyTable, difference
from daqu_tf.pipeline.progress import Progress
from daqu_tf.runs.config import RunConfig
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.tflite.metadata import Metadata
from daqu_tf.training.schedule import Schedule, make_schedule
from daqu_tf.training.strategies import check_shares, check_strategy, leads, make_deterministic, make_strategy

SUPERNET_SHARE = 0.25  # Of the budget: see `pipeline`.
SEARCH_IMAGES = 6000
TABLE, DEVICE = "latency_table.json", "device.json"  # Files of a run.
_PACKAGES = ("tensorflow", "tf_keras", "tensorflow-model-optimization", "keras-tuner", "ai-edge-litert", "numpy")


def space_for(config: RunConfig, dataset: data.Dataset) -> SearchSpace:
    """The part of the named space that matters to the target, for the data set's images and classes."""
    space = spaces.get(config.space).for_images(dataset.image_shape, dataset.num_classes)
    return targets.get(config.target).restrict(space)


def schedule_for(config: RunConfig, space: SearchSpace) -> Schedule:
    """How the supernet is trained: what the settings mean, or what their JSON file says.

    Raises:
        DaquError: The file cannot be read or describes no schedule.
    """
    if config.schedule:
        return Schedule.from_json(read_json(pathlib.Path(config.schedule), remedy="give the path of a schedule in JSON"))
    length, unit = (config.epochs, "epochs") if config.epochs else (config.budget_minutes * SUPERNET_SHARE, "minutes")
    return make_schedule(space, config.warmup, config.precision_transfer, length, unit, **config.how_to_train)


def prepare_training(config: RunConfig, schedule: Schedule):
    """The strategy of the supernet's training.

    Raises:
        DaquError: It fits TF_CONFIG or the batch badly, or TensorFlow has begun to work already.
    """
    check_strategy(config.strategy)
    if config.deterministic:
        make_deterministic()
    strategy = make_strategy(config.strategy)
    check_shares(strategy, schedule.batch_size)
    return strategy


def given_table(config: RunConfig, space: SearchSpace) -> LatencyTable | None:
    """The latency table of the settings, or the copy in the folder if that is all that is left of it.

    Raises:
        DaquError: It is none, of another space, or of no use to the target.
    """
    target = targets.get(config.target)
    if (config.latency_table or config.latency == "table") and "latency_us" not in dict(target.objectives):
        raise DaquError(f"A latency table has no effect on target {target.name}, which does not count latency: leave it out.")
    if not config.latency_table:
        return None
    given, copy = pathlib.Path(config.latency_table), config.folder / TABLE
    table = LatencyTable.load(copy if copy.exists() and not given.exists() else given)
    table.check(space, target.storage)
    return table


def needs_device(config: RunConfig, last_stage: str, strategy, is_new: bool) -> bool:
    """Whether something is left for this process to time."""
    product = {"supernet": None, "search": "finalists.json"}.get(last_stage, "pareto.json")
    if product is None or (strategy and not leads(strategy)):
        return False
    return is_new or not (config.folder / product).exists()


def connect_device(config: RunConfig, progress: Progress) -> Device:
    """What times files; one that is lost is waited for.

    Raises:
        DaquError: It does not answer, or its runtime does not run the target's files.
    """
    device = connect_with(**config.how_to_time, patience=Patience(notify=progress.warn))
    targets.for_device(device.identity(), config.target)
    return device


def check_device(config: RunConfig, device: Device, overwrite: bool) -> str:
    """In what the device differs from that of the run so far, whose latencies would not go together; empty where they do.

    Raises:
        DaquError: They do not, and the run may not be overwritten.
    """
    differing = difference(before, device.identity()) if (before := read_json(config.folder / DEVICE, {})) else ""
    if differing and not overwrite:
        raise DaquError(
            f"{config.folder} holds latencies of another device or runtime ({differing}): give that one, another --output_dir, or "
            "--overwrite to begin again."
        )
    return differing


def describe(
    config: RunConfig, dataset: data.Dataset, space: SearchSpace, schedule: Schedule, table: LatencyTable | None = None
) -> dict:
    """The content of `config.json`."""
    nominal = spaces.get(config.space).for_images(dataset.image_shape, dataset.num_classes)
    return {
        "flags": config.to_json(),
        "schedule": schedule.to_json(),
        "search_space": space.to_json(),
        "latency_table": hashlib.sha256(files.encode_json(table.to_json())).hexdigest() if table else None,
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES} | {"daqu_tf": daqu_tf.__version__},
        "seed": config.seed,
        "target": config.target,
        "space": config.space,
        "dataset": describe_dataset(dataset),
        # As decimals: a float ends at 1e308.
        "cardinality": {
            name: f"{decimal.Decimal(part.cardinality):.2e}" for name, part in (("nominal", nominal), ("effective", space))
        },
    }


def metadata_for(name: str, dataset: data.Dataset) -> Metadata:
    """What the file of a network of this name tells applications."""
    return Metadata(
        name=name,
        description=f"Tells the {dataset.num_classes} classes of {dataset.name} apart. Made by daqu_tf.",
        labels=dataset.class_names,
        version=daqu_tf.__version__,
        input_offset=dataset.input_offset,
        input_scale=dataset.input_scale,
    )
