"""The whole job, in order and resumable: data, supernet, search, finalists, timing, report.

Each stage reads what the one before it wrote into the output folder, and does nothing where its own result stands there already.
"""

import dataclasses
import decimal
import functools
import os
import pathlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from daqu_tf import files, machine
from daqu_tf.data import Dataset
from daqu_tf.devices import Device
from daqu_tf.environment import check_keras
from daqu_tf.errors import DaquError
from daqu_tf.pipeline import finalists, stages, suiting
from daqu_tf.pipeline.job import Job, connect_device
from daqu_tf.pipeline.plan import Plan
from daqu_tf.pipeline.progress import Progress, bar
from daqu_tf.pipeline.speed import Speed, measure
from daqu_tf.runs.config import RunConfig
from daqu_tf.runs.folder import RunFolder
from daqu_tf.spaces import SearchSpace
from daqu_tf.targets import Target
from daqu_tf.training.strategies import check_shares, check_strategy, leads, make_deterministic, make_strategy

if TYPE_CHECKING:
    import tensorflow as tf

STAGES = ("supernet", "search", "report")


def run(config: RunConfig, overwrite: bool = False, last_stage: str = "report", add_minutes: float | None = None) -> pathlib.Path:
    """Goes from a data set to a Pareto set of `.tflite` files, and returns the path of what the last stage left.

    Args:
        config: The settings. The same settings in the same folder resume what stands there; a setting that is not given is then the
            run's own.
        overwrite: Whether a run with other settings in that folder may be deleted.
        last_stage: One of `STAGES`; the report ends a complete run.
        add_minutes: Minutes in which a finished run goes on, with further finalists from its supernet.

    Raises:
        DaquError: Something that the user can mend; whatever stood in the folder is still whole.
    """
    began = time.monotonic()
    machine.check_training()
    if last_stage not in STAGES:
        raise DaquError(f"`last_stage` must be one of {', '.join(STAGES)}, but received {last_stage!r}.")
    check_keras()
    if last_stage != "supernet" and _is_worker():
        from daqu_tf.pipeline import search_workers

        return search_workers.work(config.folder)
    if add_minutes is not None:
        if last_stage != "report":
            raise DaquError("`add_minutes` goes on with a whole run: give it to daqu-run.")
        RunFolder(config.folder).check_adding(add_minutes)
    # All that the settings can be wrong about comes before anything in the folder is touched.
    progress = Progress()
    plan = _planned(config, overwrite, progress, last_stage)
    if plan.config.searches_architectures and not plan.folder.supernet.exists():
        check_strategy(plan.config.strategy)
    with plan.folder.lock():
        if add_minutes is not None:
            if plan.folder.difference(plan.config, plan.to_json()):
                raise DaquError(f"`add_minutes` goes on with a run of the same settings, but {plan.folder.path} holds none.")
            plan.folder.add_minutes(add_minutes)
        return _run(plan, overwrite, last_stage, progress, began)


def dry_run(config: RunConfig) -> str:
    """What `run` would do with these settings, as lines for people; nothing is written.

    Args:
        config: The settings. Of a run that stands in the folder, it is that run's plan.

    Raises:
        DaquError: Something that the user can mend.
    """
    machine.check_training()
    check_keras()
    plan = _planned(config, True, Progress(), "report")
    return "\n".join([plan.text, *(f"  {note}" for note in plan.notes)])


def _planned(config: RunConfig, overwrite: bool, progress: Progress, last_stage: str) -> Plan:
    folder = RunFolder(config.folder)
    settled = folder.settled(config)
    folder.check(settled, overwrite)
    if last_stage != "report" and not settled.searches_architectures:
        raise DaquError("`architectures` hand_scaled trains no supernet: give it to daqu-run alone.")
    has_workers = "KERASTUNER_ORACLE_IP" in os.environ  # They wait for a search.
    if last_stage != "report" or has_workers or not _depends_on_speed(config):
        config, settled = (_searching(one) for one in (config, settled))
    known = folder.settings()
    if known and not folder.difference(settled):
        plan = Plan.of(settled, known, on_progress=_decoding(progress))
        plan.check()
        return plan
    device = functools.cache(lambda: connect_device(config, progress))
    plan = Plan.of(config, space_for=functools.partial(_space_for, device, progress), on_progress=_decoding(progress))
    plan.check()
    if last_stage != "supernet":
        device()  # What it refuses is to be known before anything is timed or trained.
    opinion = _opinion(plan, progress) if config.teacher and last_stage == "report" else 0.0
    if not config.supernet_from and _depends_on_speed(config):
        plan = plan.at(dataclasses.replace(_timed(plan.space, progress), opinion=opinion))
        plan.check()
    return plan


def _decoding(progress: Progress) -> Callable[[int, int], None]:
    """What shows how many photos are decoded; where they have been, nothing."""
    begin = functools.cache(lambda: progress.begin("photos"))

    def show(done: int, total: int) -> None:
        begin()
        progress.update(bar(done, total), None)
        if done == total:
            progress.end(f"{total} decoded")

    return show


def _space_for(device: Callable[[], Device], progress: Progress, dataset: Dataset, target: Target) -> str:
    """The name of the space that suits the device."""
    if not target.bits_buy_bytes_alone or _is_one_of_many():  # Where latency is not what counts first, no device can say it.
        return suiting.USUAL
    progress.begin("space")
    found = suiting.latencies_us(device(), dataset, target)
    best, *others = found
    than = ", ".join(f"{found[name]:.0f} us of {name}" for name in others)
    progress.end(f"{best}, of which a network takes {found[best]:.0f} us on {device().name}, instead of {than}")
    return best


def _depends_on_speed(config: RunConfig) -> bool:
    """Whether the plan goes by this machine's speed: not where it must be the same everywhere, or all lengths are given."""
    return not (config.deterministic or (config.epochs and config.finetune_epochs) or _is_one_of_many())


def _searching(config: RunConfig) -> RunConfig:
    """The settings, of which `auto` architectures have been decided: a supernet is trained and searched."""
    return dataclasses.replace(config, architectures="search") if config.architectures == "auto" else config


def _is_one_of_many() -> bool:
    """Whether this process trains a supernet together with others, each of which would take its own times."""
    return "TF_CONFIG" in os.environ


def _timed(space: SearchSpace, progress: Progress) -> Speed:
    """What a training step takes on this machine."""
    progress.begin("speed")
    speed = measure(space)
    parts = [f"{macs / 1e6:.2g}M MACs {1e6 * each:.0f} us" for macs, each in zip(speed.macs, speed.seconds)]
    progress.end(f"{', '.join(parts)} for each image that a network is trained with, on one core")
    return speed


def _opinion(plan: Plan, progress: Progress) -> float:
    """The seconds that the opinion of the teacher that the settings name takes for each image, on one core."""
    from daqu_tf.stock_models.teaching import teacher_from

    progress.begin("teacher")
    found = teacher_from(plan.config.teacher, plan.dataset)
    low, high = found.limits
    progress.end(
        f"{found.accuracy:.1%} of the search split, with pixels from {low:g} to {high:g}; {1e6 * found.seconds:.0f} us an image"
    )
    return found.seconds * machine.cores()


def _is_worker() -> bool:
    if "KERASTUNER_ORACLE_IP" not in os.environ:
        return False
    from daqu_tf.oracle.roles import is_worker

    return is_worker()


def _run(plan: Plan, overwrite: bool, last_stage: str, progress: Progress, began: float) -> pathlib.Path:
    """`run`, in a folder that is this process's alone; it began at that time of the monotonic clock."""
    folder, content = plan.folder, plan.to_json()
    for note in plan.dataset.notes:
        progress.warn(note)
    changed = folder.difference(plan.config, content)
    if changed and not overwrite:
        raise DaquError(f"{folder.path} holds a run of something else ({changed}): give --overwrite to begin again.")
    is_trained = folder.supernet.exists() and not changed
    strategy = None if is_trained or not plan.config.searches_architectures else _strategy(plan)
    device = None
    if _must_time(folder, last_stage, strategy, bool(changed)):
        device = connect_device(plan.config, progress)
        if plan.given_table:
            plan.given_table.check(plan.space, plan.target.storage, device.identity())
        changed = changed or folder.check_device(device.identity(), overwrite)
    if changed:
        folder.clear()
    height = plan.space.input_shape[0]
    if folder.skipped_pixels and min(plan.space.genes[0].values) < height:
        progress.warn(
            "This run was begun when images were made smaller without antialiasing, and goes on with antialiasing: networks of "
            f"fewer than {height} pixels are less accurate until they are trained on."
        )
    if not folder.config.exists():
        if plan.start:
            files.write_arrays(folder.initial, plan.start.arrays)
        files.write_json(folder.config, content)
    if device:
        files.write_json(folder.device, device.identity())
    return _through_stages(Job(plan, strategy, device, progress, began), last_stage)


def _strategy(plan: Plan) -> "tf.distribute.Strategy":
    """On which devices the supernet is trained.

    Raises:
        DaquError: The strategy fits TF_CONFIG or the batch badly, or TensorFlow has begun to work already.
    """
    check_strategy(plan.config.strategy)
    if plan.config.deterministic:
        make_deterministic()
    strategy = make_strategy(plan.config.strategy)
    check_shares(strategy, plan.schedule.batch_size)
    return strategy


def _must_time(folder: RunFolder, last_stage: str, strategy: "tf.distribute.Strategy | None", is_new: bool) -> bool:
    """Whether something is left for this process to time."""
    product = {"supernet": None, "search": folder.finalists}.get(last_stage, folder.front)
    if product is None or (strategy and not leads(strategy)):
        return False
    return is_new or not product.exists()


def _count(number: int) -> str:
    return f"{number:,}" if number < 1e6 else f"{decimal.Decimal(number):.1e}"  # A float ends at 1e308.


def _tell(plan: Plan, progress: Progress) -> None:
    """Prints what is planned, and what the minutes are too few for."""
    progress.say(plan.text)
    for note in plan.notes:
        progress.warn(note)


def _through_stages(job: Job, last_stage: str) -> pathlib.Path:
    plan, folder = job.plan, job.folder
    job.progress.begin("data")
    counts = ", ".join(f"{len(getattr(plan.dataset, f'x_{split}'))} {split}" for split in ("train", "search", "test"))
    searches = plan.config.searches_architectures
    choice = f"{_count(plan.searched.cardinality)} subnets are searched" if searches else f"{plan.space.name}, scaled by hand"
    job.progress.end(f"{plan.dataset.name}: {counts} images; {choice}")
    if not (folder.supernet if searches else folder.finalists).exists():
        _tell(plan, job.progress)
    todo = [
        *([("supernet", folder.supernet, stages.train)] if searches else []),
        *([("latency table", folder.table, stages.make_table)] if job.has_table and job.times_files else []),
        ("search", folder.finalists, stages.search) if searches else ("choice", folder.finalists, stages.choose_by_hand),
        *([("more finalists", folder.front, stages.add_finalists)] if folder.wants_finalists else []),
        ("finalists", folder.front, finalists.finish),
        ("timing", folder.front, finalists.time_models),
        ("report", folder.report, stages.report),
    ]
    for stage, product, work in todo:
        if not product.exists():
            with job.stage(stage):
                work(job)
        if stage == last_stage or (job.strategy and not leads(job.strategy)):
            break
    return product
