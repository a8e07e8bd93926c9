"""Finishes one member of the front in a process of its own: extract, fine-tune, export, compare with the simulation.

The pipeline starts it as `python -m daqu_tf.finalist FOLDER NAME SECONDS PARENT`; one thread, so that several share a machine well.
"""

import dataclasses
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from daqu_tf import atomic, data, output, targets
from daqu_tf.child_processes import die_with, start
from daqu_tf.errors import DaquError

OVERHEAD_SECONDS = 15.0  # Start and traces of one finalist; loading and scoring take their time by image.
OVERHEAD_SECONDS_AN_IMAGE = 4e-4


class FinalistProcesses:
    """Processes that finish members of the front, a few at a time; none outlives the `with` block.

    Args:
        folder: The run.
        workers: How many at once.
    """

    def __init__(self, folder: pathlib.Path, workers: int):
        self._folder, self._workers = folder.resolve(), workers
        self._running: dict[str, subprocess.Popen] = {}
        for name in ("models", "finalists"):
            (folder / name).mkdir(exist_ok=True)

    def __enter__(self) -> "FinalistProcesses":
        return self

    def __exit__(self, *_) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()

    def run(self, names: Sequence[str], seconds: Callable[[str], float]) -> Iterator[int]:
        """Finishes all of `names`; yields how many are done, about once a second.

        Args:
            names: In the order in which they are started.
            seconds: Asked for each one's seconds of fine-tuning when it starts.

        Raises:
            DaquError: One failed; what it printed is in `finalists/NAME.log`.
        """
        waiting = list(names)
        while waiting or self._running:
            while waiting and len(self._running) < self._workers:
                name = waiting.pop(0)
                self._running[name] = self._start(name, seconds(name))
            time.sleep(0.5)
            for name, process in list(self._running.items()):
                if process.poll() is not None:
                    del self._running[name]
                    self._check(name, process.returncode)
            yield len(names) - len(waiting) - len(self._running)

    def _start(self, name: str, seconds: float) -> subprocess.Popen:
        log = self._folder / "finalists" / f"{name}.log"
        log.unlink(missing_ok=True)
        return start("finalist", [str(self._folder), name, f"{seconds:.1f}"], self._folder, log)

    def _check(self, name: str, status: int) -> None:
        if status:
            log = self._folder / "finalists" / f"{name}.log"
            raise DaquError(f"Finalist {name} ended with status {status}: read {log}, then run the same command to go on.")


def finish(folder: pathlib.Path, name: str, seconds: float) -> None:
    """Writes `models/NAME.tflite` and `finalists/NAME.json`, what the manifest says but for the latency."""
    import tensorflow as tf

    from daqu_tf.export import PROOF_IMAGES, export_tflite, round_biases
    from daqu_tf.fine_tuning import FineTuner, FineTuning
    from daqu_tf.manifest import describe
    from daqu_tf.preparation import metadata_for, space_for

    tf.config.threading.set_intra_op_parallelism_threads(1)
    config, finalists = output.config_of(folder), output.read_json(folder / "finalists.json")
    dataset = data.load(config.dataset, config.seed)
    target, space = targets.get(config.target), space_for(config, dataset)
    subnet = space.subnet(finalists[name]["values"])
    arrays = output.read_arrays(folder / "supernet.npz")
    seed = config.seed + 1 + list(finalists).index(name)
    length = {"seconds": max(seconds, 1.0)}
    if config.finetune_epochs:
        length = {"steps": max(1, round(config.finetune_epochs * len(dataset.x_train) / config.batch_size))}
    how = FineTuning(**config.how_to_fine_tune | length | {"seed": seed})
    network, steps = FineTuner(space, arrays, dataset, how).tune(subnet)
    round_biases(network)
    output.write_arrays(folder / "finalists" / f"{name}.npz", network.arrays())

    path, images = folder / "models" / f"{name}.tflite", dataset.x_search[:PROOF_IMAGES]
    export_tflite(network, path, **dataclasses.asdict(target.storage), metadata=metadata_for(name, dataset), images=images)
    manifest = describe(path, name, network, dataset, target.storage, "fine_tuned")
    manifest["accuracy"]["inherited"] = finalists[name]["inherited"]
    manifest |= {"target": target.name, "seed": config.seed, "fine_tuning": dataclasses.asdict(how) | {"steps": steps}}
    atomic.write_json(folder / "finalists" / f"{name}.json", manifest)


if __name__ == "__main__":
    die_with(int(sys.argv[4]))
    finish(pathlib.Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
