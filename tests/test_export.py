import integer_reference
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from families import FAMILIES, smooth_images
from recording import first_disagreement, recorded_codes

from daqu_tf import targets, tflite_file, tflite_metadata
from daqu_tf.architecture import image_size
from daqu_tf.devices import HostDevice
from daqu_tf.errors import DaquError
from daqu_tf.evaluation import Scorer
from daqu_tf.export import INPUT_TYPES, export_tflite, fold, layer_table, round_biases, to_graph
from daqu_tf.keras import keras
from daqu_tf.layers import quantize_input, resize
from daqu_tf.space import SearchSpace
from daqu_tf.supernet import StaticNetwork
from daqu_tf.tflite_operators import FullyConnected, Weighted

TARGET = targets.get("litert_cpu")
SPACE = FAMILIES["inverted_residual"]  # Unrestricted: low-bit activations too.


def _network(seed: int, space: SearchSpace = SPACE) -> tuple[StaticNetwork, np.ndarray]:
    """A subnet with random weights, steps from data, gammas of either sign and one that is zero; and its images."""
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    network = StaticNetwork(space, space.sample_by_gene(rng))
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
    Scorer(network, images).recalibrate()
    network.load_arrays(round_biases(space, network.subnet, TARGET, network.arrays()))
    return network, images


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("seed", range(3))
def test_the_file_computes_what_the_simulation_does(name, seed, tmp_path):
    space = FAMILIES[name]
    network, images = _network(seed, space)
    path = tmp_path / "model.tflite"
    export_tflite(space, network.subnet, TARGET, network.arrays(), path)
    codes, scale, zero_point = HostDevice().outputs(path, images)
    simulated = network(images).numpy()
    steps = np.abs((codes.astype(np.float64) - zero_point) * scale - simulated) / scale
    # Equal but where a sum of floats fell on the other side of a tie; at 2 bits such a flip goes through the layers behind it.
    assert np.mean(steps < 0.5) > 0.8 and np.mean(steps) < 0.5
    assert np.mean(codes.argmax(1) == simulated.argmax(1)) > 0.98


@pytest.mark.parametrize("name", FAMILIES)
def test_the_simulation_is_the_integer_reference_tensor_by_tensor(name):
    network, images = _network(5, FAMILIES[name])
    graph = to_graph(network.space, network.subnet, TARGET, network.arrays())
    with recorded_codes() as codes:
        network(images[:4])
    zero_points = {tensor.name: tensor.zero_point for tensor in graph.tensors}
    inputs = (np.round(images[:4] * 255) - 128).astype(np.int8)
    runs = [integer_reference.run(graph, image[np.newaxis]) for image in inputs]
    names = [
        layer.name if tensor.endswith((".normalize", ".output")) else tensor
        for layer in network.space.layers(network.subnet)
        for tensor in layer.tensors
    ]
    reference = [np.concatenate([run[name] for run in runs]).astype(float) - zero_points[name] for name in names]
    share, most = first_disagreement(codes, reference)
    assert share <= 1e-3 and most <= 1


def test_integers_are_the_trained_ones_up_to_sign():
    network, _ = _network(9)
    graph = to_graph(SPACE, network.subnet, TARGET, network.arrays())
    written = {operator.output: operator for operator in tflite_file.read(tflite_file.write(graph)).operators}
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
        assert np.array_equal(np.abs(found[alive]), np.abs(codes[alive])) and written[layer.name].weight_bits <= layer.weight_bits
        if layer.kind != "dense":
            assert not alive[0]  # Its gamma is zero.


def test_files_for_tflite_runtime_hold_the_integers_at_the_upper_end_of_int8():
    network, _ = _network(9)
    narrow, wide = (
        to_graph(SPACE, network.subnet, targets.get(name), network.arrays()) for name in ("litert_cpu_int8", "tflite_runtime")
    )
    assert narrow.tensors == wide.tensors
    widened = 0
    for before, after in zip(narrow.operators, wide.operators):
        if isinstance(before, Weighted):
            factors = before.weight_scales / after.weight_scales
            assert factors.min() >= 1 and set(np.log2(factors) % 1) == {0}
            channels_last = (np.moveaxis(operator.weights, operator.channels_axis, -1).astype(int) for operator in (before, after))
            np.testing.assert_array_equal(next(channels_last) * factors, next(channels_last))
            widened += np.sum(factors > 1)
    assert widened > 50


def test_containers_follow_target_and_bits():
    network, _ = _network(2)
    for target in targets.TARGETS.values():
        graph = to_graph(SPACE, network.subnet, target, network.arrays())
        packed = {op.output for op in graph.operators if isinstance(op, FullyConnected) and op.container == "INT4"}
        table = layer_table(SPACE, network.subnet, target)
        assert packed == {row["name"] for row in table if row["container"] == "INT4"}
        low = {row["name"] for row in table if row["kind"] == "pointwise" and row["weight_bits"] <= 4}
        assert packed == (low if target.int4_fully_connected else set())


def test_fold_makes_a_constant_of_a_dead_channel():
    codes = np.array([[7, -7], [7, 7], [1, 0]])
    weights, scales, bias, offsets = fold(
        codes, np.full(3, 0.1), np.array([2.0, -2.0, 1e-12]), np.array([0.0, 1.0, 3.0]), 0.01, 0.1
    )
    assert weights.tolist() == [[7, -7], [-7, -7], [0, 0]]
    np.testing.assert_allclose(scales[:2], 0.2, rtol=1e-6)
    np.testing.assert_allclose(bias * 0.01 * scales, [0.0, 1.0, 3.0], rtol=1e-3)
    np.testing.assert_allclose(offsets, bias * 0.01 * scales, rtol=1e-6)


def test_uint8_files_give_the_same_integers_with_and_without_metadata(tmp_path):
    network, images = _network(4)
    labels = tuple(f"class {number}" for number in range(network.space.num_classes))
    metadata = tflite_metadata.Metadata("m00", "Some classes.", labels)
    outputs = {}
    for kind in INPUT_TYPES:
        for known in (None, metadata):
            path = tmp_path / f"{kind}_{known is not None}.tflite"
            export_tflite(SPACE, network.subnet, TARGET, network.arrays(), path, known, kind)
            outputs[path.stem] = HostDevice().outputs(path, images)[0]
            assert tflite_metadata.read_labels(path.read_bytes()) == (labels if known else ())
    for output in outputs.values():
        np.testing.assert_array_equal(output, outputs["int8_False"])
    (source,) = tflite_metadata.read(path.read_bytes())["subgraph_metadata"][0]["input_tensor_metadata"]
    assert source["stats"] == {"max": [255.0], "min": [0.0]} and "as they are" in source["description"]
    runner = Interpreter(str(path)).get_signature_runner()
    pixels = np.round(images[:1] * 255).astype(np.uint8)
    np.testing.assert_array_equal(runner(image=pixels)["classifier"], outputs["int8_False"][:1])


def test_no_such_input_type(tmp_path):
    network, _ = _network(2)
    with pytest.raises(DaquError, match="`input_type` must be one of int8, uint8, but received 'float32'"):
        export_tflite(SPACE, network.subnet, TARGET, network.arrays(), tmp_path / "model.tflite", input_type="float32")


def test_a_float_layer_is_refused(tmp_path):
    network = StaticNetwork(SPACE, SPACE.largest().with_bits(32, 8))
    with pytest.raises(DaquError, match="must be 2 to 8 bits in a file of integers, but received 32"):
        export_tflite(SPACE, network.subnet, TARGET, network.arrays(), tmp_path / "model.tflite")
    assert not (tmp_path / "model.tflite").exists()


def test_a_folder_that_does_not_exist(tmp_path):
    network, _ = _network(2)
    with pytest.raises(DaquError, match="cannot be written"):
        export_tflite(SPACE, network.subnet, TARGET, network.arrays(), tmp_path / "missing" / "model.tflite")


def test_a_scale_beyond_what_kernels_take_saturates_just_the_same():
    codes = np.array([[1, 1], [1, 1]])
    weights, scales, bias, offsets = fold(codes, np.full(2, 0.1), np.array([9000.0, 1.0]), np.array([-1300.0, 0.0]), 1.0, 0.1)
    np.testing.assert_allclose(scales * 1.0 / 0.1, [255.5, 1.0], rtol=1e-6)
    assert bias.tolist() == [-1, 0] and offsets[0] == pytest.approx(-900.0, rel=1e-6)
    inputs = np.array([[0, 0], [1, 0], [1, 1]])
    exact = np.clip(np.round((inputs @ weights.T * np.array([900.0, 0.1]) + offsets) / 0.1), -128, 127)
    written = np.clip(np.round((inputs @ weights.T + bias) * scales / 0.1), -128, 127)
    np.testing.assert_array_equal(written, exact)
