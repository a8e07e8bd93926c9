"""The environment variables that TensorFlow reads when it is first imported, which are set before that."""

import os

from daqu_tf.errors import DaquError

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
