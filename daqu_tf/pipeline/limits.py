"""Constraints that no network of a job can meet, which are found by computing before anything is trained."""

from collections.abc import Sequence

import numpy as np

from daqu_tf.errors import DaquError
from daqu_tf.pareto.constraints import Constraint
from daqu_tf.spaces import SearchSpace, Subnet
from daqu_tf.targets import Target, costs

SHARE = np.array([0.0, 1.0])  # What an accuracy can be.


def check(constraints: Sequence[Constraint], space: SearchSpace, subnets: Sequence[Subnet], target: Target) -> None:
    """Refuses a constraint that none of some subnets meets; latencies are left to the device.

    Args:
        constraints: The constraints, each of which is looked at by itself.
        space: The space of the subnets.
        subnets: The subnets, among which are those that cost the least and the most.
        target: The target, which decides the containers of the weights.

    Raises:
        DaquError: A constraint is out of reach; the error says which value is the nearest.
    """
    figures = costs.of_many(space, space.genomes([subnet.values for subnet in subnets]), target) | {"accuracy": SHARE}
    for one in constraints:
        if one.metric in figures and one.violation(values := figures[one.metric]).min() > 0:
            nearest = values.min() if one.operator == "<=" else values.max()
            hint = ", as 0.9 for 90%" if one.metric == "accuracy" else ""
            raise DaquError(
                f"`constraint` {one.metric}{one.operator}{one.limit:.15g} is met by no network of {space.name}: the nearest that "
                f"there is has {one.metric} of {nearest:.15g}{hint}. Loosen it, or choose another --space."
            )
