"""Reads an output folder into frozen records. What is missing or not a finite number becomes None, never an error."""

import csv
import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from daqu_tf.data.photos import Preprocessing
from daqu_tf.errors import DaquError
from daqu_tf.export.manifest import Manifest
from daqu_tf.oracle.records import COMPLETED, FAILED, INVALID, last_records

_COSTS = ("latency_us", "file_bytes", "deflated_bytes")


@dataclasses.dataclass(frozen=True)
class StoredLayer:
    """A layer with weights: its name, bits, the container the file stores it in, and its number of weights."""

    name: str
    weight_bits: int
    activation_bits: int | None
    container: str
    weights: int


@dataclasses.dataclass(frozen=True)
class Member:
    """A model of the Pareto set.

    Attributes:
        name: The model's name, such as `m00`.
        file: The name of the model's file.
        on_front: Whether nothing else in the set dominates it.
        subnet_text: The subnet in one line.
        genome: The genome, its numbers parted by spaces.
        sha256: Hash of the file.
        search_inherited: Accuracy on the search split with inherited weights, in [0, 1]; the next six alike.
        search_fine_tuned: Accuracy on the search split after fine-tuning, simulated.
        search_file: Accuracy on the search split, computed by the file.
        test_inherited: On the test split, inherited weights.
        test_fine_tuned: On the test split, fine-tuned, simulated.
        test_file: On the test split, computed by the file.
        top1_agreement: Part of the test images on which file and simulation name the same class.
        costs: latency_us, file_bytes, deflated_bytes and whatever else has a price, by name.
        latency_p90_us: 90th percentile of the latency.
        latency_spread_us: Half the interquartile range of the latency samples.
        latency_flags: What makes the latency doubtful, as `devices.steadiness` says.
        predicted_us: The latency by the latency table, if the search had one.
        predicted_error: The relative error of that prediction, which 9 of 10 subnets keep within.
        runtime: Runtime, version and threads, in one line.
        device: Fingerprint of the device that timed it.
        layers: The layers with weights, in order.
        input: How images are read in: height, width, offset, scale.
        preprocessing: What becomes of a photo before the file reads it; None of files of before, which do not state it.
        class_names: The name of each class, by its number.
        steps: The steps of the model's fine-tuning.
    """

    name: str
    file: str
    on_front: bool
    subnet_text: str
    genome: str
    sha256: str
    search_inherited: float | None
    search_fine_tuned: float | None
    search_file: float | None
    test_inherited: float | None
    test_fine_tuned: float | None
    test_file: float | None
    top1_agreement: float | None
    costs: dict[str, float]
    latency_p90_us: float | None
    latency_spread_us: float | None
    latency_flags: tuple[str, ...]
    predicted_us: float | None
    predicted_error: float | None
    runtime: str
    device: dict[str, Any]
    layers: tuple[StoredLayer, ...]
    input: dict[str, float]
    preprocessing: Preprocessing | None
    class_names: tuple[str, ...]
    steps: float | None

    @property
    def search(self) -> float | None:
        """The accuracy on the search split of what ships, as near to the file as is known; the front goes by it."""
        return _first(self.search_file, self.search_fine_tuned, self.search_inherited)

    @property
    def test(self) -> float | None:
        """The accuracy on the test split of what ships, as near to the file as is known."""
        return _first(self.test_file, self.test_fine_tuned, self.test_inherited)

    @property
    def int4_layers(self) -> int:
        """How many layers the file stores as packed INT4."""
        return sum(layer.container == "INT4" for layer in self.layers)

    @property
    def mean_weight_bits(self) -> float | None:
        """Bits of the average weight."""
        weights = sum(layer.weights for layer in self.layers)
        return sum(layer.weight_bits * layer.weights for layer in self.layers) / weights if weights else None


LEAST_SUPERNET_STEPS, LEAST_FINE_TUNING_STEPS = 200, 100  # With fewer, a training has hardly begun (ours).


@dataclasses.dataclass(frozen=True)
class Run:
    """Everything the report shows.

    Attributes:
        config: config.json.
        costs: The objectives besides accuracy.
        members: The Pareto set, the most accurate first.
        trials: The metrics of each completed trial.
        failed_trials: How many trials failed.
        training: The rows of training.csv, numbers as floats.
        timeline: (stage, seconds).
    """

    config: dict[str, Any]
    costs: tuple[str, ...]
    members: tuple[Member, ...]
    trials: tuple[dict[str, float | None], ...]
    failed_trials: int
    training: tuple[dict[str, Any], ...]
    timeline: tuple[tuple[str, float], ...]

    @property
    def front(self) -> tuple[Member, ...]:
        """The members that no other one dominates."""
        return tuple(member for member in self.members if member.on_front)

    @property
    def starved(self) -> str:
        """Why the results mean little, as a sentence; empty where training had time for more than a beginning."""
        supernet = _at(dict(self.training[-1]), "step") if self.training else None
        steps = sorted(member.steps for member in self.members if member.steps is not None)
        median = steps[len(steps) // 2] if steps else None
        told = [("supernet", supernet, LEAST_SUPERNET_STEPS), ("median model", median, LEAST_FINE_TUNING_STEPS)]
        short = [
            f"the {what} was trained for {count:.0f} steps" for what, count, least in told if count is not None and count < least
        ]
        return f"These results mean little: {' and '.join(short)}. Give the run a longer budget." if short else ""


def read(folder: pathlib.Path) -> Run:
    """Reads the output folder of a run; config.json and pareto.json must be there.

    Raises:
        DaquError: One of the two files is not there, or a file is damaged.
    """
    config, pareto = _json(folder / "config.json", dict), _json(folder / "pareto.json", dict)
    try:
        costs = tuple(each["name"] for each in pareto["objectives"] if each["name"] != "accuracy")
        members = sorted((member_of(each, costs) for each in pareto["members"]), key=lambda member: -(member.test or 0))
        trials, failed = _trials(folder / "search")
        timeline = _json(folder / "timeline.json", list) if (folder / "timeline.json").exists() else []
        stages = tuple((str(each["stage"]), number(each["seconds"]) or 0.0) for each in timeline)
    except (KeyError, TypeError, AttributeError) as error:
        raise DaquError(
            f"The files in {folder} are not those of a run ({type(error).__name__}: {error}): "
            "run daqu-run with this output folder again."
        ) from error
    return Run(config, costs, tuple(members), trials, failed, _training(folder / "training.csv"), stages)


def _first(*values: float | None) -> float | None:
    """The first value that is known."""
    return next((value for value in values if value is not None), None)


def number(value: Any) -> float | None:
    """Returns a finite number as float, and None for all else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _json(path: pathlib.Path, kind: type) -> Any:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, kind):
            raise ValueError(f"it holds a {type(value).__name__}")
        return value
    except OSError as error:
        raise DaquError(
            f"{path} cannot be read ({error.strerror}): give the output folder of a run that reached its front."
        ) from error
    except ValueError as error:
        raise DaquError(f"{path} is damaged ({error}): run daqu-run with this output folder again.") from error


def _at(value: Any, *keys: str) -> float | None:
    """The number under nested keys, or None."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return number(value)


def member_of(content: Mapping[str, Any], objectives: tuple[str, ...] = ()) -> Member:
    """What the report shows of a manifest.

    Args:
        content: The manifest as a JSON object.
        objectives: Figures to keep beside the usual costs.
    """
    manifest = Manifest.from_json(content)
    latency = manifest.latency or {}
    names = dict.fromkeys((*_COSTS, *objectives, "macs", "parameters"))
    costs = {name: number(content.get(name)) for name in names} | {"latency_us": number(latency.get("median_us"))}
    return Member(
        name=str(manifest.name),
        file=str(manifest.file),
        on_front=manifest.on_front in (None, True),
        subnet_text=str(manifest.subnet_text),
        genome=" ".join(map(str, manifest.genome or ())),
        sha256=str(manifest.sha256),
        **{
            f"{split}_{state}": _at(manifest.accuracy, state, split)
            for split in ("search", "test")
            for state in ("inherited", "fine_tuned", "file")
        },
        top1_agreement=number(manifest.top1_agreement),
        costs={name: value for name, value in costs.items() if value is not None},
        latency_p90_us=number(latency.get("p90_us")),
        latency_spread_us=_spread(latency.get("samples_us") or ()),
        latency_flags=tuple(map(str, latency.get("flags") or ())),
        predicted_us=_at(manifest.predicted_latency, "us"),
        predicted_error=_at(manifest.predicted_latency, "p90_error"),
        runtime=_runtime(latency),
        device=latency["device"] if isinstance(latency.get("device"), dict) else {},
        layers=tuple(_layer(layer) for layer in manifest.layers),
        input={key: found for key, value in manifest.input.items() if (found := number(value)) is not None},
        preprocessing=Preprocessing.from_json(manifest.preprocessing) if manifest.preprocessing else None,
        class_names=tuple(map(str, manifest.class_names)),
        steps=_at(manifest.fine_tuning, "steps"),
    )


def _runtime(latency: Mapping[str, Any]) -> str:
    words = [str(latency[key]) for key in ("runtime", "runtime_version") if key in latency]
    threads = latency.get("threads")
    return " ".join(words) + (f", {threads} thread{'' if threads == 1 else 's'}" if threads else "")


def _layer(layer: Mapping[str, Any]) -> StoredLayer:
    return StoredLayer(
        str(layer["name"]),
        int(layer["weight_bits"]),
        layer.get("input_activation_bits"),
        str(layer.get("container", "")),
        int(layer.get("weights", 0)),
    )


def _spread(samples: Sequence[float]) -> float | None:
    """Half the interquartile range."""
    ordered = sorted(samples)
    return (ordered[len(ordered) * 3 // 4] - ordered[len(ordered) // 4]) / 2 if ordered else None


def _trials(folder: pathlib.Path) -> tuple[tuple[dict[str, float | None], ...], int]:
    """The metrics of completed trials, and the number of failed ones."""
    found = [record for path in sorted(folder.rglob("trials.jsonl")) for record in last_records(path)]
    done = tuple(record.metrics for record in found if record.status == COMPLETED and record.metrics is not None)
    return done, sum(record.status in (FAILED, INVALID) for record in found)


def _training(path: pathlib.Path) -> tuple[dict[str, Any], ...]:
    if not path.exists():
        return ()
    with open(path, encoding="utf-8", newline="") as file:
        return tuple({key: _cell(value) for key, value in row.items() if key} for row in csv.DictReader(file))


def _cell(text: str | None) -> Any:
    try:
        return number(float(text or "nan"))
    except ValueError:
        return text
