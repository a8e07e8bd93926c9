"""Finishes one finalist and its siblings in a process of their own: extract, fine-tune, export, compare with the simulation.

The pipeline starts it as `python -m daqu_tf.pipeline.finalist FOLDER NAME SECONDS PARENT`; one thread, so that several share a
machine well.
"""

import dataclasses
import pathlib
import shutil
import sys
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from daqu_tf import files
from daqu_tf.devices import DeviceLostError, DeviceSetupError
from daqu_tf.errors import DaquError
from daqu_tf.pipeline import budget, processes, siblings
from daqu_tf.pipeline.plan import Plan

if TYPE_CHECKING:
    from daqu_tf.supernet.supernet import StaticNetwork
    from daqu_tf.training.fine_tuning import Opinion

TAUGHT_SHARE = 0.5  # Of a teacher's opinion, beside the labels.
REFUSED = 3  # The status of a process whose finalist cannot be finished: the others can.


class RefusedError(DaquError):
    """This finalist cannot be trained, exported or proven, whatever is done again; others may."""


def finish(path: pathlib.Path, name: str, seconds: float) -> None:
    """Writes `models/NAME.tflite` and `finalists/NAME.json`, what the manifest says but for the latency, and those of siblings.

    Args:
        path: The folder of the run.
        name: The finalist.
        seconds: How long it and its siblings are fine-tuned, where the settings do not give it epochs.

    Raises:
        RefusedError: The finalist cannot be finished.
        DaquError: Something that is not the finalist's fault: the folder, the runtime or the disk.
    """
    plan = Plan.in_folder(path)
    if plan.config.deterministic or name != _teacher_of(plan):  # A teacher has the machine for itself; on one thread sums repeat.
        processes.compute_on_one_thread()
    try:
        _finish(plan, name, seconds)
    except (OSError, DeviceLostError, DeviceSetupError):
        raise
    except DaquError as error:
        raise RefusedError(str(error)) from error
    except Exception as error:
        traceback.print_exc()
        raise RefusedError(f"{type(error).__name__}: {error}") from error


def _finish(plan: Plan, name: str, seconds: float) -> None:
    from daqu_tf.supernet.supernet import StaticNetwork
    from daqu_tf.training.checkpoints import Checkpoints
    from daqu_tf.training.fine_tuning import FineTuner, FineTuning, seconds_done

    config, dataset, folder = plan.config, plan.dataset, plan.folder
    finalists = files.read_json(folder.finalists)
    family = siblings.parents(finalists)[name]
    recipe = plan.how_to_fine_tune
    recipe["learning_rate"] = finalists[name].get("learning_rate", recipe["learning_rate"])
    checkpoints = {each: Checkpoints(folder.finalist_checkpoints(each), print) for each in (name, *family)}
    before = seconds_done(checkpoints[name])  # In a process that was cut off.
    length = {"seconds": before + max(seconds / (1 + budget.SIBLING_SHARE * len(family)), 1.0)}
    if config.finetune_epochs:
        length = {"steps": max(1, round(config.finetune_epochs * len(dataset.x_train) / recipe["batch_size"]))}
    how = FineTuning(**recipe | length | {"seed": config.seed + 1 + list(finalists).index(name)})
    start = folder.supernet if config.searches_architectures else folder.initial if config.init_from else None
    arrays = _of_teacher(plan, name) or (files.read_arrays(start) if start else None)
    teacher = _teacher(plan, name)
    how = dataclasses.replace(how, distillation=TAUGHT_SHARE if teacher else 0.0)
    tuner = FineTuner(plan.space, arrays, dataset, how, teacher)
    subnet = plan.space.subnet(finalists[name]["values"])
    if folder.figures(name).exists():  # It was cut off between parent and sibling.
        network = StaticNetwork(plan.space, subnet)
        network.load_arrays(files.read_arrays(folder.weights(name)))
    else:
        network, steps = tuner.tune(subnet, checkpoints=checkpoints[name])
        _export(plan, name, network, dataclasses.asdict(how) | {"steps": steps}, finalists[name].get("inherited"))
    for sibling in family:
        if folder.figures(sibling).exists() or folder.left_out(sibling):
            continue
        less = siblings.how_to_tune(how)
        subnet = plan.space.subnet(finalists[sibling]["values"])
        trained, steps = tuner.tune_sibling(network, subnet, less, checkpoints[sibling])
        try:
            _export(plan, sibling, trained, dataclasses.asdict(less) | {"steps": steps, "parent": name})
        except DaquError as error:  # The parent is whole.
            files.write_json(folder.reason(sibling), {"reason": str(error)})
    for each in checkpoints:
        shutil.rmtree(folder.finalist_checkpoints(each), ignore_errors=True)


def _of_teacher(plan: Plan, name: str) -> dict[str, np.ndarray] | None:
    """The weights of the network that teaches a finalist, channels that matter most first; None where they cannot be its start."""
    from daqu_tf.stock_models.transfer import sorted_channels

    teacher, finalists = _teacher_of(plan), files.read_json(plan.folder.finalists)
    if teacher in (None, name) or not plan.folder.figures(teacher).exists():
        return None
    given = plan.space.subnet(finalists[teacher]["values"])
    if any(given.values.get(gene, 0) < least for gene, least in finalists[name]["values"].items()):
        return None  # It has more of something.
    return sorted_channels(files.read_arrays(plan.folder.weights(teacher)), plan.space.layers(given))


def _teacher_of(plan: Plan) -> str | None:
    """The name of the finalist that teaches the others; None where none does."""
    return siblings.teacher(plan.forecast.has_teacher, files.read_json(plan.folder.finalists))


def _teacher(plan: Plan, name: str) -> "Opinion | None":
    """What teaches a finalist: the network that the settings name, or the largest one that is finished; None where nothing does."""
    if plan.config.teacher:
        from daqu_tf.stock_models.teaching import teacher_from

        return teacher_from(plan.config.teacher, plan.dataset)
    from daqu_tf.supernet.supernet import StaticNetwork

    teacher = _teacher_of(plan)
    if teacher in (None, name) or not plan.folder.figures(teacher).exists():
        return None
    network = StaticNetwork(plan.space, plan.space.subnet(files.read_json(plan.folder.finalists)[teacher]["values"]))
    network.load_arrays(files.read_arrays(plan.folder.weights(teacher)))
    return network


def _export(
    plan: Plan, name: str, network: "StaticNetwork", fine_tuning: Mapping[str, Any], inherited: Mapping[str, float] | None = None
) -> None:
    """Writes the weights, the file and the figures of a network that was trained."""
    from daqu_tf.export.description import describe
    from daqu_tf.export.export import export_tflite
    from daqu_tf.export.proof import PROOF_IMAGES

    folder, storage = plan.folder, plan.target.storage
    files.write_arrays(folder.weights(name), network.arrays())
    model, images = folder.models / f"{name}.tflite", plan.dataset.x_search[:PROOF_IMAGES]
    written = export_tflite(network, model, **dataclasses.asdict(storage), metadata=plan.metadata(name), images=images)
    more = {"target": plan.target.name, "seed": plan.config.seed, "fine_tuning": fine_tuning, **written.stated()}
    manifest = describe(model, name, network, plan.dataset, storage, "fine_tuned", **more)
    accuracy = {**manifest.accuracy, "inherited": inherited} if inherited else manifest.accuracy
    files.write_json(folder.figures(name), dataclasses.replace(manifest, accuracy=accuracy).to_json())


def main(arguments: list[str]) -> None:
    """A process that `FinalistProcesses` has started."""
    processes.die_with(int(arguments[3]))
    processes.in_sentences(
        lambda: finish(pathlib.Path(arguments[0]), arguments[1], float(arguments[2])),
        lambda error: REFUSED if isinstance(error, RefusedError) else 1,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
