"""What a trial of the search measures."""

import contextlib
import pathlib
import zlib
from collections.abc import Iterator, Sequence

import keras_tuner
import numpy as np

from daqu_tf import targets
from daqu_tf.data.dataset import Dataset
from daqu_tf.data.images import first
from daqu_tf.devices import Device, DeviceLostError, DeviceSetupError, HostDevice
from daqu_tf.errors import DaquError, WriteError
from daqu_tf.export.encoding import encode, write
from daqu_tf.export.subnet_graph import round_biases, to_graph
from daqu_tf.latency.table import LatencyTable
from daqu_tf.pareto.constraints import Constraint
from daqu_tf.search.timing_turns import TimingTurns
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.subnet import Subnet
from daqu_tf.supernet.scoring import Scorer
from daqu_tf.supernet.supernet import Supernet
from daqu_tf.supernet.weights import cut
from daqu_tf.targets import costs
from daqu_tf.targets.target import Target


class SearchStoppedError(DaquError, keras_tuner.errors.FatalError):
    """The device is lost or the disk is full: no trial fails by that, and the search goes on from there when it is called again."""


class Candidates:
    """Subnets with inherited weights, measured as files: recalibrated, scored on the search split, exported and timed.

    Args:
        supernet: The trained supernet.
        scorer: What recalibrates and scores the supernet's active subnet.
        dataset: The images and labels, of which the search split decides.
        target: The target, which decides containers and objectives.
        folder: The search's own folder, in which the file of the trial in flight lies.
        images: The most search images a subnet is scored on.
        latency: What times the files, or the table that says what that would show.
        constraints: Constraints on metrics, which are reported beside the target's objectives.
        name: The name of the file, and of the worker where there are several.
        searched: The part of the supernet's space from which trials are taken; None takes all of it.
        objectives: The objectives of the search; None takes the target's.
    """

    def __init__(
        self,
        supernet: Supernet,
        scorer: Scorer,
        dataset: Dataset,
        target: Target,
        folder: pathlib.Path,
        images: int,
        latency: Device | LatencyTable,
        constraints: Sequence[Constraint] = (),
        name: str = "trial",
        searched: SearchSpace | None = None,
        objectives: Sequence[tuple[str, str]] | None = None,
    ):
        self.supernet, self.target, self.folder = supernet, target, folder
        self.space: SearchSpace = supernet.space
        self.searched, self.objectives = searched or supernet.space, tuple(objectives or target.objectives)
        self._dataset, self._images = dataset, images
        self._scorer = scorer
        self._latency = latency
        self.constraints = tuple(constraints)
        self._path = folder / f"{name}.tflite"
        is_elsewhere = isinstance(latency, LatencyTable) or latency.identity()["kind"] != HostDevice.kind
        self.turns = TimingTurns(folder, is_elsewhere)
        folder.mkdir(parents=True, exist_ok=True)

    def evaluate(self, values: dict[str, int]) -> dict[str, float]:
        """The objectives and constrained metrics of the subnet with these values; those of a file from the one to ship."""
        subnet = self.space.subnet(values)
        wanted = dict.fromkeys([*(name for name, _ in self.objectives), *(one.metric for one in self.constraints)])
        with self.turns.computing():
            metrics = self._computed(subnet)
            predicted = {"latency_us"} if isinstance(self._latency, LatencyTable) else set()
            if wanted.keys() - metrics.keys() - predicted:
                metrics |= self._file_metrics(subnet)
        if "latency_us" in wanted:
            metrics["latency_us"] = self._latency_us(subnet)
        return {name: float(metrics[name]) for name in wanted}

    def _computed(self, subnet: Subnet) -> dict[str, float]:
        self.supernet.activate(subnet)
        self._scorer.recalibrate()
        with self._as_stored(subnet):
            accuracy = self._scorer.accuracy(first(self._dataset.x_search, self._images), self._dataset.y_search[: self._images])
        return {"accuracy": accuracy, **{name: getattr(costs, name)(self.space, subnet) for name in targets.COMPUTED}}

    def known(self, many: list[dict[str, int]]) -> dict[str, np.ndarray]:
        """What is known of subnets before they are scored: all computed costs, and a table's latencies."""
        genomes = self.space.genomes(many)
        found = dict(costs.of_many(self.space, genomes, self.target))
        if isinstance(self._latency, LatencyTable):
            found["latency_us"] = self._latency.predict_many(self.space, genomes)
        return found

    def _file_metrics(self, subnet: Subnet) -> dict[str, float]:
        arrays = cut(self.space, subnet, self.supernet.arrays())
        storage = self.target.storage
        data = encode(to_graph(self.space, subnet, arrays, storage), storage)
        try:
            write(data, self._path)
        except WriteError as error:
            raise SearchStoppedError(f"The search stopped, and goes on with the same command: {error}") from error
        content = self._path.read_bytes()
        return {"file_bytes": len(content), "deflated_bytes": len(zlib.compress(content, 9))}

    def _latency_us(self, subnet: Subnet) -> float:
        """Raises `SearchStoppedError` if no other file would fare better on the device."""
        if isinstance(self._latency, LatencyTable):
            return self._latency.predict(self.space, subnet)
        try:
            with self.turns.timing():
                (latency,) = self._latency.measure_many([self._path], repeats=1, retries=1)
            return latency.median_us
        except (DeviceLostError, DeviceSetupError) as error:
            raise SearchStoppedError(f"The search stopped, and goes on with the same command: {error}") from error

    @contextlib.contextmanager
    def _as_stored(self, subnet: Subnet) -> Iterator[None]:
        """The active subnet computes what its file would, whose biases are rounded; afterwards the weights are as they were."""
        arrays = self.supernet.arrays()
        rounded = round_biases(self.space, subnet, cut(self.space, subnet, arrays), self.target.storage)
        self.supernet.load_arrays(arrays | {name: _with_first(arrays[name], part) for name, part in rounded.items()})
        try:
            yield
        finally:
            self.supernet.load_arrays(arrays)

    def exact_accuracy(self, subnet: Subnet, split: str) -> float:
        """The accuracy in [0, 1] of a subnet with inherited weights on a whole split, after a longer recalibration than a trial's.

        Args:
            subnet: The subnet.
            split: `search` or `test`.
        """
        self.supernet.activate(subnet)
        self._scorer.recalibrate(thoroughly=True)
        with self._as_stored(subnet):
            return self._scorer.accuracy(getattr(self._dataset, f"x_{split}"), getattr(self._dataset, f"y_{split}"))


def _with_first(array: np.ndarray, part: np.ndarray) -> np.ndarray:
    """An array whose first elements are those of a part, which belongs to the first channels."""
    return np.concatenate([part, array[len(part) :]])
