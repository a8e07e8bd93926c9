"""The stages in which members of the search's front are fine-tuned, exported and timed."""

import dataclasses
import pathlib
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence

from daqu_tf import files
from daqu_tf.devices import ModelError
from daqu_tf.errors import DaquError
from daqu_tf.export.manifest import ENDING, Manifest
from daqu_tf.pipeline import budget, processes
from daqu_tf.pipeline.front import front_of
from daqu_tf.pipeline.job import Job
from daqu_tf.runs.folder import RunFolder


class FinalistProcesses(processes.Processes):
    """Processes that finish members of the front, a few at a time; none outlives the `with` block.

    Args:
        folder: The folder of the run.
        workers: How many processes work at once.
    """

    def __init__(self, folder: pathlib.Path, workers: int):
        super().__init__()
        self._folder, self._workers = RunFolder(folder.resolve()), workers
        for path in (self._folder.models, self._folder.finished):
            path.mkdir(exist_ok=True)

    def run(self, names: Sequence[str], seconds: Callable[[str], float]) -> Iterator[int]:
        """Finishes all of `names`; yields how many are done, about once a second.

        Args:
            names: The finalists, in the order in which they are started.
            seconds: Asked for each one's seconds of fine-tuning when it starts.

        Raises:
            DaquError: One failed; what it printed is in `finalists/NAME.log`.
        """
        waiting = list(names)
        while waiting or self.running:
            while waiting and len(self.running) < self._workers:
                name = waiting.pop(0)
                self.running[name] = self._start(name, seconds(name))
            time.sleep(0.5)
            for name, process in list(self.running.items()):
                if process.poll() is not None:
                    del self.running[name]
                    self._check(name, process.returncode)
            yield len(names) - len(waiting) - len(self.running)

    def _log(self, name: str) -> pathlib.Path:
        return self._folder.finished / f"{name}.log"

    def _start(self, name: str, seconds: float) -> subprocess.Popen:
        self._log(name).unlink(missing_ok=True)
        arguments = [str(self._folder.path), name, f"{seconds:.1f}"]
        return processes.start("pipeline.finalist", arguments, self._folder.path, self._log(name))

    def _check(self, name: str, status: int) -> None:
        if status:
            raise DaquError(
                f"Finalist {name} ended with status {status}: read {self._log(name)}, then run the same command to go on."
            )


def finish(job: Job) -> None:
    """Fine-tunes and exports every finalist that is not done yet, several at a time, in the time that is left."""
    config, clock, folder = job.plan.config, job.clock, job.folder
    finalists = files.read_json(folder.finalists)
    todo = [name for name in finalists if not (folder.finished / f"{name}.json").exists()]
    # The largest first, so that no core idles at the end.
    todo.sort(key=lambda name: finalists[name]["macs"], reverse=True)
    workers = max(1, min(budget.workers(config), len(todo)))
    overhead = budget.overhead(len(job.plan.dataset.x_train))
    total = budget.left(clock, len(finalists)) * workers
    seconds = budget.share_out({name: finalists[name]["macs"] for name in todo}, total, overhead)

    def allowed(name: str) -> float:
        return max(budget.LEAST_FINE_TUNING_SECONDS, min(seconds[name], budget.left(clock, len(finalists)) - overhead))

    with FinalistProcesses(folder.path, workers) as started:
        for done in started.run(todo, allowed):
            done += len(finalists) - len(todo)
            job.progress.update(f"{done} of {len(finalists)} fine-tuned and exported", budget.left(clock, len(finalists)))
            clock.tick()
    members = [Manifest.read(folder.finished / f"{name}.json") for name in finalists]
    best = max(member.search_accuracy for member in members)
    job.progress.end(f"{len(members)} fine-tuned and exported, best {best:.1%} on the search split")


def time_models(job: Job) -> None:
    """Times the very files that are exported, in turn, while nothing else runs; writes manifests and the front."""
    plan, folder = job.plan, job.folder
    names = list(files.read_json(folder.finalists))
    paths = [folder.models / f"{name}.tflite" for name in names]
    latencies = job.device.measure_each(paths, repeats=3, seed=plan.config.seed)
    members = []
    for name, latency in zip(names, latencies):
        if isinstance(latency, ModelError):
            job.progress.warn(f"{name} is left out: {latency}")
            continue
        member = Manifest.read(folder.finished / f"{name}.json")
        member = dataclasses.replace(member, latency=latency.to_json(), predicted_latency=_predicted(job, member))
        files.write_json(folder.models / f"{name}{ENDING}", member.to_json())
        members.append(member)
    if not members:
        raise DaquError(f"None of the {len(names)} finalists runs on {job.device.name}: take another --target.")
    members = front_of(plan.target, members, plan.config.constraints)
    for member in members:
        for missed in member.missed_constraints or ():
            job.progress.warn(f"{member.name} misses {missed}, now that it is trained and timed: it is not on the front.")
    objectives = [{"name": name, "direction": direction} for name, direction in plan.target.objectives]
    front = {"space": plan.space.name, "target": plan.target.name, "objectives": objectives}
    files.write_json(folder.front, front | {"members": [member.to_json() for member in members]})
    job.progress.end(f"{len(members)} files timed on {job.device.name}, {sum(bool(one.on_front) for one in members)} on the front")


def _predicted(job: Job, member: Manifest) -> dict[str, float | None] | None:
    """What the table says of a finalist, in microseconds, and the relative error that 9 of 10 subnets keep within."""
    if job.table is None:
        return None
    us = job.table.predict(job.plan.space, job.plan.space.subnet(member.subnet))
    return {"us": us, "p90_error": job.table.errors.get("p90_error")}
