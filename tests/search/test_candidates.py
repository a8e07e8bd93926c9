import types

import numpy as np
import pytest

from daqu_tf import spaces, targets
from daqu_tf.errors import DaquError
from daqu_tf.pareto.constraints import parse
from daqu_tf.search.candidates import Candidates
from daqu_tf.search.finalists import best_of_steps, choose, spread
from daqu_tf.search.search import first_design, make_tuner
from daqu_tf.spaces.hand_scaled import hand_scaled
from daqu_tf.targets import costs

SPACE, TARGET = spaces.get("digits"), targets.get("litert_cpu")


PRICES = np.array([10.0, 12.0, 30.0, 35.0, 90.0, 300.0, 1000.0])  # Four steps end at 31.6, 100, 316 and 1000.
ACCURACIES = np.array([0.85, 0.86, 0.84, 0.83, 0.87, 0.80, 0.88])


def by_hand(*places):
    return np.isin(np.arange(len(PRICES)), places)


def test_the_most_accurate_of_each_step_of_the_price():
    assert spread(ACCURACIES, PRICES, 4, by_hand()) == [1, 4, 5, 6]
    assert best_of_steps(ACCURACIES, PRICES, 4, 2) == [1, 0, 4, 3, 5, 6]


def test_who_makes_twice_the_errors_of_the_best_is_left_out():
    accuracies = np.array([0.5, 0.85, 0.9])
    assert spread(accuracies, np.array([1.0, 10.0, 100.0]), 3, np.zeros(3, bool)) == [1, 2]
    # A supernet that has learned little leaves out no more than one that has learned all.
    assert spread(accuracies - 0.4, np.array([1.0, 10.0, 100.0]), 3, np.zeros(3, bool)) == [0, 1, 2]


def test_where_hardly_any_errors_are_made_a_few_do_not_matter():
    assert spread(np.array([0.965, 0.999]), np.array([1.0, 100.0]), 2, np.zeros(2, bool)) == [0, 1]


def test_an_empty_step_stays_empty():
    prices, accuracies = np.array([1.0, 1.1, 1.2, 100.0]), np.array([0.9, 0.93, 0.91, 0.95])
    assert spread(accuracies, prices, 3, np.zeros(4, bool)) == [1, 3]
    assert spread(np.array([0.5]), np.array([2.0]), 3, np.zeros(1, bool)) == [0]


def test_two_networks_made_by_hand_take_the_places_of_others_unless_some_dominate_them():
    assert spread(ACCURACIES, PRICES, 4, by_hand(0)) == [0, 4, 5, 6]
    assert spread(ACCURACIES, PRICES, 4, by_hand(2, 5)) == [1, 4, 5, 6]  # Both are dominated.
    better = ACCURACIES + np.array([0, 0, 0.025, 0, 0, 0, 0])
    assert spread(better, PRICES, 4, by_hand(0, 2, 4, 6)) == [0, 4, 5, 6]  # The least and the most accurate.


# The first design, and a whole search of a space where accuracies are made up but costs are real.


def test_the_first_design_has_the_ends_at_every_width_and_every_resolution():
    design = first_design(TARGET.restrict(SPACE))
    by_hand = hand_scaled(TARGET.restrict(SPACE))
    assert design[: len(by_hand)] == by_hand
    ends = 2 * len(SPACE.weight_bits) + len(SPACE.resolutions) - 1
    assert len(design) == len(set(design)) == len(by_hand) + ends
    assert {subnet["head.weight_bits"] for subnet in design[len(by_hand) : len(by_hand) + 5]} == {2, 3, 4, 6, 8}
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
        self.searched, self.objectives = self.space, TARGET.objectives
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
        choose(candidates, tuner.oracle.get_best_trials(25), 3)
