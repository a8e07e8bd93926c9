import numpy as np
import pytest

from daqu_tf.pareto.choices import ABSENT, Choices
from daqu_tf.pareto.predictor import RAMPS, Features, GaussianProcess, KnownCosts, MetricsPredictor

CHOICES = Choices({"bits": (2, 4, 8), "kind": ("a", "b", "c"), "fixed": (1,), "units": tuple(range(1, 101)), "pool": (False, True)})


def codes(count, seed=0):
    return np.random.default_rng(seed).integers(0, CHOICES.sizes, (count, len(CHOICES.sizes)))


def test_features_have_one_unit_between_the_ends_of_every_choice():
    features = Features(CHOICES)
    rows = features(np.zeros((1, 5), int))
    assert rows.shape == (1, 2 + 3 + RAMPS + 1)
    for column, last in ((0, 2), (1, 1), (3, 99), (4, 1)):
        other = np.zeros((1, 5), int)
        other[0, column] = last
        assert np.linalg.norm(features(other) - rows) == pytest.approx(1.0)


def test_any_additive_function_of_few_steps_is_linear_in_the_features():
    all_bits = np.array([[bits, 0, 0, 0, 0] for bits in range(3)])
    rows = np.hstack([Features(CHOICES)(all_bits), np.ones((3, 1))])
    wanted = np.array([0.3, 0.9, 0.1])
    assert rows @ np.linalg.lstsq(rows, wanted, rcond=None)[0] == pytest.approx(wanted)


def test_what_is_absent_lies_between():
    features = Features(CHOICES)
    ends = features(np.array([[0, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, ABSENT]]))
    assert ends[2] == pytest.approx((ends[0] + ends[1]) / 2)


def truth(codes):
    accuracy = 0.9 - 0.1 * (codes[:, 0] == 0) - 0.05 * (codes[:, 1] == 2) + 0.001 * codes[:, 3]
    return np.stack([accuracy, 10.0 * (1 + codes[:, 0]) * (10 + codes[:, 3])], axis=1)


def costs(many):
    bits = np.array([CHOICES.options["bits"].index(values["bits"]) for values in many])
    return {"bytes": 10.0 * (1 + bits) * (9.0 + np.array([values["units"] for values in many])), "macs": 1.0 + bits}


@pytest.mark.parametrize("known", [None, costs])
def test_predictions_are_near_and_know_how_near(known):
    predictor = MetricsPredictor(CHOICES, ["accuracy", "bytes"], frozenset({"accuracy"}), KnownCosts(CHOICES, known))
    noise = np.random.default_rng(1).normal(0, 0.005, (120, 1)) * [1, 0]
    predictor.fit(codes(120), truth(codes(120)) + noise)
    means, deviations = predictor.predict(codes(300, seed=2))
    wanted = truth(codes(300, seed=2))
    wanted[:, 1] = np.log(wanted[:, 1])
    assert [predictor.scales[name].logarithmic for name in ("accuracy", "bytes")] == [False, True]
    assert np.corrcoef(means.T[0], wanted.T[0])[0, 1] > 0.95 and np.corrcoef(means.T[1], wanted.T[1])[0, 1] > 0.98
    assert np.mean(np.abs(means[:, 0] - wanted[:, 0]) < 2 * deviations[:, 0]) > 0.85
    if known:
        assert means[:, 1] == pytest.approx(wanted[:, 1]) and not deviations[:, 1].any()


def test_kernels_of_an_earlier_fit_are_kept():
    first = MetricsPredictor(CHOICES, ["accuracy", "bytes"]).fit(codes(30), truth(codes(30)))
    second = MetricsPredictor(CHOICES, ["accuracy", "bytes"]).fit(codes(60), truth(codes(60)), first.kernels)
    for name, kernel in first.kernels.items():
        assert second.kernels[name][0] == kernel[0] and second.kernels[name][1] == pytest.approx(kernel[1])


def test_costs_are_asked_for_once():
    asked = []
    known = KnownCosts(CHOICES, lambda many: asked.append(len(many)) or costs(many))
    first = known(codes(50))
    again = known(np.vstack([codes(50), codes(10, seed=5)]))
    assert sum(asked) <= 60 and len(asked) == 2
    assert again["bytes"][:50] == pytest.approx(first["bytes"])
    assert KnownCosts(CHOICES, None)(codes(3)) == {}


def test_effects_of_single_features_are_learned_from_few_rows():
    """Twenty features and 40 rows: what lies far from all of them is predicted by adding up."""
    rng = np.random.default_rng(3)
    rows, effects = rng.integers(0, 2, (140, 20)).astype(float), rng.normal(size=20)
    found, _ = GaussianProcess().fit(rows[:40], (rows @ effects)[:40]).predict(rows[40:])
    assert np.corrcoef(found, (rows @ effects)[40:])[0, 1] > 0.98


def test_a_target_in_doubt_counts_for_little():
    rows = np.linspace(0, 1, 40)[:, None]
    learned, doubts = rows[:, 0].copy(), np.zeros(40)
    learned[20], doubts[20] = 5.0, 10.0
    means = [GaussianProcess().fit(rows, learned, each).predict(rows)[0] for each in (doubts, None)]
    assert np.abs(means[0] - rows[:, 0]).max() < 0.05 < np.abs(means[1] - rows[:, 0]).max()


def test_targets_that_all_agree_are_predicted():
    rows = np.random.default_rng(0).random((60, 5))
    mean, deviation = GaussianProcess().fit(rows, np.full(60, 3.0)).predict(rows[:2])
    assert mean == pytest.approx([3.0, 3.0]) and np.isfinite(deviation).all()
