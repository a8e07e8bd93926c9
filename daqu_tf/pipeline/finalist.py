"""Finishes one member of the front in a process of its own: extract, fine-tune, export, compare with the simulation.

The pipeline starts it as `python -m daqu_tf.pipeline.finalist FOLDER NAME SECONDS PARENT`; one thread, so that several share a
machine well.
"""

import dataclasses
import pathlib
import sys
import traceback

from daqu_tf import files
from daqu_tf.devices import DeviceLostError, DeviceSetupError
from daqu_tf.errors import DaquError
from daqu_tf.pipeline import processes
from daqu_tf.pipeline.job import compute_on_one_thread
from daqu_tf.pipeline.plan import Plan

REFUSED = 3  # The status of a process whose finalist cannot be finished: the others can.


class RefusedError(DaquError):
    """This finalist cannot be trained, exported or proven, whatever is done again; others may."""


def finish(path: pathlib.Path, name: str, seconds: float) -> None:
    """Writes `models/NAME.tflite` and `finalists/NAME.json`, what the manifest says but for the latency.

    Args:
        path: The folder of the run.
        name: The finalist.
        seconds: How long it is fine-tuned, where the settings do not give it epochs.

    Raises:
        RefusedError: The finalist cannot be finished.
        DaquError: Something that is not the finalist's fault: the folder, the runtime or the disk.
    """
    compute_on_one_thread()
    plan = Plan.in_folder(path)
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
    from daqu_tf.export.description import describe
    from daqu_tf.export.export import export_tflite
    from daqu_tf.export.proof import PROOF_IMAGES
    from daqu_tf.training.fine_tuning import FineTuner, FineTuning

    config, dataset, folder = plan.config, plan.dataset, plan.folder
    finalists = files.read_json(folder.finalists)
    length = {"seconds": max(seconds, 1.0)}
    if config.finetune_epochs:
        length = {"steps": max(1, round(config.finetune_epochs * len(dataset.x_train) / config.batch_size))}
    how = FineTuning(**config.how_to_fine_tune | length | {"seed": config.seed + 1 + list(finalists).index(name)})
    tuner = FineTuner(plan.space, files.read_arrays(folder.supernet), dataset, how)
    network, steps = tuner.tune(plan.space.subnet(finalists[name]["values"]))
    files.write_arrays(folder.finished / f"{name}.npz", network.arrays())

    model, storage = folder.models / f"{name}.tflite", plan.target.storage
    images = dataset.x_search[:PROOF_IMAGES]
    written = export_tflite(network, model, **dataclasses.asdict(storage), metadata=plan.metadata(name), images=images)
    fine_tuning = dataclasses.asdict(how) | {"steps": steps}
    more = {"target": plan.target.name, "seed": config.seed, "fine_tuning": fine_tuning, **written.stated()}
    manifest = describe(model, name, network, dataset, storage, "fine_tuned", **more)
    accuracy = {**manifest.accuracy, "inherited": finalists[name]["inherited"]}
    files.write_json(folder.finished / f"{name}.json", dataclasses.replace(manifest, accuracy=accuracy).to_json())


def main(arguments: list[str]) -> None:
    """A process that `FinalistProcesses` has started."""
    processes.die_with(int(arguments[3]))
    processes.in_sentences(
        lambda: finish(pathlib.Path(arguments[0]), arguments[1], float(arguments[2])),
        lambda error: REFUSED if isinstance(error, RefusedError) else 1,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
