"""Which members of the search's front are fine-tuned."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from daqu_tf.errors import DaquError
from daqu_tf.oracle.oracle import metrics_of
from daqu_tf.pareto.constraints import total_violation
from daqu_tf.search.candidates import Candidates
from daqu_tf.spaces.subnet import Subnet
from daqu_tf.targets import costs

if TYPE_CHECKING:
    from keras_tuner.engine.trial import Trial


def choose(candidates: Candidates, trials: "Sequence[Trial]", count: int, max_loss: float) -> list[dict[str, Any]]:
    """The finalists: the most accurate ones, spread over the target's first cost, by accuracies that are taken again for this.

    The search may score on some of the images, and whoever comes first among many owes part of that to luck.

    Args:
        candidates: What measures subnets.
        trials: Completed trials, the best first. Those that miss a constraint are left out; the others are scored on the whole
            search split.
        count: How many finalists there are, at most.
        max_loss: How far below the best accuracy a finalist may lie, in [0, 1] (see `spread`).

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
    objectives = [name for name, _ in candidates.target.objectives]
    metrics = [{name: trial.metrics.get_best_value(name) for name in objectives} for trial in good]
    subnets = [candidates.space.subnet(trial.hyperparameters.values) for trial in good]
    accuracies = np.array([candidates.exact_accuracy(subnet, "search") for subnet in subnets])
    prices = np.array([metric[objectives[1]] for metric in metrics])
    order = np.argsort(-accuracies, kind="stable")
    chosen = order[spread(accuracies[order], prices[order], count, max_loss)]
    return [
        {"trial": good[index].trial_id, **_finalist(candidates, subnets[index], metrics[index], float(accuracies[index]))}
        for index in chosen
    ]


def _finalist(candidates: Candidates, subnet: Subnet, metrics: dict[str, float], accuracy: float) -> dict[str, Any]:
    # For the report alone: nothing is chosen by the accuracy on test.
    inherited = {"search": accuracy, "test": candidates.exact_accuracy(subnet, "test")}
    macs = costs.macs(candidates.space, subnet)
    return {"values": subnet.to_json(), "macs": macs, "search": metrics, "inherited": inherited}


def spread(accuracies: np.ndarray, prices: np.ndarray, count: int, max_loss: float) -> list[int]:
    """The most accurate of each of `count` equal steps of the logarithm of the price.

    Not what adds most to the hypervolume that inherited accuracies span: a supernet trains its smallest subnet in every step and
    flatters it, so that those of middle size, which gain most from fine-tuning, would be left out.

    Args:
        accuracies: Shape (n,), the best first where they tie.
        prices: Shape (n,), positive.
        count: How many, at most.
        max_loss: How far below the best accuracy a trial may lie, in [0, 1]; others are left out, unless too few remain.

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
