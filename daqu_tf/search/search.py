"""The search of a space: its oracle, its tuner, and the design with which it begins."""

from collections.abc import Callable

import keras_tuner
from keras_tuner.engine.trial import Trial

from daqu_tf.oracle.oracle import ParetoOracle
from daqu_tf.search.candidates import Candidates
from daqu_tf.search.tuner import DaquTuner
from daqu_tf.spaces.hand_scaled import hand_scaled
from daqu_tf.spaces.precisions import uniform_bits
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.subnet import Subnet

INITIAL_RANDOM = 8


def make_tuner(
    candidates: Candidates,
    max_trials: int,
    seed: int,
    on_progress: Callable[[DaquTuner, Trial], None] = lambda tuner, trial: None,
    deadline: Callable[[], bool] = lambda: False,
) -> DaquTuner:
    """A tuner that searches the space of candidates under their constraints, with its journal in their folder.

    Args:
        candidates: The candidates, which measure what trials report.
        max_trials: The most trials.
        seed: The seed of the oracle.
        on_progress: Is called with the tuner and the trial after every trial.
        deadline: A function that says whether the time is up.
    """
    space = candidates.searched
    design = first_design(space)[:max_trials]
    oracle = ParetoOracle(
        [keras_tuner.Objective(name, direction) for name, direction in candidates.objectives],
        max_trials=max_trials,
        hyperparameters=space.to_hyperparameters(),
        seed=seed,
        initial_design=[subnet.to_json() for subnet in design],
        initial_random=min(INITIAL_RANDOM, max_trials - len(design)),
        sample=lambda rng: space.sample_by_gene(rng).to_json(),
        conditions=space.conditions,
        costs=candidates.known,
        constraints=candidates.constraints,
        identity={"space": space.to_json(), "target": candidates.target.name},
    )
    folder = candidates.folder
    return DaquTuner(
        oracle,
        candidates.evaluate,
        directory=str(folder.parent),
        project_name=folder.name,
        on_progress=on_progress,
        deadline=deadline,
        space=candidates.space,
    )


def first_design(space: SearchSpace) -> list[Subnet]:
    """The subnets with which a search begins.

    They are the networks that people scale by hand, then the largest and the smallest architecture, each with the same bits
    throughout, for all weight bits of the space, from high to low, and then the largest subnet at the other resolutions.
    """
    ends = (space.largest(), space.smallest())
    uniform = [uniform_bits(space, end, bits) for end in ends for bits in reversed(space.weight_bits)]
    others = [space.subnet({**ends[0].values, "resolution": height}) for height in space.genes[0].values[:-1]]
    return list(dict.fromkeys([*hand_scaled(space), *uniform, *others]))
