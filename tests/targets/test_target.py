import dataclasses

import numpy as np
import pytest
from families import FAMILIES

from daqu_tf import spaces, targets
from daqu_tf.errors import DaquError
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.stage import Stage
from daqu_tf.targets import costs

DIGITS = spaces.get("digits")
LAYER = DIGITS.layers(DIGITS.largest())[0]
POINTWISE = (("pointwise", 1, 1), ("dense", 1, 1))


@pytest.mark.parametrize("name", targets.TARGETS)
def test_restrict_leaves_what_changes_an_objective(name):
    target = targets.get(name)
    restricted = target.restrict(DIGITS)
    assert target.name == name
    assert target.objectives[0] == ("accuracy", "max")
    assert restricted.activation_bits == (DIGITS.activation_bits if name == "accelerator" else (8,))
    assert restricted.weight_bits == DIGITS.weight_bits
    assert 1 < restricted.cardinality <= DIGITS.cardinality
    assert target.restrict(restricted) == restricted
    subnet = restricted.sample(np.random.default_rng(0))
    assert DIGITS.subnet(subnet.values) == subnet


def test_restrict_of_a_space_without_the_target_s_bits_takes_the_highest():
    space = DIGITS.restrict(activation_bits=(2, 4))
    assert targets.get("litert_cpu").restrict(space).activation_bits == (4,)


MINE = targets.Target("mine", (("accuracy", "max"), ("latency_us", "min"), ("file_bytes", "min")), int4_fully_connected=True)


def test_a_target_of_a_user_s_own_keeps_what_its_objectives_tell_apart():
    restricted = MINE.restrict(FAMILIES["inverted_residual"])
    values = {gene.name: gene.values for gene in restricted.genes}
    assert values["stage2.block1.expand.weight_bits"] == (4, 8)  # INT4 or INT8.
    assert values["stage2.block1.depthwise.weight_bits"] == (8,)  # INT8 at any bits.
    assert values["stage2.block1.expand.activation_bits"] == values["stem.activation_bits"] == (8,)
    # Two containers of a layer: one such layer in a block of the first stage, which keeps its width; in one of the second two,
    # kernels and expansions.
    first, second = 2, 2 * 2 * 2 * 2
    resolutions, stem, head = 2, 2, 2 * 2
    assert restricted.cardinality == resolutions * stem * head * (first + first**2) * 2 * (second + second**2)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("target", [*targets.TARGETS.values(), MINE], ids=lambda target: target.name)
def test_the_canonical_subnet_costs_the_same_by_every_objective(name, target):
    space, rng = FAMILIES[name], np.random.default_rng(0)
    restricted = target.restrict(space)
    subnets = [space.sample_by_gene(rng) for _ in range(100)]
    canonical = [target.canonicalise(space, subnet) for subnet in subnets]
    tables = [costs.of_many(space, [space.genome(subnet) for subnet in some], target) for some in (subnets, canonical)]
    for objective, _ in target.objectives:
        if objective in costs.COSTS:
            np.testing.assert_array_equal(*(table[objective] for table in tables), err_msg=objective)
    for subnet in canonical:
        assert restricted.subnet(subnet.values) == subnet
        assert target.canonicalise(space, subnet) == subnet
        assert [target.container(layer) for layer in space.layers(subnet)]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_choice_that_is_left_changes_an_objective(name):
    space, target = FAMILIES[name], targets.get("accelerator")
    largest = target.restrict(space).largest()
    for gene in target.restrict(space).genes:
        if gene.name.endswith("_bits") and gene.name in largest.values:
            changed = space.subnet(largest.values | {gene.name: gene.values[0]})
            assert costs.bitops(space, changed) < costs.bitops(space, largest), gene.name


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("kind, kernel, stride", [("conv", 3, 1), ("conv", 1, 2), ("conv", 1, 1), *POINTWISE, ("depthwise", 1, 1)])
def test_containers(kind, kernel, stride, bits):
    layer = dataclasses.replace(LAYER, kind=kind, kernel=kernel, stride=stride, weight_bits=bits, input_channels=6)
    packed = kind != "depthwise" and kernel == stride == 1 and bits <= 4
    assert targets.get("litert_cpu").container(layer) == ("INT4" if packed else "INT8")
    assert targets.get("litert_cpu_int8").container(layer) == targets.get("tflite_runtime").container(layer) == "INT8"
    odd = dataclasses.replace(layer, input_channels=7)
    assert targets.get("litert_cpu").container(odd) == "INT8"


ODD = SearchSpace("odd", (8, 8, 1), 5, (3, 4), 1, (Stage((5, 6), (1, 2), (1, 3), (1, 3), 1, block="basic"),), (7, 8))


@pytest.mark.parametrize("space", [ODD, *FAMILIES.values()], ids=lambda space: space.name)
@pytest.mark.parametrize("target", [*targets.TARGETS.values(), MINE], ids=lambda target: target.name)
def test_many_layers_at_once_are_packed_as_each_alone(space, target):
    rng = np.random.default_rng(0)
    subnets = [space.sample_by_gene(rng) for _ in range(50)]
    table = space.layer_table(np.array([space.genome(subnet) for subnet in subnets]))
    for row, subnet in enumerate(subnets):
        alone = {layer.name: target.container(layer) == "INT4" for layer in space.layers(subnet)}
        packed = {layer.name: np.broadcast_to(target.packs(layer), len(subnets))[row] for layer in table}
        assert {name: packed[name] for name in alone} == alone


def test_widths_that_an_even_number_of_channels_tells_apart_are_kept():
    values = {gene.name: gene.values for gene in MINE.restrict(ODD).genes}
    assert values["head.weight_bits"] == values["stage1.block2.conv1.weight_bits"] == (4, 8)
    assert values["stage1.block1.conv2.weight_bits"] == (8,)


def test_a_target_for_a_runtime_without_int4():
    with pytest.raises(DaquError, match="`int4_fully_connected` must be False for the runtime tflite_runtime"):
        dataclasses.replace(MINE, runtime="tflite_runtime")
    with pytest.raises(DaquError, match="`runtime` must be one of litert, tflite_runtime, but received 'tflite'"):
        dataclasses.replace(MINE, runtime="tflite")


def test_unknown_name():
    with pytest.raises(DaquError, match=r"`target` must be one of litert_cpu, .* received 'gpu'"):
        targets.get("gpu")


LITERT = {"runtime": "ai-edge-litert", "runtime_version": "2.3.0", "delegate": "xnnpack"}
OLD = {"runtime": "tflite-runtime", "runtime_version": "2.14.0", "delegate": "xnnpack"}
PHONE = {"runtime": "benchmark_model", "runtime_version": "0123456789ab", "delegate": "xnnpack"}


@pytest.mark.parametrize(
    "identity, name",
    [
        (LITERT, "litert_cpu"),
        (LITERT | {"runtime_version": "1.3.0"}, "litert_cpu"),
        (LITERT | {"runtime_version": "10.0rc1"}, "litert_cpu"),
        (LITERT | {"runtime_version": "1.2.0"}, "litert_cpu_int8"),
        (OLD, "tflite_runtime"),
        (PHONE, "litert_cpu"),
        (PHONE | {"delegate": "gpu"}, "litert_cpu_int8"),
        (PHONE | {"delegate": "nnapi"}, "litert_cpu_int8"),
    ],
)
def test_the_target_follows_the_device(identity, name):
    assert targets.for_device(identity).name == name
    for chosen in targets.TARGETS:
        if chosen != "litert_cpu" or identity["runtime_version"] not in ("1.2.0", "2.14.0"):
            assert targets.for_device(identity, chosen).name == chosen


@pytest.mark.parametrize(
    "identity, best",
    [(OLD, "tflite_runtime"), (LITERT | {"runtime_version": "1.2.0"}, "litert_cpu_int8")],
)
def test_a_target_that_the_runtime_of_a_device_does_not_take(identity, best):
    runtime = f"{identity['runtime']} {identity['runtime_version']}"
    with pytest.raises(
        DaquError, match=f"`target` litert_cpu stores weights as INT4, which {runtime} .*: choose {best}, or install"
    ):
        targets.for_device(identity, "litert_cpu")
    with pytest.raises(DaquError, match="`target` must be one of"):
        targets.for_device(identity, "gpu")


@pytest.mark.parametrize(
    "objectives, message",
    [
        ((("file_bytes", "min"),), r"must be \('accuracy', 'max'\) and then at least one cost"),
        ((("accuracy", "max"),), "at least one cost"),
        ((("accuracy", "min"), ("file_bytes", "min")), r"must be \('accuracy', 'max'\)"),
        ((("accuracy", "max"), ("file_bytes", "min"), ("file_bytes", "min")), "each once"),
        ((("accuracy", "max"), ("file_bytes", "max")), r"must be costs to `min` among .*, but received \('file_bytes', 'max'\)"),
        ((("accuracy", "max"), ("energy", "min")), r"among latency_us, file_bytes, .*, but received \('energy', 'min'\)"),
        ((("accuracy", "max"), ("file_bytes",)), "among latency_us"),
        (("accuracy", "file_bytes"), "must be"),
    ],
)
def test_objectives_that_no_trial_reports(objectives, message):
    with pytest.raises(DaquError, match=f"`objectives` {message}" if message.startswith("must") else message):
        targets.Target("mine", objectives, int4_fully_connected=False)
