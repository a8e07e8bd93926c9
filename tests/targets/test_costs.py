import zlib

import numpy as np
import pytest
import tensorflow as tf
from counted_space import COUNTED
from families import FAMILIES
from family_supernets import family_supernet

from daqu_tf import spaces, targets, tflite
from daqu_tf.errors import DaquError
from daqu_tf.export.subnet_graph import to_graph
from daqu_tf.supernet.baked import bake
from daqu_tf.supernet.weights import cut
from daqu_tf.targets import costs

TARGET = targets.get("litert_cpu")

# The smallest subnet of that space, layer by layer: weights, output channels, output pixels.
SMALLEST = {
    "stem": (3 * 3 * 1 * 16, 16, 64),
    "stage1.block1.expand": (16 * 32, 32, 64),
    "stage1.block1.depthwise": (3 * 3 * 32, 32, 64),
    "stage1.block1.project": (32 * 8, 8, 64),
    "stage2.block1.expand": (8 * 16, 16, 64),
    "stage2.block1.depthwise": (3 * 3 * 16, 16, 16),  # The stride: 4x4 pixels from here.
    "stage2.block1.project": (16 * 16, 16, 16),
    "head": (16 * 32, 32, 16),
    "classifier": (32 * 10, 10, 1),
}


def macs_of(names):
    return sum(SMALLEST[name][0] * SMALLEST[name][2] for name in names)


def test_layers_by_hand():
    layers = COUNTED.layers(COUNTED.smallest())
    figures = {x.name: (x.weights, x.output_channels, x.output_size[0] * x.output_size[1]) for x in layers}
    assert figures == SMALLEST


def test_totals_by_hand():
    subnet = COUNTED.smallest()
    assert costs.macs(COUNTED, subnet) == macs_of(SMALLEST) == 99_904
    assert costs.parameters(COUNTED, subnet) == sum(weights + outputs for weights, outputs, _ in SMALLEST.values()) == 2738
    assert costs.bitops(COUNTED, subnet) == 99_904 * 8 * 8


def test_bits_of_weights_and_inputs_count_where_they_are_read():
    bits = {"stage1.block1.depthwise.weight_bits": 3, "stage1.block1.expand.activation_bits": 2, "head.weight_bits": 4}
    subnet = COUNTED.subnet(COUNTED.smallest().values | bits)
    changed = {"stage1.block1.depthwise": 3 * 2, "head": 4 * 8}  # Weight bits x bits of the tensor that is read.
    expected = sum(macs_of([name]) * changed.get(name, 64) for name in SMALLEST)
    assert costs.bitops(COUNTED, subnet) == expected
    assert costs.macs(COUNTED, subnet) == costs.macs(COUNTED, COUNTED.smallest())


@pytest.mark.parametrize("space", spaces.SPACES.values(), ids=spaces.SPACES)
@pytest.mark.parametrize("cost", [costs.macs, costs.parameters, costs.bitops])
def test_every_subnet_lies_between_the_extremes(space, cost):
    rng = np.random.default_rng(0)
    lowest = space.smallest().with_bits(min(space.weight_bits), min(space.activation_bits))
    for _ in range(30):
        assert cost(space, lowest) <= cost(space, space.sample(rng)) <= cost(space, space.largest())


def test_bytes_by_hand():
    bits = {"stage1.block1.depthwise.weight_bits": 3, "head.weight_bits": 2}
    subnet = COUNTED.subnet(COUNTED.smallest().values | bits)
    packed = {"stage1.block1.depthwise": 3, "head": 2}
    expected = sum(-(-weights * packed.get(name, 8) // 8) + 4 * channels for name, (weights, channels, _) in SMALLEST.items())
    assert costs.bit_packed_bytes(COUNTED, subnet) == expected


def test_peak_of_activations_by_hand():
    smallest = COUNTED.smallest()
    assert costs.peak_activation_bytes(COUNTED, smallest) == 64 * (32 + 32)  # The depthwise of the first block.
    deep = COUNTED.subnet(COUNTED.largest().values | {"stage1.depth": 2, "stage1.width": 16})
    # The second block of the first stage expands 16 channels to 64, while its input waits for the residual.
    assert costs.peak_activation_bytes(COUNTED, deep) == 64 * (64 + 64 + 16)


@pytest.mark.parametrize("space", [*spaces.SPACES.values(), COUNTED], ids=lambda space: space.name)
def test_many_at_once_cost_what_each_does(space):
    genomes = space.sample_genomes(np.random.default_rng(3), 60)
    table = costs.of_many(space, genomes, TARGET)
    assert set(table) == set(costs.COSTS)
    for index, genome in enumerate(genomes):
        subnet = space.from_genome(genome)
        for name, values in table.items():
            arguments = (TARGET,) if name in ("file_bytes", "deflated_bytes") else ()
            assert int(values[index]) == getattr(costs, name)(space, subnet, *arguments), name


def graphs_of(name, target, count):
    """Subnets of a family with their integer graphs."""
    supernet, _ = family_supernet(name)
    rng = np.random.default_rng(0)
    for _ in range(count):
        subnet = supernet.space.sample_by_gene(rng)
        yield subnet, to_graph(supernet.space, subnet, cut(supernet.space, subnet, supernet.arrays()), target.storage)


@pytest.mark.parametrize("target", targets.TARGETS.values(), ids=targets.TARGETS)
@pytest.mark.parametrize("name", FAMILIES)
def test_bytes_of_real_files(name, target):
    space = FAMILIES[name]
    for subnet, graph in graphs_of(name, target, 10):
        data = tflite.write(graph)
        assert costs.file_bytes(space, subnet, target) == pytest.approx(len(data), rel=0.03)
        assert costs.deflated_bytes(space, subnet, target) == pytest.approx(len(zlib.compress(data, 9)), rel=0.1)


@pytest.mark.parametrize("name", FAMILIES)
def test_peak_of_activations_is_that_of_the_file_s_operators(name):
    for subnet, graph in graphs_of(name, TARGET, 20):
        sizes = {tensor.name: int(np.prod(tensor.shape)) for tensor in graph.tensors}
        last_read = {tensor: index for index, operator in enumerate(graph.operators) for tensor in operator.inputs}
        written = {operator.output: index for index, operator in enumerate(graph.operators)} | {graph.input: -1}
        peak = max(
            sum(size for tensor, size in sizes.items() if written[tensor] <= index <= last_read.get(tensor, index))
            for index in range(len(graph.operators))
        )
        assert costs.peak_activation_bytes(FAMILIES[name], subnet) == peak, str(subnet)


@pytest.mark.parametrize("name", FAMILIES)
def test_parameters_and_macs_are_those_of_the_built_network(name):
    supernet, _ = family_supernet(name)
    space = supernet.space
    subnet = space.sample_by_gene(np.random.default_rng(4))
    arrays = cut(space, subnet, supernet.arrays())
    kernels = sum(array.size for name, array in arrays.items() if name.endswith("/kernel"))
    biases = sum(array.size for name, array in arrays.items() if name.endswith(("/beta", "/bias")))
    assert costs.parameters(space, subnet) == kernels + biases
    # TensorFlow counts two operations a multiply-accumulate, of the stock layers that the subnet is baked into.
    assert costs.macs(space, subnet) == operations(bake(supernet.extract(subnet))) // 2


def operations(model):
    """Floating-point operations of the layers with kernels, as TensorFlow's profiler counts them."""
    function = tf.function(lambda x: model(x)).get_concrete_function(tf.TensorSpec((1, *model.input_shape[1:])))
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options = tf.compat.v1.profiler.ProfileOptionBuilder(options).with_empty_output().build()
    node = tf.compat.v1.profiler.profile(function.graph, options=options, cmd="op")
    total = 0
    while node.children:  # A chain, by kind of operator.
        (node,) = node.children
        total += node.float_ops if node.name in ("Conv2D", "DepthwiseConv2dNative", "MatMul") else 0
    return total


def test_sampling_within_limits():
    rng, limits = np.random.default_rng(0), {"macs": 120_000, "file_bytes": 9_000}
    space = spaces.get("digits")
    for _ in range(20):
        subnet = costs.sample(space, TARGET, rng, limits)
        assert costs.macs(space, subnet) <= 120_000 and costs.file_bytes(space, subnet, TARGET) <= 9_000


def test_limits_that_nothing_keeps():
    rng, space = np.random.default_rng(0), spaces.get("digits")
    with pytest.raises(DaquError, match=r"None of 2,000 subnets keeps within `limits` .*least seen: macs of \d"):
        costs.sample(space, TARGET, rng, {"macs": 10}, attempts=2000)
    with pytest.raises(DaquError, match="`limits` must be numbers by the names parameters, macs, .*, but received 'latency': 10"):
        costs.sample(space, TARGET, rng, {"latency": 10})
    with pytest.raises(DaquError, match="but received 'macs': 'few'"):
        costs.sample(space, TARGET, rng, {"macs": "few"})


@pytest.mark.parametrize(
    ("genomes", "message"),
    [
        ([0] * 34, r"`genomes` must be whole numbers of shape \(count, \d+\), but received int64 of shape \(34,\)"),
        (np.zeros((3, 5), int), r"but received int64 of shape \(3, 5\)"),
        (np.zeros((2, len(COUNTED.genes))), "but received float64"),
        (np.full((2, len(COUNTED.genes)), 9), "Gene `resolution` must be in 0..0, but received 9 to 9"),
        (np.full((2, len(COUNTED.genes)), -1), "Gene `resolution` must be in 0..0, but received -1 to -1"),
    ],
)
def test_genomes_that_are_none(genomes, message):
    with pytest.raises(DaquError, match=message):
        costs.of_many(COUNTED, genomes, TARGET)


def test_a_float_subnet_has_no_file():
    subnet = COUNTED.largest().with_bits(32, 8)
    for cost in (costs.file_bytes, costs.deflated_bytes):
        with pytest.raises(DaquError, match="`stage1.block1.expand.weight_bits` must be 2 to 8 bits in a file"):
            cost(COUNTED, subnet, TARGET)
