"""The hyperparameters of a trial, which notice when a model asks for one otherwise than an earlier session did."""

import warnings
from typing import Any

import keras_tuner

from daqu_tf.oracle.hyperparameters import changed


class Asked(keras_tuner.HyperParameters):
    """KerasTuner's hyperparameters, which go by what was asked for first; this class says so where it was in an earlier session.

    It does no more than warn, since what a model asks for may depend on its other values, in any session.

    Args:
        unasked: The names of hyperparameters for which no model of this session has asked yet. They leave the set here.
    """

    def __init__(self, unasked: set[str] | None = None):
        super().__init__()
        self._unasked = set() if unasked is None else unasked

    def _retrieve(self, hp: Any) -> Any:
        if hp.name in self._unasked:
            self._unasked.discard(hp.name)
            there, here = keras_tuner.HyperParameters(), keras_tuner.HyperParameters()
            there.merge(self._hps.get(hp.name, []))
            here.merge([hp])
            if where := changed(there, here):
                warnings.warn(
                    f"A model asks for a hyperparameter otherwise than this search has it: {where}. It is searched as it was; to "
                    "search it as it is now, start in a new directory.",
                    stacklevel=3,
                )
        return super()._retrieve(hp)
