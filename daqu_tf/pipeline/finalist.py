"""Finishes one member of the front in a process of its own: extract, fine-tune, export, compare with the simulation.

The pipeline starts it as `python -m daqu_tf.pipeline.finalist FOLDER NAME SECONDS PARENT`; one thread, so that several share a
machine well.
"""

import dataclasses
import pathlib
import sys

from daqu_tf import data, files, targets
from daqu_tf.files import read_arrays, read_json, write_arrays
from daqu_tf.pipeline.processes import die_with
from daqu_tf.runs.folder import config_of


def finish(folder: pathlib.Path, name: str, seconds: float) -> None:
    """Writes `models/NAME.tflite` and `finalists/NAME.json`, what the manifest says but for the latency."""
    import tensorflow as tf

    from daqu_tf.export.export import export_tflite, round_biases
    from daqu_tf.export.manifest import describe
    from daqu_tf.export.proof import PROOF_IMAGES
    from daqu_tf.pipeline.plan import metadata_for, space_for
    from daqu_tf.training.fine_tuning import FineTuner, FineTuning

    tf.config.threading.set_intra_op_parallelism_threads(1)
    config, finalists = config_of(folder), read_json(folder / "finalists.json")
    dataset = data.load(config.dataset, config.seed)
    target, space = targets.get(config.target), space_for(config, dataset)
    subnet = space.subnet(finalists[name]["values"])
    arrays = read_arrays(folder / "supernet.npz")
    seed = config.seed + 1 + list(finalists).index(name)
    length = {"seconds": max(seconds, 1.0)}
    if config.finetune_epochs:
        length = {"steps": max(1, round(config.finetune_epochs * len(dataset.x_train) / config.batch_size))}
    how = FineTuning(**config.how_to_fine_tune | length | {"seed": seed})
    network, steps = FineTuner(space, arrays, dataset, how).tune(subnet)
    round_biases(network)
    write_arrays(folder / "finalists" / f"{name}.npz", network.arrays())

    path, images = folder / "models" / f"{name}.tflite", dataset.x_search[:PROOF_IMAGES]
    export_tflite(network, path, **dataclasses.asdict(target.storage), metadata=metadata_for(name, dataset), images=images)
    manifest = describe(path, name, network, dataset, target.storage, "fine_tuned")
    manifest["accuracy"]["inherited"] = finalists[name]["inherited"]
    manifest |= {"target": target.name, "seed": config.seed, "fine_tuning": dataclasses.asdict(how) | {"steps": steps}}
    files.write_json(folder / "finalists" / f"{name}.json", manifest)


if __name__ == "__main__":
    die_with(int(sys.argv[4]))
    finish(pathlib.Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
