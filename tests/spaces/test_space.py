import collections
import dataclasses
import itertools
import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
from counted_space import COUNTED
from families import FAMILIES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daqu_tf import spaces, targets
from daqu_tf.errors import DaquError
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.stage import BLOCKS, Stage

NAMED = pytest.mark.parametrize("space", spaces.SPACES.values(), ids=spaces.SPACES)


def some(*values, most=2):
    return st.sets(st.sampled_from(values), min_size=1, max_size=most).map(lambda chosen: tuple(sorted(chosen)))


STAGES = st.sampled_from(BLOCKS).flatmap(
    lambda block: st.builds(
        Stage,
        widths=some(8, 16),
        depths=some(1, 2, 3),
        kernels=some(3, 5, 7),
        expansions=st.just((1,)) if block == "separable" else some(1, 2, 4),
        stride=st.sampled_from((1, 2)),
        block=st.just(block),
    )
)
# Small enough to enumerate every combination of values.
SMALL_SPACES = st.builds(
    SearchSpace,
    name=st.just("small"),
    input_shape=st.just((8, 8, 1)),
    num_classes=st.just(2),
    stem_widths=some(4, 8),
    stem_stride=st.just(1),
    stages=st.lists(STAGES, min_size=1, max_size=2).map(tuple),
    head_widths=st.sampled_from(((), (16,), (16, 32))),
    weight_bits=some(4, 8),
    activation_bits=some(8, most=1),
    resolutions=some(6, 8),
).filter(lambda space: math.prod(len(gene.values) for gene in space.genes) <= 5000)


def tiny_space(**changes):
    stage = Stage(**({"widths": (8,), "depths": (1, 2), "kernels": (3,), "expansions": (2,), "stride": 2} | changes))
    return SearchSpace("tiny", (8, 8, 1), 2, (8,), 1, (stage,), (16,), (8,), (8,))


@given(SMALL_SPACES)
@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
def test_cardinality_is_the_number_of_distinct_subnets(space):
    names = [gene.name for gene in space.genes]
    combinations = itertools.product(*(gene.values for gene in space.genes))
    subnets = {space.subnet(dict(zip(names, values))) for values in combinations}
    assert len(subnets) == space.cardinality
    assert len({tuple(space.genome(subnet)) for subnet in subnets}) == space.cardinality


def test_sampling_is_uniform_over_subnets():
    stage = Stage(widths=(8, 16), depths=(1, 2), kernels=(3, 5), expansions=(2,), stride=2)
    space = SearchSpace("small", (8, 8, 1), 2, (8,), 1, (stage,), (16,), (4, 8), (8,))
    assert space.cardinality == 2 * (2 * 2**3 + (2 * 2**3) ** 2) * 2
    rng = np.random.default_rng(0)
    counts = collections.Counter(map(space.from_genome, space.sample_genomes(rng, 40 * space.cardinality)))
    assert len(counts) == space.cardinality
    assert scipy.stats.chisquare(list(counts.values())).pvalue > 1e-3
    assert all(space.sample(rng) in counts for _ in range(20))


# Once-for-All's space, five stages of 2 to 4 blocks, 3 kernels and 3 expansions, with b choices of bits on t tensors a block.
@pytest.mark.parametrize(("precisions", "tensors", "exponent"), [(1, 3, 19.3), (3, 3, 47.7), (3, 6, 76.3)])
def test_cardinality_of_the_literature(precisions, tensors, exponent):
    weight_bits = (2, 4, 8)[-precisions:]
    activation_bits = weight_bits if tensors == 6 else (8,)
    stage = Stage(widths=(8,), depths=(2, 3, 4), kernels=(3, 5, 7), expansions=(3, 4, 6), stride=1)
    space = SearchSpace("theirs", (8, 8, 3), 2, (8,), 1, (stage,) * 5, (16,), weight_bits, activation_bits)
    fixed = math.prod(len(gene.values) for gene in space.genes if not gene.name.startswith("stage"))
    # They count six tensors a block; the linear output of ours is fixed, which is taken back here.
    count = space.cardinality // fixed
    if tensors == 6:
        count = sum((9 * precisions**tensors) ** depth for depth in (2, 3, 4)) ** 5
        assert sum((9 * precisions**5) ** depth for depth in (2, 3, 4)) ** 5 * fixed == space.cardinality
    assert math.log10(count) == pytest.approx(exponent, abs=0.05)


def test_a_space_survives_json():
    for space in (*spaces.SPACES.values(), COUNTED):
        assert SearchSpace.from_json(json.loads(json.dumps(space.to_json()))) == space


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": 3}, "a list of `stages`"),
        ({"stages": ["wide"]}, "A stage of a space must be a JSON object, but received 'wide'"),
        ({"colour": "red"}, "A space has the fields name, .*, but received `colour`"),
        ({"stem_widths": []}, "`stem.width` must have at least one choice"),
        ({"activation": "gelu"}, "`activation` must be one of relu, relu6, hard_swish, but received 'gelu'"),
        ({"activation": 1}, "`activation` must be a text, but received 1"),
        ({"resolutions": [4, 9]}, r"`resolutions` must be at most the 8 of `input_shape`, but received \(4, 9\)"),
        ({"head_widths": 64}, "`head_widths` must be a list of whole numbers, but received 64"),
        ({"head_widths": [6.5]}, r"`head_widths` must be a list of whole numbers, but received \[6.5\]"),
        ({"stem_stride": [1]}, r"`stem_stride` must be a whole number, but received \[1\]"),
        ({"stem_stride": "1"}, "`stem_stride` must be a whole number, but received '1'"),
        ({"stem_stride": 0}, "`stem_stride` must be at least 1, but received 0"),
        ({"num_classes": -1}, "`num_classes` must be at least 1, but received -1"),
        ({"input_shape": [8, 8]}, r"`input_shape` must be height, width and channels .*, but received \[8, 8\]"),
        ({"input_shape": [8, 8, 0]}, r"`input_shape` must be at least 1, but received \(8, 8, 0\)"),
        ({"narrowed": 3}, "`narrowed` must be a list of pairs of a gene's name and a list of whole numbers, but received 3"),
        ({"narrowed": [["stem.width", "16"]]}, "`narrowed` must be a list of pairs"),
        ({"narrowed": [["colour", [3]]]}, "`narrowed` must name genes of space 'counted by hand', but received `colour`"),
    ],
)
def test_wrong_json_of_a_space(change, message):
    with pytest.raises(DaquError, match=message):
        SearchSpace.from_json(json.loads(json.dumps(COUNTED.to_json())) | change)


def test_lists_and_numbers_of_numpy_are_as_good():
    listed = tiny_space(widths=[8], expansions=[np.int64(1)], stride=np.int64(2))
    assert listed == tiny_space(expansions=(1,)) and not listed.stages[0].expands
    assert SearchSpace.from_json(json.loads(json.dumps(listed.to_json()))) == listed


def test_a_space_of_a_user_s_own(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(COUNTED.to_json()))
    assert spaces.get(str(path)) == spaces.get(path) == COUNTED
    for wrong in ("{", "[" * 100_000):
        path.write_text(wrong)
        with pytest.raises(DaquError, match=r"mine.json is no JSON .*`daqu-space --json` prints an example"):
            spaces.get(str(path))
    with pytest.raises(DaquError, match="cannot be read"):
        spaces.get(str(tmp_path / "none.json"))


def test_a_field_that_is_missing():
    content = COUNTED.to_json()
    del content["num_classes"]
    with pytest.raises(DaquError, match="A space must have `num_classes`, but received only name"):
        SearchSpace.from_json(content)
    with pytest.raises(DaquError, match="see `daqu-space --json`"):
        SearchSpace.from_json([1, 2])


def test_hyperparameters_round_trip():
    hyperparameters = COUNTED.to_hyperparameters()
    assert [parameter.name for parameter in hyperparameters.space] == [gene.name for gene in COUNTED.genes]
    subnet = COUNTED.sample_by_gene(np.random.default_rng(0))
    hyperparameters.values |= subnet.to_json()
    assert COUNTED.from_hyperparameters(hyperparameters) == subnet


def test_cardinality_by_hand():
    # Bits of the stem and the head; two widths of two stages; head widths; one or two blocks of 5^5 precisions.
    precisions = 5**5
    first, second = 2 * precisions, 2 * 2 * precisions
    assert COUNTED.cardinality == 5**2 * 2 * 2 * 2 * (first + first**2) * (second + second**2)


@NAMED
def test_genome_round_trip(space):
    rng = np.random.default_rng(0)
    for subnet in (space.largest(), space.smallest(), *(space.sample(rng) for _ in range(50))):
        genome = space.genome(subnet)
        assert len(genome) == len(space.genes)
        restored = space.from_genome(genome)
        assert restored == subnet
        assert hash(restored) == hash(subnet)
        assert space.subnet(json.loads(json.dumps(subnet.to_json()))) == subnet


@given(st.data())
@settings(deadline=None)
def test_any_genome_becomes_canonical(data):
    genome = [data.draw(st.integers(0, len(gene.values) - 1)) for gene in COUNTED.genes]
    canonical = COUNTED.genome(COUNTED.from_genome(genome))
    assert COUNTED.from_genome(canonical) == COUNTED.from_genome(genome)
    values = COUNTED.from_genome(genome).values
    for gene, given_index, index in zip(COUNTED.genes, genome, canonical):
        assert index == (given_index if gene.name in values else 0)


def test_genes_of_blocks_that_are_cut_off_make_no_difference():
    shallow = COUNTED.largest().to_json() | {"stage2.depth": 1}
    other = shallow | {"stage2.block2.kernel": 3, "stage2.block2.project.weight_bits": 2}
    assert COUNTED.subnet(shallow) == COUNTED.subnet(other)
    assert not any(name.startswith("stage2.block2") for name in COUNTED.subnet(shallow).values)
    for name in [name for name in shallow if name.startswith("stage2.block2")]:
        del other[name]
    assert COUNTED.subnet(other) == COUNTED.subnet(shallow)
    assert COUNTED.subnet(shallow | {"stage2.block1.kernel": 3}) != COUNTED.subnet(shallow)


@NAMED
def test_largest_and_smallest(space):
    largest, smallest = space.largest(), space.smallest()
    for gene in space.genes:
        assert largest[gene.name] == gene.values[-1]
        if gene.name in smallest.values:
            assert smallest[gene.name] == gene.values[-1 if gene.name.endswith("_bits") else 0]
    assert sum(layer.weights for layer in space.layers(smallest)) < sum(layer.weights for layer in space.layers(largest))


def test_sampling_is_reproducible_and_reaches_every_value():
    samples = [COUNTED.sample_by_gene(np.random.default_rng([5, index])) for index in range(200)]
    assert samples == [COUNTED.sample_by_gene(np.random.default_rng([5, index])) for index in range(200)]
    for gene in COUNTED.genes:
        assert {subnet[gene.name] for subnet in samples if gene.name in subnet.values} == set(gene.values)


def test_restrict():
    restricted = COUNTED.restrict(weight_bits=(8, 4), activation_bits=(8,))
    assert restricted.weight_bits == (4, 8)
    assert restricted.activation_bits == (8,)
    precisions = 2**3
    first, second = 2 * precisions, 2 * 2 * precisions
    assert restricted.cardinality == 2 * 2 * 2 * 2 * (first + first**2) * (second + second**2)
    assert COUNTED.restrict(activation_bits=(8,), weight_bits=(4, 8)) == restricted
    subnet = restricted.sample(np.random.default_rng(0))
    assert COUNTED.subnet(subnet.values) == subnet


def test_restrict_to_what_the_space_lacks():
    with pytest.raises(DaquError, match=r"`weight_bits` .*\(2, 3, 4, 6, 8\).*'counted by hand'.*\[5, 7\]"):
        COUNTED.restrict(weight_bits=(5, 7, 8))
    with pytest.raises(DaquError, match="weight_bits` must have at least one choice"):
        COUNTED.restrict(weight_bits=())


def test_restrict_by_gene_and_by_the_end_of_a_name():
    restricted = COUNTED.restrict(kernel=(3,), depth=(1,), **{"stage2.width": (32,), "stage1.block1.project.weight_bits": (2, 8)})
    values = {gene.name: gene.values for gene in restricted.genes}
    assert values["stage2.block1.kernel"] == (3,) and values["stage2.width"] == (32,) and values["stage1.depth"] == (1,)
    assert values["stage1.block1.project.weight_bits"] == (2, 8) and values["stage1.block1.expand.weight_bits"] == (2, 3, 4, 6, 8)
    assert restricted.cardinality < COUNTED.cardinality
    assert SearchSpace.from_json(json.loads(json.dumps(restricted.to_json()))) == restricted
    assert restricted.restrict(expansion=(2,)).restrict(kernel=(3,)).largest()["stage1.block1.expansion"] == 2


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"colour": (3,)}, "`colour` must be left out: there is no such gene in space 'counted by hand'"),
        ({"kernel": (7,)}, r"`kernel` must be among \(3, 5\) of space"),
        ({"kernel": (5,)}, "`stage1.block1.kernel` must have at least one choice"),
        ({"kernel": 3}, "`kernel` must be a list of whole numbers, but received 3"),
        ({"weight_bits": (8.0,)}, r"`weight_bits` must be a list of whole numbers, but received \(8.0,\)"),
    ],
)
def test_restrict_that_leaves_nothing(choices, message):
    with pytest.raises(DaquError, match=message):
        COUNTED.restrict(**choices)


@pytest.mark.parametrize("target", targets.TARGETS.values(), ids=targets.TARGETS)
def test_a_target_takes_a_space_of_fewer_blocks_than_it_has_genes_for(target):
    shallow = COUNTED.restrict(depth=(1,))
    assert target.restrict(shallow) == target.restrict(COUNTED).restrict(depth=(1,))
    assert target.canonicalise(shallow, shallow.largest()) == shallow.largest()


def test_other_images_keep_the_share_of_each_resolution():
    space = spaces.get("mobilenet_v2_28").for_images((56, 84, 3), 4)
    assert space.resolutions == (40, 48, 56)
    layers = space.layers(space.subnet(space.largest().values | {"resolution": 40}))
    assert layers[0].input_size == (40, 60)
    assert space.restrict(resolution=(40, 56)).for_images((28, 28, 3), 4).genes[0].values == (20, 28)


def test_resolutions_that_the_strides_do_not_fit_into_are_left_out():
    assert spaces.get("resnet").for_images((8, 8, 1), 10).genes[0].values == (8,)
    assert spaces.get("resnet").for_images((9, 20, 1), 10).genes[0].values == (8, 9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block": "dense"}, "`block` must be one of inverted_residual, basic, separable, but received 'dense'"),
        (
            {"block": "basic", "squeeze_excite": True},
            "`squeeze_excite` must be false and `activation` relu in a stage of basic blocks",
        ),
        ({"activation": "gelu"}, "`activation` must be one of relu, relu6, hard_swish, but received 'gelu'"),
    ],
)
def test_a_stage_that_makes_no_sense(changes, message):
    with pytest.raises(DaquError, match=message):
        tiny_space(**changes)


def test_named_spaces_are_as_large_as_they_say():
    imagenet = spaces.get("mobilenet_v3_imagenet")
    assert imagenet.cardinality > 10**47
    assert targets.get("litert_cpu").restrict(imagenet).cardinality > 10**47
    assert imagenet.genes[0].values == (128, 160, 192, 224)


def test_layers_of_a_mobilenet_v3():
    space = FAMILIES["squeeze_excite"]
    layers = {layer.name: layer for layer in space.layers(space.largest())}
    assert (layers["stage2.block1.squeeze"].input_channels, layers["stage2.block1.squeeze"].output_channels) == (32, 8)
    assert layers["stage2.block1.excite"].output_channels == layers["stage2.block1.depthwise"].output_channels
    assert layers["stage2.block1.project"].input_size == layers["stage2.block1.depthwise"].output_size
    assert layers["stage4.block1.depthwise"].activation == layers["stem"].activation == "hard_swish"
    searched = {gene.name for gene in space.genes if gene.name.endswith("activation_bits")}
    # What a kernel reads behind a ReLU: not the tensor that is weighed, but the product.
    assert {name for name in searched if "stage2.block1" in name} == {
        f"stage2.block1.{layer}.activation_bits" for layer in ("expand", "squeeze", "excite")
    }
    assert {name for name in searched if "stage4.block1" in name} == {"stage4.block1.squeeze.activation_bits"}


def test_layers_of_a_residual_network():
    space = FAMILIES["basic"]
    layers = {layer.name: layer for layer in space.layers(space.largest())}
    shortcut, second = layers["stage2.block1.shortcut"], layers["stage2.block1.conv2"]
    assert shortcut.input_channels == layers["stage2.block1.conv1"].input_channels == 8
    assert shortcut.output_size == second.output_size == (5, 6)
    assert shortcut.residual == "relu" and second.residual is None and layers["stage2.block2.conv2"].residual == "relu"
    assert layers["classifier"].input_channels == 12


def test_with_bits_changes_bits_only():
    subnet = COUNTED.sample(np.random.default_rng(3))
    for name, value in subnet.with_bits(4, 32).choices:
        expected = {"weight_bits": 4, "activation_bits": 32}.get(name.rpartition(".")[2], subnet[name])
        assert value == expected


def test_layers_chain():
    rng = np.random.default_rng(1)
    for _ in range(20):
        subnet = COUNTED.sample(rng)
        layers = COUNTED.layers(subnet)
        assert len(layers) == 3 + 3 * (subnet["stage1.depth"] + subnet["stage2.depth"])
        for before, after in itertools.pairwise(layers):
            assert after.input_channels == before.output_channels
            assert after.input_bits == before.output_bits or after.kind == "dense"
            assert after.input_size == before.output_size or after.kind == "dense"
        for layer in layers:
            assert layer.residual == ("linear" if layer.name.endswith(".block2.project") else None)
            assert layer.activation == "relu" or layer.output_bits == 8
            if layer.name in ("stem", "classifier"):
                assert layer.weight_bits == 8


def test_odd_images_are_padded():
    space = COUNTED.for_images((9, 11, 3), 4)
    layers = space.layers(space.largest())
    assert layers[0].input_channels == 3
    assert layers[-2].output_size == (5, 6)
    assert layers[-1].output_channels == 4


def test_text_of_a_subnet():
    subnet = COUNTED.subnet(COUNTED.smallest().values | {"stage1.block1.depthwise.weight_bits": 3, "head.weight_bits": 2})
    assert str(subnet) == "r8 stem c16 s1 c8 d1 [k3e2 w8.3.8 a8.8] s2 c16 d1 [k3e2 w8.8.8 a8.8] head c32 w2"


def test_errors_name_the_gene():
    values = COUNTED.largest().to_json()
    with pytest.raises(DaquError, match=r"`stage2.block1.kernel` must be one of \(3, 5\), but received 7"):
        COUNTED.subnet(values | {"stage2.block1.kernel": 7})
    del values["stage1.depth"]
    with pytest.raises(DaquError, match=r"`stage1.depth` .* received None"):
        COUNTED.subnet(values)
    genome = COUNTED.genome(COUNTED.largest())
    for index in (-1, 2, 0.5, "0", math.nan):
        with pytest.raises(DaquError, match=rf"`head.width` must be a whole number in 0..1, but received {index!r}"):
            COUNTED.from_genome([*genome[:-2], index, *genome[-1:]])
    with pytest.raises(DaquError, match=f"must have {len(genome)} entries, but received {len(genome) - 1}"):
        COUNTED.from_genome(genome[1:])
    with pytest.raises(DaquError, match="`genome` must have .* entries, but received None"):
        COUNTED.from_genome(None)
    with pytest.raises(DaquError, match=r"`values` must be gene names with their values, but received \[1\]"):
        COUNTED.subnet([1])


def test_a_subnet_of_another_space_has_no_genome():
    with pytest.raises(DaquError, match=r"`stem.activation_bits` must be one of \(2, 3, 4, 6, 8\), but received 32"):
        COUNTED.genome(COUNTED.largest().with_bits(32, 32))
    with pytest.raises(DaquError, match=r"`resolution` must be one of \(8,\), but received 32"):
        targets.get("litert_cpu").canonicalise(COUNTED, spaces.get("resnet_cifar").largest())


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"widths": ()},
            "`widths` must have a choice, but in a stage of stride 1, which may keep the channels",
        ),
        ({"depths": ()}, r"`stage1.depth` must have at least one choice"),
        ({"kernels": (3, 4)}, r"`stage1.block1.kernel` must be odd sizes, but received \(3, 4\)"),
        ({"widths": (16, 8)}, r"`stage1.width` must be ascending"),
        ({"expansions": (2, 2)}, r"`stage1.block1.expansion` must be ascending"),
        ({"depths": (0, 1)}, r"`stage1.depth` must be ascending positive"),
        ({"stride": 16}, r"Images of 8x8 are too small for space 'tiny'"),
        ({"stride": 0}, "`stride` must be at least 1, but received 0"),
        ({"widths": 8}, "`widths` must be a list of whole numbers, but received 8"),
        ({"depths": (1.0, 2.0)}, r"`depths` must be a list of whole numbers, but received \(1.0, 2.0\)"),
    ],
)
def test_a_space_that_makes_no_sense(changes, message):
    with pytest.raises(DaquError, match=message):
        tiny_space(**changes)


@pytest.mark.parametrize("bits", [(1, 8), (8, 9), (16,)])
def test_bits_must_be_2_to_8(bits):
    with pytest.raises(DaquError, match=r"`stem.activation_bits` must be among 2..8"):
        SearchSpace("tiny", (8, 8, 1), 2, (8,), 1, (), (16,), (8,), bits)


def test_unknown_name():
    with pytest.raises(DaquError, match=r"`space` must be one of digits, .* received 'digit'"):
        spaces.get("digit")


def test_a_table_of_more_subnets_than_a_float_can_count(tmp_path):
    deep = dataclasses.replace(COUNTED, stages=(dataclasses.replace(COUNTED.stages[0], depths=(100,)),))
    assert deep.cardinality > 10**308
    (tmp_path / "deep.json").write_text(json.dumps(deep.to_json()))
    command = [sys.executable, "-m", "daqu_tf.tools.space", f"--space={tmp_path / 'deep.json'}"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert f"{deep.cardinality} exactly" in printed


def test_the_table_of_a_named_space():
    command = [sys.executable, "-m", "daqu_tf.tools.space", "--space=mobilenet_v3_imagenet", "--genes"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "3.750e+102 subnets" in printed
    assert re.search(r"^stage3 +inverted residual, squeeze-excite +32, 40 +2, 3, 4 +3, 5, 7 +3, 4, 6 +2 +relu$", printed, re.M)
    assert re.search(r"^macs +27,742,720 +564,621,856$", printed, re.M)
    assert re.search(r"^stage6.block4.project.weight_bits: 2, 3, 4, 6, 8$", printed, re.M)
