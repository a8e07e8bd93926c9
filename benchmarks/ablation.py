"""What the warm-up and the precision transfer are worth: the supernet trained with and without each, all else equal.

    python benchmarks/ablation.py --dataset=fashion_mnist.npz --space=mobilenet_v2_28 --seeds=0,1,2

Every arm takes the same steps over the same batches, on one core; two arms run at a time. Then, on the search split:
- a panel of 16 architectures at 8 bits and at mixed bits: the accuracy gap and the mean;
- three architectures at every width throughout, against their own 8 bits;
- how well the accuracy with inherited weights ranks subnets: Kendall's tau with that after an equal fine-tuning, within bands of
  MACs and precision;
- fine-tuning, against the same network trained alone for three times as many steps.
Each part is written down as it ends; cut off, the command goes on with the next, and what there is is summed up after each.
"""

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

from daqu_tf import atomic, data, output, spaces
from daqu_tf.panel import architectures
from daqu_tf.samplers import mixed_bits, uniform_bits
from daqu_tf.schedule import DISTILLATION, WARM_UP_SHARE, PrecisionTransfer, Schedule, WarmUp
from daqu_tf.space import SearchSpace, Subnet

PANEL, PANEL_SEED = 16, 99
ARMS = {
    # Warm-up's sampler, that of the precision transfer, how widths open, and the distillation of both phases.
    "full": ("gap_aware", "gap_aware", "progressive", DISTILLATION),
    "no_warm_up": (None, "sandwich", "progressive", DISTILLATION),
    "all_at_once": ("gap_aware", "gap_aware", "all_at_once", DISTILLATION),
    "eight_bits": ("gap_aware", "gap_aware", "none", DISTILLATION),
    "sandwich": ("sandwich", "sandwich", "progressive", DISTILLATION),
    "no_warm_up_gap_aware": (None, "gap_aware", "progressive", DISTILLATION),
    "warm_up_only": ("gap_aware", "sandwich", "progressive", DISTILLATION),
    "no_distillation": ("gap_aware", "gap_aware", "progressive", 0.0),
}
FINE_TUNED_BANDS, FINE_TUNED_IN_A_CELL = 4, 3
PRECISIONS = ("high", "4", "low", "mixed")
TAU_ARMS = ("full", "no_warm_up")
WIDTHS = (8, 6, 4, 3, 2)

_DATASET = flags.DEFINE_string("dataset", None, "A .npz with x_train, y_train, x_test and y_test.", required=True)
_SPACE = flags.DEFINE_string("space", "mobilenet_v2_28", "Search space.")
_SEEDS = flags.DEFINE_list(
    "seeds", ["0", "1", "2"], "Of weights, order, augmentation and sampling; the splits are always the same."
)
_ARMS = flags.DEFINE_list("arms", list(ARMS), "Those to train.")
_EPOCHS = flags.DEFINE_float("epochs", 11.0, "Of the supernet.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Images a step.")
_STEPS = flags.DEFINE_integer("fine_tuning_steps", 800, "Of each fine-tuning.")
_RANKING = flags.DEFINE_bool("ranking", True, "Fine-tune 48 subnets of two arms, for Kendall's tau.")
_ALONE = flags.DEFINE_bool("alone", True, "Fine-tune three architectures at every width, and train each alone.")
_FOLDER = flags.DEFINE_string("folder", "runs/ablation", "What has been done so far; the command goes on from there.")
_QUICK = flags.DEFINE_bool("quick", False, "Two arms of the space `digits` on its own data, one seed, in about a minute.")
_PART = flags.DEFINE_string("part", None, "Only do this part (internal).")


def schedule_of(arm: str, space: SearchSpace, seed: int) -> Schedule:
    """The arm's schedule: all have as many steps and one cosine."""
    warm, sampler, opening, distillation = ARMS[arm]
    share = WARM_UP_SHARE if warm else 0.0
    order = space.weight_bits[::-1] if opening != "none" else space.weight_bits[-1:]
    settings = {"distillation": distillation} | ({} if opening == "progressive" else {"opening": 0.0})
    transfer = PrecisionTransfer((1 - share) * _EPOCHS.value, order, sampler=sampler, **settings)
    warm_up = WarmUp(share * _EPOCHS.value, sampler=warm, distillation=distillation) if warm else None
    return Schedule("epochs", warm_up, transfer, _BATCH_SIZE.value, seed)


def folder_of(arm: str, seed: int) -> pathlib.Path:
    """Of one trained supernet."""
    return pathlib.Path(_FOLDER.value) / data_name() / f"{arm}-{seed}"


def data_name() -> str:
    """Of the data set."""
    return pathlib.Path(_DATASET.value).stem


def load() -> tuple[data.Dataset, SearchSpace]:
    """Data set and space of all arms."""
    dataset = data.load(_DATASET.value, seed=0)
    return dataset, spaces.get(_SPACE.value).for_images(dataset.image_shape, dataset.num_classes)


def train(arm: str, seed: int) -> None:
    """Trains and scores one arm; writes `supernet.npz` and `scores.json`."""
    from daqu_tf.evaluation import Scorer
    from daqu_tf.keras import keras
    from daqu_tf.supernet import Supernet
    from daqu_tf.training import SupernetTraining

    dataset, space = load()
    keras.utils.set_random_seed(seed)
    supernet = Supernet(space)
    scorer = Scorer(supernet, dataset.x_train)
    folder = folder_of(arm, seed)
    training = SupernetTraining(supernet, dataset, scorer, schedule_of(arm, space, seed), folder)
    training.restore()
    state = training.run(lambda phase, done, figures: None)
    output.write_arrays(folder / "supernet.npz", supernet.arrays())

    def score(subnets: list[Subnet]) -> list[float]:
        return scorer.evaluate(subnets, dataset.x_search, dataset.y_search)

    panel = architectures(space, PANEL, PANEL_SEED)
    rng = np.random.default_rng(7)
    mixed = [mixed_bits(space, subnet, space.weight_bits, rng) for subnet in panel]
    scores = {"panel": {"8 bits": score([uniform_bits(space, subnet, 8) for subnet in panel]), "mixed bits": score(mixed)}}
    few = three(space)
    scores["precisions"] = {str(width): score([uniform_bits(space, subnet, width) for subnet in few]) for width in WIDTHS}
    scores |= {
        "steps": state.step,
        "seconds": state.seconds,
        "skipped": state.skipped,
        "input_share": state.input_seconds / state.seconds,
    }
    scores |= {"images_a_second": 4 * state.step * _BATCH_SIZE.value / state.seconds}
    scores |= {"peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
    scores["schedule"] = schedule_of(arm, space, seed).to_json()
    atomic.write_json(folder / "scores.json", scores)


def trained(arm: str, seed: int) -> dict[str, np.ndarray]:
    """The arm's supernet, trained once more if only its scores are here."""
    path = folder_of(arm, seed) / "supernet.npz"
    if not path.exists():
        train(arm, seed)
    return output.read_arrays(path)


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


def rank(arm: str, seed: int) -> None:
    """Accuracy of every ranked subnet as inherited and after an equal fine-tuning; `ranking.jsonl`."""
    from daqu_tf.evaluation import Scorer
    from daqu_tf.fine_tuning import FineTuner, FineTuning
    from daqu_tf.supernet import extract

    dataset, space = load()
    folder, arrays = folder_of(arm, seed), trained(arm, seed)
    how = FineTuning(steps=_STEPS.value, batch_size=_BATCH_SIZE.value, seed=seed, float_share=0.0)
    done = len(read_lines(folder / "ranking.jsonl"))
    for band, kind, subnet in ranked(space)[done:]:
        inherited = extract(space, subnet, arrays)
        scorer = Scorer(inherited, dataset.x_train)
        scorer.recalibrate()
        before = scorer.accuracy(dataset.x_search, dataset.y_search)
        tuned, _ = FineTuner(space, arrays, dataset, how).tune(subnet)
        after = Scorer(tuned, dataset.x_train).accuracy(dataset.x_search, dataset.y_search)
        add_line(folder / "ranking.jsonl", {"macs_band": band, "precision": kind, "inherited": before, "fine_tuned": after})


def alone(seed: int) -> None:
    """Three architectures at every width: fine-tuned, and trained from random weights for three times the steps."""
    from daqu_tf.evaluation import Scorer
    from daqu_tf.fine_tuning import FineTuner, FineTuning
    from daqu_tf.keras import keras
    from daqu_tf.supernet import StaticNetwork

    dataset, space = load()
    path, arrays = folder_of("full", seed) / "alone.jsonl", trained("full", seed)
    done = len(read_lines(path))
    for place, width in [(place, width) for place in range(3) for width in WIDTHS][done:]:
        subnet = uniform_bits(space, three(space)[place], width)
        keras.utils.set_random_seed(seed)
        random = StaticNetwork(space, space.largest()).arrays()
        row = {"architecture": place, "width": width}
        for name, start, factor in (("fine_tuned", arrays, 1), ("same_steps", random, 1), ("alone", random, 3)):
            how = FineTuning(steps=factor * _STEPS.value, batch_size=_BATCH_SIZE.value, seed=seed)
            network, _ = FineTuner(space, start, dataset, how).tune(subnet)
            row[name] = Scorer(network, dataset.x_train).accuracy(dataset.x_search, dataset.y_search)
        add_line(path, row)


def read_lines(path: pathlib.Path) -> list[dict]:
    """JSON lines; none if there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def add_line(path: pathlib.Path, row: dict) -> None:
    """One JSON line more, atomically."""
    atomic.write_bytes(path, "".join(json.dumps(line) + "\n" for line in [*read_lines(path), row]).encode())


def parts() -> list[tuple[str, Callable[[], bool]]]:
    """What there is to do, in order, and whether it is done."""
    seeds = [int(seed) for seed in _SEEDS.value]
    found = [(f"train:{arm}:{seed}", (folder_of(arm, seed) / "scores.json").exists) for seed in seeds for arm in _ARMS.value]
    if _RANKING.value:
        for arm in TAU_ARMS:
            count = FINE_TUNED_BANDS * len(PRECISIONS) * FINE_TUNED_IN_A_CELL
            path = folder_of(arm, seeds[0]) / "ranking.jsonl"
            found.append((f"rank:{arm}:{seeds[0]}", lambda path=path, count=count: len(read_lines(path)) >= count))
    if _ALONE.value:
        path = folder_of("full", seeds[0]) / "alone.jsonl"
        found.append((f"alone:full:{seeds[0]}", lambda: len(read_lines(path)) >= 3 * len(WIDTHS)))
    return found


def do(part: str) -> None:
    """One part, in this process."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    kind, arm, seed = part.split(":")
    {"train": lambda: train(arm, int(seed)), "rank": lambda: rank(arm, int(seed)), "alone": lambda: alone(int(seed))}[kind]()


def restore_published() -> None:
    """Takes what earlier calls published, perhaps on another machine, as done: their folders need not be here."""
    path = records.RESULTS / f"{result_name()}.json"
    if not path.exists():
        return
    published = json.loads(path.read_text())["results"]
    files = {
        folder_of(arm, int(seed)) / "scores.json": json.dumps(scores)
        for arm, seeds in published["arms"].items()
        for seed, scores in seeds.items()
    }
    for name, rows in published["rows"].items():
        files[pathlib.Path(_FOLDER.value) / data_name() / name] = "".join(json.dumps(row) + "\n" for row in rows)
    for path, content in files.items():
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic.write_bytes(path, content.encode())


def result_name() -> str:
    """Of the JSON file and the picture."""
    return f"ablation_{data_name()}" + ("_quick" if _QUICK.value else "")


def run_parts() -> None:
    """All that is left, two at a time, each on a core of its own; sums up after each."""
    restore_published()
    waiting = [name for name, is_done in parts() if not is_done()]
    cores = sorted(os.sched_getaffinity(0))[:2]
    running: dict[int, tuple[str, subprocess.Popen]] = {}
    try:
        while waiting or running:
            for core in [core for core in cores if core not in running]:
                if waiting:
                    running[core] = waiting[0], start(waiting.pop(0), core)
            time.sleep(1.0)
            for core, (name, process) in list(running.items()):
                if process.poll() is not None:
                    del running[core]
                    print(
                        f"{name}: {'done' if process.returncode == 0 else f'failed with {process.returncode}'}, {len(waiting)} left"
                    )
                    summarise()
    finally:
        for _, process in running.values():
            process.kill()


def start(part: str, core: int) -> subprocess.Popen:
    """A process for one part, on one core; what it prints is in a log beside its results."""
    _, arm, seed = part.split(":")
    folder = folder_of(arm, int(seed))
    folder.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    with (folder / "log.txt").open("ab") as log:
        process = subprocess.Popen([sys.executable, *sys.argv, f"--part={part}"], env=environment, stdout=log, stderr=log)
    os.sched_setaffinity(process.pid, {core})
    return process


def summarise() -> None:
    """Writes what there is to `results/ablation_DATA.json`, with its picture."""
    root = pathlib.Path(_FOLDER.value) / data_name()
    arms: dict[str, dict[int, dict]] = {}
    for arm in ARMS:
        for path in sorted(root.glob(f"{arm}-*/scores.json")):
            if path.parent.name.removeprefix(f"{arm}-").isdigit():
                arms.setdefault(arm, {})[int(path.parent.name.removeprefix(f"{arm}-"))] = json.loads(path.read_text())
    if not arms:
        return
    seed = int(_SEEDS.value[0])
    rows = {str(path.relative_to(root)): read_lines(path) for path in sorted(root.glob("*/*.jsonl"))}
    rankings = {arm: found for arm in TAU_ARMS if (found := rows.get(f"{arm}-{seed}/ranking.jsonl"))}
    alone_rows = rows.get(f"full-{seed}/alone.jsonl", [])
    name = result_name()
    results = {
        "table": ablation_summary.table_of(arms),
        "picture": f"results/{name}.png",
        "arms": arms,
        "ranking": {arm: ablation_summary.tau(found) for arm, found in rankings.items()},
        "rows": rows,
    }
    seeds = sorted({seed for scores in arms.values() for seed in scores})
    records.write(name, seeds, results, ablation_summary.bars_of(arms, rankings, alone_rows))
    ablation_summary.draw(arms, records.RESULTS / f"{name}.png")


def main(argv: list[str]) -> None:
    """Does what is left and writes `results/ablation_DATA.json`."""
    del argv
    if _QUICK.value:
        flags.FLAGS.arms, flags.FLAGS.seeds, flags.FLAGS.space, flags.FLAGS.epochs = ["full", "no_warm_up"], ["0"], "digits", 3.0
        flags.FLAGS.ranking = flags.FLAGS.alone = False
        flags.FLAGS.folder = f"{_FOLDER.value}_quick"
    if _PART.value:
        do(_PART.value)
        return
    run_parts()
    summarise()


if __name__ == "__main__":
    app.run(main)
