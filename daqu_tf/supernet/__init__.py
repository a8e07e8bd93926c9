"""The one network that holds all subnets of a space, and the scoring of subnets.

`supernet` has that network and the static network of one subnet; both consist of `units` of elastic `layers` with switchable
`quantizers`, whose `initial_steps` are found without training. `scoring` recalibrates and scores a subnet, `weights` cuts its part
out of the shared weights, and `baked` turns it into a plain tf_keras model. `replicas` is what several devices share in training.
"""

from typing import TYPE_CHECKING

from daqu_tf.lazy import attach

if TYPE_CHECKING:
    from daqu_tf.supernet.baked import bake
    from daqu_tf.supernet.scoring import Scorer
    from daqu_tf.supernet.supernet import StaticNetwork, Supernet, extract

__all__ = ["Supernet", "StaticNetwork", "extract", "Scorer", "bake"]

__getattr__, __dir__ = attach(
    __name__,
    {
        "Supernet": "supernet",
        "StaticNetwork": "supernet",
        "extract": "supernet",
        "Scorer": "scoring",
        "bake": "baked",
    },
)
