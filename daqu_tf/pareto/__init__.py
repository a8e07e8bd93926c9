"""A search for the Pareto front of any choices by any metrics; it needs NumPy, SciPy and scikit-learn, and knows no networks.

`fronts` is the mathematics of dominance, `goal` says what is wanted, with `constraints`, and `choices` turns values into vectors of
small integers. `incoming` checks what a user's functions and trials hand in. `surrogate_search` proposes what to try next:
`predictor` learns from what was tried, with outliers drawn in by `targets`, `evolution` and `acquisition` look for what promises
most, and `outlook` turns predictions into normalised objectives.
"""

from typing import TYPE_CHECKING

from daqu_tf.lazy import attach

if TYPE_CHECKING:
    from daqu_tf.pareto.constraints import Constraint
    from daqu_tf.pareto.fronts import crowding_distance, hypervolume, non_dominated_mask
    from daqu_tf.pareto.surrogate_search import SurrogateSearch

__all__ = ["Constraint", "hypervolume", "crowding_distance", "non_dominated_mask", "SurrogateSearch"]

__getattr__, __dir__ = attach(
    __name__,
    {
        "Constraint": "constraints",
        "hypervolume": "fronts",
        "crowding_distance": "fronts",
        "non_dominated_mask": "fronts",
        "SurrogateSearch": "surrogate_search",
    },
)
