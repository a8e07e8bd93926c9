"""The environment variables that TensorFlow reads when it is first imported, which are set before that."""

import os
import sys
import warnings

from daqu_tf.errors import DaquError


def _has_keras_3() -> bool:
    """Whether `tf.keras` has been used in this process, and is Keras 3; asking itself must not decide it."""
    keras = vars(sys.modules.get("tensorflow", sys)).get("keras")
    known = vars(keras) if keras is not None else {}
    return known.get("_tfll_keras_version") == "keras_3" or str(known.get("__name__")).startswith("keras._tf_keras")


if "TF_USE_LEGACY_KERAS" not in os.environ and _has_keras_3():
    warnings.warn(
        "tf.keras was used before daqu_tf was imported, and is Keras 3 in this process, whose models daqu_tf does not take: import "
        "daqu_tf first, which makes tf.keras Keras 2, or use tf_keras.",
        stacklevel=2,
    )
# TFMOT works with tf_keras (Keras 2) only, and decides by this variable when it is first imported.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
# oneDNN is off by default on some x86 processors, where it makes a training step 1.4 to 1.8 times faster.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# Otherwise the process that trains the supernet would take all of a GPU's memory, and leave none to those that fine-tune.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")


def check_keras() -> None:
    """Refuses Keras 3, which is not done at import, so that the tools can say it in a sentence.

    Raises:
        DaquError: The user's environment asks for Keras 3.
    """
    if (chosen := os.environ["TF_USE_LEGACY_KERAS"]) not in ("1", "true", "True"):
        raise DaquError(f"TF_USE_LEGACY_KERAS must be 1 for TFMOT, but received {chosen!r}: unset it, or set it to 1.")
