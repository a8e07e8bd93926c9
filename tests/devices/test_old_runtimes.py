"""Exported files on what devices have: tflite-runtime 2.14, and kernels for ARM, which qemu runs here."""

import functools
import os
import pathlib
import subprocess
import sys
import types

import integer_reference
import numpy as np
import pytest
import tflite_networks
from families import FAMILIES, smooth_images
from interpreters import only_operator, steps_apart

from daqu_tf import export, targets, tflite
from daqu_tf.devices import DeviceError, HostDevice
from daqu_tf.export import encoding
from daqu_tf.export.export import to_graph
from daqu_tf.spaces.architecture import image_size
from daqu_tf.tflite.codecs import ENCODERS
from daqu_tf.tflite.graph import Graph, QuantizedTensor
from daqu_tf.tflite.operators import Dequantize, GlobalAveragePool, Logistic, Minimum, Softmax

pytestmark = pytest.mark.devices
ROOT = pathlib.Path(__file__).parents[2]
# By name: a Python with that runtime, its package and version, and the processor.
RUNTIMES = {
    "tflite_runtime_x86": (".venv-tflite-runtime/bin/python", "tflite-runtime", "2.14.0", "x86_64"),
    "tflite_runtime_arm": (".arm/tflite-runtime/python", "tflite-runtime", "2.14.0", "aarch64"),
    "litert_arm": (".arm/ai-edge-litert/python", "ai-edge-litert", "1.4.0", "aarch64"),
}
OLD = ("tflite_runtime_x86", "tflite_runtime_arm")
SUBNETS = [(family, seed) for family in FAMILIES for seed in range(2)]
Files = dict[str, tuple[bytes, dict[str, np.ndarray]]]  # Each with its inputs by name.


def python(runtime: str) -> pathlib.Path:
    """The interpreter; without it the test fails in CI, and is skipped elsewhere."""
    path = ROOT / RUNTIMES[runtime][0]
    if not path.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"There is no {path}: `make test-devices` sets it up.")
    return path


def run(python: str | pathlib.Path, files: Files, folder: pathlib.Path) -> dict[str, np.ndarray]:
    """What each file puts out there. All run in one process, since under qemu it takes a second to start one."""
    for name, (file, inputs) in files.items():
        (folder / f"{name}.tflite").write_bytes(file)
        np.savez(folder / f"{name}.npz", **inputs)
    subprocess.run([python, ROOT / "tests/devices/run_files.py", folder], check=True, timeout=300, stderr=subprocess.DEVNULL)
    return {name: np.load(folder / f"{name}.npy") for name in files}


@functools.cache
def exported(family: str, seed: int, target_name: str) -> types.SimpleNamespace:
    """A random subnet of those that the target searches: the graph of its file, that of `litert_cpu_int8`, and images for both."""
    from family_supernets import family_supernet

    from daqu_tf.supernet.layers import quantize_input, resize

    (supernet, _), target = family_supernet(family), targets.get(target_name)
    space = supernet.space
    subnet = space.subnet(target.restrict(space).sample_by_gene(np.random.default_rng(seed)).values)
    network, images = supernet.extract(subnet), smooth_images(space, 32)
    network(images, training=True, statistics_rate=1.0)
    export.round_biases(network)
    graph, narrow = (to_graph(network, storage) for storage in (target.storage, targets.Storage("int8")))
    images = quantize_input(resize(images, image_size(space.input_shape, subnet["resolution"]))).numpy()
    real = [to_graph(network, targets.Storage(container, "tflite_runtime")) for container in ("float32", "float16")]
    real.append(encoding._with_output(encoding._with_input(graph, "float32"), "float32"))
    return types.SimpleNamespace(graph=graph, narrow=narrow, real=real, images=images)


def file_of(graph: Graph, images: np.ndarray) -> tuple[bytes, dict[str, np.ndarray]]:
    return tflite.write(graph), {graph.input: (np.round(images * 255) - 128).astype(np.int8)}


def write(graph: Graph, path: pathlib.Path, input_type: str | None = None) -> None:
    encoding.write(encoding.encode(graph, targets.Storage(input_type=input_type)), path)


def has_int4(graph: Graph) -> bool:
    return any(getattr(operator, "container", None) == "INT4" for operator in graph.operators)


def int8_graphs() -> list[tuple[Graph, np.ndarray]]:
    """Graphs with every operator there is, and an input of each."""
    found = [exported(family, 0, target) for family in FAMILIES for target in ("tflite_runtime", "accelerator")]
    pairs = [(one.graph, np.round(one.images[:1] * 255) - 128) for one in found]
    pairs.append((encoding._with_input(found[0].graph, "uint8"), np.round(found[0].images[:1] * 255)))
    for network in (tflite_networks.residual_network(size=12, width=4), tflite_networks.classic_network(size=21, width=4)):
        pairs.append((network, np.random.default_rng(0).integers(-128, 128, network.tensors[0].shape)))
    for kind in (Softmax, Logistic):
        ends = QuantizedTensor("x", (1, 10), 0.05, 3), QuantizedTensor("y", (1, 10), 1 / 256, -128)
        pairs.append((Graph(ends, (kind("x", "y"),), "x", "y"), np.random.default_rng(0).integers(-128, 128, (1, 10))))
    return [(graph, values.astype(graph.tensors[0].type.lower())) for graph, values in pairs]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_runtime_is_the_one_it_is_called(runtime, tmp_path):
    _, package, version, processor = RUNTIMES[runtime]
    write(tflite_networks.mobile_network(size=8, width=4), tmp_path / "model.tflite")
    device = HostDevice(python=python(runtime))
    latency = device.measure(tmp_path / "model.tflite", min_runs=1, min_seconds=0, max_warmup_seconds=0)
    assert (latency.runtime, latency.runtime_version) == (package, version) and latency.device["os"].endswith(processor)
    assert latency.delegate == ("none" if runtime in OLD else "xnnpack")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_every_operator_is_within_one_step_of_float64(runtime, tmp_path):
    files, expected, kinds = {}, {}, set()
    for number, (graph, values) in enumerate(int8_graphs()):
        file, results = tflite.write(graph), integer_reference.run(graph, values)
        for index, operator in enumerate(graph.operators):
            name = f"{number}_{index}_{type(operator).__name__}"
            files[name] = only_operator(file, index), {source: results[source] for source in operator.inputs}
            expected[name] = results[operator.output]
            kinds.add(type(operator))
    assert kinds == set(ENCODERS) - {Dequantize, Minimum}  # Which are of real numbers.
    for name, values in run(python(runtime), files, tmp_path).items():
        assert steps_apart(values, expected[name]) <= 1, name


def test_litert_on_arm_gives_the_integers_of_x86(tmp_path):
    """But where a mean over pixels lies halfway between two integers: versions of XNNPACK take either."""
    graphs = {}
    for family, seed in SUBNETS:
        for target in ("litert_cpu", "accelerator"):
            subnet = graphs[f"{family}_{seed}_{target}"] = exported(family, seed, target)
            assert not has_int4(subnet.graph) or target == "litert_cpu"
    assert sum(has_int4(subnet.graph) for subnet in graphs.values()) > 2
    files = {name: file_of(subnet.graph, subnet.images) for name, subnet in graphs.items()}
    here, there = run(sys.executable, files, tmp_path), run(python("litert_arm"), files, tmp_path)
    behind_ties = {name: behind_a_mean_at_a_tie(subnet.graph, subnet.images) for name, subnet in graphs.items()}
    for name, found in there.items():
        exact = ~behind_ties[name]
        np.testing.assert_array_equal(found[exact], here[name][exact], err_msg=name)
    assert np.mean(np.concatenate(list(behind_ties.values()))) < 0.3


def behind_a_mean_at_a_tie(graph: Graph, images: np.ndarray) -> np.ndarray:
    """Of which images (count,) some mean over pixels lies halfway between two integers, but for what float32 cannot tell."""
    tensors = {tensor.name: tensor for tensor in graph.tensors}
    found = []
    for image in images:
        values = integer_reference.run(graph, (np.round(image[None] * 255) - 128).astype(np.int8))
        means = [
            (values[each.input].astype(np.float64).mean((1, 2)) - tensors[each.input].zero_point)
            * (np.float64(tensors[each.input].scale) / tensors[each.output].scale)
            for each in graph.operators
            if isinstance(each, GlobalAveragePool)
        ]
        found.append(any(np.any(np.abs(mean % 1 - 0.5) < 1e-4) for mean in means))
    return np.array(found)


@pytest.mark.parametrize("runtime", OLD)
def test_tflite_runtime_is_close_to_litert_on_files_for_it_and_mostly_farther_on_others(runtime, tmp_path):
    subnets = {f"{family}_{seed}": exported(family, seed, "tflite_runtime") for family, seed in SUBNETS}
    files = {name: file_of(subnet.graph, subnet.images) for name, subnet in subnets.items()}
    narrow = {f"narrow_{name}": file_of(subnet.narrow, subnet.images) for name, subnet in subnets.items()}
    here, there = run(sys.executable, files, tmp_path), run(python(runtime), files | narrow, tmp_path)
    ratios = {}
    for name in files:
        expected, found, found_narrow = here[name].astype(int), there[name].astype(int), there[f"narrow_{name}"].astype(int)
        steps = np.abs(found - expected).mean()
        # Of 255, and of networks that nobody trained, in which a flip goes far: the farther, the deeper they are.
        assert steps < (5 if name.startswith("squeeze_excite") else 1), name
        assert np.mean(found.argmax(1) == expected.argmax(1)) > 0.9, name
        ratios[name] = steps / np.abs(found_narrow - expected).mean()
    # The shallowest family gains little (1.0 and 0.81 of the steps on x86), and is not in the mean; nor is it to lose much.
    shallow = [ratio for name, ratio in ratios.items() if name.startswith("identity")]
    assert max(shallow) < 1.1
    deep = [ratio for name, ratio in ratios.items() if not name.startswith("identity")]
    assert np.exp(np.mean(np.log(deep))) < 0.8  # Some files hold weights that are wide for the sake of their biases already.


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_files_with_real_numbers(runtime, tmp_path):
    files = {}
    for family in FAMILIES:
        subnet = exported(family, 0, "tflite_runtime")
        for number, graph in enumerate(subnet.real):
            files[f"{family}_{number}"] = tflite.write(graph), {graph.input: subnet.images[:4].astype(np.float32)}
    here, there = run(sys.executable, files, tmp_path), run(python(runtime), files, tmp_path)
    for name, expected in here.items():
        # FLOAT32 differs in the order of sums; FLOAT16 may be computed as such; integers round as the runtime does.
        most = np.ptp(expected) * {"0": 1e-4, "1": 0.02, "2": 0.1}[name[-1]]
        np.testing.assert_allclose(there[name], expected, atol=most, err_msg=name)


@pytest.mark.parametrize("runtime", OLD)
def test_int4_is_refused_which_is_why_there_is_a_target(runtime, tmp_path):
    subnet, device = exported("inverted_residual", 0, "litert_cpu"), HostDevice(python=python(runtime))
    write(subnet.graph, tmp_path / "model.tflite")
    with pytest.raises(DeviceError, match=r"could not be run \(.*\(FULLY_CONNECTED\) failed to prepare.*\): export it again"):
        device.outputs(tmp_path / "model.tflite", subnet.images)
    write(subnet.narrow, tmp_path / "model.tflite")
    assert len(device.outputs(tmp_path / "model.tflite", subnet.images)[0]) == len(subnet.images)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_uint8_files_give_the_integers_of_int8_ones(runtime, tmp_path):
    subnet, device = exported("squeeze_excite", 0, "tflite_runtime"), HostDevice(python=python(runtime))
    outputs = []
    for input_type in ("int8", "uint8"):
        write(subnet.graph, tmp_path / "model.tflite", input_type)
        outputs.append(device.outputs(tmp_path / "model.tflite", subnet.images)[0])
    np.testing.assert_array_equal(*outputs)
