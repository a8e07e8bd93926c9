"""The whole job, in order and resumable: data, supernet, search, finalists, timing, report.

Each stage reads what the one before it wrote into the output folder, and does nothing where its own result stands there already.
"""

import contextlib
import decimal
import functools
import os
import pathlib
import time

from daqu_tf import data, files, machine, targets
from daqu_tf.devices import Device, ModelError
from daqu_tf.environment import check_keras
from daqu_tf.errors import DaquError
from daqu_tf.files import read_arrays, read_json, write_arrays
from daqu_tf.latency.table import LatencyTable
from daqu_tf.pipeline.budget import (
    LEAST_FINE_TUNING_SECONDS,
    OVERHEAD_SECONDS,
    OVERHEAD_SECONDS_AN_IMAGE,
    REPORT_SECONDS,
    RESERVE_SHARE,
    SEARCH_SHARE,
    TIMING_SECONDS_A_MODEL,
    share_out,
)
from daqu_tf.pipeline.finalists import FinalistProcesses
from daqu_tf.pipeline.front import front_of
from daqu_tf.pipeline.plan import (
    DEVICE,
    SEARCH_IMAGES,
    TABLE,
    check_device,
    connect_device,
    describe,
    given_table,
    needs_device,
    prepare_training,
    schedule_for,
    space_for,
)
from daqu_tf.pipeline.progress import Progress, bar
from daqu_tf.runs.clock import Clock
from daqu_tf.runs.config import RunConfig
from daqu_tf.runs.folder import changes, check, clear, locked
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.training.schedule import Schedule, check_batch_size
from daqu_tf.training.strategies import check_strategy, leads

STAGES = ("supernet", "search", "report")
# What a job that was cut off often, and has used its minutes up, does all the same: an end beats a kept budget.
LEAST_TRIALS = 12
MAX_ACCURACY_LOSS = 0.08  # Members of the front that lie further below its best are not worth fine-tuning.
FRONT_A_FINALIST = 6  # Members of the front that are scored again, for each finalist.


def run(config: RunConfig, overwrite: bool = False, last_stage: str = "report") -> pathlib.Path:
    """Goes from a data set to a Pareto set of `.tflite` files, and returns the path of what the last stage left.

    Args:
        config: The settings. The same settings in the same folder resume what stands there.
        overwrite: Whether a run with other settings in that folder may be deleted.
        last_stage: One of `STAGES`; the report ends a complete run.

    Raises:
        DaquError: Something that the user can mend; whatever stood in the folder is still whole.
    """
    machine.check_training()
    check_keras()
    if "KERASTUNER_ORACLE_IP" in os.environ and last_stage != "supernet":
        from daqu_tf.oracle.roles import is_worker
        from daqu_tf.pipeline import search_workers

        if is_worker():
            return search_workers.work(config.folder)
    check(config, overwrite)
    # All that the settings can be wrong about comes before anything in the folder is touched.
    dataset = data.load(config.dataset, config.seed)
    space = space_for(config, dataset)
    schedule = schedule_for(config, space)
    schedule.check(space, len(dataset.x_train))
    table = given_table(config, space)
    check_batch_size(config.batch_size, len(dataset.x_train))  # That of fine-tuning, where a file says how the supernet is trained.
    if not (config.folder / "supernet.npz").exists():
        check_strategy(config.strategy)
    content = describe(config, dataset, space, schedule, table)
    with locked(config.folder):
        changed = changes(config.folder, config, content)
        if changed and not overwrite:
            raise DaquError(f"{config.folder} holds a run of something else ({changed}): give --overwrite to begin again.")
        is_trained = (config.folder / "supernet.npz").exists() and not changed
        strategy = None if is_trained else prepare_training(config, schedule)
        progress = Progress()
        device = None
        if needs_device(config, last_stage, strategy, bool(changed)):
            device = connect_device(config, progress)
            if table:
                table.check(space, targets.get(config.target).storage, device.identity())
            changed = changed or check_device(config, device, overwrite)
        if changed:
            clear(config.folder)
        if not (config.folder / "config.json").exists():
            files.write_json(config.folder / "config.json", content)
        if device:
            files.write_json(config.folder / DEVICE, device.identity())
        return _Job(config, dataset, space, schedule, strategy, device, progress).run(last_stage)


class _Job:
    def __init__(
        self,
        config: RunConfig,
        dataset: data.Dataset,
        space: SearchSpace,
        schedule: Schedule,
        strategy,
        device: Device | None,
        progress: Progress,
    ):
        self.config, self.folder, self.dataset, self.space = config, config.folder, dataset, space
        self.schedule, self.strategy, self.device, self.progress = schedule, strategy, device, progress
        self.target = targets.get(config.target)
        self.clock = Clock(self.folder / "clock.json", config.budget_minutes * 60)
        self.timeline = read_json(self.folder / "timeline.json", [])

    def run(self, last_stage: str) -> pathlib.Path:
        self.progress.begin("data")
        counts = ", ".join(f"{len(getattr(self.dataset, f'x_{split}'))} {split}" for split in ("train", "search", "test"))
        self.progress.end(f"{self.dataset.name}: {counts} images; {decimal.Decimal(self.space.cardinality):.1e} subnets")
        for stage, product, work in (
            ("supernet", "supernet.npz", self.train),
            *([("latency table", TABLE, self.make_table)] if self.has_table and self.device else []),
            ("search", "finalists.json", self.search),
            ("finalists", "pareto.json", self.finish),
            ("timing", "pareto.json", self.time_models),
            ("report", "report.html", self.report),
        ):
            if not (self.folder / product).exists():
                with self.stage(stage):
                    work()
            if stage == last_stage or (self.strategy and not leads(self.strategy)):
                return self.folder / product
        raise DaquError(f"`last_stage` must be one of {', '.join(STAGES)}, but received {last_stage!r}.")

    @contextlib.contextmanager
    def stage(self, name: str):
        """Names the stage in the progress line and writes its seconds down, even if it is cut off by an error."""
        self.progress.begin(name)
        began = time.monotonic()
        try:
            yield
        except BaseException:
            self.progress.abandon()
            raise
        finally:
            self.timeline.append({"stage": name, "seconds": round(time.monotonic() - began, 1)})
            files.write_json(self.folder / "timeline.json", self.timeline)
            self.clock.tick(now=True)

    @functools.cached_property
    def supernet(self):
        """One for training and search, since a trace takes many seconds; its initial weights are drawn from the seed."""
        from daqu_tf.keras import keras
        from daqu_tf.supernet.supernet import Supernet

        keras.utils.set_random_seed(self.config.seed)
        with self.strategy.scope() if self.strategy else contextlib.nullcontext():
            return Supernet(self.space, None if self.config.mixed_precision == "none" else self.config.mixed_precision)

    @functools.cached_property
    def scorer(self):
        """Of the supernet."""
        from daqu_tf.supernet.scoring import Scorer

        return Scorer(self.supernet, self.dataset.x_train)

    @property
    def has_table(self) -> bool:
        """Whether the latencies of the search come from a table."""
        return self.config.latency == "table" or bool(self.config.latency_table)

    @functools.cached_property
    def table(self) -> LatencyTable | None:
        """What prices the subnets of the search, if a table does."""
        return LatencyTable.load(self.folder / TABLE) if self.has_table else None

    def make_table(self) -> None:
        """Takes the table that was given, or makes one."""
        from daqu_tf.latency.profiling import profile
        from daqu_tf.latency.store import DEFAULT_STORE, MeasurementStore

        if self.config.latency_table:
            table = LatencyTable.load(self.config.latency_table)
        else:
            store = MeasurementStore(pathlib.Path(DEFAULT_STORE).expanduser())

            def on_progress(what: str, done: int, total: int) -> None:
                self.progress.update(f"{what} {bar(done, total)}", None)
                self.clock.tick()

            table = profile(self.device, self.space, self.target.storage, store, on_progress=on_progress)
        table.save(self.folder / TABLE)
        error = f", error {table.errors['median_error']:.1%} in the median" if table.errors else ""
        self.progress.end(f"{len(table.blocks_us)} blocks{error}")

    def train(self) -> None:
        """Both phases; leaves the weights."""
        from daqu_tf.training.training import SupernetTraining

        began = time.monotonic()

        def on_progress(phase: str, done: float, figures: dict[str, float]) -> None:
            left = (time.monotonic() - began) * (1 - done) / max(done - start, 1e-9)
            self.progress.update(f"{phase.replace('_', ' ')}  {training_text(figures)}", left)
            self.clock.tick()

        training = SupernetTraining(self.supernet, self.dataset, self.scorer, self.schedule, self.folder, self.progress.warn)
        start = training.restore()
        state = training.run(on_progress)
        if self.schedule.unit == "epochs":  # They are asked for beside the budget.
            self.clock.forget(state.seconds)
        write_arrays(self.folder / "supernet.npz", self.supernet.arrays())
        self.supernet.activate(self.space.largest())
        self.scorer.recalibrate()
        accuracy = self.scorer.accuracy(self.dataset.x_search, self.dataset.y_search)
        self.progress.end(f"the largest subnet has {accuracy:.1%} on the search split")

    def search(self) -> None:
        """Scores subnets with inherited weights, and chooses the finalists."""
        from daqu_tf.search.candidates import Candidates
        from daqu_tf.search.search import make_tuner

        self.supernet.load_arrays(read_arrays(self.folder / "supernet.npz"))
        folder = self.folder / "search"
        latency = self.table or self.device
        candidates = Candidates(
            self.supernet, self.scorer, self.dataset, self.target, folder, SEARCH_IMAGES, latency, self.config.constraints
        )
        end = self.clock.elapsed() + SEARCH_SHARE * self.left(self.config.finalists)

        def on_progress(tuner, trial) -> None:
            best = tuner.oracle.get_best_trials(1)
            accuracy = f"best {best[0].metrics.get_best_value('accuracy'):.1%}" if best else ""
            text = f"{len(tuner.oracle.end_order)} trials, {len(tuner.pareto_trials())} on the front, {accuracy}"
            self.progress.update(text, end - self.clock.elapsed())
            self.clock.tick()

        def time_is_up() -> bool:
            return self.clock.elapsed() > end and len(tuner.oracle.end_order) >= LEAST_TRIALS

        tuner = make_tuner(candidates, self.config.max_trials, self.config.seed, on_progress, time_is_up)
        self._run_trials(tuner, candidates)
        front = tuner.pareto_trials()
        if not front:
            raise DaquError(f"No subnet could be scored: the reasons are in {folder / 'trials.jsonl'}.")
        count = self.affordable()
        best = tuner.oracle.get_best_trials(max(count, min(len(front), FRONT_A_FINALIST * count)))
        chosen = candidates.choose(best, count, MAX_ACCURACY_LOSS)
        names = {f"m{number:02d}": finalist for number, finalist in enumerate(chosen)}
        files.write_json(self.folder / "finalists.json", names)
        self.progress.end(f"{len(tuner.oracle.end_order)} trials, {len(front)} on the front, {len(names)} finalists")

    def _run_trials(self, tuner, candidates) -> None:
        """In this process, in workers that it starts, or in workers that come to it from anywhere."""
        from daqu_tf.oracle.chief import exposure
        from daqu_tf.oracle.roles import chief_address, is_chief
        from daqu_tf.pipeline import search_workers

        if is_chief():
            if warning := exposure(chief_address()):
                self.progress.warn(warning)
            tuner.search()
        elif self.config.workers > 1:
            search_workers.search(tuner, self.folder, self.config.workers, candidates.turns)
        else:
            tuner.search()

    def left(self, models: int) -> float:
        """Seconds until as many models must be timed."""
        after = REPORT_SECONDS + TIMING_SECONDS_A_MODEL * models + RESERVE_SHARE * self.clock.budget_seconds
        return self.clock.budget_seconds - after - self.clock.elapsed()

    @property
    def workers(self) -> int:
        """Processes that work at once."""
        return self.config.workers or machine.cores()

    @property
    def overhead(self) -> float:
        """Seconds that a finalist takes beside its fine-tuning."""
        return OVERHEAD_SECONDS + len(self.dataset.x_train) * OVERHEAD_SECONDS_AN_IMAGE

    def affordable(self) -> int:
        """How many finalists the time left allows, at least one and at most those asked for; with epochs, it need not be enough."""
        wanted = self.config.finalists
        if self.config.finetune_epochs:
            return wanted
        rounds = self.left(wanted) / (self.overhead + LEAST_FINE_TUNING_SECONDS)
        return max(1, min(wanted, int(rounds * self.workers)))

    def finish(self) -> None:
        """Fine-tunes and exports every finalist that is not done yet, several at a time, in the time that is left."""
        finalists = read_json(self.folder / "finalists.json")
        todo = [name for name in finalists if not (self.folder / "finalists" / f"{name}.json").exists()]
        # The largest first, so that no core idles at the end.
        todo.sort(key=lambda name: finalists[name]["macs"], reverse=True)
        workers = max(1, min(self.workers, len(todo)))
        total = self.left(len(finalists)) * workers
        seconds = share_out({name: finalists[name]["macs"] for name in todo}, total, self.overhead)

        def allowed(name: str) -> float:
            return max(LEAST_FINE_TUNING_SECONDS, min(seconds[name], self.left(len(finalists)) - self.overhead))

        with FinalistProcesses(self.folder, workers) as processes:
            for done in processes.run(todo, allowed):
                done += len(finalists) - len(todo)
                self.progress.update(f"{done} of {len(finalists)} fine-tuned and exported", self.left(len(finalists)))
                self.clock.tick()
        members = [read_json(self.folder / "finalists" / f"{name}.json") for name in finalists]
        best = max(member["accuracy"]["fine_tuned"]["search"] for member in members)
        self.progress.end(f"{len(members)} fine-tuned and exported, best {best:.1%} on the search split")

    def time_models(self) -> None:
        """Times the very files that are exported, in turn, while nothing else runs; writes manifests and the front."""
        names = list(read_json(self.folder / "finalists.json"))
        paths = [self.folder / "models" / f"{name}.tflite" for name in names]
        latencies = self.device.measure_each(paths, repeats=3, seed=self.config.seed)
        members = []
        for name, path, latency in zip(names, paths, latencies):
            if isinstance(latency, ModelError):
                self.progress.warn(f"{name} is left out: {latency}")
                continue
            member = read_json(self.folder / "finalists" / f"{name}.json") | {"latency": latency.to_json()}
            member["predicted_latency"] = self.predicted(member)
            files.write_json(path.with_suffix(".manifest.json"), member)
            members.append(member)
        if not members:
            raise DaquError(f"None of the {len(names)} finalists runs on {self.device.name}: take another --target.")
        front = front_of(self.target, self.space, members, self.config.constraints)
        for member in members:
            for missed in member["missed_constraints"]:
                self.progress.warn(f"{member['name']} misses {missed}, now that it is trained and timed: it is not on the front.")
        files.write_json(self.folder / "pareto.json", front)
        count = sum(member["on_front"] for member in members)
        self.progress.end(f"{len(members)} files timed on {self.device.name}, {count} on the front")

    def predicted(self, member: dict) -> dict[str, float] | None:
        """What the table says of a finalist, in microseconds, and the relative error that 9 of 10 subnets keep within."""
        if self.table is None:
            return None
        us = self.table.predict(self.space, self.space.subnet(member["subnet"]))
        return {"us": us, "p90_error": self.table.errors.get("p90_error")}

    def report(self) -> None:
        """Writes table, pictures and page."""
        from daqu_tf.report import write_report

        write_report(self.folder)
        self.progress.end(f"{self.clock.elapsed() / 60:.1f} minutes in all")


def training_text(figures: dict[str, float]) -> str:
    """The figures of a training as one line for people."""
    percent = {"mean": "accuracy_mean", "largest": "accuracy_largest", "smallest": "accuracy_smallest", "gap": "gap"}
    parts = [f"{label} {figures[name]:.1%}" for label, name in percent.items() if name in figures]
    return "  ".join([*parts, f"loss {figures['loss']:.3f}"])
