import dataclasses

import numpy as np
import pytest
import tflite_networks

from daqu_tf.errors import DaquError
from daqu_tf.tflite_graph import Add, Conv2D, FullyConnected, Graph, QuantizedTensor, share_scales


def conv(**changes) -> Conv2D:
    fields = {
        "input": "x",
        "output": "y",
        "weights": np.ones((2, 3, 3, 4), np.int8),
        "weight_scales": np.full(2, 0.01, np.float32),
        "bias": np.zeros(2, np.int32),
    }
    return Conv2D(**fields | changes)


def dense(**changes) -> FullyConnected:
    fields = {"weights": np.ones((2, 4), np.int8), "weight_scales": np.full(2, 0.01), "bias": np.zeros(2, int)}
    return FullyConnected(**{"input": "x", "output": "y", "container": "INT4"} | fields | changes)


def graph(operator=None, x=None, y=None) -> Graph:
    x = {"name": "x", "shape": (1, 8, 8, 4), "scale": 0.1, "zero_point": 0} | (x or {})
    y = {"name": "y", "shape": (1, 8, 8, 2), "scale": 0.1, "zero_point": 0} | (y or {})
    return Graph((QuantizedTensor(**x), QuantizedTensor(**y)), (operator or conv(),), "x", "y")


def scales(*values: float) -> dict:
    return {"weight_scales": np.array(values)}


BAD = {
    "weights above INT8": (graph(conv(weights=np.full((2, 3, 3, 4), 128))), "'y': weights must be in [-127, 127]"),
    "weight -128": (graph(conv(weights=np.full((2, 3, 3, 4), -128, np.int8))), "'y': weights must be in [-127, 127]"),
    "weights above INT4": (graph(dense(weights=np.full((2, 4), 8))), "'y': weights must be in [-7, 7]"),
    "float weights": (graph(conv(weights=np.ones((2, 3, 3, 4)))), "'y': weights must be integers"),
    "weights without axes": (graph(conv(weights=np.ones(2, int))), "'y': weights must have 4 axes"),
    "no weights": (graph(conv(weights=np.ones((2, 0, 3, 4), int))), "'y': weights must have 4 axes"),
    "bias above int32": (graph(conv(bias=np.array([0, 2**31]))), "'y': bias must be in [-2147483647, 2147483647]"),
    "short bias": (graph(conv(bias=np.zeros(1, int))), "'y': bias and weight_scales must have shape (2,)"),
    "short scales": (graph(conv(**scales(1))), "'y': bias and weight_scales must have shape (2,)"),
    "zero scale": (graph(conv(**scales(0, 1))), "'y': weight_scales must be normal float32 numbers"),
    "infinite scale": (graph(conv(**scales(1, 1e39))), "'y': weight_scales must be normal float32 numbers"),
    "nan scale": (graph(conv(**scales(1, np.nan))), "'y': weight_scales must be normal float32 numbers"),
    "subnormal bias scale": (graph(conv(**scales(1, 1e-37)), x={"scale": 1e-3}), "'y': weight_scales times the input"),
    "stride": (graph(conv(stride=0)), "'y': stride must be at least 1"),
    "container": (graph(dense(container="INT2")), "'y': container must be one of ['INT4', 'INT8']"),
    "input channels": (graph(x={"shape": (1, 8, 8, 5)}), "'y': Conv2D cannot take input of shape (1, 8, 8, 5)"),
    "output shape": (graph(conv(stride=2)), "'y': shape must be (1, 4, 4, 2), but received (1, 8, 8, 2)"),
    "batch": (graph(x={"shape": (2, 8, 8, 4)}), "'x': shape must be (1, height, width, channels)"),
    "rank": (graph(x={"shape": (1, 8, 4)}), "'x': shape must be (1, height, width, channels)"),
    "empty": (graph(x={"shape": (1, 0, 8, 4)}), "'x': shape must be (1, height, width, channels)"),
    "tensor scale": (graph(y={"scale": -1.0}), "'y': scale must be normal float32 numbers"),
    "tensor scale infinite": (graph(y={"scale": 1e40}), "'y': scale must be normal float32 numbers"),
    "zero point": (graph(x={"zero_point": 128}), "'x': zero_point must be in [-128, 127]"),
    "steep": (graph(y={"scale": 1e-6}), "'y': one step of its operands must be less than 256 output scales"),
    "names": (graph(y={"name": "x"}), "'x': tensor names must be unique"),
    "unknown input": (graph(conv(input="z")), "'z': it is read to compute 'y' before it is computed"),
    "unknown output": (graph(conv(output="z")), "'z': it is computed but not among the graph's tensors"),
    "writes the input": (graph(Add("x", "x", "x")), "'x': it is computed twice"),
    "shapes of a sum": (
        dataclasses.replace(graph(), operators=(conv(), Add("x", "y", "z"))),
        "'z': it is computed but not among",
    ),
    "never computed": (dataclasses.replace(graph(), operators=()), "'y': no operator computes it"),
    "no such end": (dataclasses.replace(graph(), output="z"), "'z': no operator computes it"),
}


@pytest.mark.parametrize("case", BAD)
def test_names_the_tensor_that_cannot_be_stored(case):
    bad, message = BAD[case]
    with pytest.raises(DaquError) as error:
        bad.check()
    assert message in str(error.value) and str(error.value).startswith("tensor '")


def test_accepts_good_graphs():
    graph().check()
    graph(dense()).check()
    tflite_networks.mobile_network(weight_bits=4, activation_bits=2).check()


def test_operators_are_equal_when_all_their_integers_are():
    assert conv() == conv() and conv() != conv(relu=True)
    assert conv() != conv(weights=np.zeros((2, 3, 3, 4), np.int8))
    assert dense() != conv() and graph() == graph() and graph() != graph(dense())


@pytest.mark.parametrize("largest, bits", [(0, 2), (1, 2), (2, 3), (3, 3), (-7, 4), (-8, 5), (31, 6), (127, 8)])
def test_weight_bits_are_the_narrowest_symmetric_width(largest, bits):
    weights = np.zeros((2, 4), np.int8)
    weights[0, 0] = largest
    assert dense(weights=weights).weight_bits == bits


def test_scales_are_kept_as_the_file_stores_them():
    assert QuantizedTensor("x", [1, 2], 0.1, np.int64(3)) == QuantizedTensor("x", (1, 2), float(np.float32(0.1)), 3)
    assert conv(weight_scales=[0.1, 0.2]).weight_scales.dtype == np.float32


def test_sharing_scales_spares_ends_and_sums():
    network = tflite_networks.mobile_network()
    shared = {tensor.name: tensor.scale for tensor in share_scales(network).tensors}
    adds = {name for operator in network.operators if isinstance(operator, Add) for name in operator.inputs}
    for tensor in network.tensors:
        if tensor.name in adds | {network.input, network.output}:
            assert shared[tensor.name] == tensor.scale
    assert list(shared.values()).count(1.0) == 9
