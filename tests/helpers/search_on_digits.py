"""A search of the untrained `digits` supernet, for tests of where its latencies come from."""

import pathlib

from daqu_tf import data, targets
from daqu_tf.devices import Device
from daqu_tf.latency.table import LatencyTable
from daqu_tf.search.candidates import Candidates
from daqu_tf.search.search import make_tuner
from daqu_tf.search.tuner import DaquTuner
from daqu_tf.supernet.scoring import Scorer

TARGET = targets.get("litert_cpu")


class DigitsSearch:
    """Makes tuners of one supernet, which differ in the device.

    Args:
        supernet: Of the space `digits`.
        folder: Of the searches, each of which has one in there.
    """

    def __init__(self, supernet, folder: pathlib.Path):
        self.dataset = data.load("digits", 0)
        self.supernet, self.scorer, self.folder = supernet, Scorer(supernet, self.dataset.x_train), folder

    def tuner(self, name: str, latency: Device | LatencyTable, trials: int) -> DaquTuner:
        """A tuner that stops after so many trials; of the same name, it goes on."""
        folder = self.folder / name
        candidates = Candidates(self.supernet, self.scorer, self.dataset, TARGET, folder, 100, latency)

        def is_over() -> bool:
            return len(made.oracle.end_order) >= trials

        made = make_tuner(candidates, 60, 0, lambda tuner, trial: None, is_over)
        return made
