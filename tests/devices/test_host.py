import ast
import dataclasses
import hashlib
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tflite_networks
from crashing_models import crashing
from faults import refused

from daqu_tf import targets
from daqu_tf.devices import Device, DeviceSetupError, HostDevice, ModelError, base, host, measurement, runner
from daqu_tf.export import encoding

FAST = {"min_runs": 20, "min_seconds": 0.0, "max_warmup_seconds": 0.05}


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A dense layer on 4x4 grey images as a float file and as an int8 one, and its weights, shape (16, 3)."""
    tf = pytest.importorskip("tensorflow")
    weights = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)

    @tf.function(input_signature=[tf.TensorSpec((1, 4, 4, 1))])
    def network(image):
        return tf.matmul(tf.reshape(image, (1, 16)), weights)

    def convert(**settings):
        converter = tf.lite.TFLiteConverter.from_concrete_functions([network.get_concrete_function()])
        for key, value in settings.items():
            setattr(converter, key, value)
        return converter.convert()

    samples = np.r_[np.random.default_rng(1).random((100, 4, 4, 1), np.float32), np.ones((1, 4, 4, 1), np.float32)]
    folder = tmp_path_factory.mktemp("models")
    (folder / "float.tflite").write_bytes(convert())
    (folder / "int8.tflite").write_bytes(
        convert(
            optimizations=[tf.lite.Optimize.DEFAULT],
            representative_dataset=lambda: ([image[None]] for image in samples),
            inference_input_type=tf.int8,
            inference_output_type=tf.int8,
        )
    )
    return folder / "float.tflite", folder / "int8.tflite", weights


@pytest.fixture
def images():
    return np.random.default_rng(1).random((7, 4, 4, 1), np.float32)


def test_measure_gives_samples_and_where_they_come_from(models):
    latency = HostDevice().measure(models[1])
    assert len(latency.samples_us) >= 50 and sum(latency.samples_us) > 50_000 and latency.warmup_runs >= 10
    assert 0 < latency.median_us <= latency.p90_us and latency.relative_spread >= 0
    assert latency.sha256 == hashlib.sha256(models[1].read_bytes()).hexdigest()
    assert (latency.threads, latency.delegate) == (1, "xnnpack") and latency.runtime and latency.runtime_version[0].isdigit()
    assert latency.device["kind"] == "host" and latency.device["cores"] == os.cpu_count() and latency.device["cpu"]
    assert json.loads(json.dumps(latency.to_json()))["median_us"] == latency.median_us
    assert len(latency.to_json()["samples_us"]) <= 1000 and latency.to_json()["sample_count"] == len(latency.samples_us)
    with pytest.raises(dataclasses.FrozenInstanceError):
        latency.threads = 2


def test_a_latency_is_of_the_device_s_identity(models):
    device = HostDevice()
    assert device.name == "host"
    for model in models[:2]:
        latency = device.measure(model, **FAST)
        assert latency.identity == device.identity()
    assert set(device.identity()) >= {
        "kind",
        "cpu",
        "cores",
        "os",
        "pinned_to",
        "runtime",
        "runtime_version",
        "threads",
        "delegate",
    }
    assert json.loads(json.dumps(device.identity())) == device.identity()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin a process")
def test_the_process_is_pinned_and_this_one_is_not(models):
    mine = os.sched_getaffinity(0)
    first = min(mine)
    assert HostDevice(cpu=first).measure(models[0], **FAST).device["pinned_to"] == [first]
    assert HostDevice().measure(models[0], **FAST).device["pinned_to"] == [max(mine)]
    assert os.sched_getaffinity(0) == mine


def test_predict_runs_a_float_file(models, images):
    logits = HostDevice().predict(models[0], images)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, images.reshape(7, 16) @ models[2], rtol=1e-5, atol=1e-5)


def test_predict_quantizes_by_the_files_own_scales(models, images):
    logits = HostDevice().predict(models[1], images)
    raw, scale, zero_point = HostDevice().outputs(models[1], images)
    assert raw.dtype == np.int8 and raw.shape == (7, 3) and scale > 0
    np.testing.assert_array_equal(logits, (raw.astype(np.float32) - zero_point) * np.float32(scale))
    np.testing.assert_allclose(logits, images.reshape(7, 16) @ models[2], atol=4 * scale)


def test_predict_saturates_images_beyond_the_range(models):
    white, brighter = np.ones((1, 4, 4, 1), np.float32), np.full((1, 4, 4, 1), 9, np.float32)
    device = HostDevice()
    np.testing.assert_array_equal(device.predict(models[1], white), device.predict(models[1], brighter))


def test_measure_many_takes_turns_and_keeps_the_order(models):
    seen = []

    class Recorder(HostDevice):
        def measure(self, model_path, **settings):
            seen.append(model_path)
            return super().measure(model_path, **settings)

    first, second = Recorder().measure_many(models[:2], repeats=3, seed=5, **FAST)
    assert [first.sha256, second.sha256] == [hashlib.sha256(path.read_bytes()).hexdigest() for path in models[:2]]
    assert all(set(seen[turn : turn + 2]) == set(models[:2]) for turn in (0, 2, 4))
    assert len(first.run_medians_us) >= 3 and len(first.samples_us) >= 60


def test_orders_change_between_turns_and_follow_the_seed():
    class Fake(Device):
        def identity(self):
            return {}

        def outputs(self, model_path, images=None):
            raise NotImplementedError

        def measure(self, model_path):
            self.seen.append(model_path)
            return base.Latency((1.0,), (1.0,), 1, 1, "none", "r", "1", {}, model_path)

        def order(self, seed):
            self.seen = []
            assert [latency.sha256 for latency in self.measure_many("abcdef", repeats=2, seed=seed)] == list("abcdef")
            return self.seen

    order = Fake().order(1)
    assert order[:6] != order[6:] and order == Fake().order(1) != Fake().order(2)


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "is empty"),
        (b"garbage that is long enough", "is not a .tflite"),
        (b"\0\0\0\0TFL3" + b"\xff" * 64, "could not be run"),
    ],
)
def test_a_file_that_is_no_model(tmp_path, content, words):
    path = tmp_path / "m; touch $(x) '.tflite"
    path.write_bytes(content)
    refused(lambda: HostDevice().measure(path), words, str(path), kind=ModelError)
    refused(lambda: HostDevice().predict(path, np.zeros((1, 4, 4, 1))), words, kind=ModelError)


def test_a_model_cut_short(models, tmp_path):
    path = tmp_path / "cut.tflite"
    path.write_bytes(models[0].read_bytes()[:200])
    refused(lambda: HostDevice().measure(path), "could not be run")


@pytest.mark.parametrize("signal_name", ["SIGSEGV", "SIGABRT"])
def test_a_model_that_crashes_the_runtime_costs_the_others_nothing(tmp_path, signal_name):
    good, bad = tmp_path / "good.tflite", tmp_path / "bad.tflite"
    encoding.write(encoding.encode(tflite_networks.mobile_network(size=8, width=4), targets.Storage()), good)
    bad.write_bytes(crashing(good.read_bytes(), signal_name))
    for call in (HostDevice().measure, HostDevice().outputs):
        refused(lambda call=call: call(bad), str(bad), f"the runtime crashed with {signal_name}", kind=ModelError)
    first, fault, last = HostDevice().measure_each([good, bad, good], repeats=2, **FAST)
    assert isinstance(fault, ModelError) and len(first.run_medians_us) >= 2 and len(last.run_medians_us) >= 2


def test_a_missing_model_and_a_folder(tmp_path):
    refused(lambda: HostDevice().measure(tmp_path / "gone.tflite"), "cannot be read")
    refused(lambda: HostDevice().measure(tmp_path), "cannot be read")


def test_hostile_names_reach_no_shell(models, tmp_path):
    path = tmp_path / "-x; touch sprung $(touch sprung) `id` '\".tflite"
    path.write_bytes(models[0].read_bytes())
    assert HostDevice().measure(path, **FAST).median_us > 0
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_images_of_another_shape(models):
    refused(lambda: HostDevice().predict(models[0], np.zeros((2, 5, 5, 1))), "(1, 4, 4, 1)", "(5, 5, 1)")


def test_a_timeout_ends_the_process(models):
    refused(lambda: HostDevice(timeout_seconds=0.01).measure(models[0]), "0.01 s", kind=ModelError)
    refused(lambda: HostDevice(timeout_seconds=2).measure(models[0], min_seconds=60), "2 s", kind=ModelError)


@pytest.mark.parametrize(
    "code, words",
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("print('no json')", "status 0"),
        ("print('[1, 2]')", "status 0"),
        ("import sys; sys.exit('INFO: noise\\nout of memory')", "out of memory"),
        ('print(\'{"error": "two\\\\nlines"}\')', "two lines"),
    ],
)
def test_a_process_that_crashes_or_babbles(models, tmp_path, monkeypatch, code, words):
    runner = tmp_path / "runner.py"
    runner.write_text(code)
    monkeypatch.setattr(host, "_RUNNER", runner)
    refused(lambda: HostDevice().measure(models[0]), words, kind=ModelError)


def test_a_python_without_a_runtime(models, tmp_path, monkeypatch):
    for name in ("ai_edge_litert", "tflite_runtime"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('not here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for call in (lambda: HostDevice().measure(models[0]), HostDevice().identity):
        refused(call, "host runs no models", "pip install ai-edge-litert", "not here", kind=DeviceSetupError)


def test_a_runtime_that_runs_nothing_is_no_fault_of_the_model(models, tmp_path, monkeypatch):
    """As tflite-runtime 2.14 is with NumPy 2: it can be imported, and fails at the first tensor."""
    (tmp_path / "ai_edge_litert.py").write_text("raise ImportError('not here')")
    (tmp_path / "tflite_runtime").mkdir()
    (tmp_path / "tflite_runtime" / "__init__.py").write_text("__version__ = '2.14.0'")
    broken = "class Interpreter:\n    def __init__(self, **_):\n        raise AttributeError('_ARRAY_API not found')\n"
    (tmp_path / "tflite_runtime" / "interpreter.py").write_text(broken)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for call in (lambda: HostDevice().measure(models[0]), HostDevice().identity):
        refused(call, "host runs no models", "tflite-runtime 2.14.0 does not run with numpy", "_ARRAY_API", kind=DeviceSetupError)


@pytest.mark.parametrize(
    ("zones", "celsius"),
    [
        ([], None),
        ([("cpu-thermal", "51234")], 51.234),
        ([("PMIC-Die", "100000"), ("CPU-therm", "41500"), ("GPU-therm", "38000")], 41.5),
        ([("PMIC-Die", "100000")], None),
        ([("soc", "97"), ("battery", "31000"), ("cpu-0-0", "39")], 39.0),
        ([("acpitz", "27800"), ("x86_pkg_temp", "48000"), ("iwlwifi_1", "100000")], 48.0),
        ([("acpitz", "27800"), ("iwlwifi_1", "55000")], 27.8),
        ([("cpu", "-274000"), ("cpu", "no"), ("cpu", "0"), ("cpu", "999000")], None),
    ],
)
def test_the_sensors_that_count(zones, celsius):
    assert runner.hottest(zones) == celsius


def test_the_fastest_cpus_are_taken(monkeypatch):
    """As on a phone whose big ones come last, a desktop whose big ones come first, and where nothing is known."""
    known = {}
    monkeypatch.setattr(runner, "read", lambda path: known.get(path.removeprefix("/sys/devices/system/cpu/")))
    assert runner.by_speed([2, 0, 1]) == [0, 1, 2]
    known |= {f"cpu{cpu}/cpufreq/cpuinfo_max_freq": "5200000" if cpu < 2 else "3900000" for cpu in range(4)}
    assert runner.by_speed(range(4)) == [2, 3, 0, 1]
    known |= {f"cpu{cpu}/cpu_capacity": "1024" if cpu == 3 else "446" for cpu in range(4)}
    assert runner.by_speed(range(4))[-1] == 3


def test_a_faster_board_of_the_same_kind_is_another(monkeypatch):
    """As a Raspberry Pi that its owner has overclocked; where the frequency is not known, the identity has none."""
    known = {}
    monkeypatch.setattr(runner, "read", known.get)

    def identity():
        return measurement.identity(runner.fingerprint(), "ai-edge-litert", "2", 1)

    unknown = identity()
    cpus = [f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/" for cpu in sorted(os.sched_getaffinity(0))]
    known |= {f"{cpu}cpuinfo_max_freq": "1800000" for cpu in cpus}
    usual = identity()
    known |= {f"{cpus[0]}scaling_cur_freq": "600000", f"{cpus[0]}scaling_max_freq": "900000"}  # Of the moment.
    assert identity() == usual == unknown | {"highest_hz": 1_800_000_000}
    known[f"{cpus[0]}cpuinfo_max_freq"] = "2147000"
    assert identity() == unknown | {"highest_hz": 2_147_000_000}


@pytest.mark.parametrize("code", ["print('garbage')", "print('{}')", "raise SystemExit(3)", "import os; os.abort()"])
def test_a_python_that_does_not_say_what_it_is(tmp_path, monkeypatch, code):
    (tmp_path / "runner.py").write_text(code)
    monkeypatch.setattr(host, "_RUNNER", tmp_path / "runner.py")
    refused(HostDevice().identity, "host", kind=DeviceSetupError)


def test_a_full_disk_is_no_fault_of_the_model(models, images, tmp_path, monkeypatch):
    # The runner saves its outputs; nothing else there calls it.
    full = "import numpy\ndef save(path, values):\n    open('/dev/full', 'wb', 0).write(b'x')\nnumpy.save = save\n"
    (tmp_path / "sitecustomize.py").write_text(full)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    refused(lambda: HostDevice().predict(models[0], images), "No space left", kind=DeviceSetupError)


def test_another_python(models, images, tmp_path):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\ntouch '{tmp_path}/called'\nexec '{sys.executable}' \"$@\"\n")
    python.chmod(0o755)
    found = HostDevice(python=python).outputs(models[1], images)[0]
    np.testing.assert_array_equal(found, HostDevice().outputs(models[1], images)[0])
    assert (tmp_path / "called").exists()
    refused(
        lambda: HostDevice(python=tmp_path / "gone").measure(models[0]), "`python`", "gone cannot be started", kind=DeviceSetupError
    )


def test_arguments_are_checked(models):
    refused(lambda: HostDevice(threads=0), "`threads`", kind=DeviceSetupError)
    refused(lambda: HostDevice(threads=10_000), "`threads`", kind=DeviceSetupError)
    refused(lambda: HostDevice().measure(models[0], min_runs=0), "`min_runs`", kind=DeviceSetupError)
    refused(lambda: HostDevice().measure_many([models[0]], repeats=0), "`repeats`", kind=DeviceSetupError)
    if hasattr(os, "sched_setaffinity"):
        refused(lambda: HostDevice(cpu=10_000), "`cpu`", kind=DeviceSetupError)


def test_the_runner_is_one_for_old_boards():
    ast.parse(pathlib.Path(host._RUNNER).read_text(), feature_version=(3, 8))


def test_importing_devices_does_not_import_tensorflow():
    code = "import sys, daqu_tf.devices; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
