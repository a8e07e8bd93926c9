"""The manifest of a `.tflite` file: the JSON file beside it that says what it is. No TensorFlow."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from daqu_tf import files

ENDING = ".manifest.json"


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What is known of a file; what is not known is None or empty.

    Attributes:
        name: The model's name, such as `m00`.
        file: The file's name.
        sha256: The file's hash, in hex.
        file_bytes: The file's size.
        deflated_bytes: The file's size after DEFLATE, which is what a user downloads.
        space: The name of the search space.
        storage: How the file stores the network: the fields of a `targets.Storage`.
        dataset: The name of the data set.
        dataset_fingerprint: The hash of its images and labels, as in `data.Dataset`.
        input: How images are read: `height`, `width`, `offset` and `scale`.
        ends: The meaning of input and output: `input_type`, `input_range` (the numbers that the network takes for pixels of 0 and
            of 255), `output_type`, `output_activation` and `left_out`, as an `export.ends.ExportedFile` has them.
        preprocessing: What becomes of a photo before the file reads it: the fields of a `data.photos.Preprocessing`.
        class_names: The name of each class, by its number.
        subnet: The value of each gene that acts, by its name.
        subnet_text: The subnet in one line.
        layers: The layers with weights, in order: name, kind, bits, container and number of weights of each.
        accuracy: Accuracies in [0, 1] by state (`inherited`, `fine_tuned`, or `file`, what the file computes) and split (`search`,
            `test`).
        top1_agreement: The part of the test images on which file and network name the same class.
        macs: Multiplications for one image.
        parameters: Number of weights and biases.
        genome: The subnet as a vector of indices; None of a subnet in full precision, which has none.
        bitops: Sum over layers of MACs, weight bits and activation bits multiplied; None in full precision.
        bit_packed_bytes: Bytes of the weights if each took its bits and no more; None in full precision.
        target: The name of the target that the file was exported for.
        seed: The seed of the run, and so of its splits.
        fine_tuning: How the weights were fine-tuned: the fields of a `FineTuning`, and the steps that were taken.
        commands: Command lines that make the file from nothing.
        latency: What the device showed, as `devices.Latency.to_json()` gives it.
        predicted_latency: What the latency table had said: `us`, and `p90_error`, the relative error that 9 of 10 subnets keep
            within.
        missed_constraints: The constraints that the file misses by its final figures.
        on_front: Whether no other member of its run dominates it.
    """

    name: str
    file: str = ""
    sha256: str = ""
    file_bytes: int | None = None
    deflated_bytes: int | None = None
    space: str = ""
    storage: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    dataset: str = ""
    dataset_fingerprint: str = ""
    input: Mapping[str, float] = dataclasses.field(default_factory=dict)
    ends: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    preprocessing: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    subnet: Mapping[str, int] = dataclasses.field(default_factory=dict)
    subnet_text: str = ""
    layers: tuple[Mapping[str, Any], ...] = ()
    accuracy: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    top1_agreement: float | None = None
    macs: int | None = None
    parameters: int | None = None
    genome: tuple[int, ...] | None = None
    bitops: int | None = None
    bit_packed_bytes: int | None = None
    target: str | None = None
    seed: int | None = None
    fine_tuning: Mapping[str, Any] | None = None
    commands: tuple[str, ...] | None = None
    latency: Mapping[str, Any] | None = None
    predicted_latency: Mapping[str, float | None] | None = None
    missed_constraints: tuple[str, ...] | None = None
    on_front: bool | None = None

    @property
    def search_accuracy(self) -> float:
        """The accuracy on the search split of what ships, in [0, 1]: the file's, where it is known."""
        return self.accuracy.get("file", {}).get("search", self.accuracy["fine_tuned"]["search"])

    @property
    def figures(self) -> dict[str, Any]:
        """The final figures by the names of metrics; the accuracy is that on the search split, by which members are compared."""
        latency_us = self.latency["median_us"] if self.latency else None
        known = vars(self) | {"accuracy": self.search_accuracy, "latency_us": latency_us}
        return {name: value for name, value in known.items() if value is not None}

    def to_json(self) -> dict[str, Any]:
        """The manifest as a JSON object, without what is not known."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Manifest":
        """The inverse of `to_json`. What an earlier version did not write is not known; what a later one may add is left out."""
        names = [field.name for field in dataclasses.fields(cls)]
        lists = ("class_names", "layers", "genome", "commands", "missed_constraints")
        found: dict[str, Any] = {"name": content["name"]}
        found |= {name: content[name] for name in names if content.get(name) is not None}
        return cls(**found | {name: tuple(found[name]) for name in lists if name in found})

    @classmethod
    def read(cls, path: pathlib.Path) -> "Manifest":
        """The manifest in a JSON file.

        Raises:
            DaquError: The file cannot be read.
        """
        return cls.from_json(files.read_json(path))
