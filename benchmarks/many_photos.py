"""A set of many photos: the memory of each process, the wait for images, the first batch, and a cache that is cut off.

    python benchmarks/many_photos.py --photos=imagenette.zip --output_dir=runs/many_photos

It makes `--count` photos of `--side` pixels from given ones, each moved and made brighter or darker at random. The job that decodes
them is killed at a third, and started again. Then a job trains on them, while the anonymous memory of its processes is read twice a
second; and as many networks at once as a job fine-tunes take steps, while the time is taken in which they wait for images. It needs
17 GB of disk for 100,000 photos of 224 pixels. Photos that are there are not made again.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import records
from absl import app, flags

_PHOTOS = flags.DEFINE_string("photos", None, "A folder of photos, or a .zip of one, from which more are made.", required=True)
_COUNT = flags.DEFINE_integer("count", 100_000, "The number of photos.")
_SIDE = flags.DEFINE_integer("side", 224, "The height and width of the photos in pixels.")
_MINUTES = flags.DEFINE_float("budget_minutes", 10.0, "Minutes of the job.")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Where everything goes.", required=True)
_QUICK = flags.DEFINE_bool("quick", False, "A coarse form of a few minutes: 2,000 photos of 96 pixels.")
_WAIT_OF = flags.DEFINE_string("wait_of", None, "Of a process that this one starts: the folder of the run whose network it trains.")

FEW = 1000  # Photos, for the time to the first batch.
STEPS, FIRST_STEPS = 60, 10  # That are timed, and those before, in which caches fill.


def make_photos(folder: pathlib.Path, count: int, side: int) -> None:
    """Writes `count` photos into a folder a class."""
    import tensorflow as tf

    from daqu_tf import data

    dataset = data.load(_PHOTOS.value, 0, how=data.Reading(image_size=str(side), cache_dir=str(folder.parent / "cache")))
    images, labels, names = dataset.x_train, dataset.y_train, dataset.class_names

    def write(number: int) -> None:
        rng = np.random.default_rng(number)
        index = number % len(labels)
        pixels = images[[index]][0]
        moved = np.roll(pixels, rng.integers(-side // 8, side // 8, 2), (0, 1)) * rng.uniform(0.7, 1.3)
        path = folder / names[labels[index]] / f"{number:06d}.jpg"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tf.io.encode_jpeg((255 * np.clip(moved, 0, 1)).astype(np.uint8), quality=85).numpy())

    with ThreadPoolExecutor() as pool:
        for start in range(0, count, 1000):
            list(pool.map(write, range(start, min(start + 1000, count))))


def job(folder: pathlib.Path, photos: pathlib.Path, side: int, *more: str) -> list[str]:
    """The command of a job on photos."""
    flags_of_job = {"dataset": photos, "image_size": side, "cache_dir": folder / "cache", "output_dir": folder / "run"}
    given = [f"--{name}={value}" for name, value in flags_of_job.items()]
    return [sys.executable, "-m", "daqu_tf.tools.run", *given, "--space=mobilenet_v2", "--finalists=3", *more]


def cut_off(command: list[str], cache: pathlib.Path, count: int) -> dict:
    """How many photos were decoded when the job was killed, and at the first look after it was started again."""

    def decoded() -> int:
        states = [json.loads(path.read_text())["done"] for path in cache.glob("*.part.json")]
        return max(states, default=0)

    first = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while first.poll() is None and decoded() < count / 3:
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    before, began = decoded(), time.monotonic()
    second = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while second.poll() is None and decoded() == before:
        time.sleep(0.05)
    after = decoded()
    if second.wait():
        sys.exit("The job failed that was started again.")
    return {"decoded_before": before, "decoded_after": after, "seconds_after": time.monotonic() - began}


def anonymous_bytes(parent: int) -> dict[int, int]:
    """The anonymous memory of a process and of all that it has started, by their numbers."""
    found, parents = {}, {}
    for path in pathlib.Path("/proc").glob("[0-9]*/status"):
        try:
            text = path.read_text()
        except OSError:  # It has ended.
            continue
        number = int(path.parent.name)
        parents[number] = int(re.search(r"^PPid:\s+(\d+)", text, re.M)[1])
        if size := re.search(r"^RssAnon:\s+(\d+) kB", text, re.M):
            found[number] = 1024 * int(size[1])

    def is_ours(number: int) -> bool:
        return number == parent or (parents.get(number, 0) > 0 and is_ours(parents[number]))

    return {number: size for number, size in found.items() if is_ours(number)}


def most_memory(command: list[str]) -> dict:
    """Runs a job; the most anonymous memory that one of its processes had, and all of them together."""
    process, each, together = subprocess.Popen(command, stdout=subprocess.DEVNULL), 0, 0
    while process.poll() is None:
        sizes = anonymous_bytes(process.pid).values()
        each, together = max(each, *sizes, 0), max(together, sum(sizes))
        time.sleep(0.5)
    if process.returncode:
        sys.exit("The job failed.")
    return {"process_bytes": each, "all_bytes": together}


def wait(folder: str) -> dict:
    """Trains the first finalist of a run for some steps, as the job does; the share of the time in which it waits for images."""
    from daqu_tf import files
    from daqu_tf.pipeline import processes
    from daqu_tf.pipeline.plan import Plan

    processes.compute_on_one_thread()
    from daqu_tf.supernet.supernet import StaticNetwork
    from daqu_tf.training.batches import Augmentation, Batches
    from daqu_tf.training.optimizer import Optimizer

    plan = Plan.in_folder(pathlib.Path(folder))
    recipe = plan.how_to_fine_tune
    batches = Batches(plan.dataset, recipe["batch_size"], 0, Augmentation.of(plan.dataset, recipe["augmentation"]))
    network = StaticNetwork(plan.space, plan.space.subnet(files.read_json(plan.folder.finalists)["m00"]["values"]))
    optimizer, waited = Optimizer(network, recipe["learning_rate"]), 0.0
    given = iter(batches.starting_at(0))
    for step in range(FIRST_STEPS + STEPS):
        if step == FIRST_STEPS:
            waited, begin = 0.0, time.monotonic()
        before = time.monotonic()
        images, labels = next(given)
        waited += time.monotonic() - before
        optimizer.accumulate(images, labels)
        optimizer.apply(1.0)
    return {"share": waited / (time.monotonic() - begin), "batch_size": recipe["batch_size"], "macs": plan.speed.macs[0]}


def first_batch(photos: pathlib.Path, side: int, cache: pathlib.Path) -> float:
    """Seconds from the start of a process to its first batch of photos that nobody has decoded."""
    code = (
        "from daqu_tf import data; from daqu_tf.training.batches import Augmentation, Batches\n"
        f"dataset = data.load({str(photos)!r}, 0, how=data.Reading(image_size='{side}', cache_dir={str(cache)!r}))\n"
        "next(iter(Batches(dataset, 32, 0, Augmentation.of(dataset, 'auto')).starting_at(0)))"
    )
    shutil.rmtree(cache, ignore_errors=True)
    begin = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.monotonic() - begin


def few_of(photos: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """A folder of links to some of the photos."""
    for path in sorted(photos.glob("*/*.jpg"), key=lambda path: path.name)[:FEW]:
        link = folder / path.parent.name / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            os.link(path, link)
    return folder


def main(argv: list[str]) -> None:
    """Takes all measurements, one after the other."""
    del argv
    if _WAIT_OF.value:
        print(json.dumps(wait(_WAIT_OF.value)))
        return
    from daqu_tf import machine

    folder = pathlib.Path(_OUTPUT_DIR.value)
    count, side = (2000, 96) if _QUICK.value else (_COUNT.value, _SIDE.value)
    photos = folder / f"photos_{count}_{side}"
    make_photos(photos, count, side)
    results = {
        "photos": count,
        "side": side,
        "first_batch_seconds": first_batch(few_of(photos, folder / "few"), side, folder / "few_cache"),
    }
    for pixels in (folder / "cache").glob("*"):
        pixels.unlink()
    results |= cut_off(job(folder, photos, side, "--dry_run"), folder / "cache", count)
    minutes = 2 if _QUICK.value else _MINUTES.value
    results |= most_memory(job(folder, photos, side, f"--budget_minutes={minutes}", "--overwrite"))
    command = [sys.executable, __file__, f"--wait_of={folder / 'run'}", "--photos=", "--output_dir="]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(machine.cores())]
    waits = [json.loads(child.communicate()[0].splitlines()[-1]) for child in children]
    results["wait"] = waits
    bars = [
        records.bar("anonymous memory of a process", results["process_bytes"] / 1e9, 2.0, "at_most", "GB"),
        records.bar("share of the time that waits for images", max(each["share"] for each in waits), 0.05, "at_most", "share"),
        records.bar("seconds to the first batch of 1,000 photos", results["first_batch_seconds"], 60.0, "at_most", "seconds"),
        records.bar(
            "photos decoded at the first look after a kill, over those before",
            results["decoded_after"] / results["decoded_before"],
            1.0,
            "at_least",
            "ratio",
        ),
    ]
    print(f"Wrote {records.write('many_photos' + '_quick' * _QUICK.value, [0], results, bars)}")


if __name__ == "__main__":
    app.run(main)
