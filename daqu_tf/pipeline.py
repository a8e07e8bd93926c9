"""The whole job, in order and resumable: data, supernet, search, finalists, timing, report.

Each stage reads what the one before it wrote into the output folder, and does nothing where its own result stands there already.
"""

import concurrent.futures
import contextlib
import functools
import importlib.metadata
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import zlib

import numpy as np

import daqu_tf
from daqu_tf import atomic, data, spaces, targets
from daqu_tf.config import RunConfig
from daqu_tf.errors import DaquError
from daqu_tf.progress import Progress
from daqu_tf.space import SearchSpace, Subnet
from daqu_tf.targets import Target
from daqu_tf.weights import cut

# Training gets a share of the budget, the search a share of what is left then: tracing takes its time in between. The rest is for
# fine-tuning, which gives more than a longer search would, until the share at which timing must begin.
SUPERNET_SHARE, SEARCH_SHARE, FINALISTS_END = 0.25, 0.15, 0.93
FINALIST_OVERHEAD_SECONDS = 15.0  # Start and trace of one finalist; scoring it takes its time for each image.
OVERHEAD_SECONDS_AN_IMAGE = 4e-4
MAX_ACCURACY_LOSS = 0.08  # Members of the front that lie further below its best are not worth fine-tuning.
SEARCH_IMAGES = 6000
_PACKAGES = ("tensorflow", "tf_keras", "tensorflow-model-optimization", "keras-tuner", "ai-edge-litert", "numpy")
_OURS = (
    "config.json", "clock.json", "timeline.json", "training.csv", "checkpoints", "tensorboard", "supernet.npz", "teacher.npz",
    "search", "finalists.json", "finalists", "models", "pareto.json", "pareto.csv", "pareto.png", "report.html", ".lock",
)  # fmt: skip


STAGES = ("supernet", "search", "report")


def run(config: RunConfig, overwrite: bool = False, last_stage: str = "report") -> pathlib.Path:
    """Goes from a data set to a Pareto set of `.tflite` files, and returns the path of what the last stage left.

    Args:
        config: The settings. The same settings in the same folder resume what stands there.
        overwrite: Whether a run with other settings in that folder may be deleted.
        last_stage: One of `STAGES`; the report ends a complete run.

    Raises:
        DaquError: Something that the user can mend; whatever stood in the folder is still whole.
    """
    with _locked(config, overwrite):
        return _Job(config).run(last_stage)


class _Job:
    def __init__(self, config: RunConfig):
        self.config, self.folder = config, config.folder
        self.progress = Progress()
        self.clock = Clock(self.folder / "clock.json", config.budget_minutes * 60)
        self.timeline = read_json(self.folder / "timeline.json", [])
        self.target = targets.get(config.target)

    def run(self, last_stage: str) -> pathlib.Path:
        report = self.folder / "report.html"
        if report.exists():
            self.progress.begin("done before")
            self.progress.end("nothing to do: the same settings have run here")
            return report
        with self.stage("data"):
            self.dataset = data.load(self.config.dataset, self.config.seed)
            self.space = space_for(self.config, self.dataset)
            write_config(self.config, self.dataset)
            self.progress.end(_describe(self.dataset, self.space))
        for stage, product, work in (
            ("supernet", "teacher.npz", self.train),
            ("search", "finalists.json", self.search),
        ):
            if not (self.folder / product).exists():
                with self.stage(stage):
                    work()
            if stage == last_stage:
                return self.folder / product
        for stage, work in (("finalists", self.finish), ("timing", self.time_models)):
            with self.stage(stage):
                work()
        from daqu_tf.report import write_report

        return write_report(self.folder)

    @contextlib.contextmanager
    def stage(self, name: str):
        """Names the stage in the progress line and adds its seconds to the timeline, even if it is cut off by an error."""
        self.progress.begin(name)
        began = time.monotonic()
        try:
            yield
        finally:
            self.timeline.append({"stage": name, "seconds": round(time.monotonic() - began, 1)})
            atomic.write_json(self.folder / "timeline.json", self.timeline)

    def train(self) -> None:
        """Both phases; leaves the weights and what the largest subnet says of the training images."""
        from daqu_tf.training import Schedule, SupernetTraining

        supernet, scorer, config = self.supernet, self.scorer, self.config
        seconds = self.clock.budget_seconds * SUPERNET_SHARE
        schedule = Schedule(seconds, config.batch_size, config.learning_rate, config.warmup, config.precision_transfer, config.seed)

        def on_progress(phase: str, done: float, figures: dict[str, float]) -> None:
            best = f"largest {figures['accuracy_largest']:.1%}  " if "accuracy_largest" in figures else ""
            self.progress.update(f"{phase.replace('_', ' ')}  {best}loss {figures['loss']:.3f}", (1 - done) * seconds)
            self.clock.tick()

        SupernetTraining(supernet, self.dataset, scorer, schedule, self.folder).run(on_progress)
        write_arrays(self.folder / "supernet.npz", supernet.arrays())
        supernet.activate(self.space.largest())
        scorer.recalibrate()
        write_arrays(self.folder / "teacher.npz", {"probabilities": _softmax(scorer.logits(self.dataset.x_train))})
        accuracy = scorer.accuracy(self.dataset.x_search, self.dataset.y_search)
        self.progress.end(f"the largest subnet has {accuracy:.1%} on the search split")

    @functools.cached_property
    def supernet(self):
        """One for training and search, since a trace takes many seconds; its initial weights are drawn from the seed."""
        from daqu_tf.keras import keras
        from daqu_tf.supernet import Supernet

        keras.utils.set_random_seed(self.config.seed)
        return Supernet(self.space)

    @functools.cached_property
    def scorer(self):
        """Of the supernet."""
        from daqu_tf.evaluation import Scorer

        return Scorer(self.supernet, self.dataset.x_train)

    def search(self) -> None:
        """Scores subnets with inherited weights, and chooses the finalists."""
        from daqu_tf.search import Candidates, make_tuner

        with np.load(self.folder / "supernet.npz") as arrays:
            self.supernet.load_arrays(arrays)
        folder = self.folder / "search"
        candidates = Candidates(self.supernet, self.scorer, self.dataset, self.target, folder, SEARCH_IMAGES)

        end = self.clock.elapsed() + SEARCH_SHARE * self.left()

        def on_progress(tuner, trial) -> None:
            best = tuner.oracle.get_best_trials(1)
            accuracy = f"best {best[0].metrics.get_best_value('accuracy'):.1%}" if best else ""
            count = len(tuner.oracle.end_order)
            left = end - self.clock.elapsed()
            self.progress.update(f"{count} trials, {len(tuner.pareto_trials())} on the front, {accuracy}", left)
            self.clock.tick()

        tuner = make_tuner(candidates, self.config.max_trials, self.config.seed, on_progress, lambda: self.clock.elapsed() > end)
        tuner.search()
        if not tuner.pareto_trials():
            raise DaquError(
                "No subnet could be scored in the time left: begin again with --overwrite and a larger --budget_minutes."
            )
        chosen = candidates.choose(tuner.pareto_trials(), self.config.finalists, MAX_ACCURACY_LOSS)
        names = {f"m{number:02d}": finalist for number, finalist in enumerate(chosen)}
        atomic.write_json(self.folder / "finalists.json", names)
        count = len(tuner.oracle.end_order)
        self.progress.end(f"{count} trials, {len(tuner.pareto_trials())} on the front, {len(names)} finalists")

    def left(self) -> float:
        """Seconds until timing must begin."""
        return self.clock.budget_seconds * FINALISTS_END - self.clock.elapsed()

    def finish(self) -> None:
        """Fine-tunes and exports every finalist that is not done yet, several at a time, in the time that is left."""
        (self.folder / "models").mkdir(exist_ok=True)
        (self.folder / "finalists").mkdir(exist_ok=True)
        finalists = read_json(self.folder / "finalists.json")
        todo = [name for name in finalists if not (self.folder / "finalists" / f"{name}.json").exists()]
        # The largest first, so that no core idles at the end.
        todo.sort(key=lambda name: finalists[name]["macs"], reverse=True)
        workers = min(self.config.workers or len(os.sched_getaffinity(0)), max(len(todo), 1))
        overhead = FINALIST_OVERHEAD_SECONDS + len(self.dataset.x_train) * OVERHEAD_SECONDS_AN_IMAGE
        seconds = share_out({name: finalists[name]["macs"] for name in todo}, self.left() * workers, overhead)

        def work(name: str) -> None:
            run_finalist(self.folder, name, max(2.0, min(seconds[name], self.left() - overhead)))

        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(work, name) for name in todo]
            while concurrent.futures.wait(futures, timeout=1.0).not_done:
                done = sum(future.done() for future in futures)
                self.progress.update(f"{len(finalists) - len(todo) + done} of {len(finalists)}", self.left())
                self.clock.tick()
                if any(future.done() and future.exception() for future in futures):
                    pool.shutdown(cancel_futures=True)
            for future in futures:
                future.result()
        done = [read_json(self.folder / "finalists" / f"{name}.json") for name in finalists]
        best = max(member["accuracy"]["fine_tuned"]["search"] for member in done)
        self.progress.end(f"{len(done)} fine-tuned and exported, best {best:.1%} on the search split")

    def time_models(self) -> None:
        """Times the very files that are exported, in turn, while nothing else runs; writes manifests and the front."""
        from daqu_tf.devices import HostDevice

        names = list(read_json(self.folder / "finalists.json"))
        paths = [self.folder / "models" / f"{name}.tflite" for name in names]
        latencies = HostDevice().measure_many(paths, repeats=3, seed=self.config.seed)
        members = []
        for name, path, latency in zip(names, paths, latencies):
            content = path.read_bytes()
            sizes = {"file_bytes": len(content), "deflated_bytes": len(zlib.compress(content, 9))}
            member = read_json(self.folder / "finalists" / f"{name}.json") | sizes
            member |= {"sha256": latency.sha256, "latency": latency.to_json()}
            atomic.write_json(path.with_suffix(".manifest.json"), member)
            members.append(member)
        write_front(self.folder, self.target, self.space, members)
        self.progress.end(f"{len(members)} files timed on {latencies[0].device.get('kind', 'this host')}")


def share_out(macs: dict[str, int], total_seconds: float, overhead_seconds: float) -> dict[str, float]:
    """Seconds of fine-tuning for each finalist: a larger network needs more of them for as many steps.

    Args:
        macs: By finalist.
        total_seconds: For all of them on one core.
        overhead_seconds: What each needs beside its training.
    """
    roots = {name: count**0.5 for name, count in macs.items()}
    free = max(total_seconds - overhead_seconds * len(macs), 0.0)
    return {name: free * root / sum(roots.values()) for name, root in roots.items()}


class Clock:
    """The wall-clock seconds that a job has used over all its resumed parts.

    Args:
        path: Where they are kept.
        budget_seconds: What may be used in all.
    """

    def __init__(self, path: pathlib.Path, budget_seconds: float):
        self._path, self.budget_seconds = path, budget_seconds
        self._before = read_json(path, {"seconds": 0.0})["seconds"]
        self._began = self._written = time.monotonic()

    def elapsed(self) -> float:
        """Seconds used until now."""
        return self._before + time.monotonic() - self._began

    def tick(self) -> None:
        """Writes the seconds down, every few seconds."""
        if time.monotonic() - self._written > 5.0:
            self._written = time.monotonic()
            atomic.write_json(self._path, {"seconds": round(self.elapsed(), 1)})


def space_for(config: RunConfig, dataset: data.Dataset) -> SearchSpace:
    """The part of the named space that matters to the target, for the data set's images and classes."""
    space = spaces.get(config.space).for_images(dataset.image_shape, dataset.num_classes)
    return targets.get(config.target).restrict(space)


def write_config(config: RunConfig, dataset: data.Dataset) -> None:
    """Writes `config.json`, or checks that the data is still what it was.

    Raises:
        DaquError: The data set has changed since the run began.
    """
    path = config.folder / "config.json"
    fingerprint = read_json(path)["dataset"].get("fingerprint")
    if fingerprint not in (None, dataset.fingerprint):
        raise DaquError(f"{config.dataset} has changed since this run began: restore it, or give --overwrite to begin again.")
    nominal = spaces.get(config.space).for_images(dataset.image_shape, dataset.num_classes)
    value = {
        "flags": config.to_json(),
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES} | {"daqu_tf": daqu_tf.__version__},
        "seed": config.seed,
        "target": config.target,
        "space": config.space,
        "dataset": {
            "name": dataset.name,
            "train": len(dataset.x_train),
            "search": len(dataset.x_search),
            "test": len(dataset.x_test),
            "test_was_cut": dataset.test_was_cut,
            "num_classes": dataset.num_classes,
            "fingerprint": dataset.fingerprint,
        },
        "cardinality": {
            "nominal": f"{nominal.cardinality:.2e}",
            "effective": f"{space_for(config, dataset).cardinality:.2e}",
        },
    }
    atomic.write_json(path, value)


def export_inherited(folder: pathlib.Path, name: str, path: pathlib.Path) -> pathlib.Path:
    """Exports a subnet with the weights that it inherits from a run's supernet, recalibrated but not fine-tuned.

    Args:
        folder: The run.
        name: `largest`, `smallest`, a finalist of the run, or a JSON file of gene names and values.
        path: The `.tflite` file to write.

    Raises:
        DaquError: The run has no trained supernet, or there is no such subnet.
    """
    from daqu_tf.evaluation import Scorer
    from daqu_tf.export import export_tflite
    from daqu_tf.supernet import StaticNetwork

    if not (folder / "supernet.npz").exists():
        raise DaquError(f"{folder} holds no trained supernet: name the output folder of daqu-train or daqu-run.")
    config = RunConfig(**read_json(folder / "config.json")["flags"])
    dataset = data.load(config.dataset, config.seed)
    space = space_for(config, dataset)
    subnet = _find_subnet(folder, space, name)
    network = StaticNetwork(space, subnet)
    with np.load(folder / "supernet.npz") as arrays:
        network.load_arrays(cut(space, subnet, arrays))
    Scorer(network, dataset.x_train).recalibrate()
    export_tflite(space, subnet, targets.get(config.target), network.arrays(), path)
    return path


def _find_subnet(folder: pathlib.Path, space: SearchSpace, name: str) -> Subnet:
    if name in ("largest", "smallest"):
        return getattr(space, name)()
    finalists = read_json(folder / "finalists.json", {})
    if name in finalists:
        return space.subnet(finalists[name]["values"])
    if not pathlib.Path(name).is_file():
        known = ", ".join(["largest", "smallest", *finalists])
        raise DaquError(f"`subnet` must be one of {known} or a JSON file, but received {name!r}.")
    return space.subnet(read_json(pathlib.Path(name)))


def run_finalist(folder: pathlib.Path, name: str, seconds: float) -> None:
    """Finishes one finalist in a fresh process.

    Raises:
        DaquError: It failed; its output is in `finalists/NAME.log`.
    """
    package = str(pathlib.Path(daqu_tf.__file__).parent.parent)
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    folder = folder.resolve()
    log = folder / "finalists" / f"{name}.log"
    command = [sys.executable, "-m", "daqu_tf.finalist", str(folder), name, f"{seconds:.1f}"]
    with log.open("wb") as output:
        # Not where the user stands: a checkout there would be imported instead of what is installed.
        status = subprocess.run(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        ).returncode
    if status:
        raise DaquError(f"Finalist {name} ended with status {status}: read {log}, then run the same command to go on.")


def write_front(folder: pathlib.Path, target: Target, space: SearchSpace, members: list[dict]) -> None:
    """Writes `pareto.json`: all members, best accuracy first, each with whether it is on the front of what was fine-tuned."""
    from daqu_tf.pareto import non_dominated_mask

    front = non_dominated_mask(np.array([objective_values(target, member) for member in members]))
    for member, on_front in zip(members, front):
        member["on_front"] = bool(on_front)
    members.sort(key=lambda member: -member["accuracy"]["fine_tuned"]["search"])
    objectives = [{"name": name, "direction": direction} for name, direction in target.objectives]
    value = {"space": space.name, "target": target.name, "objectives": objectives, "members": members}
    atomic.write_json(folder / "pareto.json", value)


def objective_values(target: Target, member: dict) -> list[float]:
    """The target's objectives of a finished member, all to be minimised; accuracy is that on the search split."""
    figures = member | {
        "accuracy": member["accuracy"]["fine_tuned"]["search"],
        "latency_us": member["latency"]["median_us"],
    }
    return [figures[name] * (-1 if direction == "max" else 1) for name, direction in target.objectives]


@contextlib.contextmanager
def _locked(config: RunConfig, overwrite: bool):
    """Makes or checks the output folder, and keeps other processes out of it."""
    import fcntl

    folder = config.folder
    _check_folder(config, overwrite)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise DaquError(f"{folder} cannot be written to ({error.strerror}): choose another --output_dir.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DaquError(f"Another process is working in {folder}: wait for it, or choose another --output_dir.") from error
        if overwrite and _changed(config):
            _clear(folder)
        if not (folder / "config.json").exists():
            # The data set must be readable before anything is left in the folder that another command would trip over.
            data.load(config.dataset, config.seed)
            atomic.write_json(folder / "config.json", {"flags": config.to_json(), "dataset": {}})
        yield


def _check_folder(config: RunConfig, overwrite: bool) -> None:
    folder = config.folder
    if folder.exists() and not folder.is_dir():
        raise DaquError(f"{folder} is a file: choose a folder as --output_dir.")
    if not folder.exists():
        return
    if not (folder / "config.json").exists() and any(entry.name != ".lock" for entry in folder.iterdir()):
        raise DaquError(f"{folder} holds other things than a run: choose an empty or a new folder as --output_dir.")
    if (changed := _changed(config)) and not overwrite:
        raise DaquError(
            f"{folder} holds a run with other settings ({changed}): give the same, another --output_dir, or --overwrite."
        )


def _changed(config: RunConfig) -> str:
    """Which settings differ from those of the run in the folder; the folder's own name is no setting."""
    path = config.folder / "config.json"
    before = read_json(path, {"flags": {}})["flags"]
    now = config.to_json()
    names = [name for name in before if name != "output_dir" and before[name] != now.get(name)]
    return ", ".join(f"--{name} was {before[name]}" for name in names)


def _clear(folder: pathlib.Path) -> None:
    for name in _OURS:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        elif name != ".lock":
            path.unlink(missing_ok=True)


def read_json(path: pathlib.Path, default=None):
    """The content of a JSON file; `default`, where given, if there is no such file.

    Raises:
        DaquError: The file is damaged.
    """
    if default is not None and not path.exists():
        return default
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise DaquError(f"{path} is damaged ({error}): give --overwrite to begin again.") from error


def write_arrays(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes arrays as `.npz`, atomically."""
    with atomic.replacing(path) as temporary:
        np.savez(temporary, **arrays)


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (exponentials / exponentials.sum(axis=1, keepdims=True)).astype(np.float32)


def _describe(dataset: data.Dataset, space: SearchSpace) -> str:
    counts = f"{len(dataset.x_train)} train, {len(dataset.x_search)} search, {len(dataset.x_test)} test"
    return f"{dataset.name}: {counts} images; {space.cardinality:.1e} subnets"
