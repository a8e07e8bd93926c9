"""Which of the search's trials are fine-tuned."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from daqu_tf.errors import DaquError
from daqu_tf.oracle.oracle import metrics_of
from daqu_tf.pareto.constraints import total_violation
from daqu_tf.pareto.fronts import non_dominated_mask
from daqu_tf.search.candidates import Candidates
from daqu_tf.spaces.hand_scaled import hand_scaled
from daqu_tf.spaces.subnet import Subnet
from daqu_tf.targets import costs

if TYPE_CHECKING:
    from keras_tuner.engine.trial import Trial

AGAIN = 3  # So many of each step are scored again.
# Who makes more than twice the errors of the most accurate one is not worth fine-tuning. Where that one makes hardly any, a small
# network that makes a few is what people look for.
MOST_ERRORS, LEAST_ERRORS = 2.0, 0.02


def choose(candidates: Candidates, trials: "Sequence[Trial]", count: int) -> list[dict[str, Any]]:
    """The finalists: the most accurate ones, spread over the target's first cost, by accuracies that are taken again for this.

    The search scores on some of the images, and whoever comes first among many owes part of that to luck. So the best of each step
    of cost are scored again, on all of the search split.

    Args:
        candidates: What measures subnets.
        trials: Completed trials. Those that miss a constraint are left out.
        count: How many finalists there are, at most.

    Returns:
        For each finalist its trial, values, MACs, the search's metrics, and the inherited accuracy on search and test split.

    Raises:
        DaquError: No trial meets the constraints.
    """
    good = [trial for trial in trials if total_violation(candidates.constraints, metrics_of(trial)) == 0]
    if trials and not good:
        nearest = metrics_of(trials[0])
        found = ", ".join(f"{one.metric} of {nearest[one.metric]:g}" for one in candidates.constraints)
        raise DaquError(f"`constraint` must be met by some subnet, but the nearest of {len(trials)} has {found}: loosen it.")
    names = [name for name, _ in candidates.objectives]
    metrics = [{name: trial.metrics.get_best_value(name) for name in names} for trial in good]
    subnets = [candidates.space.subnet(trial.hyperparameters.values) for trial in good]
    prices = np.array([metric[names[1]] for metric in metrics])
    first = np.array([metric["accuracy"] for metric in metrics])
    by_hand = {candidates.space.subnet(subnet.values) for subnet in hand_scaled(candidates.searched)}
    is_by_hand = np.array([subnet in by_hand for subnet in subnets])
    again = np.array(sorted({*best_of_steps(first, prices, count, AGAIN), *np.flatnonzero(is_by_hand)}))
    exact = np.array([candidates.exact_accuracy(subnets[index], "search") for index in again])
    chosen = again[spread(exact, prices[again], count, is_by_hand[again])]
    accuracies = dict(zip(again.tolist(), exact.tolist()))
    return [
        {"trial": good[index].trial_id, **_finalist(candidates, subnets[index], metrics[index], accuracies[index])}
        for index in chosen.tolist()
    ]


def _finalist(candidates: Candidates, subnet: Subnet, metrics: dict[str, float], accuracy: float) -> dict[str, Any]:
    # For the report alone: nothing is chosen by the accuracy on test.
    inherited = {"search": accuracy, "test": candidates.exact_accuracy(subnet, "test")}
    macs = costs.macs(candidates.space, subnet)
    return {"values": subnet.to_json(), "macs": macs, "search": metrics, "inherited": inherited}


def spread(accuracies: np.ndarray, prices: np.ndarray, count: int, is_by_hand: np.ndarray) -> list[int]:
    """The most accurate of each of `count` equal steps of the logarithm of the price; an empty step stays empty.

    Not what adds most to the hypervolume that inherited accuracies span: a supernet trains its smallest subnet in every step and
    flatters it, so that those of middle size, which gain most from fine-tuning, would be left out.

    Two of the networks that people scale by hand take the places of others in their steps: the least and the most accurate of
    those that nothing dominates. So the front is no worse than what people have without a search.

    Args:
        accuracies: Shape (n,), in [0, 1].
        prices: Shape (n,), positive.
        count: How many, at most.
        is_by_hand: Shape (n,): which are networks that people scale by hand.

    Returns:
        At most `count` indices, the cheapest first.
    """
    kept, steps = _steps(accuracies, prices, count)
    chosen = {int(step): int(_best(accuracies, kept[steps == step], 1)[0]) for step in np.unique(steps)}
    is_on_front = non_dominated_mask(np.stack([-accuracies[kept], prices[kept]], axis=1))
    rivals = sorted(kept[is_on_front & is_by_hand[kept]], key=lambda index: accuracies[index])
    for index in (*rivals[:1], *rivals[-1:]):
        chosen[int(steps[kept == index][0])] = int(index)
    return sorted(chosen.values(), key=lambda index: prices[index])


def best_of_steps(accuracies: np.ndarray, prices: np.ndarray, count: int, each: int) -> list[int]:
    """The `each` most accurate of each step, as `spread` has them."""
    kept, steps = _steps(accuracies, prices, count)
    return [int(index) for step in np.unique(steps) for index in _best(accuracies, kept[steps == step], each)]


def _steps(accuracies: np.ndarray, prices: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The indices of those that are accurate enough, and the step of the logarithm of the price in which each lies."""
    errors = 1.0 - accuracies
    kept = np.flatnonzero(errors <= MOST_ERRORS * max(errors.min(), LEAST_ERRORS))
    edges = np.geomspace(prices[kept].min(), prices[kept].max(), count + 1)
    return kept, np.searchsorted(edges[1:-1], prices[kept])


def _best(accuracies: np.ndarray, indices: np.ndarray, count: int) -> np.ndarray:
    return indices[np.argsort(-accuracies[indices], kind="stable")[:count]]
