"""Exported files on what devices have: tflite-runtime 2.14, and kernels for ARM, which qemu runs here."""

import functools
import os
import pathlib
import subprocess
import types

import integer_reference
import numpy as np
import pytest
import tflite_networks
from families import FAMILIES, smooth_images
from interpreters import only_operator, steps_apart

from daqu_tf import export, targets, tflite_file
from daqu_tf.architecture import image_size
from daqu_tf.devices import DeviceError, HostDevice
from daqu_tf.tflite_graph import Graph

pytestmark = pytest.mark.devices
ROOT = pathlib.Path(__file__).parents[2]
# By name: a Python with that runtime, its package and version, and the processor.
RUNTIMES = {
    "tflite_runtime_x86": (".venv-tflite-runtime/bin/python", "tflite-runtime", "2.14.0", "x86_64"),
    "tflite_runtime_arm": (".arm/tflite-runtime/python", "tflite-runtime", "2.14.0", "aarch64"),
    "litert_arm": (".arm/ai-edge-litert/python", "ai-edge-litert", "1.4.0", "aarch64"),
}
OLD = ("tflite_runtime_x86", "tflite_runtime_arm")
SEEDS = range(2)


def device(runtime: str) -> HostDevice:
    """Runs files there; without it, in CI, the test fails."""
    python = ROOT / RUNTIMES[runtime][0]
    if not python.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"There is no {python}: `make test-devices` sets it up.")
    return HostDevice(python=python, timeout_seconds=120)


@functools.cache
def exported(family: str, seed: int, target_name: str) -> types.SimpleNamespace:
    """A random subnet of those that the target searches: the graph of its file, that of `litert_cpu_int8`, and images for both."""
    from family_supernets import family_supernet

    from daqu_tf.evaluation import Scorer
    from daqu_tf.layers import quantize_input, resize

    (supernet, _), target = family_supernet(family), targets.get(target_name)
    space = supernet.space
    subnet = space.subnet(target.restrict(space).sample_by_gene(np.random.default_rng(seed)).values)
    network, images = supernet.extract(subnet), smooth_images(space, 32)
    Scorer(network, images).recalibrate()
    arrays = export.round_biases(space, subnet, target, network.arrays())
    graph = export.to_graph(space, subnet, target, arrays)
    size = image_size(space.input_shape, subnet["resolution"])
    narrow = export.to_graph(space, subnet, targets.get("litert_cpu_int8"), arrays)
    return types.SimpleNamespace(graph=graph, narrow=narrow, images=quantize_input(resize(images, size)).numpy())


def outputs(device: HostDevice, graph: Graph, images: np.ndarray, folder: pathlib.Path, input_type: str = "int8") -> np.ndarray:
    export.save(graph, folder / "model.tflite", input_type=input_type)
    return device.outputs(folder / "model.tflite", images)[0]


def one_operator_files(graph: Graph, values: np.ndarray, folder: pathlib.Path) -> dict[str, np.ndarray]:
    """A file for each operator with the integers that it reads, all over float64; returns what it must compute, by file."""
    file, results = tflite_file.write(graph), integer_reference.run(graph, values)
    expected = {}
    for index, operator in enumerate(graph.operators):
        path = folder / f"{len(list(folder.glob('*.tflite')))}.tflite"
        path.write_bytes(only_operator(file, index))
        np.savez(path.with_suffix(".npz"), **{name: results[name] for name in operator.inputs})
        expected[path.stem] = results[operator.output]
    return expected


def int8_graphs() -> list[tuple[Graph, np.ndarray]]:
    """Graphs with every operator there is, and an input of each."""
    found = [exported(family, 0, target) for family in FAMILIES for target in ("tflite_runtime", "accelerator")]
    pairs = [(one.graph, np.round(one.images[:1] * 255) - 128) for one in found]
    pairs.append((export._with_uint8_input(found[0].graph), np.round(found[0].images[:1] * 255)))
    for network in (tflite_networks.residual_network(size=12, width=4), tflite_networks.classic_network(size=21, width=4)):
        shape = network.tensors[0].shape
        pairs.append((network, np.random.default_rng(0).integers(-128, 128, shape)))
    return [(graph, values.astype(graph.tensors[0].type.lower())) for graph, values in pairs]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_runtime_is_the_one_it_is_called(runtime, tmp_path):
    _, package, version, processor = RUNTIMES[runtime]
    export.save(tflite_networks.mobile_network(size=8, width=4), tmp_path / "model.tflite")
    latency = device(runtime).measure(tmp_path / "model.tflite", min_runs=1, min_seconds=0, max_warmup_seconds=0)
    assert (latency.runtime, latency.runtime_version) == (package, version) and latency.device["os"].endswith(processor)
    assert latency.delegate == ("none" if runtime in OLD else "xnnpack")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_operator_is_within_one_step_of_float64(runtime, tmp_path):
    expected, kinds = {}, set()
    for graph, values in int8_graphs():
        expected |= one_operator_files(graph, values, tmp_path)
        kinds |= {type(operator) for operator in graph.operators}
    assert kinds == set(tflite_file._ENCODERS)
    command = [device(runtime).python, ROOT / "tests/devices/run_files.py", tmp_path]
    subprocess.run(command, check=True, timeout=120, stderr=subprocess.DEVNULL)
    for name, values in expected.items():
        assert steps_apart(np.load(tmp_path / f"{name}.npy"), values) <= 1, name


@pytest.mark.parametrize("target", ["litert_cpu", "accelerator"])
@pytest.mark.parametrize("family", FAMILIES)
def test_litert_on_arm_gives_the_integers_of_x86(family, target, tmp_path):
    for seed in SEEDS:
        subnet = exported(family, seed, target)
        has_int4 = any(getattr(operator, "container", None) == "INT4" for operator in subnet.graph.operators)
        assert has_int4 == (target == "litert_cpu" and family != "basic")  # Which has no pointwise layers.
        here, there = (outputs(on, subnet.graph, subnet.images, tmp_path) for on in (HostDevice(), device("litert_arm")))
        np.testing.assert_array_equal(there, here)


@pytest.mark.parametrize("runtime", OLD)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_target_s_files_are_close_to_litert_and_closer_than_narrow_ones(runtime, family, tmp_path):
    steps = {"graph": [], "narrow": []}
    for seed in SEEDS:
        subnet = exported(family, seed, "tflite_runtime")
        here = outputs(HostDevice(), subnet.graph, subnet.images, tmp_path)
        for form, found in steps.items():
            there = outputs(device(runtime), getattr(subnet, form), subnet.images, tmp_path)
            found.append(np.abs(there.astype(int) - here).mean())
            assert form == "narrow" or np.mean(there.argmax(1) == here.argmax(1)) > 0.85
    # Of 255: these networks were never trained, so that a flip is worth more in them, the more so the deeper they are.
    assert np.mean(steps["graph"]) < (5 if family == "squeeze_excite" else 1)
    assert np.mean(steps["graph"]) < 0.9 * np.mean(steps["narrow"])


@pytest.mark.parametrize("runtime", OLD)
def test_int4_is_refused_which_is_why_there_is_a_target(runtime, tmp_path):
    subnet = exported("inverted_residual", 0, "litert_cpu")
    with pytest.raises(DeviceError, match=r"could not be run \(.*\(FULLY_CONNECTED\) failed to prepare.*\): export it again"):
        outputs(device(runtime), subnet.graph, subnet.images, tmp_path)
    assert len(outputs(device(runtime), subnet.narrow, subnet.images, tmp_path)) == len(subnet.images)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_uint8_files_give_the_integers_of_int8_ones(runtime, tmp_path):
    subnet = exported("squeeze_excite", 0, "tflite_runtime")
    int8, uint8 = (outputs(device(runtime), subnet.graph, subnet.images, tmp_path, kind) for kind in export.INPUT_TYPES)
    np.testing.assert_array_equal(uint8, int8)
