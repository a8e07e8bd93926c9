"""What a trial of the search measures, and how the oracle is set up for a search space."""

import os
import pathlib
import zlib
from collections.abc import Callable, Sequence

import keras_tuner
import numpy as np

from daqu_tf import costs
from daqu_tf.data import Dataset
from daqu_tf.devices import HostDevice
from daqu_tf.evaluation import Scorer
from daqu_tf.export import export_tflite
from daqu_tf.oracle import ParetoOracle
from daqu_tf.pareto import non_dominated_ranks, select_by_hypervolume
from daqu_tf.space import SearchSpace, Subnet
from daqu_tf.supernet import Supernet
from daqu_tf.targets import Target
from daqu_tf.tuner import DaquTuner
from daqu_tf.weights import cut


class Candidates:
    """Subnets with inherited weights, measured as files: recalibrated, scored on the search split, exported and timed.

    Args:
        supernet: Trained.
        scorer: Of the supernet.
        dataset: The search split decides.
        target: Decides containers and objectives.
        folder: The search's own; the file of the trial in flight lies there.
        images: The most search images a subnet is scored on.
    """

    def __init__(self, supernet: Supernet, scorer: Scorer, dataset: Dataset, target: Target, folder: pathlib.Path, images: int):
        self.supernet, self.target, self.folder = supernet, target, folder
        self.space: SearchSpace = supernet.space
        self._dataset, self._images = dataset, images
        self._scorer = scorer
        self._device = HostDevice()
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
        export_tflite(self.space, subnet, self.target, cut(self.space, subnet, self.supernet.arrays()), path)
        return {
            "latency_us": self._device.measure(path).median_us,
            "file_bytes": os.path.getsize(path),
            "deflated_bytes": len(zlib.compress(path.read_bytes(), 9)),
        }

    def _activate(self, subnet: Subnet) -> None:
        self.supernet.activate(subnet)
        self._scorer.recalibrate()

    def choose(self, trials: Sequence, count: int, max_loss: float) -> list[dict]:
        """The `count` trials that span the most hypervolume, over accuracy and the logarithms of the costs.

        Args:
            trials: Best first: the front, then the next fronts, which fill up where the front alone is too short.
            count: How many, at most.
            max_loss: Trials further below the best accuracy than this are left out, unless too few remain.
        """
        objectives = self.target.objectives
        metrics = [{name: trial.metrics.get_best_value(name) for name, _ in objectives} for trial in trials]
        best = max(metric["accuracy"] for metric in metrics)
        good = [index for index, metric in enumerate(metrics) if metric["accuracy"] >= best - max_loss]
        good = good if len(good) >= count else list(range(len(metrics)))
        points = np.array([[_minimised(metrics[i][name], way) for name, way in objectives] for i in good])
        points = (points - points.min(axis=0)) / np.maximum(np.ptp(points, axis=0), 1e-9)
        chosen = []
        # A front at a time, since a dominated trial adds no hypervolume; fine-tuning may yet turn the order round.
        for rank in np.unique(ranks := non_dominated_ranks(points)):
            members = np.flatnonzero(ranks == rank)
            room = min(count - len(chosen), len(members))
            if room > 0:
                picked = select_by_hypervolume(points[members], room, np.full(len(objectives), 1.1))
                chosen += [good[members[index]] for index in picked]
        return [self._finalist(trials[index], metrics[index]) for index in chosen]

    def _finalist(self, trial, metrics: dict[str, float]) -> dict:
        subnet = self.space.subnet(trial.hyperparameters.values)
        self._activate(subnet)
        # For the report alone: nothing is chosen by the accuracy on test.
        splits = (("search", self._dataset.x_search, self._dataset.y_search), ("test", self._dataset.x_test, self._dataset.y_test))
        inherited = {split: self._scorer.accuracy(x, y) for split, x, y in splits}
        macs = costs.macs(self.space, subnet)
        return {"trial": trial.trial_id, "values": subnet.to_json(), "macs": macs, "search": metrics, "inherited": inherited}


def _minimised(value: float, direction: str) -> float:
    return -value if direction == "max" else float(np.log(value))


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
