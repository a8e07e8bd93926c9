"""The supernet's warm-up and precision transfer, and the fine-tuning of single subnets.

`schedule` says what is trained for how long, `samplers` say which subnets a step takes, and `strategies` on which devices it runs.
`training` goes through a schedule, with `batches` of images, an `optimizer`, a `panel` of subnets that are scored on the way, a
`log` of figures, and `checkpoints`. `fine_tuning` goes on training a single subnet.
"""

from typing import TYPE_CHECKING

from daqu_tf.lazy import attach

if TYPE_CHECKING:
    from daqu_tf.training.fine_tuning import FineTuner, FineTuning
    from daqu_tf.training.schedule import PrecisionTransfer, Schedule, WarmUp, make_schedule
    from daqu_tf.training.training import SupernetTraining

__all__ = ["Schedule", "WarmUp", "PrecisionTransfer", "make_schedule", "SupernetTraining", "FineTuner", "FineTuning"]

__getattr__, __dir__ = attach(
    __name__,
    {
        "Schedule": "schedule",
        "WarmUp": "schedule",
        "PrecisionTransfer": "schedule",
        "make_schedule": "schedule",
        "SupernetTraining": "training",
        "FineTuner": "fine_tuning",
        "FineTuning": "fine_tuning",
    },
)
