"""The stages in which members of the search's front are fine-tuned, exported and timed."""

import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from daqu_tf import files, machine
from daqu_tf.devices import ModelError
from daqu_tf.errors import DaquError
from daqu_tf.export.manifest import ENDING, Manifest
from daqu_tf.pipeline import budget, processes, siblings
from daqu_tf.pipeline.finalist import REFUSED
from daqu_tf.pipeline.front import front_of
from daqu_tf.pipeline.job import Job
from daqu_tf.runs.folder import RunFolder


class FinalistProcesses(processes.Processes):
    """Processes that finish members of the front, a few at a time; none outlives the `with` block.

    Args:
        folder: The folder of the run.
        workers: How many processes work at once.

    Attributes:
        left_out: Why a finalist cannot be finished, by its name.
    """

    def __init__(self, folder: pathlib.Path, workers: int):
        super().__init__()
        self._folder, self._workers = RunFolder(folder.resolve()), workers
        self.left_out: dict[str, str] = {}
        self._crashed: set[str] = set()
        self._gpus, self._gpu_of = machine.gpus(), dict[str, str]()
        for path in (self._folder.models, self._folder.finished):
            path.mkdir(exist_ok=True)

    def run(self, names: Sequence[str], seconds: Callable[[str], float]) -> Iterator[int]:
        """Finishes all of `names` that can be; yields how many are done, about once a second.

        One that the export refuses is left out, as is one whose process crashes when it is tried again at the end.

        Args:
            names: The finalists, in the order in which they are started.
            seconds: Asked for each one's seconds of fine-tuning when it starts.

        Raises:
            DaquError: One failed for a reason that is not its own; what it printed is in `finalists/NAME.log`.
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
                    waiting += self._again(name, process)
            yield len(names) - len(waiting) - len(self.running)

    def _log(self, name: str) -> pathlib.Path:
        return self._folder.finished / f"{name}.log"

    def _start(self, name: str, seconds: float) -> processes.Child:
        self._log(name).unlink(missing_ok=True)
        arguments = [str(self._folder.path), name, f"{seconds:.1f}"]
        return processes.start("pipeline.finalist", arguments, self._folder.path, self._log(name), **self._own_gpu(name))

    def _own_gpu(self, name: str) -> dict[str, str]:
        """The variables that give a process a GPU, that of the fewest others; none where there are no GPUs."""
        if not self._gpus:
            return {}
        taken = [self._gpu_of[other] for other in self.running if other != name]
        self._gpu_of[name] = min(self._gpus, key=taken.count)
        return {"CUDA_VISIBLE_DEVICES": self._gpu_of[name]}

    def _again(self, name: str, process: processes.Child) -> list[str]:
        """Those that have to be started again when a finalist's process has ended: it, or none."""
        status = process.poll() or 0
        if status == REFUSED:
            self.left_out[name] = process.last_line()
        elif status < 0 and name not in self._crashed:  # The others may have taken its memory.
            self._crashed.add(name)
            return [name]
        elif status < 0:
            self.left_out[name] = f"its process {process.how_ended()}, twice"
        elif status:
            raise DaquError(
                f"Finalist {name} {process.how_ended()}; mend that, then run the same command to go on (all that it printed is in "
                f"{self._log(name)})."
            )
        return []


def finish(job: Job) -> None:
    """Fine-tunes and exports every finalist that is not done yet, several at a time, in the time that is left."""
    config, folder = job.plan.config, job.folder
    finalists = files.read_json(folder.finalists)
    families = {name: [name, *others] for name, others in siblings.parents(finalists).items()}
    todo = [name for name, family in families.items() if not _is_done(folder, family)]
    # The largest first, so that no core idles at the end.
    todo.sort(key=lambda name: finalists[name]["macs"], reverse=True)
    workers = max(1, min(budget.workers(config), len(todo)))
    said: set[str] = set()
    with FinalistProcesses(folder.path, workers) as started:
        for group, seconds in _groups(job, todo, workers):
            for _ in started.run(group, seconds):
                done = sum(folder.figures(name).exists() for name in finalists)
                job.progress.update(f"{done} of {len(finalists)} fine-tuned and exported", budget.left(job.clock, len(finalists)))
                job.clock.tick()
                _leave_out(folder, {member: reason for name, reason in started.left_out.items() for member in families[name]})
                for name in [name for name in finalists if name not in said and folder.left_out(name)]:
                    said.add(name)
                    job.progress.warn(f"{name} is left out: {folder.left_out(name)}.")
    members = [Manifest.read(folder.figures(name)) for name in _finished(folder)]
    if not members:
        reasons = {name: folder.left_out(name) for name in finalists}
        for name in finalists:  # What is mended now lets the same command go on.
            folder.reason(name).unlink(missing_ok=True)
        text = ", ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise DaquError(f"None of the {len(finalists)} finalists could be finished ({text}): mend that, then run the same command.")
    best = max(member.search_accuracy for member in members)
    job.progress.end(f"{len(members)} fine-tuned and exported, best {best:.1%} on the search split")


def _groups(job: Job, todo: list[str], workers: int) -> Iterator[tuple[list[str], Callable[[str], float]]]:
    """The finalists that may be trained at once, a group after the other, each with what gives a finalist its seconds."""
    finalists = files.read_json(job.folder.finalists)
    teacher = siblings.teacher(job.plan.forecast.has_teacher, finalists)
    overhead = budget.overhead(len(job.plan.dataset.x_train))
    if teacher in todo:
        share, began = budget.teacher_share(job.plan.config), job.clock.elapsed()
        seconds = max(budget.LEAST_FINE_TUNING_SECONDS, share * budget.left(job.clock, len(finalists)))
        yield [teacher], lambda name: seconds
        overhead = max(overhead, job.clock.elapsed() - began - seconds)  # A slow machine takes longer to trace, and all others too.
    others = [name for name in todo if name != teacher]
    yield others, Shares(job, {name: finalists[name]["macs"] for name in others}, workers, overhead).seconds


def _leave_out(folder: RunFolder, reasons: dict[str, str]) -> None:
    """Writes down why finalists cannot be finished, but for those that are: a parent may be whole where its sibling failed."""
    for name, reason in reasons.items():
        if not _is_done(folder, [name]):
            files.write_json(folder.reason(name), {"reason": reason})


class Shares:
    """The seconds of each finalist, shared out anew whenever one starts, by what is left then.

    Those that wait are dealt out to the workers first, so that all workers end together: of three finalists on two workers, the
    largest has one for itself. What one takes too long is taken from all that come after it, not from the last one alone.

    Args:
        job: The job.
        macs: Multiplications of each finalist, by its name.
        workers: How many train at once.
        overhead: The seconds that each takes beside its training.
    """

    def __init__(self, job: Job, macs: dict[str, int], workers: int, overhead: float):
        self._job, self._macs, self._workers, self._overhead = job, macs, workers, overhead
        self._models = len(files.read_json(job.folder.finalists))
        self._ends: dict[str, float] = {}  # When those that were started will end, by the clock of the job.

    def seconds(self, name: str) -> float:
        """The seconds of fine-tuning of a finalist, which starts now; it may have been started before, and have crashed."""
        clock, overhead = self._job.clock, self._overhead
        left = budget.left(clock, self._models)
        self._ends.pop(name, None)
        own = self._dealt(name, left, clock.elapsed())
        wanted = budget.share_out({each: self._macs[each] for each in own}, left, overhead)[name]
        allowed = max(budget.LEAST_FINE_TUNING_SECONDS, wanted)
        self._ends[name] = clock.elapsed() + allowed + overhead
        return allowed

    def _dealt(self, name: str, left: float, now: float) -> list[str]:
        """The finalists for the worker that is free now: the one that starts, and those of the others that fit best behind it."""
        busy = sorted(end - now for end in self._ends.values() if end > now)[: self._workers - 1]
        capacities = [left, *(left - seconds for seconds in busy), *[left] * (self._workers - 1 - len(busy))]
        hands, weights = [[name], *([] for _ in capacities[1:])], budget.weights(self._macs)
        waiting = [each for each in self._macs if each not in self._ends and each != name]
        for each in sorted(waiting, key=weights.__getitem__, reverse=True):
            rooms = [c / (weights[each] + sum(weights[held] for held in hand)) for c, hand in zip(capacities, hands)]
            hands[max(range(len(rooms)), key=lambda place: (rooms[place], place))].append(each)
        return hands[0]


def _is_done(folder: RunFolder, names: Sequence[str]) -> bool:
    return all(folder.figures(name).exists() or folder.left_out(name) for name in names)


def _finished(folder: RunFolder) -> list[str]:
    """The finalists that are not left out."""
    return [name for name in files.read_json(folder.finalists) if not folder.left_out(name)]


def time_models(job: Job) -> None:
    """Times the very files that are exported, in turn, while nothing else runs; writes manifests and the front."""
    plan, folder = job.plan, job.folder
    names = _finished(folder)
    paths = [folder.models / f"{name}.tflite" for name in names]
    latencies = job.device.measure_each(paths, repeats=3, seed=plan.config.seed)
    members = []
    for name, latency in zip(names, latencies):
        if isinstance(latency, ModelError):
            job.progress.warn(f"{name} is left out: {latency}")
            continue
        member = Manifest.read(folder.figures(name))
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
    front: dict[str, Any] = {"space": plan.space.name, "target": plan.target.name, "objectives": objectives}
    if left_out := {name: folder.left_out(name) for name in files.read_json(folder.finalists) if name not in names}:
        front["left_out"] = left_out
    files.write_json(folder.front, front | {"members": [member.to_json() for member in members]})
    job.progress.end(f"{len(members)} files timed on {job.device.name}, {sum(bool(one.on_front) for one in members)} on the front")


def _predicted(job: Job, member: Manifest) -> dict[str, float | None] | None:
    """What the table says of a finalist, in microseconds, and the relative error that 9 of 10 subnets keep within."""
    if job.table is None:
        return None
    us = job.table.predict(job.plan.space, job.plan.space.subnet(member.subnet))
    return {"us": us, "p90_error": job.table.errors.get("p90_error")}
