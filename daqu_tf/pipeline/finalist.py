"""Finishes one member of the front in a process of its own: extract, fine-tune, export, compare with the simulation.

The pipeline starts it as `python -m daqu_tf.pipeline.finalist FOLDER NAME SECONDS PARENT`; one thread, so that several share a
machine well.
"""

import dataclasses
import pathlib
import sys

from daqu_tf import files
from daqu_tf.pipeline.job import compute_on_one_thread
from daqu_tf.pipeline.plan import Plan
from daqu_tf.pipeline.processes import die_with


def finish(path: pathlib.Path, name: str, seconds: float) -> None:
    """Writes `models/NAME.tflite` and `finalists/NAME.json`, what the manifest says but for the latency.

    Args:
        path: The folder of the run.
        name: The finalist.
        seconds: How long it is fine-tuned, where the settings do not give it epochs.
    """
    from daqu_tf.export.description import describe
    from daqu_tf.export.export import export_tflite
    from daqu_tf.export.proof import PROOF_IMAGES
    from daqu_tf.training.fine_tuning import FineTuner, FineTuning

    compute_on_one_thread()
    plan = Plan.in_folder(path)
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
    more = {"target": plan.target.name, "seed": config.seed, "fine_tuning": fine_tuning, "ends": written.meaning()}
    manifest = describe(model, name, network, dataset, storage, "fine_tuned", **more)
    accuracy = {**manifest.accuracy, "inherited": finalists[name]["inherited"]}
    files.write_json(folder.finished / f"{name}.json", dataclasses.replace(manifest, accuracy=accuracy).to_json())


if __name__ == "__main__":
    die_with(int(sys.argv[4]))
    finish(pathlib.Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
