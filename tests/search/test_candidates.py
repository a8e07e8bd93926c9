import types

import numpy as np
import pytest

from daqu_tf import spaces, targets
from daqu_tf.errors import DaquError
from daqu_tf.pareto.constraints import parse
from daqu_tf.search.candidates import Candidates
from daqu_tf.search.finalists import choose, spread
from daqu_tf.search.search import first_design, make_tuner
from daqu_tf.targets import costs

SPACE, TARGET = spaces.get("digits"), targets.get("litert_cpu")


def test_the_most_accurate_of_each_step_of_the_price():
    prices = np.array([10.0, 12.0, 30.0, 35.0, 90.0, 300.0, 1000.0])  # Steps end at 31.6, 100, 316 and 1000.
    accuracies = np.array([0.85, 0.86, 0.84, 0.83, 0.87, 0.80, 0.88])
    assert spread(accuracies, prices, 4, max_loss=0.1) == [1, 4, 5, 6]


def test_what_is_far_below_the_best_is_left_out_unless_too_few_remain():
    prices, accuracies = np.array([1.0, 10.0, 100.0]), np.array([0.5, 0.88, 0.9])
    assert spread(accuracies, prices, 2, max_loss=0.05) == [1, 2]
    assert spread(accuracies, prices, 3, max_loss=0.05) == [0, 1, 2]


def test_empty_steps_are_filled_up_and_few_trials_are_all_taken():
    prices, accuracies = np.array([1.0, 1.1, 1.2, 100.0]), np.array([0.9, 0.8, 0.7, 0.95])
    assert spread(accuracies, prices, 3, max_loss=1.0) == [0, 3, 1]
    assert sorted(spread(accuracies, prices, 9, max_loss=1.0)) == [0, 1, 2, 3]
    assert spread(np.array([0.5]), np.array([2.0]), 3, max_loss=1.0) == [0]


# The first design, and a whole search of a space where accuracies are made up but costs are real.


def test_the_first_design_has_the_ends_at_every_width_and_every_resolution():
    design = first_design(TARGET.restrict(SPACE))
    assert len(design) == len(set(design)) == 2 * len(SPACE.weight_bits) + len(SPACE.resolutions) - 1
    assert {subnet["head.weight_bits"] for subnet in design[:5]} == {2, 3, 4, 6, 8}
    assert {subnet["resolution"] for subnet in design} == set(SPACE.resolutions)


def test_the_first_design_of_a_space_that_lacks_widths_in_places():
    narrow = SPACE.restrict(**{"head.weight_bits": (4, 8), "stage1.block1.depthwise.weight_bits": (3,), "stage2.depth": (1,)})
    for subnet in first_design(narrow):
        assert narrow.subnet(subnet.values) == subnet
        assert subnet["stage1.block1.depthwise.weight_bits"] == 3 and subnet["head.weight_bits"] in (4, 8)


class MadeUp(Candidates):
    """Without a network: accuracy grows with MACs and with bits."""

    def __init__(self, folder, constraints=()):
        self.space, self.target, self.folder = TARGET.restrict(SPACE), TARGET, folder
        self.constraints, self._latency = parse(constraints), None
        self.supernet = types.SimpleNamespace(space=self.space)

    def evaluate(self, values):
        priced = {name: float(column[0]) for name, column in self.known([values]).items()}
        bits = np.mean([value for name, value in values.items() if name.endswith("weight_bits")])
        accuracy = 1 - 1 / np.log(priced["macs"]) - 0.1 / bits
        latency_us = priced["macs"] / 1e3 + 5
        return {"accuracy": accuracy, "latency_us": latency_us, **{name: priced[name] for name in ("file_bytes", "deflated_bytes")}}


def search(candidates, trials=60):
    tuner = make_tuner(candidates, trials, 0, None, lambda: False)
    tuner.search()
    return tuner


def test_a_search_under_constraints(tmp_path):
    tuner = search(MadeUp(tmp_path / "search", ["file_bytes<=12000", "latency_us<=20"]))
    trials = list(tuner.oracle.trials.values())
    assert len({str(trial.hyperparameters.values) for trial in trials}) == 60
    assert all(trial.metrics.get_last_value("file_bytes") <= 12000 for trial in trials)  # Known beforehand.
    front = tuner.pareto_trials()
    assert front and all(trial.metrics.get_last_value("latency_us") <= 20 for trial in front)  # Learned.
    for trial in trials:
        subnet = SPACE.subnet(trial.hyperparameters.values)
        assert subnet.to_json() == trial.hyperparameters.values
        assert costs.file_bytes(SPACE, subnet, TARGET) == trial.metrics.get_last_value("file_bytes")


def test_no_finalist_misses_a_constraint(tmp_path):
    candidates = MadeUp(tmp_path / "search", ["accuracy>=2"])
    tuner = search(candidates, 25)
    with pytest.raises(DaquError, match=r"`constraint` must be met by some subnet, but the nearest of 25 has accuracy of 0\.\d+"):
        choose(candidates, tuner.oracle.get_best_trials(25), 3, 0.1)
