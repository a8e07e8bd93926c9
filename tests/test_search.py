import numpy as np

from daqu_tf.search import spread


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
