"""What a trial of the search measures, and how the oracle is set up for a search space."""

import os
import pathlib
import zlib
from collections.abc import Callable, Sequence

import keras_tuner
import numpy as np

from daqu_tf import costs
from daqu_tf.data import Dataset
from daqu_tf.devices import Device, DeviceLostError, DeviceSetupError
from daqu_tf.errors import DaquError
from daqu_tf.evaluation import Scorer
from daqu_tf.export import encode, write
from daqu_tf.latency import LatencyTable
from daqu_tf.oracle import ParetoOracle
from daqu_tf.space import SearchSpace, Subnet
from daqu_tf.subnet_graph import to_graph
from daqu_tf.supernet import Supernet
from daqu_tf.targets import Target
from daqu_tf.tuner import DaquTuner
from daqu_tf.weights import cut


class SearchStoppedError(DaquError, keras_tuner.errors.FatalError):
    """The device is lost or has to be mended: no trial fails by that, and the search goes on from there when it is called again."""


class Candidates:
    """Subnets with inherited weights, measured as files: recalibrated, scored on the search split, exported and timed.

    Args:
        supernet: Trained.
        scorer: Of the supernet.
        dataset: The search split decides.
        target: Decides containers and objectives.
        folder: The search's own; the file of the trial in flight lies there.
        images: The most search images a subnet is scored on.
        latency: What times the files, or the table that says what that would show.
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
    ):
        self.supernet, self.target, self.folder = supernet, target, folder
        self.space: SearchSpace = supernet.space
        self._dataset, self._images = dataset, images
        self._scorer = scorer
        self._latency = latency
        folder.mkdir(parents=True, exist_ok=True)

    def evaluate(self, values: dict[str, int]) -> dict[str, float]:
        """The target's objectives of the subnet with these values; those of a file from the very one that would ship."""
        subnet = self.space.subnet(values)
        self._activate(subnet)
        accuracy = self._scorer.accuracy(self._dataset.x_search[: self._images], self._dataset.y_search[: self._images])
        metrics = {"accuracy": accuracy, "bitops": costs.bitops(self.space, subnet)}
        metrics["bit_packed_bytes"] = costs.bit_packed_bytes(self.space, subnet)
        wanted = [name for name, _ in self.target.objectives]
        if not metrics.keys() >= set(wanted):
            metrics |= self._file_metrics(subnet)
        return {name: float(metrics[name]) for name in wanted}

    def _file_metrics(self, subnet: Subnet) -> dict[str, float]:
        path = self.folder / "trial.tflite"
        arrays = cut(self.space, subnet, self.supernet.arrays())
        storage = self.target.storage
        write(encode(to_graph(self.space, subnet, arrays, storage), storage), path)
        return {
            "latency_us": self._latency_us(subnet, path),
            "file_bytes": os.path.getsize(path),
            "deflated_bytes": len(zlib.compress(path.read_bytes(), 9)),
        }

    def _latency_us(self, subnet: Subnet, path: pathlib.Path) -> float:
        """Raises `SearchStoppedError` if no other file would fare better on the device."""
        if isinstance(self._latency, LatencyTable):
            return self._latency.predict(self.space, subnet)
        try:
            (latency,) = self._latency.measure_many([path], repeats=1, retries=1)
            return latency.median_us
        except (DeviceLostError, DeviceSetupError) as error:
            raise SearchStoppedError(f"The search stopped, and goes on with the same command: {error}") from error

    def _activate(self, subnet: Subnet) -> None:
        self.supernet.activate(subnet)
        self._scorer.recalibrate()

    def choose(self, trials: Sequence, count: int, max_loss: float) -> list[dict]:
        """The finalists among completed trials: the most accurate ones, spread over the target's first cost.

        Args:
            trials: Best first.
            count: How many, at most.
            max_loss: See `spread`.
        """
        metrics = [{name: trial.metrics.get_best_value(name) for name, _ in self.target.objectives} for trial in trials]
        points = np.array([list(metric.values())[:2] for metric in metrics])
        return [self._finalist(trials[index], metrics[index]) for index in spread(*points.T, count, max_loss)]

    def _finalist(self, trial, metrics: dict[str, float]) -> dict:
        subnet = self.space.subnet(trial.hyperparameters.values)
        self._activate(subnet)
        # For the report alone: nothing is chosen by the accuracy on test.
        splits = (("search", self._dataset.x_search, self._dataset.y_search), ("test", self._dataset.x_test, self._dataset.y_test))
        inherited = {split: self._scorer.accuracy(x, y) for split, x, y in splits}
        macs = costs.macs(self.space, subnet)
        return {"trial": trial.trial_id, "values": subnet.to_json(), "macs": macs, "search": metrics, "inherited": inherited}


def spread(accuracies: np.ndarray, prices: np.ndarray, count: int, max_loss: float) -> list[int]:
    """The most accurate of each of `count` equal steps of the logarithm of the price.

    Not what adds most to the hypervolume that inherited accuracies span: a supernet trains its smallest subnet in every step and
    flatters it, so that those of middle size, which gain most from fine-tuning, would be left out.

    Args:
        accuracies: Shape (n,), the best first where they tie.
        prices: Shape (n,), positive.
        count: How many, at most.
        max_loss: Those further below the best accuracy than this are left out, unless too few remain.

    Returns:
        At most `count` indices; where a step is empty, the first ones left fill up.
    """
    good = np.flatnonzero(accuracies >= accuracies.max() - max_loss)
    good = good if len(good) >= count else np.arange(len(accuracies))
    edges = np.geomspace(prices[good].min(), prices[good].max(), count + 1)
    steps = np.searchsorted(edges[1:-1], prices[good])
    chosen = [max(good[steps == step], key=lambda index: accuracies[index]) for step in np.unique(steps)]
    rest = [index for index in good if index not in chosen]
    return [int(index) for index in (*chosen, *rest)[:count]]


def make_tuner(
    candidates: Candidates,
    max_trials: int,
    seed: int,
    on_progress: Callable,
    deadline: Callable[[], bool],
) -> DaquTuner:
    """A tuner over the candidates' space, its journal in the candidates' folder.

    Args:
        candidates: What is measured.
        max_trials: The most trials.
        seed: Of the oracle.
        on_progress: Called with tuner and trial after every trial.
        deadline: Whether the time is up.
    """
    space = candidates.space
    oracle = ParetoOracle(
        [keras_tuner.Objective(name, direction) for name, direction in candidates.target.objectives],
        max_trials=max_trials,
        hyperparameters=space.to_hyperparameters(),
        seed=seed,
        initial_design=[space.subnet(values).to_json() for values in first_design(space)],
        initial_random=min(24, max_trials - len(first_design(space))),
        canonicalise=lambda values: space.subnet(values).to_json(),
        sample=lambda rng: space.sample_by_gene(rng).to_json(),
        identity={"space": space.to_json(), "target": candidates.target.name},
    )
    folder = candidates.folder
    return DaquTuner(
        oracle,
        candidates.evaluate,
        directory=str(folder.parent),
        project_name=folder.name,
        on_progress=on_progress,
        deadline=deadline,
    )


def first_design(space: SearchSpace) -> list[dict[str, int]]:
    """The largest and the smallest architecture at every uniform weight width."""
    ends = (space.largest(), space.smallest())
    bits = space.activation_bits[-1]
    return [end.with_bits(width, bits).to_json() for end in ends for width in space.weight_bits]
