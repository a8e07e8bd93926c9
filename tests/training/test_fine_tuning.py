import numpy as np
import pytest

from daqu_tf import data
from daqu_tf.supernet.scoring import Scorer
from daqu_tf.training import fine_tuning
from daqu_tf.training.checkpoints import Checkpoints
from daqu_tf.training.fine_tuning import FineTuner, FineTuning


@pytest.fixture(scope="module")
def dataset():
    return data.load("digits")


def accuracy(network, dataset):
    return Scorer(network, dataset.x_train).accuracy(dataset.x_search, dataset.y_search)


@pytest.mark.parametrize("least_float_seconds", [0.1, pytest.param(60.0, marks=pytest.mark.slow)])
def test_it_ends_in_a_trained_network_of_the_subnet_s_own_bits(least_float_seconds, digits, dataset, monkeypatch):
    monkeypatch.setattr(fine_tuning, "LEAST_FLOAT_SECONDS", least_float_seconds)
    space = digits.supernet.space
    subnet = space.restrict(weight_bits=(3, 4), activation_bits=(6,)).sample(np.random.default_rng(1))
    network, steps = FineTuner(space, digits.supernet.arrays(), dataset, FineTuning(seconds=4.0, float_share=0.5)).tune(subnet)
    assert network.subnet == subnet and steps > 20
    assert accuracy(network, dataset) > 0.6


def test_subnets_of_one_architecture_share_the_float_phase(digits, dataset, monkeypatch):
    space = digits.supernet.space
    tuner = FineTuner(space, digits.supernet.arrays(), dataset, FineTuning(steps=40, float_share=0.5))
    trained = []
    train = tuner._train
    monkeypatch.setattr(tuner, "_train", lambda network, *rest: (trained.append(network.subnet), train(network, *rest)))
    smallest = space.smallest()
    few, many = smallest.with_bits(4, 4), smallest.with_bits(8, 8)
    shared, steps = tuner.tune(many)
    networks = [shared, tuner.tune(few)[0], tuner.tune(many)[0]]
    assert steps == 40 and trained == [smallest.with_bits(32, 32), many, few, many]
    first, other, again = (network.arrays()["classifier/kernel"] for network in networks)
    np.testing.assert_allclose(again, first, atol=1e-4)
    assert np.abs(other - first).max() > 1e-3


@pytest.mark.parametrize("cut_at", [0.3, 0.8])
def test_a_training_that_was_cut_off_goes_on_as_if_nothing_had_been(cut_at, digits, dataset, tmp_path, monkeypatch):
    """In either phase: in float, or at the subnet's own bits."""
    monkeypatch.setattr(fine_tuning, "CHECKPOINT_SECONDS", 0.0)
    space, subnet = digits.supernet.space, digits.supernet.space.smallest()

    def tuner():
        return FineTuner(space, digits.supernet.arrays(), dataset, FineTuning(steps=20, float_share=0.5))

    def cut_off(done):
        if done >= cut_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tuner().tune(subnet, cut_off, Checkpoints(tmp_path, print))
    steps_again = []
    resumed, steps = tuner().tune(subnet, steps_again.append, Checkpoints(tmp_path, print))
    whole, _ = tuner().tune(subnet)
    assert steps == 20 and len(steps_again) <= 20 * (1 - cut_at) + 2
    for name, array in whole.arrays().items():
        np.testing.assert_allclose(resumed.arrays()[name], array, atol=1e-4, err_msg=name)


def test_the_largest_subnet_can_teach(digits, dataset):
    """With nothing but its opinion, a student learns what random weights believe, and no labels."""
    space = digits.supernet.space
    how = FineTuning(steps=60, float_share=0.0, distillation=1.0)
    network, _ = FineTuner(space, digits.supernet.arrays(), dataset, how).tune(space.smallest())
    assert accuracy(network, dataset) < 0.4
