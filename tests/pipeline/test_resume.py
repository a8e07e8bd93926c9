"""A training that is killed at random moments ends with the very weights of one that was left alone."""

import pathlib
import random
import signal
import subprocess
import sys

import numpy as np
import pytest

DRIVER = """
import sys
import daqu_tf
from daqu_tf.training import training

training.CHECKPOINT_SECONDS = 0.3
config = daqu_tf.RunConfig(
    dataset="digits", space="digits", output_dir=sys.argv[1], epochs=14.0, batch_size=64, deterministic=True, seed=5
)
daqu_tf.run(config, last_stage="supernet")
"""


def start(folder):
    return subprocess.Popen([sys.executable, "-c", DRIVER, str(folder)], stderr=subprocess.PIPE, text=True)


def finish(folder):
    process = start(folder)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    with np.load(folder / "supernet.npz") as arrays:
        return dict(arrays), errors


def checkpoints(folder):
    return sorted((folder / "checkpoints").glob("step-*.npz"))


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed_bit_for_bit(tmp_path):
    alone, _ = finish(tmp_path / "alone")
    rng, folder, killed_at = random.Random(0), tmp_path / "killed", []
    for _ in range(4):
        process, before = start(folder), checkpoints(folder)
        while checkpoints(folder) == before and process.poll() is None:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.05)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0, 1.5))  # Amid a step, a checkpoint, a scoring.
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        killed_at.append(checkpoints(folder)[-1].name)
    assert len(set(killed_at)) == 4
    newest = checkpoints(folder)[-1]
    newest.write_bytes(newest.read_bytes()[:-1000])  # As a file system that lost its last blocks.
    resumed, errors = finish(folder)
    assert f"{newest} is damaged" in errors
    assert alone.keys() == resumed.keys()
    for name, value in alone.items():
        np.testing.assert_array_equal(value, resumed[name], err_msg=name)
    log = pathlib.Path("training.csv")
    assert (folder / log).read_text().count("\n") == (tmp_path / "alone" / log).read_text().count("\n")
