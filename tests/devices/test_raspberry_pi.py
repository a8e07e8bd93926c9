"""Boards through ssh: a real sshd on this machine, and kernels for ARM."""

import hashlib
import json
import pathlib
import shutil
import socket
import subprocess
import sys
import threading
import time

import board as boards
import numpy as np
import pytest
import tflite_networks
from crashing_models import crashing
from faults import refused
from test_connect import benchmark

from daqu_tf import targets
from daqu_tf.devices import DeviceLostError, DeviceSetupError, HostDevice, ModelError, RaspberryPiDevice, connect, raspberry_pi, ssh
from daqu_tf.export import encoding
from daqu_tf.tflite.graph import Graph

pytestmark = pytest.mark.devices
FAST = {"min_runs": 5, "min_seconds": 0.0, "max_warmup_seconds": 0.0}
HOSTILE = [
    "-oProxyCommand=touch sprung",
    "a b",
    "a'b",
    'a"b',
    "a;touch sprung",
    "$(touch sprung)",
    "`touch sprung`",
    "a|b",
    "a\nb",
    "a&b",
]


def write(graph: Graph, path: pathlib.Path) -> pathlib.Path:
    encoding.write(encoding.encode(graph, targets.Storage()), path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write(tflite_networks.mobile_network(size=8, width=4), tmp_path_factory.mktemp("model") / "model.tflite")


@pytest.fixture
def device(board):
    found = RaspberryPiDevice(board.address, python=boards.PYTHON.as_posix())
    yield found
    found.close()


def fake(board, text, **options):
    return RaspberryPiDevice(board.address, python=board.script("fake", text), **options)


def images_of(model):
    return np.random.default_rng(3).random((3, *input_shape(model)[1:]), np.float32)


def input_shape(model):
    from daqu_tf import tflite

    return tflite.read(model.read_bytes()).tensors[0].shape


def test_a_file_is_timed_on_arm(device, model):
    latency = device.measure(model, **FAST)
    assert len(latency.samples_us) >= 5 and latency.sha256 == hashlib.sha256(model.read_bytes()).hexdigest()
    assert (latency.runtime, latency.runtime_version, latency.delegate) == ("ai-edge-litert", "1.4.0", "xnnpack")
    assert latency.device["kind"] == "raspberry_pi" and latency.device["address"] == device.address
    assert latency.device["os"].endswith("aarch64") and len(latency.device["pinned_to"]) == 1 and "board" in latency.device
    (conditions,) = latency.conditions
    assert conditions["peak_memory_bytes"] > 1e6
    assert set(conditions["before"]) == set(conditions["after"]) == {"governor", "frequency_hz", "temperature_celsius", "throttled"}
    assert json.loads(json.dumps(latency.to_json()))["conditions"] == [conditions]


def test_its_outputs_are_those_of_the_host(device, model, board):
    images = images_of(model)
    for given in (images, None):
        here, there = HostDevice().outputs(model, given), device.outputs(model, given)
        np.testing.assert_array_equal(there[0], here[0])
        assert there[0].dtype == np.int8 and there[1:] == here[1:] and len(there[0]) == (1 if given is None else 3)
    np.testing.assert_array_equal(device.predict(model, images), HostDevice().predict(model, images))
    assert not list(board.cache.glob("*.npy"))
    refused(lambda: device.outputs(model, np.zeros((1, 3, 3, 1))), "it takes a batch of shape", str(model), kind=ModelError)


def test_runner_and_model_are_copied_once_under_their_hashes(device, board, model, tmp_path):
    copy = tmp_path / "copy.tflite"
    copy.write_bytes(model.read_bytes())
    device.measure(model, **FAST)
    names = {path.name: path.stat().st_mtime_ns for path in board.cache.iterdir()}
    before = board.calls()
    device.measure(copy, **FAST)
    assert board.calls() - before == 2  # The hashes; the run.
    assert {path.name: path.stat().st_mtime_ns for path in board.cache.iterdir()} == names
    for path in board.cache.iterdir():
        assert path.name.startswith(hashlib.sha256(path.read_bytes()).hexdigest())
    assert board.cache.stat().st_mode & 0o77 == 0


def test_a_damaged_copy_is_sent_again(device, board, model):
    device.measure(model, **FAST)
    name = hashlib.sha256(model.read_bytes()).hexdigest() + ".tflite"
    (board.cache / name).write_bytes(b"damaged")
    assert device.measure(model, **FAST).samples_us
    assert (board.cache / name).read_bytes() == model.read_bytes()


def test_all_commands_share_one_connection_which_ends_with_the_device(board, model):
    before = len(board.connections())
    device = RaspberryPiDevice(board.address, python=str(boards.PYTHON))
    device.measure_many([model, model], repeats=1, **FAST)
    assert len(board.connections()) == before + 1
    device.close()
    board.wait_until(lambda: len(board.connections()) == before)
    device = RaspberryPiDevice(board.address, python=str(boards.PYTHON))
    device.measure(model, **FAST)
    del device
    board.wait_until(lambda: len(board.connections()) == before)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_reach_no_shell(board, model, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    calls = board.calls()
    for address in (name, f"{name}@127.0.0.1", f"{board.user}@{name}", f"{name}:22", f"127.0.0.1:{name}"):
        refused(lambda address=address: RaspberryPiDevice(address), "user@host", kind=DeviceSetupError)
    assert board.calls() == calls
    folder = tmp_path / name
    folder.mkdir()
    path = folder / f"{name}.tflite"
    path.write_bytes(model.read_bytes())
    if name.isprintable() and not name.startswith("-"):
        # The Python's name goes there, and is taken as it is: as one of a program.
        python = board.script(name, f"exec '{boards.PYTHON}' \"$@\"")
        assert RaspberryPiDevice(board.address, python=python).measure(path, **FAST).samples_us
        device = RaspberryPiDevice(board.address, python=name)
        refused(lambda: device.measure(path, **FAST), "cannot be started", name, kind=DeviceSetupError)
    else:
        refused(lambda: RaspberryPiDevice(board.address, python=name), "`python`", kind=DeviceSetupError)
    assert not list(tmp_path.rglob("sprung")) and not list(board.home.rglob("sprung"))


def test_a_python_in_the_home_folder(board, model):
    board.script("python-here", f"exec '{boards.PYTHON}' \"$@\"")
    assert RaspberryPiDevice(board.address, python="~/python-here").measure(model, **FAST).samples_us


def test_no_ssh_here(model, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    refused(lambda: RaspberryPiDevice("pi@127.0.0.1").measure(model), "no ssh", "openssh-client", kind=DeviceSetupError)


def test_nobody_listens_and_no_such_name(board, model):
    refused(lambda: RaspberryPiDevice("pi@127.0.0.1:1").measure(model), "pi@127.0.0.1:1 refuses connections", kind=DeviceLostError)
    refused(lambda: RaspberryPiDevice("pi@nowhere.invalid").measure(model), "cannot be found", kind=DeviceLostError)


def test_a_board_that_says_nothing(board, model, monkeypatch):
    monkeypatch.setattr(ssh, "_CONNECT_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        refused(lambda: RaspberryPiDevice(f"pi@127.0.0.1:{port}").measure(model), f"127.0.0.1:{port} does not answer", "is on")


def test_host_keys(board, model):
    board.know(None)
    refused(
        lambda: RaspberryPiDevice(board.address).measure(model),
        "not known yet",
        f"`ssh -p {board.port} {board.user}@127.0.0.1`",
        kind=DeviceSetupError,
    )
    board.know("other_key")
    refused(lambda: RaspberryPiDevice(board.address).measure(model), "another host key", "ssh-keygen -R", kind=DeviceSetupError)


def test_a_key_that_is_not_let_in(board, model):
    config = board.folder / "ssh_config"
    right = config.read_text()
    config.write_text(right.replace("user_key", "other_key"))
    try:
        refused(lambda: RaspberryPiDevice(board.address).measure(model), "keys not in", "ssh-copy-id", kind=DeviceSetupError)
    finally:
        config.write_text(right)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("KexAlgorithms diffie-hellman-group1-sha1", "no algorithm in common"),
        ("ProxyJump nobody@nowhere.invalid", "jump host or proxy"),
        ("ProxyCommand false", "jump host or proxy"),
        ("NoSuchOption yes", "does not understand its own config"),
        ("IdentityFile %{", "cannot be used by ssh"),
    ],
)
def test_what_waiting_does_not_mend_is_not_waited_for(board, model, line, words):
    config = board.folder / "ssh_config"
    right = config.read_text()
    config.write_text(f"{right}{line}\n")
    try:
        refused(lambda: RaspberryPiDevice(board.address).measure(model), board.address, words, kind=DeviceSetupError)
    finally:
        config.write_text(right)


def test_a_connection_that_is_cut_and_the_next_one(board, model):
    device = fake(board, f"touch '{board.home}/begun'; exec sleep 20")
    with board.meanwhile(lambda: (board.wait_until((board.home / "begun").exists), board.cut())):
        refused(lambda: device.measure(model), f"connection to {board.address} broke", "try again", kind=DeviceLostError)
    device.python = str(boards.PYTHON)
    assert device.measure(model, **FAST).samples_us


def test_a_command_that_hangs(board, model):
    start = time.monotonic()
    refused(lambda: fake(board, "exec sleep 20", timeout_seconds=3).measure(model), "no answer within 3 s", kind=ModelError)
    assert time.monotonic() - start < 10


def test_a_board_that_hangs(board, model, monkeypatch):
    """Its ssh server is stopped in the middle: no packet comes back."""
    monkeypatch.setattr(raspberry_pi, "_CHECK_SECONDS", 2)
    device = fake(board, f"touch '{board.home}/stopping'; exec sleep 20", timeout_seconds=4)
    stopper = threading.Thread(target=lambda: (board.wait_until((board.home / "stopping").exists), board.freeze()))
    stopper.start()
    try:
        refused(lambda: device.measure(model), f"{board.address} gave no answer", kind=DeviceLostError)
        refused(device.check, kind=DeviceLostError)
    finally:
        stopper.join()
        board.thaw()
    device.python = str(boards.PYTHON)
    device.timeout_seconds = 300
    assert device.measure(model, **FAST).samples_us


def test_a_latency_is_of_the_device_s_identity(device, board, model):
    assert device.name == f"raspberry_pi:{board.address}"
    found = device.identity()
    assert device.measure(model, **FAST).identity == found and "address" not in found and "memory_bytes" not in found
    assert (found["kind"], found["runtime"], found["threads"], found["delegate"]) == (
        "raspberry_pi",
        "ai-edge-litert",
        1,
        "xnnpack",
    )


def sensors(processor, kind="cpu-thermal"):
    """A program in place of `cat`, that reads a sensor of the processor, of which `processor` prints thousandths of a degree."""
    return f"case $1 in */type) echo {kind};; */temp) {processor};; *) exec /bin/cat;; esac"


def test_a_sensor_of_another_part_that_always_reads_100_degrees(board, device, model):
    (board.home / "bin").mkdir()
    board.script("bin/cat", sensors("echo 100000", "PMIC-Die"))
    try:
        assert device.temperature_celsius() is None and device.measure(model, **FAST).samples_us
    finally:
        shutil.rmtree(board.home / "bin")


def test_a_board_that_is_too_hot(board, device, model):
    """Its `cat` stands in for a sensor, which machines like this one do not have."""
    (board.home / "bin").mkdir()
    device.cool_seconds = 1
    board.script("bin/cat", sensors("echo 91500"))
    try:
        assert device.temperature_celsius() == 91.5
        refused(lambda: device.measure(model), "has 91.5 degrees", "give it air", kind=DeviceSetupError)
        cooler = f"echo 61000 >>'{board.home}/cooled'; wc -l <'{board.home}/cooled' | grep -q '[3-9]' && echo 60000 || echo 91500"
        board.script("bin/cat", sensors(cooler))
        device.cool_seconds = 30
        assert device.measure(model, **FAST).samples_us and len((board.home / "cooled").read_text().split()) == 3
    finally:
        shutil.rmtree(board.home / "bin")


def jumping(model, samples):
    """A program that answers as the runner does, with these samples."""
    answer = {"samples_us": samples, "warmup_runs": 1, "device": {}, "conditions": {"before": {}, "after": {}}}
    answer["sha256"] = hashlib.sha256(model.read_bytes()).hexdigest()
    answers = {"answers": [answer | {"threads": 1, "delegate": "none", "runtime": "r", "runtime_version": "1"}]}
    return f"cat >/dev/null; echo '{json.dumps(answers)}'"


@pytest.mark.parametrize("bad", [-3.6e9, 0.0, float("nan"), float("inf"), 3.6e9])
def test_a_clock_that_jumps_once_is_flagged(board, model, bad):
    latency = fake(board, jumping(model, [20.0, 21.0, bad, 22.0])).measure(model)
    assert latency.samples_us == (20.0, 21.0, 22.0) and latency.flags == ("clock",) and latency.median_us == 21


@pytest.mark.parametrize("samples", [[-1.0], [20.0, 0.0], [3.6e9] * 9, [1e4] * 3000])
def test_a_clock_that_shows_what_cannot_be_is_refused(board, model, samples):
    refused(
        lambda: fake(board, jumping(model, samples)).measure(model), "The clock of raspberry_pi", "let it set", kind=DeviceLostError
    )


def test_a_run_that_hangs_is_ended_there(model):
    request = {"task": "measure", "models": [str(model)], "threads": 1, "cpus": None, "alarm_seconds": 3}
    request |= {"min_runs": 1, "min_seconds": 60, "max_warmup_seconds": 0}
    runner = boards.ROOT / "daqu_tf/devices/runner.py"
    done = subprocess.run([sys.executable, runner], input=json.dumps(request), text=True, capture_output=True, timeout=30)
    assert done.returncode == -14


def test_no_python(board, model):
    device = RaspberryPiDevice(board.address, python="/nowhere/python3")
    refused(
        lambda: device.measure(model),
        "`python` /nowhere/python3 cannot be started",
        "apt-get install python3",
        kind=DeviceSetupError,
    )


def test_no_runtime(board, model):
    python = board.script("bare", f"exec '{boards.PYTHON}' -S -E \"$@\"")
    refused(
        lambda: RaspberryPiDevice(board.address, python=python).measure(model),
        "no runtime",
        "pip install ai-edge-litert",
        kind=DeviceSetupError,
    )


@pytest.mark.parametrize(
    "text, words",
    [
        ("kill -SEGV $$", "crashed with SIGSEGV"),
        ("kill -KILL $$", "crashed with SIGKILL"),
        ("echo garbage", "status 0 and no answer"),
        ("head -c 3000 /dev/urandom", "no answer"),
        ("echo '{\"samples_us\": [1.0, 2.0'", "no answer"),
        ("echo '{\"samples_us\": [1.0]}'", "other fields than expected"),
        ('echo \'{"samples_us": ["x"], "device": {}, "conditions": {}}\'', "other fields than expected"),
        ("echo '[1, 2]'", "no answer"),
        ("echo 'out of memory' >&2; exit 3", "out of memory"),
    ],
)
def test_runs_that_crash_or_babble(board, model, text, words):
    refused(lambda: fake(board, text).measure(model), str(model), words, kind=ModelError)


@pytest.mark.parametrize("signal_name", ["SIGSEGV", "SIGABRT"])
def test_a_model_that_crashes_the_runtime_costs_the_others_nothing(device, model, tmp_path, signal_name):
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(crashing(model.read_bytes(), signal_name))
    refused(lambda: device.outputs(bad), str(bad), f"the runtime crashed with {signal_name}", kind=ModelError)
    fault, latency = device.measure_each([bad, model], repeats=1, **FAST)
    assert f"the runtime crashed with {signal_name}" in str(fault) and latency.samples_us


def test_a_model_that_is_damaged(device, model, tmp_path):
    path = tmp_path / "cut.tflite"
    path.write_bytes(model.read_bytes()[:400])
    refused(lambda: device.measure(path, **FAST), "could not be run", str(path), kind=ModelError)


def test_outputs_that_are_cut_off(board, model):
    code = "import sys, json; open(json.load(sys.stdin)['outputs'], 'wb').write(b'\\x93NUMPY\\x01\\0v'); print('{\"scale\": 1}')"
    (board.home / "cut.py").write_text(code)
    refused(
        lambda: fake(board, f"exec '{sys.executable}' '{board.home}/cut.py'").outputs(model),
        "came back garbled",
        str(model),
        kind=ModelError,
    )
    refused(lambda: fake(board, "echo '{}'").outputs(model), "came back garbled", kind=ModelError)


def test_a_login_script_that_talks(board, device, model):
    noisy = board.home / ".bashrc"
    noisy.write_text("echo welcome; echo hello >&2\n")
    try:
        np.testing.assert_array_equal(device.outputs(model)[0], HostDevice().outputs(model)[0])
    finally:
        noisy.unlink()


def test_a_full_disk(board, model, tmp_path):
    (board.home / "bin").mkdir()
    board.script("bin/cat", "exec /bin/cat >/dev/full")
    other = write(tflite_networks.mobile_network(size=8, width=6), tmp_path / "other.tflite")
    try:
        refused(
            lambda: fake(board, "true").measure(other), f"disk of {board.address} is full", "free some space", kind=DeviceSetupError
        )
    finally:
        shutil.rmtree(board.home / "bin")
    assert not list(board.cache.glob("*.part"))
    assert not (board.cache / f"{hashlib.sha256(other.read_bytes()).hexdigest()}.tflite").exists()


def test_a_cache_folder_that_cannot_be_written(board, model):
    kept = board.home / ".cache"
    kept.rename(board.home / "kept")
    kept.write_text("a file")
    try:
        refused(lambda: fake(board, "true").measure(model), "could not be copied", "mend that", kind=DeviceSetupError)
    finally:
        kept.unlink()
        (board.home / "kept").rename(kept)


def test_more_threads_than_cpus(board, model):
    device = RaspberryPiDevice(board.address, threads=1000, python=str(boards.PYTHON))
    refused(lambda: device.measure(model), "too few for 1000 thread(s)", kind=DeviceSetupError)


def test_connect(board):
    assert isinstance(connect("host", threads=1), HostDevice)
    found = connect(f"raspberry_pi:{board.address}", python="python3.9")
    assert (found.address, found.python) == (board.address, "python3.9")


def test_the_tool_times_devices_side_by_side(board, model, tmp_path):
    name = f"raspberry_pi:{board.address}"
    done = benchmark("--device=host", f"--device={name}", f"--python={boards.PYTHON}", f"--json={tmp_path}/all.json", str(model))
    assert done.returncode == 0, done.stderr
    head, *lines = done.stdout.splitlines()
    assert "device" in head and len(lines) == 3 and f"{name}: {model} gives the very outputs of the host." == lines[-1]
    here, there = json.loads((tmp_path / "all.json").read_text())
    assert (here["device_name"], there["device_name"], here["parity_with_host"]) == ("host", name, None)
    assert there["parity_with_host"] == {"largest_difference": 0.0, "unit": "steps"} and there["device"]["kind"] == "raspberry_pi"


def test_a_device_that_fails_does_not_take_the_others_with_it(board, model, tmp_path):
    python = board.script("fails", "exit 3")
    found = benchmark(
        "--device=host", f"--device=raspberry_pi:{board.address}", f"--python={python}", f"--json={tmp_path}/all.json", str(model)
    )
    assert found.returncode == 1 and len(found.stdout.splitlines()) == 2
    assert found.stderr.startswith(f"Error: raspberry_pi:{board.address}: ") and "status 3" in found.stderr
    assert [row["device_name"] for row in json.loads((tmp_path / "all.json").read_text())] == ["host"]
