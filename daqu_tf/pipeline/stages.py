"""The stages of a job but for the finalists': the latency table, the supernet's training, the search, the report."""

import pathlib
import time
from typing import TYPE_CHECKING, Any

from daqu_tf import files
from daqu_tf.errors import DaquError
from daqu_tf.latency.table import LatencyTable
from daqu_tf.pareto.constraints import total_violation
from daqu_tf.pipeline import adopted, budget
from daqu_tf.pipeline.job import Job
from daqu_tf.pipeline.progress import bar
from daqu_tf.spaces import Subnet

if TYPE_CHECKING:
    from keras_tuner.engine.trial import Trial

    from daqu_tf.search import Candidates, DaquTuner

LEAST_TRIALS = 12  # Of a job that was cut off often and has used its minutes up: an end beats a kept budget.


def make_table(job: Job) -> None:
    """Takes the latency table that was given, or makes one."""
    from daqu_tf.latency.profiling import profile
    from daqu_tf.latency.store import DEFAULT_STORE, MeasurementStore

    plan = job.plan
    if plan.config.latency_table:
        table = LatencyTable.load(plan.config.latency_table)
    else:
        store = MeasurementStore(pathlib.Path(DEFAULT_STORE).expanduser())

        def on_progress(what: str, done: int, total: int) -> None:
            job.progress.update(f"{what} {bar(done, total)}", None)
            job.clock.tick()

        table = profile(job.device, plan.space, plan.target.storage, store, on_progress=on_progress)
    table.save(job.folder.table)
    error = f", error {table.errors['median_error']:.1%} in the median" if table.errors else ""
    job.progress.end(f"{len(table.blocks_us)} blocks{error}")


def train(job: Job) -> None:
    """Trains the supernet through both phases, and writes its weights."""
    from daqu_tf.training.training import SupernetTraining

    began, plan = time.monotonic(), job.plan
    if plan.config.supernet_from:
        adopted.take(plan.config, job.folder)
        job.progress.end(f"that of {plan.config.supernet_from}")
        return

    def on_progress(phase: str, done: float, figures: dict[str, float]) -> None:
        left = (time.monotonic() - began) * (1 - done) / max(done - start, 1e-9)
        job.progress.update(f"{phase.replace('_', ' ')}  {_training_text(figures)}", left)
        job.clock.tick()

    training = SupernetTraining(job.supernet, plan.dataset, job.scorer, plan.schedule, job.folder.path, job.progress.warn)
    start = training.restore()
    state = training.run(on_progress)
    if plan.schedule.unit == "epochs":  # They are asked for beside the budget.
        job.clock.forget(state.seconds)
    files.write_arrays(job.folder.supernet, job.supernet.arrays())
    job.supernet.activate(plan.space.largest())
    job.scorer.recalibrate()
    accuracy = job.scorer.accuracy(plan.dataset.x_search, plan.dataset.y_search)
    job.progress.end(f"the largest subnet has {accuracy:.1%} on the search split")


def _training_text(figures: dict[str, float]) -> str:
    """The figures of a training as one line for people."""
    percent = {"mean": "accuracy_mean", "largest": "accuracy_largest", "smallest": "accuracy_smallest", "gap": "gap"}
    parts = [f"{label} {figures[name]:.1%}" for label, name in percent.items() if name in figures]
    return "  ".join([*parts, f"loss {figures['loss']:.3f}"])


def search(job: Job) -> None:
    """Scores subnets with inherited weights, and chooses the finalists."""
    from daqu_tf.search.finalists import choose
    from daqu_tf.search.search import make_tuner

    config, clock = job.plan.config, job.clock
    candidates = job.candidates(job.table or job.device)
    end = clock.elapsed() + budget.SEARCH_SHARE * budget.left(clock, config.finalists)

    def on_progress(tuner: "DaquTuner", trial: "Trial") -> None:
        best = tuner.oracle.get_best_trials(1)
        accuracy = f"best {best[0].metrics.get_best_value('accuracy'):.1%}" if best else ""
        text = f"{len(tuner.oracle.end_order)} trials, {len(tuner.pareto_trials())} on the front, {accuracy}"
        job.progress.update(text, end - clock.elapsed())
        clock.tick()

    def time_is_up() -> bool:
        return clock.elapsed() > end and len(tuner.oracle.end_order) >= LEAST_TRIALS

    tuner = make_tuner(candidates, config.max_trials, config.seed, on_progress, time_is_up)
    _run_trials(job, tuner, candidates)
    front = tuner.pareto_trials()
    if not front:
        raise DaquError(f"No subnet could be scored: the reasons are in {job.folder.journal}.")
    trials = tuner.oracle.get_best_trials(len(tuner.oracle.end_order))
    names = _named(choose(candidates, trials, job.plan.forecast.finalists))
    files.write_json(job.folder.finalists, names | _siblings(job, names))
    job.progress.end(f"{len(tuner.oracle.end_order)} trials, {len(front)} on the front, {len(names)} finalists")


def choose_by_hand(job: Job) -> None:
    """Chooses the finalists among the networks that people scale by hand, where no supernet is searched."""
    from daqu_tf.pipeline import by_hand, rates

    found, start = by_hand.choose(job, job.plan.forecast.finalists), "each from random weights"
    if job.plan.forecast.has_teacher:
        start = "the largest from random weights, the others from those of the largest"
    if job.plan.config.init_from:
        rate = rates.best_rate(job, job.plan.space.subnet(found[0]["values"]))
        found = [one | {"learning_rate": rate} for one in found]
        start = f"each from the weights of the trained network at a rate of {rate:g}"
    names = _named(found)
    files.write_json(job.folder.finalists, names | _siblings(job, names))
    job.progress.end(f"{len(names)} finalists, {start}")


def _named(finalists: list[dict[str, Any]], first: int = 0) -> dict[str, dict[str, Any]]:
    return {f"m{number:02d}": finalist for number, finalist in enumerate(finalists, first)}


def _siblings(job: Job, finalists: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    from daqu_tf.pipeline.siblings import siblings_of

    plan = job.plan
    return {} if plan.config.searches_bits else siblings_of(plan.space, plan.target, finalists)


def add_finalists(job: Job) -> None:
    """Chooses further finalists from the trials of the search, for minutes that were added to those of a finished run."""
    from daqu_tf.pipeline import by_hand
    from daqu_tf.pipeline.siblings import parents

    plan, folder = job.plan, job.folder
    before = files.read_json(folder.finalists)
    taken = [plan.space.subnet(one["values"]) for one in before.values()]
    small, large = (plan.speed.seconds_an_image(macs) for macs in plan.speed.macs)
    left = budget.left(job.clock, len(before))
    count = budget.affordable(plan.config, left, len(plan.dataset.x_train), (small + large) / 2)
    choose = _choose_others if plan.config.searches_architectures else by_hand.choose
    rate = {key: value for key, value in before["m00"].items() if key == "learning_rate"}
    names = _named([one | rate for one in choose(job, count, taken)], len(parents(before)))
    files.write_json(folder.finalists, before | names | _siblings(job, names))
    files.write_json(folder.added, {"minutes": folder.added_minutes, "chosen": True})
    job.progress.end(f"{len(names)} further subnets")


def _choose_others(job: Job, count: int, taken: list[Subnet]) -> list[dict[str, Any]]:
    """Finalists among the trials of the search that have not been taken."""
    from daqu_tf.oracle.oracle import metrics_of
    from daqu_tf.search.finalists import choose
    from daqu_tf.search.search import make_tuner

    plan = job.plan
    candidates = job.candidates(job.table or job.device)
    tuner = make_tuner(candidates, plan.config.max_trials, plan.config.seed)
    trials = tuner.oracle.get_best_trials(len(tuner.oracle.end_order))
    others = [
        trial
        for trial in trials
        if plan.space.subnet(trial.hyperparameters.values) not in taken
        and total_violation(candidates.constraints, metrics_of(trial)) == 0
    ]
    return choose(candidates, others, count) if others else []


def _run_trials(job: Job, tuner: "DaquTuner", candidates: "Candidates") -> None:
    """In this process, in workers that it starts, or in workers that come to it from anywhere."""
    from daqu_tf.oracle.chief import exposure
    from daqu_tf.oracle.roles import chief_address, is_chief
    from daqu_tf.pipeline import search_workers

    if is_chief():
        if warning := exposure(chief_address()):
            job.progress.warn(warning)
        tuner.search()
    elif job.plan.config.workers > 1:
        search_workers.search(tuner, job.folder.path, job.plan.config.workers, candidates.turns)
    else:
        tuner.search()


def report(job: Job) -> None:
    """Writes table, pictures and page."""
    from daqu_tf.report import write_report
    from daqu_tf.report.run import read

    write_report(job.folder.path)
    if starved := read(job.folder.path).starved:
        job.progress.warn(starved)
    job.progress.end(f"{job.clock.elapsed() / 60:.1f} minutes in all")
