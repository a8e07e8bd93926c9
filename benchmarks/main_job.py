"""The whole job beside what the same core minutes buy by hand: a series of hand-scaled MobileNetV2, in 8 bits by TFMOT.

    python benchmarks/main_job.py --dataset=fashion_mnist.npz --budget_minutes=20 --seeds=0,1,2 --output_dir=runs/main_job

`--series=benchmarks/series/fashion_mnist --augmentation=shift,mirror` takes the series of 20 minutes on two cores that were trained
for the results that stand.

For each seed it trains the series (widths 0.35, 0.5 and 1.0 together get the core minutes of the whole job, a core each), runs the
job with its defaults, then times all files in turn on the idle machine. What counts is the hypervolume of test accuracy and log
latency over that of the series, from one point below the least accurate network made by hand and 1.2 times the slowest one's
latency; and the test accuracy at each hand-made network's latency, interpolated along the front. A second hypervolume counts the
logarithm of bytes too; there each network made by hand has the bytes that our exporter writes for it, at 8 bits and once more at 4,
and is granted its accuracy at both. Cut off, it goes on where it was.

    python benchmarks/main_job.py --dataset=flowers.zip --widths=0.35 --budget_minutes=20 --seeds=0,1,2 --output_dir=runs/flowers
    python benchmarks/main_job.py --dataset=flowers.zip --image_size=96 --init_from=start/width_0.35.keras --output_dir=runs/trained

`--widths` names other networks made by hand. With `--init_from`, a network that `practitioner.py --application` trained, that very
network is fine-tuned by hand, the job begins from it, and what counts is the accuracy at half its latency.
"""

import json
import pathlib
import subprocess
import sys

import numpy as np
import records
from absl import app, flags

QUICK_MINUTES = 3.0

_DATASET = flags.DEFINE_string("dataset", None, "The data set, as daqu-run takes it.", required=True)
_BUDGET = flags.DEFINE_float("budget_minutes", 20.0, "Minutes for daqu-run.")
_SEEDS = flags.DEFINE_list("seeds", ["0"], "The seeds, of both sides.")
_ARGUMENTS = flags.DEFINE_string("arguments", "", "Further flags for daqu-run, of an ablation, which names it.")
_WIDTHS = flags.DEFINE_list("widths", ["0.35", "0.5", "1.0"], "The widths of the networks made by hand.")
_INIT_FROM = flags.DEFINE_string("init_from", None, "A trained network, from which both sides begin.")
_IMAGE_SIZE = flags.DEFINE_string("image_size", "auto", "The size of photos, as daqu-run takes it.")
_AUGMENTATION = flags.DEFINE_string("augmentation", "auto", "What is done to training images, as daqu-run takes it.")
_SERIES = flags.DEFINE_string("series", None, "The folder of series that stand; by default they are in the output folder.")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Where everything goes.", required=True)
_QUICK = flags.DEFINE_bool("quick", False, f"A budget of {QUICK_MINUTES:g} minutes, and one width made by hand.")


def minutes() -> float:
    """Those of the job."""
    return QUICK_MINUTES if _QUICK.value else _BUDGET.value


def widths() -> list[str]:
    """Those of the networks made by hand."""
    return _WIDTHS.value[:1] if _QUICK.value or _INIT_FROM.value else _WIDTHS.value


def common() -> list[str]:
    """The flags of both sides."""
    given = {"dataset": _DATASET.value, "image_size": _IMAGE_SIZE.value, "init_from": _INIT_FROM.value}
    given |= {"augmentation": _AUGMENTATION.value}
    return [f"--{name}={value}" for name, value in given.items() if value]


def train_series(folder: pathlib.Path, seed: int) -> None:
    """All widths, as many at once as there are cores; together they take the core minutes of the job."""
    from daqu_tf import machine

    each = machine.cores() * minutes() / len(widths())
    command = [sys.executable, str(pathlib.Path(__file__).with_name("practitioner.py")), *common()]
    command += [f"--minutes={each:.3f}", f"--seed={seed}", f"--output_dir={folder}"]
    for some in _groups(widths(), machine.cores()):
        processes = [subprocess.Popen([*command, f"--widths={width}"]) for width in some]
        if sum(process.wait() for process in processes):
            sys.exit("A network made by hand failed.")


def _groups(names: list[str], size: int) -> list[list[str]]:
    return [names[start : start + size] for start in range(0, len(names), size)]


def run_job(folder: pathlib.Path, seed: int) -> None:
    """`daqu-run` as a user starts it."""
    settings = {"budget_minutes": minutes(), "seed": seed, "output_dir": folder}
    command = [sys.executable, "-m", "daqu_tf.tools.run", *common(), *(f"--{name}={value}" for name, value in settings.items())]
    subprocess.run([*command, *_ARGUMENTS.value.split()], check=True)


def timed(models: dict[pathlib.Path, float], seed: int) -> list[dict]:
    """Accuracy, latency and bytes of every file; all are timed in turn, five times over."""
    from daqu_tf.devices import HostDevice

    latencies = HostDevice().measure_each(list(models), repeats=5, seed=seed)
    return [
        {"name": path.stem, "test_accuracy": accuracy, "latency_us": latency.median_us, "file_bytes": path.stat().st_size}
        for (path, accuracy), latency in zip(models.items(), latencies)
    ]


def volume(rows: list[dict], theirs: list[dict]) -> float:
    """The hypervolume of test accuracy in points and the logarithm of the latency."""
    from daqu_tf import pareto

    reference = [1 - 100 * min(row["test_accuracy"] for row in theirs), np.log(1.2 * max(row["latency_us"] for row in theirs))]
    points = np.array([[-100 * row["test_accuracy"], np.log(row["latency_us"])] for row in rows])
    return pareto.hypervolume(points, np.array(reference))


def volume_with_bytes(rows: list[dict], theirs: list[dict]) -> float:
    """The hypervolume as of `volume`, with the logarithm of the bytes as a third objective, up to 1.2 times the largest file's."""
    from daqu_tf import pareto

    reference = [1 - 100 * min(row["test_accuracy"] for row in theirs)]
    reference += [np.log(1.2 * max(row[name] for row in theirs)) for name in ("latency_us", "file_bytes")]
    points = np.array([[-100 * row["test_accuracy"], np.log(row["latency_us"]), np.log(row["file_bytes"])] for row in rows])
    return pareto.hypervolume(points, np.array(reference))


def exported(rows: list[dict]) -> list[dict]:
    """The networks made by hand with the bytes of our exporter's files, at 8 bits and at 4."""
    from daqu_tf import data, spaces, targets
    from daqu_tf.export.encoding import encode
    from daqu_tf.latency.block_graph import of_subnet
    from daqu_tf.pipeline.siblings import at_bits
    from daqu_tf.spaces.hand_scaled import scaled

    target, dataset, found = targets.get("litert_cpu"), data.load(_DATASET.value, 0), []
    space = target.restrict(spaces.get("mobilenet_v2").for_images(dataset.image_shape, dataset.num_classes))
    for row in rows:
        network = scaled(space, float(row["name"].removeprefix("width_")))
        for subnet in (network, at_bits(space, network, 4)):
            found.append(row | {"file_bytes": len(encode(of_subnet(space, subnet, target.storage), target.storage))})
    return found


def accuracy_at(rows: list[dict], latency_us: float) -> float:
    """The test accuracy of a front at a latency, linear in its logarithm between members; that of the ends beyond them."""
    best: list[dict] = []
    for row in sorted(rows, key=lambda row: row["latency_us"]):
        if not best or row["test_accuracy"] > best[-1]["test_accuracy"]:
            best.append(row)
    if latency_us < best[0]["latency_us"]:
        return 0.0
    return float(np.interp(np.log(latency_us), np.log([r["latency_us"] for r in best]), [r["test_accuracy"] for r in best]))


def compared(folder: pathlib.Path, seed: int) -> dict:
    """Both sides of one seed."""
    series, job = pathlib.Path(_SERIES.value or folder / "series") / f"seed{seed}", folder / f"job{seed}"
    train_series(series, seed)
    run_job(job, seed)
    members = json.loads((job / "pareto.json").read_text())["members"]
    ours = {job / "models" / m["file"]: m["accuracy"]["file"]["test"] for m in members}
    made = {width: json.loads((series / f"width_{float(width):g}.json").read_text())["figures"] for width in widths()}
    theirs = {series / f"width_{float(width):g}.tflite": each["tflite_accuracy"] for width, each in made.items()}
    rows = timed(ours | theirs, seed)
    mine, by_hand = rows[: len(ours)], rows[len(ours) :]
    for row, member in zip(mine, members):
        row |= {"on_front": member["on_front"], "images": _images(member)}
    for row, figures in zip(by_hand, made.values()):
        row |= {"images": figures["images"], "ours": accuracy_at(mine, row["latency_us"])}
        row["ours_at_half"] = accuracy_at(mine, row["latency_us"] / 2)
    plan = json.loads((job / "config.json").read_text())
    clock = json.loads((job / "clock.json").read_text())["seconds"] / 60
    found = {
        "seed": seed,
        "volume_ratio": volume(mine, by_hand) / volume(by_hand, by_hand),
        "points_ahead": [100 * (row["ours"] - row["test_accuracy"]) for row in by_hand],
        "points_ahead_at_half": [100 * (row["ours_at_half"] - row["test_accuracy"]) for row in by_hand],
        "minutes": clock,
        "planned": plan["forecast"],
        "architectures": plan["flags"]["architectures"],
        "timeline": json.loads((job / "timeline.json").read_text()),
        "ours": mine,
        "by_hand": by_hand,
    }
    if not _INIT_FROM.value:  # What a strange network takes in our files is known of its own space alone.
        theirs_in_bytes = exported(by_hand)
        found["volume_ratio_with_bytes"] = volume_with_bytes(mine, theirs_in_bytes) / volume_with_bytes(
            theirs_in_bytes, theirs_in_bytes
        )
    return found


def _images(member: dict) -> int:
    tuning = member["fine_tuning"]
    return tuning["steps"] * tuning["batch_size"]


def bars_of(results: list[dict]) -> list[dict]:
    """The volume in the median and at worst, the accuracy in the mean and at worst, and the time; or what a trained network has."""
    time = records.bar(
        "wall-clock minutes over the budget", max(r["minutes"] for r in results) / minutes(), 1.1, "at_most", "ratio"
    )
    ratios, ahead = [one["volume_ratio"] for one in results], np.array([one["points_ahead"] for one in results])
    if _INIT_FROM.value:
        at_half = float(np.mean([one["points_ahead_at_half"] for one in results]))
        return [records.bar("test accuracy ahead of the network, at half its latency", at_half, -0.5, "at_least", "points"), time]
    certain = [_certainty(ahead.mean(1))] if len(results) > 1 else []
    return [
        *certain,
        records.bar("hypervolume over that of the series, median", float(np.median(ratios)), 1.05, "at_least", "ratio"),
        records.bar("hypervolume over that of the series, least", min(ratios), 1.0, "at_least", "ratio"),
        records.bar("test accuracy ahead of the series, mean", float(ahead.mean()), 0.5, "at_least", "points"),
        records.bar(
            "test accuracy ahead of the series, least of the means", float(ahead.mean(0).min()), -0.3, "at_least", "points"
        ),
        records.bar(
            "hypervolume with bytes over that of the series, median",
            float(np.median([one["volume_ratio_with_bytes"] for one in results])),
            1.0,
            "at_least",
            "ratio",
        ),
        time,
    ]


def _certainty(ahead: np.ndarray) -> dict:
    """The bar of the mean over seeds in standard errors."""
    error = max(ahead.std(ddof=1) / np.sqrt(len(ahead)), 1e-9)
    return records.bar("test accuracy ahead of the series, in standard errors", float(ahead.mean() / error), 2.0, "at_least", "")


def main(argv: list[str]) -> None:
    """Runs all seeds, and writes the result after each."""
    del argv
    folder, results = pathlib.Path(_OUTPUT_DIR.value), []
    stem = pathlib.Path(_DATASET.value).stem
    kind = "_from_trained" if _INIT_FROM.value else f"_{widths()[0]}" if len(widths()) == 1 else ""
    name = "main_job_quick" if _QUICK.value else f"main_job_{stem}{kind}_{_BUDGET.value:g}{_ARGUMENTS.value.replace('--', '_')}"
    for seed in map(int, _SEEDS.value):
        results.append(compared(folder, seed))
        print(json.dumps({key: results[-1][key] for key in ("seed", "volume_ratio", "points_ahead", "minutes")}), flush=True)
        print(f"Wrote {records.write(name, [r['seed'] for r in results], results, bars_of(results))}")


if __name__ == "__main__":
    app.run(main)
