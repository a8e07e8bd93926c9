"""What the warm-up and the precision transfer are worth: the supernet trained with and without each, all else equal.

    python benchmarks/ablation.py --dataset=fashion_mnist.npz --space=mobilenet_v2_28 --seeds=0,1,2

Every arm takes the same steps over the same batches, on one core; two arms run at a time. Then, on the search split:
- a panel of 16 architectures at 8 bits and at mixed bits: the accuracy gap and the mean;
- three architectures at all of `BITS` throughout, against their own 8 bits;
- how well the accuracy with inherited weights ranks subnets: Kendall's tau with that after an equal fine-tuning, within bands of
  MACs and precision (first seed);
- fine-tuning those three at all of `BITS`, also with the largest subnet as teacher, against the same network trained alone for as
  many steps and for three times as many (first seed).
Each part is written down as it ends, and what there is is summed up. Cut off, the command goes on with the next part. One that
fails does not stop the others, but the command then ends with status 1.
"""

import dataclasses
import json
import os
import pathlib
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import ablation_summary
import numpy as np
import records
from absl import app, flags

from daqu_tf import data, spaces
from daqu_tf.files import read_arrays, write_arrays, write_bytes, write_json
from daqu_tf.runs.config import FINE_TUNING_RATE
from daqu_tf.spaces.precisions import mixed_bits, uniform_bits
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.subnet import Subnet
from daqu_tf.training.panel import architectures
from daqu_tf.training.schedule import Schedule, make_schedule

PANEL, PANEL_SEED = 16, 99
ARMS = {  # --warmup and --precision_transfer as of daqu-train, and what else is changed in the phases.
    "full": ("gap_aware", "progressive", {}),
    "no_warm_up": ("none", "progressive", {}),
    "all_at_once": ("gap_aware", "all_at_once", {}),
    "eight_bits": ("gap_aware", "none", {}),
    "sandwich": ("sandwich", "progressive", {}),
    "no_warm_up_gap_aware": ("none", "progressive", {"precision_transfer": {"sampler": "gap_aware"}}),
    "warm_up_only": ("gap_aware", "progressive", {"precision_transfer": {"sampler": "sandwich"}}),
    "no_distillation": (
        "gap_aware",
        "progressive",
        {"warm_up": {"distillation": 0.0}, "precision_transfer": {"distillation": 0.0}},
    ),
}
FINE_TUNED_BANDS, FINE_TUNED_IN_A_CELL = 4, 3
PRECISIONS = ("high", "4", "low", "mixed")
RANKED = FINE_TUNED_BANDS * len(PRECISIONS) * FINE_TUNED_IN_A_CELL
BITS = (8, 6, 4, 3, 2)
QUICK = {"dataset": "digits", "space": "digits", "arms": ["full", "no_warm_up"], "seeds": ["0"], "epochs": 15.0, "batch_size": 32}
QUICK |= {"learning_rate": 0.005, "ranking": False, "alone": False}

_DATASET = flags.DEFINE_string("dataset", None, f"One of {', '.join(data.NAMES)}, or a .npz with x_train, y_train, x_test, y_test.")
_SPACE = flags.DEFINE_string("space", "mobilenet_v2_28", "Search space.")
_SEEDS = flags.DEFINE_list(
    "seeds", ["0", "1", "2"], "Of weights, order, augmentation and sampling; the splits are always the same."
)
_ARMS = flags.DEFINE_list("arms", list(ARMS), "Those to train.")
_EPOCHS = flags.DEFINE_float("epochs", 8.0, "Of the supernet.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Images a step.")
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 0.02, "Peak, everywhere: twice that of daqu-train for twice its batch.")
_STEPS = flags.DEFINE_integer("fine_tuning_steps", 500, "Of each fine-tuning.")
_RANKING = flags.DEFINE_bool("ranking", True, "Fine-tune 48 subnets of two arms, for Kendall's tau.")
_ALONE = flags.DEFINE_bool("alone", True, "Fine-tune three architectures at all of `BITS`, and train each alone.")
_FOLDER = flags.DEFINE_string("folder", "runs/ablation", "What has been done so far; the command goes on from there.")
_QUICK = flags.DEFINE_bool(
    "quick", False, "Two arms of the space `digits` on its own data, one seed, about a minute; others by their flags."
)
_PART = flags.DEFINE_string("part", None, "Only do this part (internal).")


@dataclasses.dataclass(frozen=True)
class Part:
    """One piece of work, for a process of its own.

    Attributes:
        kind: `train`, `rank` or `alone`.
        arm: One of `ARMS`.
        seed: Of it.
    """

    kind: str
    arm: str
    seed: int

    def __str__(self) -> str:
        return f"{self.kind}:{self.arm}:{self.seed}"

    @property
    def folder(self) -> pathlib.Path:
        """Of the trained supernet."""
        return root() / f"{self.arm}-{self.seed}"

    @property
    def log(self) -> pathlib.Path:
        """What the process prints."""
        return self.folder / f"{self.kind}.log"

    @property
    def path(self) -> pathlib.Path:
        """What it leaves."""
        return self.folder / ("scores.json" if self.kind == "train" else f"{self.kind}-{_STEPS.value}.jsonl")

    def is_done(self) -> bool:
        """Whether all of it is there."""
        if self.kind == "train":
            return self.path.exists()
        return len(read_lines(self.path)) >= {"rank": RANKED, "alone": 3 * len(BITS)}[self.kind]

    def can_start(self) -> bool:
        """A supernet must be trained and scored before it is used."""
        return self.kind == "train" or all((self.folder / name).exists() for name in ("supernet.npz", "scores.json"))


def schedule_of(arm: str, space: SearchSpace, seed: int) -> Schedule:
    """The arm's schedule: all have as many steps and one cosine."""
    warm_up, transfer, changes = ARMS[arm]
    schedule = make_schedule(
        space, warm_up, transfer, _EPOCHS.value, "epochs", _LEARNING_RATE.value, batch_size=_BATCH_SIZE.value, seed=seed
    )
    phases = {name: dataclasses.replace(getattr(schedule, name), **changed) for name, changed in changes.items()}
    return dataclasses.replace(schedule, **phases)


def schedule_json(part: Part) -> dict:
    """As it is read back from a file."""
    return json.loads(json.dumps(schedule_of(part.arm, spaces.get(_SPACE.value), part.seed).to_json()))


def check_folders() -> None:
    """Ends the command where a folder holds a training, done or begun, of another schedule: say, one of older defaults."""
    for part in trainings():
        path = part.folder / "schedule.json"
        if path.exists() and json.loads(path.read_text()) != schedule_json(part):
            sys.exit(f"{part.folder} was trained with another schedule: delete it, or choose another --folder.")


def root() -> pathlib.Path:
    """Of all that was trained with these settings."""
    name = f"{data_name()}-{pathlib.Path(_SPACE.value).stem}-{_EPOCHS.value:g}-{_BATCH_SIZE.value}"
    return pathlib.Path(_FOLDER.value) / name


def data_name() -> str:
    """Of the data set."""
    return pathlib.Path(_DATASET.value).stem


def load() -> tuple[data.Dataset, SearchSpace]:
    """Data set and space of all arms."""
    dataset = data.load(_DATASET.value, seed=0)
    return dataset, spaces.get(_SPACE.value).for_images(dataset.image_shape, dataset.num_classes)


def train(part: Part) -> None:
    """Trains and scores one arm; writes `supernet.npz` and `scores.json`."""
    from daqu_tf.keras import keras
    from daqu_tf.supernet.scoring import Scorer
    from daqu_tf.supernet.supernet import Supernet
    from daqu_tf.training.training import SupernetTraining

    dataset, space = load()
    keras.utils.set_random_seed(part.seed)
    supernet = Supernet(space)
    scorer = Scorer(supernet, dataset.x_train)
    schedule = schedule_of(part.arm, space, part.seed)
    write_json(part.folder / "schedule.json", schedule.to_json())
    training = SupernetTraining(supernet, dataset, scorer, schedule, part.folder)
    training.restore()
    state = training.run(lambda phase, done, figures: None)
    write_arrays(part.folder / "supernet.npz", supernet.arrays())
    scores = accuracies(space, lambda subnets: scorer.evaluate(subnets, dataset.x_search, dataset.y_search))
    scores |= {
        "steps": state.step,
        "seconds": state.seconds,
        "skipped": state.skipped,
        "input_share": state.input_seconds / state.seconds,
        "images_a_second": state.step * _BATCH_SIZE.value / state.seconds,
        "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "schedule": schedule.to_json(),
    }
    write_json(part.path, scores)


def accuracies(space: SearchSpace, score: Callable[[list[Subnet]], list[float]]) -> dict[str, dict[str, list[float]]]:
    """Of the panel at 8 and at mixed bits, and of three of it at all of `BITS`."""
    panel, few = architectures(space, PANEL, PANEL_SEED), three(space)
    rng = np.random.default_rng(7)
    mixed = [mixed_bits(space, subnet, space.weight_bits, rng) for subnet in panel]
    return {
        "panel": {"8 bits": score([uniform_bits(space, subnet, 8) for subnet in panel]), "mixed bits": score(mixed)},
        "precisions": {str(bits): score([uniform_bits(space, subnet, bits) for subnet in few]) for bits in BITS},
    }


def three(space: SearchSpace) -> list[Subnet]:
    """A small, a middle and a large architecture."""
    panel = architectures(space, PANEL, PANEL_SEED)
    return [panel[1], panel[len(panel) // 2], panel[-1]]


def ranked(space: SearchSpace) -> list[tuple[int, str, Subnet]]:
    """Band of MACs, kind of precision and subnet, as many of each pair."""
    rng = np.random.default_rng(11)
    by_macs = architectures(space, 402, PANEL_SEED + 1)
    chosen = []
    for band, bounds in enumerate(np.array_split(np.arange(len(by_macs)), FINE_TUNED_BANDS)):
        for kind in PRECISIONS:
            for place in rng.choice(bounds, FINE_TUNED_IN_A_CELL, replace=False):
                chosen.append((band, kind, at_precision(space, by_macs[place], kind, rng)))
    return chosen


def at_precision(space: SearchSpace, subnet: Subnet, kind: str, rng: np.random.Generator) -> Subnet:
    """The architecture at a precision of that kind."""
    if kind == "mixed":
        return mixed_bits(space, subnet, space.weight_bits, rng)
    return uniform_bits(space, subnet, int(rng.choice({"high": (6, 8), "4": (4,), "low": (2, 3)}[kind])))


def fine_tuning(seed: int):
    """A `FineTuning` of as many steps as all here have."""
    from daqu_tf.training.fine_tuning import FineTuning

    rate = FINE_TUNING_RATE * _LEARNING_RATE.value
    return FineTuning(steps=_STEPS.value, batch_size=_BATCH_SIZE.value, learning_rate=rate, seed=seed)


def rank(part: Part) -> None:
    """Accuracy of every ranked subnet as inherited and after an equal fine-tuning."""
    from daqu_tf.supernet.scoring import Scorer
    from daqu_tf.supernet.supernet import extract
    from daqu_tf.training.fine_tuning import FineTuner

    dataset, space = load()
    arrays = read_arrays(part.folder / "supernet.npz")
    how = fine_tuning(part.seed)
    tuner = FineTuner(space, arrays, dataset, how)
    for band, kind, subnet in ranked(space)[len(read_lines(part.path)) :]:
        inherited = extract(space, subnet, arrays)
        scorer = Scorer(inherited, dataset.x_train)
        scorer.recalibrate()
        before = scorer.accuracy(dataset.x_search, dataset.y_search)
        tuned, _ = tuner.tune(subnet)
        after = Scorer(tuned, dataset.x_train).accuracy(dataset.x_search, dataset.y_search)
        add_line(part.path, {"macs_band": band, "precision": kind, "inherited": before, "fine_tuned": after})


def alone(part: Part) -> None:
    """Three architectures at all of `BITS`: fine-tuned, and trained from random weights, also for three times the steps."""
    from daqu_tf.keras import keras
    from daqu_tf.supernet.scoring import Scorer
    from daqu_tf.supernet.supernet import StaticNetwork
    from daqu_tf.training.fine_tuning import FineTuner

    dataset, space = load()
    inherited = read_arrays(part.folder / "supernet.npz")
    keras.utils.set_random_seed(part.seed)
    random = StaticNetwork(space, space.largest()).arrays()
    how = fine_tuning(part.seed)
    # Random weights do best with half of the steps in float, and a training's learning rate.
    from_random = dataclasses.replace(how, float_share=0.5, learning_rate=_LEARNING_RATE.value)
    variants = {
        "fine_tuned": (inherited, how),
        "distilled": (inherited, dataclasses.replace(how, distillation=0.5)),
        "same_steps": (random, from_random),
        "alone": (random, dataclasses.replace(from_random, steps=3 * how.steps)),
    }
    tuners = {name: FineTuner(space, arrays, dataset, variant) for name, (arrays, variant) in variants.items()}
    cells = [(place, bits) for place in range(3) for bits in BITS]
    for place, bits in cells[len(read_lines(part.path)) :]:
        row = {"architecture": place, "width": bits}
        for name, tuner in tuners.items():
            network, _ = tuner.tune(uniform_bits(space, three(space)[place], bits))
            row[name] = Scorer(network, dataset.x_train).accuracy(dataset.x_search, dataset.y_search)
        add_line(part.path, row)


def read_lines(path: pathlib.Path) -> list[dict]:
    """JSON lines; none if there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def add_line(path: pathlib.Path, row: dict) -> None:
    """One JSON line more, atomically."""
    write_bytes(path, "".join(json.dumps(line) + "\n" for line in [*read_lines(path), row]).encode())


def trainings() -> list[Part]:
    """One for each arm and seed; all arms of the first seed come first."""
    return [Part("train", arm, int(seed)) for seed in _SEEDS.value for arm in _ARMS.value]


def uses() -> list[Part]:
    """The parts that use a trained supernet, asked for or not, all of the first seed."""
    kinds = [*(("rank", arm) for arm in ablation_summary.TAU_ARMS), ("alone", "full")]
    return [Part(kind, arm, int(_SEEDS.value[0])) for kind, arm in kinds]


def parts_left() -> list[Part]:
    """What is left to do, in order. An arm of which only the scores are here is trained once more where its weights are needed."""
    asked = {"rank": _RANKING.value, "alone": _ALONE.value}
    later = [part for part in uses() if asked[part.kind] and part.arm in _ARMS.value and not part.is_done()]
    needed = {part.folder for part in later}
    lost = [part for part in trainings() if part.folder in needed and not (part.folder / "supernet.npz").exists()]
    return [part for part in trainings() if part in lost or not part.is_done()] + later


def do(part: Part) -> None:
    """One part, in this process."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    {"train": train, "rank": rank, "alone": alone}[part.kind](part)


def settings() -> dict:
    """What two calls must share, beside the schedule, to share results."""
    return json.loads(json.dumps({"space": spaces.get(_SPACE.value).to_json(), "fine_tuning_steps": _STEPS.value}))


def published() -> dict[pathlib.Path, str]:
    """The files that earlier calls with the same settings published, perhaps on another machine."""
    files = {}
    try:
        results = json.loads((records.RESULTS / f"{result_name()}.json").read_text())["results"]
        if any(results[name] != value for name, value in settings().items()):
            return {}
        for part in [Part("train", arm, int(seed)) for arm in ARMS for seed in results["arms"].get(arm, {})]:
            scores = results["arms"][part.arm][str(part.seed)]
            if scores["schedule"] != schedule_json(part):
                continue
            for use in (dataclasses.replace(part, kind=kind) for kind in ("rank", "alone")):
                if rows := results["rows"].get(str(use)):
                    files[use.path] = "".join(json.dumps(row) + "\n" for row in rows)
            files |= {part.folder / "schedule.json": json.dumps(scores["schedule"]), part.path: json.dumps(scores)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # There is none, or one of another version.
        return {}
    return files


def restore_published() -> None:
    """Takes what was published as done where nothing else is here."""
    for path, content in published().items():
        if not (path.parent / "scores.json").exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, content.encode())


def result_name() -> str:
    """Of the JSON file and the picture."""
    return f"ablation_{data_name()}" + ("_quick" if _QUICK.value else "")


def run_parts() -> list[Part]:
    """All that is left, two at a time, each on a core of its own; sums up after each. Returns what could not be done."""
    waiting, failed = parts_left(), []
    cores = sorted(os.sched_getaffinity(0))[:2]
    running: dict[int, tuple[Part, subprocess.Popen]] = {}
    try:
        while True:
            for core in cores:
                if core not in running and (part := next((part for part in waiting if part.can_start()), None)):
                    waiting.remove(part)
                    running[core] = part, start(part, core)
            if not running:
                return failed + waiting
            time.sleep(1.0)
            for core in [core for core, (_, process) in running.items() if process.poll() is not None]:
                part, process = running.pop(core)
                failed += [part] if process.returncode else []
                print(f"{part}: {f'failed, see {part.log}' if process.returncode else 'done'}, {len(waiting)} waiting", flush=True)
                summarise()
    finally:
        for _, process in running.values():
            process.kill()


def start(part: Part, core: int) -> subprocess.Popen:
    """A process for one part, on one core."""
    part.folder.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    with part.log.open("ab") as log:
        process = subprocess.Popen([sys.executable, *sys.argv, f"--part={part}"], env=environment, stdout=log, stderr=log)
    os.sched_setaffinity(process.pid, {core})
    return process


def summarise() -> None:
    """Writes what there is to `results/ablation_DATA.json`, with its picture."""
    arms: dict[str, dict[int, dict]] = {}
    for arm in ARMS:
        seeds = [path.parent.name.removeprefix(f"{arm}-") for path in root().glob(f"{arm}-*/scores.json")]
        for part in [Part("train", arm, seed) for seed in sorted(int(seed) for seed in seeds if seed.isdigit())]:
            if (scores := json.loads(part.path.read_text()))["schedule"] == schedule_json(part):
                arms.setdefault(arm, {})[part.seed] = scores
    if not arms:
        return
    used = {part: rows for part in uses() if part.seed in arms.get(part.arm, {}) and (rows := read_lines(part.path))}
    rankings = {part.arm: rows for part, rows in used.items() if part.kind == "rank" and part.is_done()}
    alone_rows = next((rows for part, rows in used.items() if part.kind == "alone" and part.is_done()), [])
    taus, name = ablation_summary.taus_of(rankings), result_name()
    results = {
        "tables": ablation_summary.tables_of(arms, taus, alone_rows),
        "picture": f"results/{name}.png",
        **settings(),
        "arms": arms,
        "stability": {arm: ablation_summary.stability_of(seeds) for arm, seeds in arms.items()},
        "ranking": taus,
        "rows": {str(part): rows for part, rows in used.items()},
    }
    seeds = sorted({seed for scores in arms.values() for seed in scores})
    records.write(name, seeds, results, ablation_summary.bars_of(arms, taus, alone_rows))
    ablation_summary.draw(arms, records.RESULTS / f"{name}.png")


def main(argv: list[str]) -> None:
    """Does what is left and writes `results/ablation_DATA.json`."""
    del argv
    for name, value in QUICK.items() if _QUICK.value else ():
        flags.FLAGS.set_default(name, value)
    if not _DATASET.value:
        sys.exit(f"`--dataset` must be one of {', '.join(data.NAMES)} or the path of a .npz file: give one, or --quick.")
    if unknown := sorted(set(_ARMS.value) - set(ARMS)):
        sys.exit(f"`--arms` must be among {', '.join(ARMS)}, but received {', '.join(unknown)}.")
    if _PART.value:
        kind, arm, seed = _PART.value.split(":")
        do(Part(kind, arm, int(seed)))
        return
    check_folders()
    restore_published()
    not_done = run_parts()
    summarise()
    if not_done:
        reasons = [f"{part} ({f'see {part.log}' if part.can_start() else 'its supernet is missing'})" for part in not_done]
        sys.exit(f"Not done: {', '.join(reasons)}.")


if __name__ == "__main__":
    app.run(main)
