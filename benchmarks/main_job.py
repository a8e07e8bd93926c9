"""The whole job beside what a practitioner would have: hand-scaled MobileNetV2 with TFMOT's 8-bit QAT.

    python benchmarks/main_job.py --dataset=fashion_mnist.npz --space=mobilenet_v2_28 --budget_minutes=60 --output_dir=runs/main_job

Trains the baselines (one core each, at once), then runs the job, then times all files in turn on the idle machine, and asks
for each baseline: is there a member of the front with at least its test accuracy less 0.2 points, at most 1.05 times its latency,
and fewer bytes? Cut off, it goes on where it was.
"""

import json
import pathlib
import subprocess
import sys

import records
from absl import app, flags

WIDTHS = {"0.35": ("5", "0.25"), "1.0": ("7", "0.25")}  # Minutes of training, and those of --quick.
ACCURACY_SLACK, LATENCY_SLACK = 0.002, 1.05

_DATASET = flags.DEFINE_string("dataset", None, "A .npz with x_train, y_train, x_test and y_test.", required=True)
_SPACE = flags.DEFINE_string("space", "mobilenet_v2_28", "Search space.")
_BUDGET = flags.DEFINE_float("budget_minutes", 60.0, "Minutes for daqu-run.")
_FINALISTS = flags.DEFINE_integer("finalists", 8, "Front members that daqu-run fine-tunes, at most.")
_SEED = flags.DEFINE_integer("seed", 0, "Of both.")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "Where everything goes.", required=True)
_QUICK = flags.DEFINE_bool("quick", False, "Baselines and job of seconds: the same figures, coarsely, in about four minutes.")


def train_baselines(folder: pathlib.Path) -> None:
    """Both widths at once, a core each."""
    processes = []
    for width, (minutes, quick_minutes) in WIDTHS.items():
        command = [sys.executable, str(pathlib.Path(__file__).with_name("practitioner.py")), f"--dataset={_DATASET.value}"]
        command += [f"--widths={width}", f"--minutes={quick_minutes if _QUICK.value else minutes}", f"--seed={_SEED.value}"]
        processes.append(subprocess.Popen([*command, f"--output_dir={folder}"]))
    if any(process.wait() for process in processes):
        sys.exit("A baseline failed.")


def run_job(folder: pathlib.Path) -> None:
    """`daqu-run` as a user starts it."""
    minutes = 2.0 if _QUICK.value else _BUDGET.value
    settings = {"dataset": _DATASET.value, "space": _SPACE.value, "budget_minutes": minutes}
    settings |= {"finalists": _FINALISTS.value, "seed": _SEED.value}
    command = [sys.executable, "-m", "daqu_tf.tools.run", *(f"--{name}={value}" for name, value in settings.items())]
    subprocess.run([*command, f"--output_dir={folder}"], check=True)


def best_within(front: list[dict], baseline: dict) -> dict:
    """The most accurate member of the front that is as fast as the baseline and smaller."""
    good = [
        member
        for member in front
        if member["latency_us"] <= baseline["latency_us"] * LATENCY_SLACK and member["file_bytes"] < baseline["file_bytes"]
    ]
    return max(good, key=lambda member: member["test_accuracy"], default={"name": None, "test_accuracy": 0.0})


def bars_of(members: list[dict], baselines: list[dict], minutes: float) -> list[dict]:
    """One for each baseline, and one for the time."""
    bars = [
        records.bar(
            f"test accuracy of the best member as fast as {baseline['name']} and smaller",
            best_within(members, baseline)["test_accuracy"],
            round(baseline["test_accuracy"] - ACCURACY_SLACK, 4),
            "at_least",
            "share",
        )
        for baseline in baselines
    ]
    return [*bars, records.bar("wall-clock minutes", minutes, _BUDGET.value, "at_most", "min")]


def timed(models: dict[pathlib.Path, float]) -> list[dict]:
    """Accuracy, latency and bytes of every file; all are timed in turn, five times over."""
    from daqu_tf.devices import HostDevice

    latencies = HostDevice().measure_many(list(models), repeats=5, seed=_SEED.value)
    return [
        {
            "name": path.stem,
            "test_accuracy": accuracy,
            "latency_us": latency.median_us,
            "run_medians_us": latency.run_medians_us,
            "file_bytes": path.stat().st_size,
        }
        for (path, accuracy), latency in zip(models.items(), latencies)
    ]


def main(argv: list[str]) -> None:
    """Runs all parts and writes `results/main_job.json`."""
    del argv
    folder = pathlib.Path(_OUTPUT_DIR.value)
    train_baselines(folder / "baselines")
    run_job(folder / "job")
    front = json.loads((folder / "job" / "pareto.json").read_text())["members"]
    ours = {folder / "job" / "models" / m["file"]: m["accuracy"]["file"]["test"] for m in front if m["on_front"]}
    theirs = {
        folder / "baselines" / f"width_{float(width):g}.tflite": json.loads(
            (folder / "baselines" / f"width_{float(width):g}.json").read_text()
        )["figures"]["tflite_accuracy"]
        for width in WIDTHS
    }
    rows = timed(ours | theirs)
    members, baselines = rows[: len(ours)], rows[len(ours) :]
    for baseline in baselines:
        baseline["rival"] = best_within(members, baseline)["name"]
    minutes = json.loads((folder / "job" / "clock.json").read_text())["seconds"] / 60
    timeline = json.loads((folder / "job" / "timeline.json").read_text())
    results = {"front": members, "baselines": baselines, "minutes": minutes, "timeline": timeline}
    name = "main_job_quick" if _QUICK.value else "main_job"
    print(f"Wrote {records.write(name, [_SEED.value], results, bars_of(members, baselines, minutes))}")


if __name__ == "__main__":
    app.run(main)
