import types

import numpy as np
import pytest
from families import FAMILIES, smooth_images
from family_supernets import family_supernet

from daqu_tf import spaces, targets
from daqu_tf.spaces.bits import FLOAT_BITS
from daqu_tf.spaces.precisions import in_float
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.stage import Stage
from daqu_tf.supernet.scoring import Scorer
from daqu_tf.targets import costs
from daqu_tf.training import panel
from daqu_tf.training.panel import Panel

DIGITS = spaces.get("digits")
LITERT = targets.get("litert_cpu").restrict(DIGITS)
SPACES = {**spaces.SPACES, **FAMILIES, "litert_cpu": LITERT}
LABELLED = (np.zeros((10, 8, 8, 1), np.float32), np.zeros(10, np.int32))


def one(weight_bits):
    return SearchSpace("one", (8, 8, 1), 10, (8,), 1, (Stage((8,), (1,), (3,), (2,), 2),), (16,), weight_bits, (8,))


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_architectures_ascend_from_the_smallest_to_the_largest(space):
    chosen = panel.architectures(space)
    macs = [costs.macs(space, subnet) for subnet in chosen]
    assert len(chosen) == panel.ARCHITECTURES and macs == sorted(macs)
    assert in_float(chosen[0]) == in_float(space.smallest()) and in_float(chosen[-1]) == in_float(space.largest())
    assert all(space.subnet(subnet.values) == subnet for subnet in chosen)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_no_architecture_is_on_the_panel_twice(space):
    chosen = [in_float(subnet) for subnet in panel.architectures(space)]
    assert len(set(chosen)) == len(chosen) == panel.ARCHITECTURES


def test_architectures_are_the_same_each_time_and_others_for_another_seed():
    assert panel.architectures(DIGITS) == panel.architectures(DIGITS, seed=0) != panel.architectures(DIGITS, seed=1)


@pytest.mark.parametrize("count", [2, 3, 5, 20])
def test_as_many_architectures_as_asked_for(count):
    chosen = panel.architectures(DIGITS, count)
    assert len(chosen) == count and chosen[0] == DIGITS.smallest() and chosen[-1] == DIGITS.largest()


def test_a_space_of_one_architecture_has_a_panel_of_one():
    assert panel.architectures(one(weight_bits=(8,))) == [one(weight_bits=(8,)).largest()]


def test_bits_make_no_other_architecture():
    assert len(panel.architectures(one(weight_bits=(2, 4, 8)))) == 1
    few = FAMILIES["basic"].restrict(width=(8,), depth=(1,), kernel=(3,), expansion=(1,), resolution=(10,))
    chosen = panel.architectures(few)
    assert len({in_float(subnet) for subnet in chosen}) == len(chosen)


class Scores:
    """Stands in for a scorer: the accuracy of a subnet is a function of it."""

    def __init__(self, accuracy):
        self.accuracy, self.asked = accuracy, []

    def evaluate(self, subnets, x, y):
        self.asked.append((list(subnets), x, y))
        return [self.accuracy(subnet) for subnet in subnets]


def splits(x, y):
    """A data set of which only the search split may be seen."""
    return types.SimpleNamespace(x_search=x, y_search=y)


def bits(subnet, kind):
    return {value for name, value in subnet.choices if name.endswith(kind)}


def test_without_open_bits_the_architectures_are_scored_in_float():
    scorer = Scores(lambda subnet: subnet["stage1.width"] / 100 + subnet["stem.width"] / 1000)
    scores = Panel(scorer, DIGITS, splits(*LABELLED)).score(())
    ((subnets, x, y),) = scorer.asked
    assert (x, y) == (pytest.approx(LABELLED[0]), pytest.approx(LABELLED[1]))
    assert [bits(subnet, "_bits") for subnet in subnets] == [{FLOAT_BITS}] * panel.ARCHITECTURES
    accuracies = [scorer.accuracy(subnet) for subnet in panel.architectures(DIGITS)]
    assert scores == {
        "accuracy_smallest": pytest.approx(0.044),
        "accuracy_largest": pytest.approx(0.176),
        "accuracy_mean": pytest.approx(np.mean(accuracies)),
        "gap": pytest.approx(max(accuracies) - min(accuracies)),
        "gap_std": pytest.approx(np.std(accuracies)),
    }


def test_the_gap_is_not_that_of_the_ends():
    middle = panel.architectures(DIGITS)[3].with_bits(FLOAT_BITS, FLOAT_BITS)
    scores = Panel(Scores(lambda subnet: 0.9 if subnet == middle else 0.5), DIGITS, splits(*LABELLED)).score(())
    assert scores["gap"] == pytest.approx(0.4) and scores["accuracy_smallest"] == scores["accuracy_largest"] == 0.5


@pytest.mark.parametrize("space, activation_bits", [(DIGITS, {4: 4, 6: 6}), (LITERT, {4: 8, 6: 8})], ids=["digits", "litert_cpu"])
def test_all_open_bits_have_a_figure_and_the_highest_is_the_panel_s(space, activation_bits):
    scorer = Scores(lambda subnet: max(bits(subnet, "weight_bits")) / 10)
    scores = Panel(scorer, space, splits(*LABELLED)).score((4, 6))
    names = {each: f"accuracy_w{each}a{activation_bits[each]}" for each in (4, 6)}
    assert scores.keys() == {"accuracy_smallest", "accuracy_largest", "accuracy_mean", "gap", "gap_std", *names.values()}
    assert scores["accuracy_mean"] == pytest.approx(0.6) and scores["gap"] == 0
    assert [scores[names[each]] for each in (4, 6)] == pytest.approx([0.4, 0.6])
    for subnets, *_ in scorer.asked:
        for subnet in subnets:
            (weight_bits,) = bits(subnet, "weight_bits")
            assert bits(subnet, "activation_bits") == {activation_bits[weight_bits]}


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_names_are_all_that_a_score_can_have(space):
    of_space = Panel(Scores(lambda subnet: 0.5), space, splits(*LABELLED))
    assert of_space.score(space.weight_bits).keys() == set(of_space.names) and len(set(of_space.names)) == len(of_space.names)
    assert of_space.score(()).keys() < set(of_space.names)


@pytest.mark.parametrize(
    "space, names",
    [
        (DIGITS, ["w2a2", "w3a3", "w4a4", "w6a6", "w8a8"]),
        (LITERT, ["w2a8", "w3a8", "w4a8", "w6a8", "w8a8"]),
        (DIGITS.restrict(weight_bits=(3, 8), activation_bits=(4, 8)), ["w3a4", "w8a8"]),
        (DIGITS.restrict(weight_bits=(8,), activation_bits=(4,)), ["w8a4"]),
    ],
)
def test_what_a_precision_is_called(space, names):
    assert [panel.precision_name(space, each) for each in space.weight_bits] == names


def test_no_more_images_are_scored_than_needed():
    scorer, many = Scores(lambda subnet: 0.5), panel.SCORED_IMAGES + 10
    Panel(scorer, DIGITS, splits(np.zeros((many, 1, 1, 1), np.float32), np.zeros(many, np.int32))).score((8,))
    assert all(len(x) == len(y) == panel.SCORED_IMAGES for _, x, y in scorer.asked)


def test_a_panel_of_a_real_supernet():
    supernet, _ = family_supernet("inverted_residual")
    images = smooth_images(supernet.space, 60, seed=4)
    labels = np.random.default_rng(0).integers(0, 5, 60)
    scorer = Scorer(supernet, smooth_images(supernet.space, 64, seed=3))
    of_supernet = Panel(scorer, supernet.space, splits(images, labels))
    scores = of_supernet.score((4, 8))
    assert {"accuracy_w4a4", "accuracy_w8a8"} < scores.keys() <= set(of_supernet.names)
    accuracies = scorer.evaluate([subnet.with_bits(8, 8) for subnet in panel.architectures(supernet.space)], images, labels)
    assert scores["gap"] == pytest.approx(max(accuracies) - min(accuracies)) and scores["gap"] > 0
    assert (scores["accuracy_smallest"], scores["accuracy_largest"]) == (accuracies[0], accuracies[-1])
    assert all(type(value) is float and 0 <= value <= 1 for value in scores.values())
    assert of_supernet.score((4, 8)) == scores
