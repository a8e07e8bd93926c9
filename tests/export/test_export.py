import dataclasses
import errno
import functools
import itertools
import pathlib
import subprocess
import sys

import integer_reference
import interpreters
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from families import FAMILIES, smooth_images
from PIL import Image
from recording import agree_where_they_first_differ, recorded_codes

from daqu_tf import files, targets, tflite
from daqu_tf.devices import HostDevice
from daqu_tf.errors import DaquError
from daqu_tf.export import encoding, export
from daqu_tf.export.description import layer_table
from daqu_tf.export.encoding import encode
from daqu_tf.export.export import export_tflite, round_biases, to_graph
from daqu_tf.export.proof import at_size, sample_images
from daqu_tf.keras import keras
from daqu_tf.spaces.architecture import image_size
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.stage import Stage
from daqu_tf.spaces.subnet import Subnet
from daqu_tf.supernet.layers import quantize_input, resize
from daqu_tf.supernet.supernet import StaticNetwork
from daqu_tf.targets.builder import fold
from daqu_tf.tflite.operators import Dequantize, Quantize
from daqu_tf.tflite.weighted import DepthwiseConv2D, FullyConnected, Weighted

STORAGE = targets.Storage()
SPACE = FAMILIES["inverted_residual"]  # Unrestricted: low-bit activations too.


def some_in_float(subnet, rng):
    bits = ((name, 32 if name.endswith("_bits") and rng.random() < 0.4 else value) for name, value in subnet.choices)
    return Subnet(tuple(bits))


def all_in_float(subnet, rng):
    return subnet.with_bits(32, 32)


def w4a8(subnet, rng):
    return subnet.with_bits(4, 8)


@functools.cache
def _network(seed: int, space: SearchSpace = SPACE, change=None) -> tuple[StaticNetwork, np.ndarray]:
    """A subnet with random weights, steps from data, gammas of either sign and one that is zero; and its images.

    It takes seconds to make, so tests share it: one that changes weights puts them back.
    """
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    subnet = space.sample_by_gene(rng)
    network = StaticNetwork(space, change(subnet, rng) if change else subnet)
    arrays = network.arrays()
    for name, array in arrays.items():
        if name.endswith("gamma"):
            arrays[name] = rng.normal(0, 1, array.shape).astype(np.float32)
            arrays[name][0] = 0.0
        if name.endswith(("beta", "bias")):
            arrays[name] = rng.normal(0, 0.5, array.shape).astype(np.float32)
    network.load_arrays(arrays)
    size = image_size(space.input_shape, network.subnet["resolution"])
    images = quantize_input(resize(tf.constant(smooth_images(space, 64)), size)).numpy()
    network.initialise_steps(images, space.weight_bits)
    network(images, training=True, statistics_rate=1.0)  # As a scorer does; of one batch, without a trace.
    round_biases(network)
    return network, images


def test_the_proof_feeds_what_an_application_does():
    space = FAMILIES["squeeze_excite"]
    network = StaticNetwork(space, space.subnet(space.largest().values | {"resolution": 8}))
    images = np.random.default_rng(0).integers(0, 256, (4, *space.input_shape), np.uint8)
    expected = [np.asarray(Image.fromarray(image).resize((8, 8), Image.Resampling.BILINEAR)) for image in images]
    assert np.abs(at_size(network, images / np.float32(255)) * 255 - expected).max() <= 1.01


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("seed", range(3))
def test_the_file_computes_what_the_simulation_does(name, seed, tmp_path):
    space = FAMILIES[name]
    network, images = _network(seed, space)
    path = tmp_path / "model.tflite"
    export_tflite(network, path)
    codes, scale, zero_point = HostDevice().outputs(path, at_size(network, images))
    simulated = network(images).numpy()
    steps = np.abs((codes.astype(np.float64) - zero_point) * scale - simulated) / scale
    # Equal but where a sum of floats fell on the other side of a tie; at 2 bits such a flip goes through the layers behind it.
    assert np.mean(steps < 0.5) > 0.8 and np.mean(steps) < 0.5
    assert np.mean(codes.argmax(1) == simulated.argmax(1)) > 0.98


WITHOUT_TENSORFLOW = """
import json, sys
from daqu_tf.export.encoding import encode, write
from daqu_tf.export.subnet_graph import to_graph
from daqu_tf.files import read_arrays
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.targets.storage import Storage
given, arrays, path = sys.argv[1:]
space, subnet = json.load(open(given))
space, storage = SearchSpace.from_json(space), Storage()
write(encode(to_graph(space, space.subnet(subnet), read_arrays(arrays), storage), storage), path)
print(*sorted({"tensorflow", "tf_keras", "keras"} & sys.modules.keys()))
"""


def test_a_process_without_tensorflow_writes_the_same_file(tmp_path):
    network, _ = _network(0)
    export_tflite(network, tmp_path / "wanted.tflite")
    files.write_json(tmp_path / "given.json", [network.space.to_json(), network.subnet.to_json()])
    files.write_arrays(tmp_path / "arrays.npz", network.arrays())
    paths = [tmp_path / name for name in ("given.json", "arrays.npz", "found.tflite")]
    done = subprocess.run([sys.executable, "-c", WITHOUT_TENSORFLOW, *paths], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr
    assert (tmp_path / "found.tflite").read_bytes() == (tmp_path / "wanted.tflite").read_bytes()


@pytest.mark.parametrize("name", FAMILIES)
def test_the_simulation_is_the_integer_reference_tensor_by_tensor(name):
    network, images = _network(5, FAMILIES[name])
    graph = to_graph(network, STORAGE)
    with recorded_codes() as codes:
        network(images[:12])
    zero_points = {tensor.name: tensor.zero_point for tensor in graph.tensors}
    inputs = (np.round(images[:12] * 255) - 128).astype(np.int8)
    runs = [integer_reference.run(graph, image[np.newaxis]) for image in inputs]
    names = [
        layer.name if tensor.endswith((".normalize", ".output")) else tensor
        for layer in network.space.layers(network.subnet)
        for tensor in layer.tensors
    ]
    reference = [np.concatenate([run[name] for run in runs]).astype(float) - zero_points[name] for name in names]
    assert agree_where_they_first_differ(codes, reference)


def test_integers_are_the_trained_ones_up_to_sign_and_a_power_of_two_a_channel():
    network, _ = _network(9)
    graph = to_graph(network, STORAGE)
    written = {operator.output: operator for operator in tflite.read(tflite.write(graph)).operators}
    arrays = network.arrays()
    for layer in SPACE.layers(network.subnet):
        kernel = arrays[f"{layer.name}/kernel"]
        kernel = np.moveaxis(kernel[..., 0] if layer.kind == "depthwise" else kernel, -1, 0).reshape(layer.output_channels, -1)
        log_step = arrays[f"{layer.name}/kernel_log_step"]
        row = SPACE.weight_bits.index(layer.weight_bits) if len(log_step) > 1 else 0
        limit = 2 ** (layer.weight_bits - 1) - 1
        codes = np.clip(np.round(kernel / np.exp(log_step[row])[:, None]), -limit, limit)
        found = written[layer.name].weights
        found = (np.moveaxis(found, 3, 1)[0] if layer.kind == "depthwise" else found).reshape(codes.shape)
        alive = np.abs(found).sum(axis=1) > 0
        powers = np.abs(found[alive]).max(axis=1, keepdims=True) / np.abs(codes[alive]).max(axis=1, keepdims=True)
        assert set(np.log2(powers).ravel() % 1) <= {0.0} and powers.min(initial=1) >= 1
        assert np.array_equal(np.abs(found[alive]), np.abs(codes[alive]) * powers)
        assert written[layer.name].trained_bits <= layer.weight_bits
        if layer.kind != "dense":
            assert not alive[0]  # Its gamma is zero.


def test_files_for_runtimes_that_round_once_and_twice_hold_the_same_real_numbers():
    network, _ = _network(9)
    once, twice = (to_graph(network, targets.get(name).storage) for name in ("litert_cpu_int8", "tflite_runtime"))
    assert once.tensors == twice.tensors
    for before, after in zip(once.operators, twice.operators):
        if isinstance(before, Weighted):
            factors = before.weight_scales / after.weight_scales  # Those that round twice may have fewer powers of two.
            assert factors.max() <= 1 and set(np.log2(factors) % 1) == {0}
            channels_last = (np.moveaxis(operator.weights, operator.channels_axis, -1).astype(int) for operator in (before, after))
            np.testing.assert_array_equal(next(channels_last) * factors, next(channels_last))


def test_containers_follow_target_and_bits():
    network, _ = _network(2)
    for target in targets.TARGETS.values():
        graph = to_graph(network, target.storage)
        packed = {op.output for op in graph.operators if isinstance(op, FullyConnected) and op.container == "INT4"}
        table = layer_table(SPACE, network.subnet, graph)
        assert packed == {row["name"] for row in table if row["container"] == "INT4"}
        low = {row["name"] for row in table if row["kind"] == "pointwise" and row["weight_bits"] <= 4}
        assert packed == (low if target.int4_fully_connected else set())


@pytest.mark.parametrize("width, container", [(5, "INT8"), (6, "INT4")])
def test_no_container_keeps_a_layer_from_the_delegate(width, container):
    stages = (Stage((width,), (2,), (3,), (3,), 1), Stage((width,), (2,), (1,), (1,), 1, block="basic"))
    space = SearchSpace("narrow", (8, 8, 1), 5, (width,), 1, stages, (width,), weight_bits=(4,), activation_bits=(8,))
    network, _ = _network(0, space)
    graph = to_graph(network, STORAGE)
    table = layer_table(space, network.subnet, graph)
    one_by_one = ("expand", "project", "conv1", "shortcut", "head")  # All behind an odd number of channels, or an even one.
    assert {row["container"] for row in table if row["name"].endswith(one_by_one)} == {container}
    assert {row["container"] for row in table if not row["name"].endswith(one_by_one)} == {"INT8"}
    assert interpreters.is_wholly_delegated(interpreters.loaded(tflite.write(graph), interpreters.XNNPACK), graph)


def test_fold_makes_a_constant_of_a_dead_channel():
    codes = np.array([[7, -7], [7, 7], [1, 0]])
    weights, scales, bias, offsets = fold(
        codes, np.full(3, 0.1), np.array([2.0, -2.0, 1e-12]), np.array([0.0, 1.0, 3.0]), 0.01, 0.1, widest=7
    )
    assert weights.tolist() == [[7, -7], [-7, -7], [0, 0]]
    np.testing.assert_allclose(scales[:2], 0.2, rtol=1e-6)
    np.testing.assert_allclose(bias * 0.01 * scales, [0.0, 1.0, 3.0], rtol=1e-3)
    np.testing.assert_allclose(offsets, bias * 0.01 * scales, rtol=1e-6)


def test_the_ends_of_a_file_give_the_same_numbers_with_and_without_metadata(tmp_path):
    network, images = _network(4)
    labels = tuple(f"class {number}" for number in range(network.space.num_classes))
    metadata = tflite.Metadata("m00", "Some classes.", labels)
    logits = {}
    for source, sink in itertools.product(targets.TYPES, targets.TYPES):
        for known in (None, metadata):
            path = tmp_path / f"{source}_{sink}_{known is not None}.tflite"
            export_tflite(network, path, input_type=source, output_type=sink, metadata=known)
            logits[path.stem] = HostDevice().predict(path, images)
            ends = {tensor["dtype"] for tensor in ends_of(path)}
            assert ends == {np.dtype(source).type, np.dtype(sink).type}
            assert tflite.read_labels(path.read_bytes()) == (labels if known else ())
    for name, found in logits.items():
        np.testing.assert_allclose(found, logits["int8_int8_False"], rtol=1e-6, err_msg=name)


def ends_of(path):
    interpreter = Interpreter(str(path))
    return *interpreter.get_input_details(), *interpreter.get_output_details()


def test_pixels_go_in_as_they_are(tmp_path):
    network, images = _network(4)
    metadata = tflite.Metadata("m00", "Some classes.", tuple("abcde"))
    export_tflite(network, path := tmp_path / "model.tflite", input_type="uint8", metadata=metadata)
    (source,) = tflite.read_metadata(path.read_bytes())["subgraph_metadata"][0]["input_tensor_metadata"]
    assert source["stats"] == {"max": [255.0], "min": [0.0]} and "as they are" in source["description"]
    runner = Interpreter(str(path)).get_signature_runner()
    pixels = np.round(images[:1] * 255).astype(np.uint8)
    np.testing.assert_array_equal(runner(image=pixels)["classifier"], HostDevice().outputs(path, images[:1])[0])


FLOAT_ERRORS = {"float32": 1e-5, "float16": 6e-3}


@pytest.mark.parametrize("container", FLOAT_ERRORS)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_float_network_in_a_float_file(name, container, tmp_path):
    network, images = _network(3, FAMILIES[name], all_in_float)
    export_tflite(network, path := tmp_path / "model.tflite", container)
    expected = network(images).numpy()
    np.testing.assert_allclose(
        HostDevice().predict(path, at_size(network, images)), expected, atol=FLOAT_ERRORS[container] * np.abs(expected).max()
    )


@pytest.mark.parametrize("container", [*FLOAT_ERRORS, "dynamic"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_quantized_network_in_a_float_file_has_its_weights(name, container, tmp_path):
    """At 8 bits, activations that are not rounded make little difference."""
    network, images = _network(3, FAMILIES[name], w4a8)
    export_tflite(network, path := tmp_path / "model.tflite", container)
    expected = network(images).numpy()
    assert np.std(HostDevice().predict(path, at_size(network, images)) - expected) < 0.3 * np.std(expected)
    integers = {operator.output: operator for operator in to_graph(network, targets.Storage("int8")).operators}
    for operator in tflite.read(path.read_bytes()).operators:
        if isinstance(operator, Weighted):
            trained = integers[operator.output.removesuffix(".unclipped")]
            np.testing.assert_allclose(real_weights(operator), real_weights(trained), rtol=1e-3, atol=1e-7)


def real_weights(operator):
    """(output channels, rest), without those of dead channels."""
    rows = np.moveaxis(operator.weights, operator.channels_axis, 0).reshape(len(operator.bias), -1)
    rows = rows * operator.weight_scales[:, None] if operator.weight_scales.size else rows
    return rows[1:] if len(rows) > 1 else rows  # `_network` makes the first gamma 0.


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("seed", range(2))
def test_layers_in_float_among_integers(name, seed, tmp_path):
    network, images = _network(seed, FAMILIES[name], some_in_float)
    graph = to_graph(network, STORAGE)
    assert {Quantize, Dequantize} <= {type(operator) for operator in graph.operators}
    export_tflite(network, path := tmp_path / "model.tflite")
    expected = network(images).numpy()
    assert np.sqrt(np.mean((HostDevice().predict(path, at_size(network, images)) - expected) ** 2)) < 0.1 * np.std(expected)


def test_int4_holds_convolutions_too(tmp_path):
    network, images = _network(1, FAMILIES["basic"], w4a8)
    export_tflite(network, path := tmp_path / "model.tflite", "int4")
    kernels = [op for op in tflite.read(path.read_bytes()).operators if isinstance(op, Weighted)]
    assert {op.container for op in kernels if op.output not in ("stem", "classifier")} == {"INT4"}
    expected = network(images).numpy()
    assert np.std(HostDevice().predict(path, images) - expected) < 0.1 * np.std(expected)


def test_a_file_that_computes_something_else_is_not_left(tmp_path, monkeypatch):
    network, _ = _network(2)
    graph = to_graph(network, STORAGE)
    *_, last = (index for index, operator in enumerate(graph.operators) if isinstance(operator, DepthwiseConv2D))
    changed = dataclasses.replace(graph.operators[last], weights=graph.operators[last].weights[:, ::-1, ::-1] * -1)
    broken = dataclasses.replace(graph, operators=(*graph.operators[:last], changed, *graph.operators[last + 1 :]))
    monkeypatch.setattr(export, "to_graph", lambda *_: broken)
    with pytest.raises(DaquError, match="was not written: its outputs are .* times as far from the network's"):
        export_tflite(network, tmp_path / "model.tflite")
    assert not [*tmp_path.iterdir()]


def test_sample_images_fill_what_the_graph_reads():
    for seed, change in ((2, None), (3, all_in_float)):
        network, _ = _network(seed, SPACE, change)
        images = sample_images(to_graph(network, STORAGE))
        assert images.min() >= 0 and images.max() <= 1 and images.std() > 0.1


def test_the_layer_table_says_what_is_stored():
    network, _ = _network(0, SPACE, some_in_float)
    graph = to_graph(network, STORAGE)
    table = {row["name"]: row for row in layer_table(SPACE, network.subnet, graph)}
    assert {row["container"] for row in table.values()} >= {"FLOAT32", "INT8"}
    for operator in graph.operators:
        if isinstance(operator, Weighted):
            row = table[operator.output.removesuffix(".unrounded")]
            assert row["container"] == operator.container and (row["input_activation_bits"] == 32) == operator.in_float


def test_a_network_without_steps_is_refused(tmp_path):
    with pytest.raises(DaquError, match="must have steps, but they were never set: call its `initialise_steps` first"):
        export_tflite(StaticNetwork(SPACE, SPACE.smallest()), tmp_path / "model.tflite")


def test_a_network_that_is_not_a_number_is_refused(tmp_path):
    network, _ = _network(2)
    arrays = network.arrays()
    network.load_arrays(arrays | {"classifier/bias": np.full(5, np.nan, np.float32)})
    try:
        with pytest.raises(DaquError, match="bias"):
            export_tflite(network, tmp_path / "model.tflite")
    finally:
        network.load_arrays(arrays)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    "images", [np.zeros((8, 8, 1)), np.zeros((1, 8, 8, 1)), np.zeros((4, 8, 8, 3)), [["a"]], np.zeros((0, 8, 8, 1))]
)
def test_images_to_compare_on_that_do_not_fit(images, tmp_path):
    network, _ = _network(2)
    with pytest.raises(DaquError, match="`images` must be two or more of shape .*, but received shape .*: leave them out"):
        export_tflite(network, tmp_path / "model.tflite", images=images)


BAD = {
    "container": ({"container": "int2"}, "`container` must be one of auto, int8, .*, but received 'int2'"),
    "runtime": ({"runtime": "tflite"}, "`runtime` must be one of litert, tflite_runtime, but received 'tflite'"),
    "int4": ({"container": "int4", "runtime": "tflite_runtime"}, "`container` must be one of .* for tflite_runtime, .* 'int4'"),
    "input": ({"input_type": "int16"}, "`input_type` must be one of None, int8, uint8, float32, but received 'int16'"),
    "float": ({"container": "float16", "output_type": "uint8"}, "`output_type` must be float32 where the network is in float"),
}


@pytest.mark.parametrize("case", BAD)
def test_choices_that_there_are_not(case, tmp_path):
    arguments, message = BAD[case]
    network, _ = _network(2)
    with pytest.raises(DaquError, match=message):
        export_tflite(network, tmp_path / "model.tflite", **arguments)
    assert not [*tmp_path.iterdir()]


def test_a_path_that_cannot_be_written(tmp_path):
    network, _ = _network(2)
    (tmp_path / "folder.tflite").mkdir()
    for path in (tmp_path / "missing" / "model.tflite", tmp_path / "folder.tflite"):
        with pytest.raises(DaquError, match="cannot be written .*: choose another output path"):
            export_tflite(network, path)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.tflite"]


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def write_bytes(self, data):
        self.open("wb").write(data[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    network, _ = _network(2)
    data = encode(to_graph(network, STORAGE), STORAGE)
    monkeypatch.setattr(pathlib.Path, "write_bytes", write_bytes)
    with pytest.raises(DaquError, match="No space left on device"):
        encoding.write(data, tmp_path / "model.tflite")
    assert not [*tmp_path.iterdir()]


def test_a_scale_beyond_what_kernels_take_saturates_just_the_same():
    codes = np.array([[1, 1], [1, 1]])
    factors, shifts = np.array([9000.0, 1.0]), np.array([-1300.0, 0.0])
    weights, scales, bias, offsets = fold(codes, np.full(2, 0.1), factors, shifts, 1.0, 0.1, widest=1)
    np.testing.assert_allclose(scales * 1.0 / 0.1, [255.5, 1.0], rtol=1e-6)
    assert bias.tolist() == [-1, 0] and offsets[0] == pytest.approx(-900.0, rel=1e-6)
    inputs = np.array([[0, 0], [1, 0], [1, 1]])
    exact = np.clip(np.round((inputs @ weights.T * np.array([900.0, 0.1]) + offsets) / 0.1), -128, 127)
    written = np.clip(np.round((inputs @ weights.T + bias) * scales / 0.1), -128, 127)
    np.testing.assert_array_equal(written, exact)
