import integer_reference
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from interpreters import BUILTIN, XNNPACK, pack, run_file, steps_apart

from daqu_tf import tflite
from daqu_tf.errors import DaquError
from daqu_tf.tflite.graph import FloatTensor, Graph, QuantizedTensor
from daqu_tf.tflite.operators import AddConstant, Dequantize, Logistic, Quantize, Softmax

PROBABILITIES = pytest.mark.parametrize("kind", [Softmax, Logistic])
KERNELS = pytest.mark.parametrize("kernels", [XNNPACK, BUILTIN])


def probabilities(kind: type, shape: tuple[int, ...], scale: float, zero_point: int) -> Graph:
    tensors = (QuantizedTensor("x", shape, scale, zero_point), QuantizedTensor("y", shape, 1 / 256, -128))
    return Graph(tensors, (kind("x", "y"),), "x", "y")


def real_probabilities(kind: type, shape: tuple[int, ...]) -> Graph:
    return Graph((FloatTensor("x", shape), FloatTensor("y", shape)), (kind("x", "y"),), "x", "y")


@KERNELS
@PROBABILITIES
@pytest.mark.parametrize("shape", [(1, 10), (1, 1), (1, 3, 2, 5), (1, 1000)])
@pytest.mark.parametrize("scale, zero_point", [(0.05, 3), (0.002, -128), (1.5, 90)])
def test_probabilities_in_int8_are_within_one_step_of_float64(kernels, kind, shape, scale, zero_point):
    graph = probabilities(kind, shape, scale, zero_point)
    values = np.random.default_rng(0).integers(-128, 128, shape).astype(np.int8)
    output, _ = run_file(tflite.write(graph), {"x": values}, kernels)
    assert steps_apart(output, integer_reference.run(graph, values)["y"]) <= 1
    assert tflite.read(tflite.write(graph)) == graph


@KERNELS
@PROBABILITIES
@pytest.mark.parametrize("shape", [(1, 10), (1, 1), (1, 3, 2, 5)])
def test_probabilities_in_float_are_those_of_float64(kernels, kind, shape):
    graph = real_probabilities(kind, shape)
    values = np.random.default_rng(0).normal(0, 5, shape).astype(np.float32)
    output, _ = run_file(tflite.write(graph), {"x": values}, kernels)
    expected = integer_reference._FUNCTIONS[kind](graph.operators[0], values.astype(np.float64))
    np.testing.assert_allclose(output, expected, atol=1e-6)
    assert tflite.read(tflite.write(graph)) == graph


@PROBABILITIES
def test_versions_and_scales_of_probabilities(kind):
    for graph, version in ((probabilities(kind, (1, 4), 0.1, 0), 2), (real_probabilities(kind, (1, 4)), 1)):
        (code,) = schema.ModelT.InitFromPackedBuf(tflite.write(graph)).operatorCodes
        assert (code.builtinCode, code.version) == (getattr(schema.BuiltinOperator, kind.__name__.upper()), version)
    bad = Graph((QuantizedTensor("x", (1, 4), 0.1, 0), QuantizedTensor("y", (1, 4), 1 / 255, -128)), (kind("x", "y"),), "x", "y")
    with pytest.raises(DaquError, match=f"'y': scale and zero_point must be 1/256 and -128 where {kind.__name__} writes"):
        tflite.write(bad)
    mixed = Graph((QuantizedTensor("x", (1, 4), 0.1, 0), FloatTensor("y", (1, 4))), (kind("x", "y"),), "x", "y")
    with pytest.raises(DaquError, match=f"{kind.__name__} needs INT8 throughout, or FLOAT32"):
        tflite.write(mixed)


def test_another_softmax_is_refused():
    model = schema.ModelT.InitFromPackedBuf(tflite.write(real_probabilities(Softmax, (1, 4))))
    model.subgraphs[0].operators[0].builtinOptions.beta = 0.5
    with pytest.raises(DaquError, match="must hold operators of daqu_tf"):
        tflite.read(pack(model))


PIXELS = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)


@KERNELS
@pytest.mark.parametrize("scale, zero_point", [(1 / 127, 0), (0.9 / 127, 3), (1 / 40, -100)])
@pytest.mark.parametrize("own", ["UINT8", "INT8"])
def test_pixels_become_integers_of_another_scale(kernels, scale, zero_point, own):
    shift = 128 if own == "INT8" else 0
    pixels = QuantizedTensor("x", PIXELS.shape, 1 / 255, -shift, own)
    graph = Graph((pixels, QuantizedTensor("y", PIXELS.shape, scale, zero_point)), (Quantize("x", "y"),), "x", "y")
    codes = (PIXELS.astype(int) - shift).astype(own.lower())
    output, _ = run_file(tflite.write(graph), {"x": codes}, kernels)
    exact = integer_reference.reals(graph, graph.operators[0], codes) / scale + zero_point
    assert np.abs(output - np.clip(exact, -128, 127)).max() < 0.76  # XNNPACK has 8 bits for the quotient of the scales.


@KERNELS
def test_pixels_between_two_zero_points_are_shifted_by_half_a_step(kernels):
    """-1 to 1 in 255 steps has its 0 between two pixels."""
    scale = np.float32(2 / 255)
    tensors = (
        QuantizedTensor("x", PIXELS.shape, scale, 128, "UINT8"),
        QuantizedTensor("p", PIXELS.shape, scale, 0),
        QuantizedTensor("y", PIXELS.shape, 0.9 / 127, 0),
    )
    graph = Graph(tensors, (Quantize("x", "p"), AddConstant("p", "y", float(scale) / 2)), "x", "y")
    output, _ = run_file(tflite.write(graph), {"x": PIXELS}, kernels)
    exact = np.clip((PIXELS.astype(float) * 2 / 255 - 1) / (0.9 / 127), -128, 127)
    assert np.abs(output - exact).max() < 0.505


@KERNELS
def test_pixels_become_real_numbers(kernels):
    graph = Graph(
        (QuantizedTensor("x", PIXELS.shape, 1 / 255, 0, "UINT8"), FloatTensor("y", PIXELS.shape)), (Dequantize("x", "y"),), "x", "y"
    )
    output, _ = run_file(tflite.write(graph), {"x": PIXELS}, kernels)
    np.testing.assert_allclose(output, PIXELS / 255, atol=1e-6)
