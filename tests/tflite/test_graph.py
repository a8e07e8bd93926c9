import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tflite_networks

from daqu_tf.errors import DaquError
from daqu_tf.tflite.base import same_pads
from daqu_tf.tflite.graph import FloatTensor, Graph, QuantizedTensor
from daqu_tf.tflite.operators import Add, AddConstant, Dequantize, MaxPool, Minimum, Multiply, Pad, Quantize, Reshape
from daqu_tf.tflite.weighted import Conv2D, FullyConnected


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


SAME = {"shape": (1, 8, 8, 4)}


def product(shape: tuple[int, ...], factors: tuple[int, ...]) -> Graph:
    """A graph whose last operator multiplies its input by a dense layer of it."""
    tensors = (QuantizedTensor(name, size, 0.1, 0) for name, size in zip("xsy", (shape, factors, shape)))
    channels, ones = factors[-1], np.ones((factors[-1], shape[-1]), int)
    source = dense(output="s", weights=ones, weight_scales=np.ones(channels), bias=np.zeros(channels, int))
    return Graph(tuple(tensors), (source, Multiply("x", "s", "y")), "x", "y")


def graph(operator=None, x=None, y=None) -> Graph:
    x = {"name": "x", "shape": (1, 8, 8, 4), "scale": 0.1, "zero_point": 0} | (x or {})
    y = {"name": "y", "shape": (1, 8, 8, 2), "scale": 0.1, "zero_point": 0} | (y or {})
    return Graph((QuantizedTensor(**x), QuantizedTensor(**y)), (operator or conv(),), "x", "y")


def scales(*values: float) -> dict:
    return {"weight_scales": np.array(values)}


def fours(kind: type) -> dict:
    return {"weight_scales": np.full(4, 0.01), "bias": np.zeros(4, kind), "container": "INT8"}


def real_dense(**changes) -> FullyConnected:
    fields = {"weights": np.ones((4, 4)), "weight_scales": np.zeros(0), "bias": np.zeros(4), "container": "FLOAT32"}
    return dense(**fields | changes)


def real(operator, names: str, shape: tuple[int, ...] = (1, 8, 8, 4)) -> Graph:
    """A graph of one operator from x to y, of which those named are real."""
    tensors = (FloatTensor(name, shape) if name in names else QuantizedTensor(name, shape, 0.1, 0) for name in "xy")
    return Graph(tuple(tensors), (operator,), "x", "y")


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
    "padding": (graph(conv(padding="FULL")), "'y': padding must be one of ['SAME', 'VALID'], but received 'FULL'"),
    "too small for VALID": (graph(conv(padding="VALID"), x={"shape": (1, 8, 2, 4)}), "'y': Conv2D cannot take input of shape"),
    "stride of a pool": (graph(MaxPool("x", "y", (2, 2), 0), y=SAME), "'y': stride must be at least 1"),
    "rank of a pool": (graph(MaxPool("x", "y", (2, 2), 2), x={"shape": (1, 8)}), "'y': MaxPool cannot take input of shape (1, 8)"),
    "shape of a pool": (graph(MaxPool("x", "y", (2, 2), 2), y=SAME), "'y': shape must be (1, 4, 4, 4)"),
    "scale of a pool": (
        graph(MaxPool("x", "y", (1, 1), 1), y=SAME | {"scale": 0.2}),
        "'y': scale and zero_point must be those of 'x', which MaxPool reads",
    ),
    "zero point of a reshape": (graph(Reshape("x", "y", (1, 8, 8, 4)), y=SAME | {"zero_point": 1}), "must be those of 'x'"),
    "size of a reshape": (graph(Reshape("x", "y", (1, 9)), y={"shape": (1, 9)}), "'y': Reshape cannot take input of shape"),
    "negative pads": (graph(Pad("x", "y", ((0, 0), (-1, 0))), y=SAME), "'y': Pad cannot take input of shape (1, 8, 8, 4)"),
    "container": (graph(dense(container="INT2")), "'y': container must be one of ['FLOAT16', 'FLOAT32', 'INT4', 'INT8']"),
    "input channels": (graph(x={"shape": (1, 8, 8, 5)}), "'y': Conv2D cannot take input of shape (1, 8, 8, 5)"),
    "output shape": (graph(conv(stride=2)), "'y': shape must be (1, 4, 4, 2), but received (1, 8, 8, 2)"),
    "batch": (graph(x={"shape": (2, 8, 8, 4)}), "'x': shape must be (1, height, width, channels)"),
    "rank": (graph(x={"shape": (1, 8, 4)}), "'x': shape must be (1, height, width, channels)"),
    "empty": (graph(x={"shape": (1, 0, 8, 4)}), "'x': shape must be (1, height, width, channels)"),
    "tensor scale": (graph(y={"scale": -1.0}), "'y': scale must be normal float32 numbers"),
    "tensor scale infinite": (graph(y={"scale": 1e40}), "'y': scale must be normal float32 numbers"),
    "zero point": (graph(x={"zero_point": 128}), "'x': zero_point must be in [-128, 127]"),
    "zero point of uint8": (graph(x={"zero_point": -1, "type": "UINT8"}), "'x': zero_point must be in [0, 255]"),
    "type": (graph(x={"type": "INT16"}), "'x': type must be INT8 or UINT8, but received 'INT16'"),
    "reads uint8": (graph(x={"type": "UINT8"}), "'y': Conv2D needs INT8 throughout, or FLOAT32, but reads UINT8 and writes INT8"),
    "quantizes to float": (real(Quantize("x", "y"), "y"), "'y': Quantize needs INT8 or UINT8 there, but it is FLOAT32"),
    "dequantizes float": (real(Dequantize("x", "y"), "xy"), "'y': Dequantize makes FLOAT32 of INT8 or UINT8, but reads FLOAT32"),
    "minimum of int8": (real(Minimum("x", "y", 1.0), "y"), "'y': Minimum needs FLOAT32 throughout, but reads INT8"),
    "infinite limit": (real(Minimum("x", "y", np.inf), "xy"), "'y': limit must be finite real numbers"),
    "integers between real tensors": (real(dense(weights=np.ones((4, 4), int), **fours(int)), "xy"), "its tensors must be INT8"),
    "real bias between integers": (real(dense(weights=np.ones((4, 4), int), **fours(float)), ""), "its tensors must be FLOAT32"),
    "integer bias of real weights": (real(real_dense(bias=np.zeros(4, int)), "xy"), "'y': bias must be finite real numbers"),
    "infinite weights": (real(real_dense(weights=np.full((4, 4), np.inf)), "xy"), "'y': weights must be finite real numbers"),
    "beyond FLOAT16": (
        real(real_dense(weights=np.full((4, 4), 1e6), container="FLOAT16"), "xy"),
        "'y': weights must be finite real numbers",
    ),
    "scales of real weights": (real(real_dense(weight_scales=np.ones(4)), "xy"), "and weight_scales (0,) in a FLOAT container"),
    "rank of a real tensor": (real(real_dense(), "xy", (1, 8, 4)), "'x': shape must be (1, height, width, channels)"),
    "steep": (graph(y={"scale": 1e-6}), "'y': one step of its operands must be less than 256 output scales"),
    "names": (graph(y={"name": "x"}), "'x': tensor names must be unique"),
    "unknown input": (graph(conv(input="z")), "'z': it is read to compute 'y' before it is computed"),
    "unknown output": (graph(conv(output="z")), "'z': it is computed but not among the graph's tensors"),
    "writes the input": (graph(Add("x", "x", "x")), "'x': it is computed twice"),
    "shapes of a sum": (
        dataclasses.replace(graph(), operators=(conv(), Add("x", "y", "z"))),
        "'z': it is computed but not among",
    ),
    "shapes of a product": (
        product((1, 6), (1, 5)),
        "'y': Multiply cannot take input of shape (1, 6) and (1, 5)",
    ),
    "factors per pixel": (
        product((1, 8, 8, 4), (1, 8, 8, 1)),
        "'y': Multiply cannot take input",
    ),
    "steep product": (
        graph(Multiply("x", "x", "y"), y=SAME | {"scale": 0.01}),
        "'y': one step of its operands must be",
    ),
    "constant 0": (graph(AddConstant("x", "y", 0.0), y=SAME), "'y': absolute constant / 127 must be normal float32"),
    "nan constant": (graph(AddConstant("x", "y", np.nan), y=SAME), "'y': absolute constant / 127 must be normal float32"),
    "huge constant": (graph(AddConstant("x", "y", -1e42), y=SAME), "'y': absolute constant / 127 must be normal float32"),
    "steep constant": (
        graph(AddConstant("x", "y", 900), y=SAME),
        "'y': one step of its operands must be less than 64",
    ),
    "shape of a shifted": (graph(AddConstant("x", "y", 1.0)), "'y': shape must be (1, 8, 8, 4), but received (1, 8, 8, 2)"),
    "never computed": (dataclasses.replace(graph(), operators=()), "'y': no operator computes it"),
    "no such end": (dataclasses.replace(graph(), output="z"), "'z': no operator computes it"),
}


@pytest.mark.parametrize("case", BAD)
def test_names_the_tensor_that_cannot_be_stored(case):
    bad, message = BAD[case]
    with pytest.raises(DaquError) as error:
        bad.check()
    assert message in str(error.value) and str(error.value).startswith("Tensor '") and str(error.value).endswith(".")


def test_accepts_good_graphs():
    graph().check()
    graph(dense()).check()
    product((1, 6), (1, 6)).check()
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


@pytest.mark.parametrize("codes, bits", [([3, -1], 3), ([6, 2], 3), ([96, -32], 3), ([64, 64], 2), ([5, 4], 4), ([0, 0], 2)])
def test_trained_bits_leave_out_the_power_of_two_of_a_channel(codes, bits):
    assert dense(weights=np.array([[*codes, 0, 0], [0, 0, 1, -1]], np.int8)).trained_bits == bits


def test_scales_are_kept_as_the_file_stores_them():
    assert QuantizedTensor("x", [1, 2], 0.1, np.int64(3)) == QuantizedTensor("x", (1, 2), float(np.float32(0.1)), 3)
    assert conv(weight_scales=[0.1, 0.2]).weight_scales.dtype == np.float32


def test_constants_are_kept_as_the_file_stores_them():
    operator = AddConstant("x", "y", -0.1)
    assert operator.constant == -127 * float(np.float32(0.1 / 127))
    assert AddConstant("x", "y", operator.constant) == operator != AddConstant("x", "y", 0.1)


@pytest.mark.parametrize("size", range(4, 9))
@pytest.mark.parametrize("kernel, stride", [(1, 2), (2, 1), (3, 1), (3, 2), (5, 3)])
def test_same_pads_are_those_of_tensorflow(size, kernel, stride):
    row = np.arange(1.0, size + 1).reshape(1, 1, size, 1)
    window = np.arange(1.0, kernel + 1).reshape(1, kernel, 1, 1)
    found = tf.nn.conv2d(np.pad(row, [(0, 0), (0, 0), same_pads(size, kernel, stride), (0, 0)]), window, stride, "VALID")
    np.testing.assert_array_equal(found, tf.nn.conv2d(row, window, stride, "SAME"))
