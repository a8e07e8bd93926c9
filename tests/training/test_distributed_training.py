"""The whole training on two workers of this machine, cut off and resumed."""

import csv
import json
import os
import socket
import subprocess
import sys

import forked_tools
import numpy as np
import pytest

DRIVER = """
import sys
import daqu_tf
from daqu_tf.training import training

folder, strategy, epochs = sys.argv[1:]
training.CHECKPOINT_SECONDS = 0.0
config = daqu_tf.RunConfig(dataset="digits", space="digits", output_dir=folder, epochs=1.0, strategy=strategy, seed=3)
train = training.SupernetTraining.run


def cut_off(self, on_progress):
    def stop(phase, done, figures):
        on_progress(phase, done, figures)
        if done > float(epochs):
            raise SystemExit(7)

    return train(self, stop)


training.SupernetTraining.run = cut_off
daqu_tf.run(config, last_stage="supernet")
"""


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def train(folders, strategy, epochs):
    """Return codes and what was printed, of one process for each folder."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(len(folders))]}
    processes = []
    for index, folder in enumerate(folders):
        config = {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})}
        environment = os.environ | (config if len(folders) > 1 else {})
        command = [sys.executable, "-c", DRIVER, str(folder), strategy, str(epochs)]
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    try:
        printed = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], printed


def weights(folder):
    with np.load(folder / "supernet.npz") as arrays:
        return {name: array for name, array in arrays.items() if "moving_" not in name}


def last_row(folder):
    with (folder / "training.csv").open(newline="") as file:
        return list(csv.DictReader(file))[-1]


@pytest.mark.slow
@pytest.mark.xdist_group("one at a time")
def test_two_workers_stay_together_and_train_as_one_device(tmp_path):
    one, chief, other = (tmp_path / name for name in ("one", "chief", "other"))
    codes, printed = train([one], "one_device", 9)
    assert codes == [0], printed
    codes, printed = train([chief, other], "auto", 0.5)
    assert codes == [7, 7], printed
    assert not (other / "checkpoints").exists()  # It takes all from the chief, as a new machine would.
    codes, printed = train([chief, other], "multi_worker", 9)
    assert codes == [0, 0], printed
    ours, theirs = weights(chief), weights(other)
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)
    alone, together = last_row(one), last_row(chief)
    assert together["step"] == alone["step"] and together["phase"] == "precision_transfer"
    # A value that rounds to another code makes the losses of quantized steps part by some percent within ten steps.
    assert float(together["loss"]) == pytest.approx(float(alone["loss"]), rel=0.1)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--strategy=multi_worker"], "`strategy` multi_worker needs TF_CONFIG"),
        (["--epochs=-1"], "`epochs` must be above 0"),
        (["--epochs=nan"], "`epochs` must be above 0"),
        (["--warmup=often"], "often"),
        (["--schedule=nowhere.json"], "nowhere.json"),
        (["--batch_size=9000"], "`batch_size` must be at most the"),
    ],
)
def test_bad_settings_of_a_training(flags, sentence, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
    flags = ["--dataset=digits", "--space=digits", f"--output_dir={tmp_path / 'run'}", *flags]
    done = forked_tools.call("train", *flags, environment=environment)
    assert done.returncode == 1 and sentence in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
