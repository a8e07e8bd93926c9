"""A search for the Pareto front of any choices with any metrics: NumPy and SciPy, and nothing of networks.

`fronts` is the mathematics of dominance, `goal` what is wanted, with `constraints`; `choices` turns values into vectors of small
integers. `incoming` checks what a user's functions and trials hand in. `surrogate_search` proposes what to try next: `predictor` learns
from what was tried, a metric at a time by a `gaussian_process` of what `targets` makes of its values, `evolution` and `acquisition` look
for what promises most, and `outlook` is what a front may gain by it.
"""

from daqu_tf.pareto.constraints import Constraint
from daqu_tf.pareto.fronts import crowding_distance, hypervolume, non_dominated_mask
from daqu_tf.pareto.surrogate_search import SurrogateSearch

__all__ = ["Constraint", "hypervolume", "crowding_distance", "non_dominated_mask", "SurrogateSearch"]
