"""The finalists of a job without a supernet: networks that people scale by hand, spread over the logarithm of the latency."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from daqu_tf.errors import DaquError
from daqu_tf.pareto.constraints import total_violation
from daqu_tf.pipeline.job import Job
from daqu_tf.pipeline.suiting import untrained_latencies_us
from daqu_tf.spaces.hand_scaled import finely_scaled, reduced
from daqu_tf.spaces.subnet import Subnet
from daqu_tf.targets import costs


def choose(job: Job, count: int, taken: Sequence[Subnet] = ()) -> list[dict[str, Any]]:
    """The finalists, spread evenly over the logarithm of the latency, from the fastest network to the slowest.

    Args:
        job: The job, whose device or latency table says the latencies.
        count: How many finalists there are, at most.
        taken: Subnets that are finalists already.

    Returns:
        For each finalist its values, its MACs, and its latency in microseconds as the search would write it.

    Raises:
        DaquError: No network meets the constraints; with some that are taken, there are no further ones then.
    """
    plan = job.plan
    networks = reduced if plan.config.init_from or plan.forecast.has_teacher else finely_scaled
    subnets = [subnet for subnet in networks(plan.searched) if subnet not in taken]
    if not subnets:
        return []
    figures = costs.of_many(plan.space, plan.space.genomes([subnet.values for subnet in subnets]), plan.target)
    figures["latency_us"] = np.array(_latencies_us(job, subnets))
    known = [one for one in plan.config.constraints if one.metric in figures]  # Nobody knows an accuracy yet.
    missed = total_violation(known, figures) * np.ones(len(subnets))
    if missed.all() and not taken:
        nearest = int(np.argmin(missed))
        found = ", ".join(f"{one.metric} of {figures[one.metric][nearest]:g}" for one in known)
        raise DaquError(f"`constraint` must be met by some network, but the nearest of {len(subnets)} has {found}: loosen it.")
    good = np.flatnonzero(missed == 0)
    # No network is slower than a larger one, whatever is measured of tiny ones: of those as fast, the largest counts.
    prices = np.minimum.accumulate(figures["latency_us"][good][::-1])[::-1]
    chosen = good[spread(prices, count)] if len(good) else good
    return [
        {
            "values": subnets[index].to_json(),
            "macs": int(figures["macs"][index]),
            "search": {"latency_us": float(figures["latency_us"][index])},
        }
        for index in chosen
    ]


def spread(prices: np.ndarray, count: int) -> list[int]:
    """The indices of those that lie nearest to `count` equal steps of the logarithm of the price, the cheapest first.

    Args:
        prices: Shape (n,), positive.
        count: How many there are, at most; of one, it is the most expensive. Of equal prices the last is taken.
    """
    wanted = np.geomspace(prices.max(), prices.min(), count)
    last = len(prices) - 1
    nearest = {last - int(np.argmin(np.abs(np.log(prices / price))[::-1])) for price in wanted}
    return sorted(nearest, key=lambda index: prices[index])


def _latencies_us(job: Job, subnets: list[Subnet]) -> list[float]:
    plan = job.plan
    if job.table:
        return [job.table.predict(plan.space, subnet) for subnet in subnets]
    return untrained_latencies_us(job.device, plan.target, [(plan.space, subnet) for subnet in subnets])
