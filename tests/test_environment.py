"""What importing the library does to `tf.keras`, each time in a process of its own."""

import os
import subprocess
import sys

import pytest

USED = "import tensorflow as tf; tf.keras.layers.Dense"
AFTER = "tf.keras.layers.Dense.__module__.split('.')[0]"


@pytest.mark.parametrize(
    ("code", "warns", "keras"),
    [
        (f"{USED}; import daqu_tf", True, "keras"),
        ("import tensorflow as tf; import daqu_tf", False, "tf_keras"),
        ("import daqu_tf; import tensorflow as tf", False, "tf_keras"),
        ("import keras; import daqu_tf; import tensorflow as tf", False, "tf_keras"),  # As KerasTuner imports it.
    ],
)
def test_tf_keras_is_keras_2_unless_it_was_used_before_which_is_said(code, warns, keras):
    environment = {name: value for name, value in os.environ.items() if name != "TF_USE_LEGACY_KERAS"}
    command = [sys.executable, "-c", f"{code}; print({AFTER})"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert ended.stdout.split()[-1] == keras
    assert ("tf.keras was used before daqu_tf was imported" in ended.stderr) == warns
