"""Devices by their texts, and the tool that times files on them; as far as no board is needed."""

import subprocess
import sys

import numpy as np
import pytest
import tflite_networks
from faults import refused

from daqu_tf import targets
from daqu_tf.devices import HostDevice, RaspberryPiDevice, connect
from daqu_tf.export import encoding
from daqu_tf.tools import benchmark as tool


@pytest.mark.parametrize("text", ["", "hosts", "host:x", "raspberry_pi", "raspberry_pi:", "phone:1"])
def test_devices_that_there_are_not(text):
    refused(lambda: connect(text), "host or raspberry_pi:user@host", repr(text))


def test_arguments():
    refused(lambda: RaspberryPiDevice("pi@board", threads=0), "`threads`")
    refused(lambda: RaspberryPiDevice("pi@board", cpu=-1), "`cpu`")
    refused(lambda: RaspberryPiDevice("pi@board:70000"), "user@host")


def test_the_host():
    assert isinstance(connect("host", threads=1), HostDevice)


def benchmark(*arguments):
    command = [sys.executable, "-m", "daqu_tf.tools.benchmark", "--repeats=1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_the_tool_on_this_machine_alone_and_its_errors(tmp_path):
    model = tmp_path / "model.tflite"
    encoding.write(encoding.encode(tflite_networks.mobile_network(size=8, width=4), targets.Storage()), model)
    done = benchmark(str(model))
    assert done.returncode == 0 and "device" not in done.stdout and len(done.stdout.splitlines()) == 2
    done = benchmark("--device=android:1", str(model))
    assert done.returncode == 1 and "Error: Phones need TFLite's benchmark_model" in done.stderr and done.stderr.count("\n") == 1
    done = benchmark("--device=phone:1", str(model))
    assert done.returncode == 1 and done.stderr.startswith("Error: A device must be given as") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "here, there, said",
    [
        (np.int8([[1, -128]]), np.int8([[1, -128]]), "gives the very outputs of the host."),
        (np.int8([[1, -128]]), np.int8([[1, 127]]), "differs from the host by at most 255 steps."),
        (np.float32([[0, 4]]), np.float32([[1, 4]]), "differs from the host by at most 2.5e-01 of its range."),
        (
            np.int8([[1, 2]]),
            np.int8([[1]]),
            "was not compared with the host: it puts out int8 of shape (1, 1), not int8 of shape (1, 2).",
        ),
    ],
)
def test_how_far_outputs_are_apart(here, there, said):
    assert tool._say(tool._parity(here, there)) == said
