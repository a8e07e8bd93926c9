"""The trained supernet of another run, from which a job begins instead of training one."""

import json
import shutil
from typing import Any

from daqu_tf import files
from daqu_tf.data import Dataset
from daqu_tf.errors import DaquError
from daqu_tf.runs.config import RunConfig
from daqu_tf.runs.folder import RunFolder
from daqu_tf.training.schedule import Schedule

TAKEN = ("search_space", "schedule", "speed")  # Of the other run's `config.json`, what is the job's own too.


def settings_of(config: RunConfig, dataset: Dataset) -> dict[str, Any]:
    """What a job takes over from `config.json` of the run that trained its supernet, by the names there.

    Args:
        config: The settings of the job, with the folder of the other run in `supernet_from`.
        dataset: The images and labels of the job.

    Raises:
        DaquError: There is no trained supernet, or it is one of other images, of another space, or of fewer bits than are searched.
    """
    folder = RunFolder(config.supernet_from)
    settings = folder.settings()
    if settings is None or not folder.supernet.exists():
        raise DaquError(
            f"`supernet_from` must be the folder of a run with a trained supernet, but {folder.path} is none: run `daqu-train`."
        )
    if json.loads(json.dumps(dataset.describe())) != settings["dataset"]:
        raise DaquError(
            f"`supernet_from` must be a run of the same images, but the supernet in {folder.path} was trained on others."
        )
    if "search_space" not in settings:
        raise DaquError(
            f"The run in {folder.path} was begun by a version of daqu_tf that did not write its space down: train anew."
        )
    name = settings["search_space"]["name"]
    if config.space not in ("auto", name):
        raise DaquError(f"`space` must be {name}, which the supernet in {folder.path} has, or auto, but received {config.space}.")
    transfer = Schedule.from_json(settings["schedule"]).precision_transfer
    if config.searches_bits and (transfer is None or len(transfer.order) == 1):
        raise DaquError(
            f"The supernet in {folder.path} was trained at its highest bits alone, but fewer are to be searched: give "
            "--precisions=siblings, or train one with --precisions=joint."
        )
    return {name: settings[name] for name in TAKEN if name in settings}


def take(config: RunConfig, folder: RunFolder) -> None:
    """Copies the weights of the other run's supernet, and the figures of its training, into the job's own folder."""
    source = RunFolder(config.supernet_from)
    if source.log.exists():
        shutil.copyfile(source.log, folder.log)
    files.write_arrays(folder.supernet, files.read_arrays(source.supernet))
