import contextlib
import dataclasses

import integer_reference
import numpy as np
import pytest
import tflite_networks
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from interpreters import BUILTIN, XNNPACK, is_wholly_delegated, only_operator, pack, run_file, steps_apart
from tflite_networks import widened

from daqu_tf import tflite
from daqu_tf.errors import DaquError
from daqu_tf.tflite import encoder, file
from daqu_tf.tflite.graph import Graph, QuantizedTensor, hard_swish
from daqu_tf.tflite.operators import Multiply, Quantize
from daqu_tf.tflite.schema import pack_int4, unpack_int4
from daqu_tf.tflite.weighted import Conv2D, DepthwiseConv2D, FullyConnected, Weighted

PRECISIONS = {
    "w8a8": {},
    "w4a8": {"weight_bits": 4},
    "w4a4": {"weight_bits": 4, "activation_bits": 4},
    "w2a2": {"weight_bits": 2, "activation_bits": 2},
    "w8a2": {"activation_bits": 2},
}
NETWORKS = [
    *((tflite_networks.mobile_network, precision) for precision in PRECISIONS),
    *((tflite_networks.mobile_network_v3, precision) for precision in ("w8a8", "w4a4", "w8a2")),
    *((tflite_networks.residual_network, precision) for precision in ("w8a8", "w4a4")),
    *((tflite_networks.classic_network, precision) for precision in ("w8a8", "w4a4")),
]


@pytest.fixture(scope="module", params=NETWORKS, ids=lambda param: f"{param[0].__name__}-{param[1]}")
def network(request):
    factory, precision = request.param
    return factory(**PRECISIONS[precision])


def random_input(graph: Graph, seed: int = 5) -> np.ndarray:
    shape = graph.tensor(graph.input).shape
    return np.random.default_rng(seed).integers(-128, 128, shape).astype(np.int8)


def invoke(graph: Graph, values: np.ndarray, kernels: OpResolverType) -> tuple[np.ndarray, Interpreter]:
    return run_file(tflite.write(graph), {graph.input: values}, kernels)


def test_reads_what_it_wrote(network):
    data = tflite.write(network)
    assert tflite.read(data) == network
    assert tflite.write(tflite.read(data)) == data


@st.composite
def one_operator_graphs(draw) -> Graph:
    kind = draw(st.sampled_from([Conv2D, DepthwiseConv2D, FullyConnected]))
    channels, inputs, height, width = (draw(st.integers(1, 5)) for _ in range(4))
    relu, options = draw(st.booleans()), {"stride": draw(st.integers(1, 3)), "padding": draw(st.sampled_from(["SAME", "VALID"]))}
    if kind is FullyConnected:
        shape, options = (channels, inputs), {"container": draw(st.sampled_from(["INT8", "INT4"]))}
    elif kind is Conv2D:
        shape = (channels, draw(st.integers(1, 3)), draw(st.integers(1, 3)), inputs)
    else:
        channels = inputs * draw(st.integers(1, 3))  # Some read the same channel.
        shape = (1, draw(st.integers(1, 3)), draw(st.integers(1, 3)), channels)
    if options.get("padding") == "VALID":
        height, width = max(height, shape[1]), max(width, shape[2])
    limit = 7 if options.get("container") == "INT4" else 127
    operator = kind(
        "x",
        "y",
        draw(arrays.arrays(np.int8, shape, elements=st.integers(-limit, limit))),
        draw(arrays.arrays(np.float32, channels, elements=st.floats(2**-30, 1, width=32))),
        draw(arrays.arrays(np.int32, channels, elements=st.integers(-(2**31) + 1, 2**31 - 1))),
        relu=relu,
        **options,
    )
    scales, zero_points = st.floats(2**-5, 2**5), st.integers(-128, 127)
    source = QuantizedTensor("x", (1, height, width, inputs), draw(scales) / 8, draw(zero_points))
    output = QuantizedTensor("y", operator.output_shape(source.shape), draw(scales), draw(zero_points))
    return Graph((source, output), (operator,), "x", "y")


@settings(deadline=None, max_examples=60)
@given(one_operator_graphs())
def test_reads_any_integers_it_wrote(graph):
    assert tflite.read(tflite.write(graph)) == graph


@settings(deadline=None, max_examples=40)
@given(one_operator_graphs(), st.integers(0, 9))
def test_built_in_kernels_compute_any_one_operator(graph, seed):
    # Biases near the ends of int32 overflow the kernels' sums.
    operator = dataclasses.replace(graph.operators[0], bias=graph.operators[0].bias >> 12)
    graph = dataclasses.replace(graph, operators=(operator,))
    values = random_input(graph, seed)
    expected = integer_reference.run(graph, values)["y"]
    assert steps_apart(invoke(graph, values, BUILTIN)[0], expected) <= 1
    assert steps_apart(invoke(graph, values, XNNPACK)[0], expected) <= 1


@given(arrays.arrays(np.int8, st.integers(0, 9), elements=st.integers(-8, 7)))
def test_int4_packs_the_earlier_integer_into_the_low_half(values):
    packed = pack_int4(values)
    assert packed.size == (values.size + 1) // 2
    np.testing.assert_array_equal(unpack_int4(packed, values.size), values)
    np.testing.assert_array_equal(packed & 0xF, values[0::2] & 0xF)


@pytest.mark.parametrize("kernels", [XNNPACK, BUILTIN])
def test_every_operator_is_within_one_step_of_float64(network, kernels):
    results = integer_reference.run(network, random_input(network))
    for index, operator in enumerate(network.operators):
        output, interpreter = run_file(only_operator(tflite.write(network), index), results, kernels)
        assert steps_apart(output, results[operator.output]) <= 1, operator.output
        assert is_wholly_delegated(interpreter, network) == (kernels == XNNPACK), operator.output


def test_every_operator_of_the_whole_network_is_within_one_step_of_float64(network):
    _, interpreter = invoke(network, random_input(network), BUILTIN)
    values = {tensor.name: interpreter.get_tensor(index) for index, tensor in enumerate(network.tensors)}
    for operator in network.operators:
        expected = integer_reference.compute(network, operator, *(values[name] for name in operator.inputs))
        assert steps_apart(values[operator.output], expected) <= 1, operator.output


def test_xnnpack_runs_the_whole_network(network):
    values = random_input(network)
    output, interpreter = invoke(network, values, XNNPACK)
    assert is_wholly_delegated(interpreter, network)
    # A rounding flip of a low-bit activation or of a gate is a large step, so a few are allowed here.
    assert steps_apart(output, integer_reference.run(network, values)[network.output]) <= 6
    assert len(np.unique(output)) > 4


FACTORIES = [
    tflite_networks.mobile_network,
    tflite_networks.mobile_network_v3,
    tflite_networks.residual_network,
    tflite_networks.classic_network,
]


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("bits", [2, 4])
def test_low_bit_activations_have_exactly_their_levels(factory, bits):
    network = factory(activation_bits=bits)
    _, interpreter = invoke(network, random_input(network), BUILTIN)
    rectified = {operator.output for operator in network.operators if getattr(operator, "relu", False)}
    # No ReLU comes after the product of a rectified tensor with its gate.
    rectified |= {operator.output for operator in network.operators if isinstance(operator, Multiply) and operator.a in rectified}
    for index, tensor in enumerate(network.tensors):
        if tensor.name in rectified:
            levels = np.unique(interpreter.get_tensor(index))
            assert tensor.zero_point == 127 - (2**bits - 1)
            assert levels.min() >= tensor.zero_point and len(levels) > 2


@pytest.mark.parametrize("kernels", [XNNPACK, BUILTIN])
@pytest.mark.parametrize("output_step", [1.5 / 255, 3 / 255, 8 / 255])
@pytest.mark.parametrize("scale, zero_point", [(0.01, 0), (0.02, -40), (0.05, 7), (0.1, 100)])
def test_hard_swish_is_within_one_step_of_float64(kernels, output_step, scale, zero_point):
    source = QuantizedTensor("x", (1, 16, 16, 1), scale / np.sqrt(6), zero_point)
    gate, *operators = hard_swish(source, "y")
    graph = Graph((source, gate, QuantizedTensor("y", source.shape, output_step, -20)), tuple(operators), "x", "y")
    values = np.arange(-128, 128).reshape(source.shape).astype(np.int8)
    x = (values.astype(float) - zero_point) * scale
    expected = integer_reference.quantize(graph.tensors[2], x * np.clip(x / 6 + 1 / 2, 0, 1))
    output, interpreter = invoke(graph, values, kernels)
    assert steps_apart(output, expected) <= 1
    assert is_wholly_delegated(interpreter, graph) == (kernels == XNNPACK)


@pytest.mark.parametrize("kernels", [XNNPACK, BUILTIN])
def test_saturation_of_its_gate_makes_squeeze_excite_a_hard_sigmoid(kernels):
    network = tflite_networks.RandomNetwork(0, (1, 6, 6, 16))
    graph = network.graph(network.squeeze_excite("input"))
    gate = graph.operators[-2]
    _, interpreter = invoke(graph, random_input(graph), BUILTIN)
    values = {tensor.name: interpreter.get_tensor(index) for index, tensor in enumerate(graph.tensors)}
    y = integer_reference.reals(graph, gate, values[gate.input])
    assert y.min() < 0 and y.max() > 1
    x = integer_reference.dequantize(graph.tensors[0], values["input"])
    expected = integer_reference.quantize(graph.tensors[-1], x * np.clip(y, 0, 1))
    assert steps_apart(invoke(graph, random_input(graph), kernels)[0], expected) <= 1


@pytest.mark.parametrize("constant", [3.0, -0.7, 1e-4])
def test_constants_come_back_with_their_sign(constant):
    network = tflite_networks.RandomNetwork(0, (1, 4, 4, 3))
    graph = network.graph(network.add_constant("input", constant))
    assert tflite.read(tflite.write(graph)) == graph
    assert graph.operators[0].constant == pytest.approx(constant, rel=1e-7)
    values = random_input(graph)
    assert steps_apart(invoke(graph, values, XNNPACK)[0], integer_reference.run(graph, values)[graph.output]) <= 1


def test_widened_graphs_compute_the_same(network):
    graph, values = widened(network), random_input(network)
    graph.check()
    pairs = zip(network.operators, graph.operators)
    weighted = [(before, after) for before, after in pairs if isinstance(before, Weighted)]
    assert any(np.abs(after.weights).max() > 63 for _, after in weighted)
    assert all(before.trained_bits == after.trained_bits for before, after in weighted)
    expected = integer_reference.run(network, values)
    for name, integers in integer_reference.run(graph, values).items():
        np.testing.assert_array_equal(integers, expected[name], err_msg=name)
    np.testing.assert_array_equal(invoke(graph, values, XNNPACK)[0], invoke(network, values, XNNPACK)[0])


def pointwise(product_steps: float, bias: int = 0) -> Graph:
    """One of 2 bits whose products are so many output steps; with a bias in its last channel."""
    weights = np.random.default_rng(0).integers(-1, 2, (64, 1, 1, 32)).astype(np.int8)
    operator = Conv2D("x", "y", weights, np.full(64, product_steps), np.r_[np.zeros(63, np.int32), [bias]])
    return Graph((QuantizedTensor("x", (1, 8, 8, 32), 1.0, 0), QuantizedTensor("y", (1, 8, 8, 64), 1.0, 0)), (operator,), "x", "y")


@pytest.mark.parametrize(
    "product_steps, scale, wrong", [(0.31, 1 / 64, 0.25), (0.16, 1 / 64, 0.125), (0.61, 1, 0), (1.3, 1 / 2, 0), (90, 1 / 64, 0)]
)
def test_built_in_kernels_round_widened_weights_of_few_bits_well(product_steps, scale, wrong):
    graph = pointwise(product_steps)
    values = np.random.default_rng(1).integers(0, 16, (1, 8, 8, 32)).astype(np.int8)
    expected = integer_reference.run(graph, values)["y"]
    shares = [np.mean(invoke(form, values, BUILTIN)[0] != expected) for form in (graph, widened(graph))]
    assert shares[0] == pytest.approx(wrong, abs=0.03) and shares[1] < 0.01
    (operator,) = widened(graph).operators
    assert set(operator.weight_scales / np.float32(product_steps)) == {scale}


@pytest.mark.parametrize("bias, factor", [(2**24, 64), (2**24 + 1, 1), (-(2**30), 1)])
def test_a_bias_is_widened_as_far_as_int32_holds_it(bias, factor):
    graph = pointwise(0.31, bias)
    (before,), (after,) = graph.operators, widened(graph).operators
    np.testing.assert_array_equal(after.weights[:63], before.weights[:63] * 64)
    np.testing.assert_array_equal(after.weights[63], before.weights[63] * factor)
    assert after.bias[63] == bias * factor and after.weight_scales[63] == before.weight_scales[63] / np.float32(factor)


@pytest.mark.parametrize("shape", [(1, 6), (1, 5, 3, 6), (1, 1, 1, 2)])
@pytest.mark.parametrize("bits, channels", [(8, 1), (8, 5), (4, 1), (4, 5)])
def test_dense_layers_of_any_rank_are_delegated(shape, bits, channels):
    network = tflite_networks.RandomNetwork(0, shape, weight_bits=bits)
    graph = network.graph(network.dense("input", channels))
    values = random_input(graph)
    output, interpreter = invoke(graph, values, XNNPACK)
    assert is_wholly_delegated(interpreter, graph)
    assert steps_apart(output, integer_reference.run(graph, values)[graph.output]) <= 1


def test_int4_with_an_odd_number_of_input_channels_is_right_but_not_delegated():
    network = tflite_networks.RandomNetwork(0, (1, 4, 4, 5), weight_bits=4)
    graph = network.graph(network.dense("input", 6))
    values = random_input(graph)
    output, interpreter = invoke(graph, values, XNNPACK)
    assert not is_wholly_delegated(interpreter, graph)
    assert steps_apart(output, integer_reference.run(graph, values)[graph.output]) <= 1


@pytest.mark.parametrize("kernels", [XNNPACK, BUILTIN])
def test_uint8_becomes_int8_exactly(kernels):
    pixels = QuantizedTensor("x", (1, 16, 16, 1), 1 / 255, 0, "UINT8")
    graph = Graph((pixels, QuantizedTensor("y", pixels.shape, 1 / 255, -128)), (Quantize("x", "y"),), "x", "y")
    values = np.arange(256, dtype=np.uint8).reshape(pixels.shape)
    output, _ = invoke(graph, values, kernels)
    np.testing.assert_array_equal(output, values.astype(int) - 128)
    np.testing.assert_array_equal(output, integer_reference.run(graph, values)["y"])
    assert tflite.read(tflite.write(graph)) == graph


def test_metadata_go_with_the_graph(network):
    data = tflite.write(network, {"first": b"abc", "second": b""})
    assert file.read_buffers(data) == {"first": b"abc", "second": b""}
    assert tflite.read(data) == network and file.read_buffers(tflite.write(network)) == {}


LIMITS = [("conv", 4, 256), ("add", "input", 64), ("add_constant", 0.5, 64), ("multiply", "input", 1)]


@pytest.mark.parametrize("kernels", [XNNPACK, BUILTIN])
@pytest.mark.parametrize("method, operand, limit", LIMITS)
def test_kernels_are_right_up_to_the_limit_of_steps(kernels, method, operand, limit):
    network = tflite_networks.RandomNetwork(0, (1, 6, 6, 4))
    graph = network.graph(getattr(network, method)("input", operand))
    source, output = graph.tensors
    source = dataclasses.replace(source, zero_point=-128)
    operator = graph.operators[0]
    output = dataclasses.replace(output, scale=operator.step(*[source.scale] * len(operator.inputs)) / limit)
    with pytest.raises(DaquError, match=f"less than {limit} output scales"):
        tflite.write(dataclasses.replace(graph, tensors=(source, output)))
    output = dataclasses.replace(output, scale=output.scale * 1.001)
    graph = dataclasses.replace(graph, tensors=(source, output))
    values = random_input(graph)
    values[0, 0] = 127
    assert steps_apart(invoke(graph, values, kernels)[0], integer_reference.run(graph, values)[graph.output]) <= 1


def test_signature_has_the_names_of_the_ends(network):
    interpreter = Interpreter(model_content=tflite.write(network))
    assert interpreter.get_signature_list() == {encoder.SIGNATURE: {"inputs": [network.input], "outputs": [network.output]}}


def test_every_tensor_has_a_name_of_its_own(network):
    """Without names of constants, tf2onnx and Model Explorer do not read a file."""
    for graph in (network, _renamed(network, network.operators[0].output, f"c{len(network.tensors)}")):
        (subgraph,) = schema.ModelT.InitFromPackedBuf(tflite.write(graph)).subgraphs
        names = [tensor.name for tensor in subgraph.tensors]
        assert all(names) and len(set(names)) == len(names) > len(graph.tensors)
        assert {tensor.name.encode() for tensor in graph.tensors} <= set(names)
        assert tflite.read(tflite.write(graph)) == graph


def _renamed(graph: Graph, old: str, new: str) -> Graph:
    """The graph with another name for a tensor."""

    def name(given: str) -> str:
        return new if given == old else given

    tensors = tuple(dataclasses.replace(tensor, name=name(tensor.name)) for tensor in graph.tensors)
    operators = tuple(
        dataclasses.replace(operator.reading(*map(name, operator.inputs)), output=name(operator.output))
        for operator in graph.operators
    )
    return Graph(tensors, operators, name(graph.input), name(graph.output))


def test_versions_are_the_lowest_that_old_runtimes_know():
    versions = {}
    for bits in (8, 4):
        data = tflite.write(tflite_networks.mobile_network_v3(weight_bits=bits))
        codes = schema.ModelT.InitFromPackedBuf(data).operatorCodes
        versions[bits] = sorted((code.builtinCode, code.version) for code in codes)
        assert all(code.deprecatedBuiltinCode == code.builtinCode for code in codes)
    operator = schema.BuiltinOperator
    others = [(operator.ADD, 2), (operator.CONV_2D, 3), (operator.DEPTHWISE_CONV_2D, 3), (operator.MEAN, 2), (operator.MUL, 2)]
    assert versions[8] == sorted([*others, (operator.FULLY_CONNECTED, 4)])
    assert versions[4] == sorted([*others, (operator.FULLY_CONNECTED, 10)])


def test_versions_of_what_a_stock_model_adds():
    codes = schema.ModelT.InitFromPackedBuf(tflite.write(tflite_networks.classic_network())).operatorCodes
    operator = schema.BuiltinOperator
    expected = {operator.CONCATENATION: 2, operator.MAX_POOL_2D: 2, operator.PAD: 2, operator.RESHAPE: 1}
    assert {code.builtinCode: code.version for code in codes if code.builtinCode in expected} == expected


def test_the_file_is_little_more_than_its_integers_and_scales():
    network = tflite_networks.mobile_network(width=32)
    weighted = [operator for operator in network.operators if hasattr(operator, "weights")]
    channels = [operator.bias.size for operator in weighted]
    constants = sum(operator.weights.size for operator in weighted) + 12 * sum(channels) + 8 * sum(set(channels))
    tables = len(network.tensors) + 2 * len(weighted) + len(network.operators)
    assert len(tflite.write(network)) < constants + 100 * tables


def test_buffers_are_aligned():
    network = tflite_networks.mobile_network()
    data = tflite.write(network)
    for operator in network.operators:
        if hasattr(operator, "weights"):
            assert data.index(operator.weights.tobytes()) % 16 == 0


def use_dilation(model):
    model.subgraphs[0].operators[0].builtinOptions.dilationHFactor = 2


def use_relu6(model):
    model.subgraphs[0].operators[0].builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.RELU6


def use_relu(model):
    model.subgraphs[0].operators[0].builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.RELU


def use_softmax(model):
    model.operatorCodes[0].builtinCode = schema.BuiltinOperator.SOFTMAX


def use_float_input(model):
    model.subgraphs[0].tensors[0].type = schema.TensorType.FLOAT32


@pytest.mark.parametrize("change", [use_dilation, use_relu6, use_softmax, use_float_input])
def test_refuses_to_read_what_a_graph_cannot_say(change):
    network = tflite_networks.RandomNetwork(0, (1, 6, 6, 3))
    data = tflite.write(network.graph(network.conv("input", 4)))
    model = schema.ModelT.InitFromPackedBuf(data)
    change(model)
    with pytest.raises(DaquError):
        tflite.read(pack(model))


def store_another_constant(model):
    model.buffers[model.subgraphs[0].tensors[2].buffer].data = np.array([126], np.uint8)


def store_other_pads(model):
    model.buffers[model.subgraphs[0].tensors[2].buffer].data = np.ones(8, "<i4").view(np.uint8)


OTHERS = [
    ("multiply", "input", use_relu),
    ("add_constant", 1.0, use_relu6),
    ("add_constant", 1.0, store_another_constant),
    ("max_pool", (2, 2), use_relu),
    ("pad", ((1, 0), (0, 0)), store_other_pads),
]


@pytest.mark.parametrize("method, operand, change", OTHERS)
def test_refuses_to_read_other_products_constants_pools_and_pads(method, operand, change):
    network = tflite_networks.RandomNetwork(0, (1, 6, 6, 3))
    model = schema.ModelT.InitFromPackedBuf(tflite.write(network.graph(getattr(network, method)("input", operand))))
    change(model)
    with pytest.raises(DaquError, match="must hold operators of daqu_tf"):
        tflite.read(pack(model))


def without_a_bias(model):
    model.subgraphs[0].operators[0].inputs = model.subgraphs[0].operators[0].inputs[:2]


def without_quantization(model):
    model.subgraphs[0].tensors[0].quantization = None


def with_an_unknown_type(model):
    model.subgraphs[0].tensors[1].type = 99


def without_a_buffer(model):
    model.subgraphs[0].tensors[1].buffer = 99


def without_options(model):
    model.subgraphs[0].operators[0].builtinOptions = None


def without_an_output(model):
    model.subgraphs[0].outputs = np.zeros(0, np.int32)


@pytest.mark.parametrize(
    "change",
    [without_a_bias, without_quantization, with_an_unknown_type, without_a_buffer, without_options, without_an_output],
)
def test_what_strangers_leave_out_is_said_in_a_sentence(change):
    network = tflite_networks.RandomNetwork(0, (1, 6, 6, 3))
    model = schema.ModelT.InitFromPackedBuf(tflite.write(network.graph(network.conv("input", 4))))
    change(model)
    with pytest.raises(DaquError) as error:
        tflite.read(pack(model))
    assert "\n" not in str(error.value)


def test_several_subgraphs_and_pointers_are_named():
    network = tflite_networks.RandomNetwork(0, (1, 6, 6, 3))
    model = schema.ModelT.InitFromPackedBuf(tflite.write(network.graph(network.conv("input", 4))))
    model.subgraphs = model.subgraphs * 2
    for read in (tflite.read, tflite.read_ends):
        with pytest.raises(DaquError, match="must have one subgraph, but it has 2 .signatures .*classifier alone"):
            read(pack(model))
        with pytest.raises(DaquError, match="is a pointer of Git LFS .*git lfs pull"):
            read(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=4))
def test_a_file_with_some_other_bytes_is_a_graph_or_refused(place, others):
    network = tflite_networks.RandomNetwork(0, (1, 6, 6, 3))
    data = bytearray(tflite.write(network.graph(network.conv("input", 4))))
    place = 8 + place % (len(data) - 12)
    data[place : place + len(others)] = others
    for read in (tflite.read, tflite.read_ends, tflite.read_labels):
        with contextlib.suppress(DaquError):
            read(bytes(data))


def test_refuses_to_read_other_files():
    with pytest.raises(DaquError, match=r"must be a \.tflite file"):
        tflite.read(b"PK\3\4 not a model")
