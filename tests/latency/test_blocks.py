"""Blocks: every subnet is made of those that a table has, and of equal ones the files are equal."""

import hashlib

import numpy as np
import pytest

from daqu_tf import spaces, targets, tflite
from daqu_tf.latency import block_graph, blocks
from daqu_tf.targets import costs
from daqu_tf.targets.storage import Storage

TARGET = targets.get("litert_cpu")


def space_of(name):
    return TARGET.restrict(spaces.get(name))


@pytest.mark.parametrize("name", sorted(spaces.SPACES))
def test_every_subnet_is_made_of_blocks_that_are_listed(name):
    space = space_of(name)
    listed = blocks.every_block(space, TARGET.storage)
    genomes = space.sample_genomes(np.random.default_rng(0), 300)
    for found, index in blocks.blocks_of(space, genomes):
        assert {end.key(TARGET.storage) for block in found for end in block.ends()} <= listed.keys()
        assert index.max() == len(found) - 1 and index.min() >= -1


@pytest.mark.parametrize(
    "name",  # The largest takes as long as all others, whose kinds of blocks it has.
    [pytest.param(name, marks=pytest.mark.slow if name == "mobilenet_v3_imagenet" else ()) for name in sorted(spaces.SPACES)],
)
def test_no_block_is_listed_in_vain(name):
    space = space_of(name)
    listed = blocks.every_block(space, TARGET.storage)
    rng, seen = np.random.default_rng(0), set()
    genomes = rng.integers(0, [len(gene.values) for gene in space.genes], (20_000, len(space.genes)))
    for found, _ in blocks.blocks_of(space, genomes):
        seen |= {end.key(TARGET.storage) for block in found for end in block.ends()}
    assert listed.keys() == seen


@pytest.mark.parametrize("name", ["mobilenet_v3_cifar", "resnet_cifar", "digits"])
def test_blocks_add_up_to_the_subnet(name):
    space = space_of(name)
    genomes = space.sample_genomes(np.random.default_rng(1), 50)
    macs, counts = np.zeros(50, int), np.zeros(50, int)
    for found, index in blocks.blocks_of(space, genomes):
        macs += np.array([*(sum(layer.macs for layer in block.layers) for block in found), 0])[index]
        counts += index >= 0
    assert np.array_equal(macs, costs.macs_of_many(space, genomes))
    depths = [sum(value for name, value in space.from_genome(genome).choices if name.endswith(".depth")) for genome in genomes]
    assert np.array_equal(counts, np.array(depths) + 2)


def test_a_key_says_shapes_and_containers_and_no_bits():
    space = space_of("digits")
    subnet = space.largest()
    keys = {}
    for bits in (2, 4, 6, 8):
        genome = space.genome(subnet.with_bits(bits, 8))
        keys[bits] = [block.key(TARGET.storage) for (block,), _ in blocks.blocks_of(space, np.array([genome]))]
    assert keys[2] == keys[4] != keys[6] == keys[8]
    assert keys[8][0] == "8x8x1 conv3/1 16 INT8 relu"
    assert keys[2][3] == "8x8x16 pointwise 64 INT4 relu, depthwise5/2 64 INT8 relu, pointwise 32 INT4"
    assert [key for key in keys[8] if key.endswith("sum")], "a residual block says so"
    assert keys[8][-1].endswith("dense 10 INT8 pools")


def test_the_share_that_is_narrow_counts_the_layers_that_differ():
    space = space_of("digits")
    block = next(blocks.blocks_of(space, np.array([space.genome(space.largest())])))[0][0]
    assert block.share_of_narrowest(TARGET.storage) == 0  # A stem has nothing to choose.
    low, high = (space.largest().with_bits(bits, 8).values for bits in (4, 8))
    mixed = space.subnet(high | {name: bits for name, bits in low.items() if name == "stage2.block1.expand.weight_bits"})
    places = [found[0] for found, _ in blocks.blocks_of(space, np.array([space.genome(mixed)]))]
    expand, _, project = places[3].layers
    assert places[3].share_of_narrowest(TARGET.storage) == expand.macs / (expand.macs + project.macs)
    assert places[3].share_of_narrowest(Storage("int8")) == 0


@pytest.mark.parametrize("container", ["auto", "int8", "int4", "float32", "float16", "dynamic"])
def test_files_of_blocks_hold_what_the_key_says(container):
    space, storage = space_of("mobilenet_v3_cifar"), Storage(container)
    listed = blocks.every_block(space, storage)
    for key in list(listed)[:: max(len(listed) // 12, 1)]:
        graph = tflite.read(tflite.write(block_graph.of_block(space, listed[key], storage)))
        shape = graph.tensor(graph.input).shape
        assert key.startswith("x".join(map(str, shape[1:])))
        stored = [operator.container for operator in graph.operators if hasattr(operator, "container")]
        assert [word for word in key.replace(",", "").split() if word[:3] in ("INT", "FLO")] == stored


def test_equal_blocks_of_two_spaces_are_the_same_file():
    cifar, imagenet = space_of("mobilenet_v3_cifar"), spaces.get("mobilenet_v3_cifar").for_images((32, 32, 3), 100)
    here, there = (blocks.every_block(space, TARGET.storage) for space in (cifar, TARGET.restrict(imagenet)))
    shared = sorted(here.keys() & there.keys())
    assert 0 < len(shared) < len(here)  # All but the tails.
    for key in shared[::100]:
        files = [
            tflite.write(block_graph.of_block(s, found[key], TARGET.storage)) for s, found in ((cifar, here), (imagenet, there))
        ]
        assert len({hashlib.sha256(data).hexdigest() for data in files}) == 1


def test_a_whole_subnet_of_random_weights_is_what_would_be_exported():
    space = space_of("digits")
    graph = block_graph.of_subnet(space, space.largest(), TARGET.storage)
    assert sum(hasattr(operator, "container") for operator in graph.operators) == len(space.layers(space.largest()))


def test_a_space_that_is_narrowed_to_fit_small_images():
    space = spaces.get("mobilenet_v2_28").restrict(resolution=(28,)).for_images((8, 8, 1), 10)
    for block in blocks.every_block(space, TARGET.storage).values():
        block_graph.of_block(space, block, TARGET.storage).check()
