"""Switchable bits for any functional tf_keras model, through TFMOT's own annotate and apply.

    model = make_switchable(keras.applications.MobileNetV2(...))
    initialise_steps(model, images)
    set_bits(model, weight_bits=4, activation_bits=8)

`models` makes models switchable, `switching` sets their bits and steps, `placement` says where quantizers belong, `quantizers` has
the quantizers that TFMOT puts there, and `scheme` keeps TFMOT's own away. `operations` are what a model applies without a layer.
`graphs` makes of such a model what a file holds, by the `rules` of its layers, which leave `values` behind; `scaling` has the
integers of those that only scale. Importing this package registers its Keras classes, so that `keras.models.load_model` finds
them.

A job may begin from a trained model too: `loading` loads it without running any code of its file, `reading` says what it is made
of, `recognition` finds the search space around it, and `transfer` makes a supernet of its weights. `teaching` lets one of any stock
layers teach the networks of a job.
"""

from daqu_tf.stock_models.loading import load_trained
from daqu_tf.stock_models.models import check, make_switchable
from daqu_tf.stock_models.quantizers import StockQuantizeConfig, StockQuantizer
from daqu_tf.stock_models.scheme import SwitchableScheme
from daqu_tf.stock_models.switching import initialise_steps, set_bits, switchable_tensors

__all__ = [
    "load_trained",
    "check",
    "make_switchable",
    "initialise_steps",
    "set_bits",
    "switchable_tensors",
    "SwitchableScheme",
    "StockQuantizeConfig",
    "StockQuantizer",
]
