import dataclasses
import json

import numpy as np
import pytest
import scipy.stats
from families import FAMILIES
from hypothesis import given, settings
from hypothesis import strategies as st

from daqu_tf import spaces, targets
from daqu_tf.spaces.bits import FLOAT_BITS, next_bits
from daqu_tf.spaces.precisions import in_float, uniform_bits
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.stage import Stage
from daqu_tf.spaces.subnet import Subnet
from daqu_tf.targets import costs
from daqu_tf.training.samplers import SAMPLERS, GapAware, Sandwich, Uniform, with_open_bits

DIGITS = spaces.get("digits")
LITERT = targets.get("litert_cpu").restrict(DIGITS)
ONE = SearchSpace("one", (8, 8, 1), 10, (8,), 1, (Stage((8,), (1,), (3,), (2,), 2),), (16,), (4, 8), (8,))
ALL = {**spaces.SPACES, **FAMILIES, "digits on litert_cpu": LITERT, "one": ONE}
CHEAP = [pytest.param(ALL[name], id=name) for name in ALL if name != "mobilenet_v3_imagenet"]
SOME = st.sampled_from([DIGITS, LITERT, ONE, *FAMILIES.values()])


def bits_of(subnet: Subnet, kind: str) -> set[int]:
    return {value for name, value in subnet.choices if name.endswith(kind)}


def architecture_of(subnet: Subnet) -> dict[str, int]:
    return {name: value for name, value in subnet.choices if not name.endswith("_bits")}


def drawn(sampler, steps, seed=0) -> list[Subnet]:
    rng = np.random.default_rng(seed)
    return [subnet for _ in range(steps) for subnet in sampler.architectures(rng)]


def shares(sampler: GapAware, steps: int, seed=0) -> np.ndarray:
    """Of each band in the draws of so many steps."""
    bands = [band_of(sampler.space, subnet) for subnet in drawn(sampler, steps, seed)]
    return np.bincount(bands, minlength=GapAware.BANDS) / len(bands)


def band_of(space: SearchSpace, subnet: Subnet) -> int:
    """Bands divide the logarithm of MACs evenly between the smallest and the largest."""
    low, here, high = (np.log(costs.macs(space, of)) for of in (space.smallest(), subnet, space.largest()))
    return min(GapAware.BANDS - 1, int((here - low) / (high - low) * GapAware.BANDS))


@pytest.mark.parametrize("space", ALL.values(), ids=ALL)
@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_every_subnet_is_legal_in_every_space(sampler, space):
    sampler, rng = sampler(space), np.random.default_rng(0)
    for step in range(5):
        subnets = sampler.architectures(rng)
        assert len(subnets) == sampler.SUBNETS
        for subnet in subnets:
            assert space.subnet(subnet.values) == subnet
        sampler.observe(subnets, [2.0 + step] * sampler.SUBNETS)


@pytest.mark.parametrize("space", CHEAP)
@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_the_generator_and_the_state_decide_the_draws(sampler, space):
    first, second = sampler(space), sampler(space)
    assert drawn(first, 5) == drawn(second, 5)
    rng = np.random.default_rng(1)
    for _ in range(20):
        subnets = first.architectures(rng)
        first.observe(subnets, [costs.macs(space, subnet) / 1e4 % 3 for subnet in subnets])
    second.state = json.loads(json.dumps(first.state))
    assert drawn(first, 5, seed=2) == drawn(second, 5, seed=2)
    if space is not ONE:
        assert drawn(first, 5, seed=2) != drawn(first, 5, seed=3)


def test_a_space_of_one_architecture():
    for name, sampler in SAMPLERS.items():
        assert {in_float(subnet) for subnet in drawn(sampler(ONE), 20)} == {in_float(ONE.largest())}, name


@pytest.mark.parametrize("space", CHEAP)
def test_the_sandwich_has_both_ends_in_every_step(space):
    sampler, rng = Sandwich(space), np.random.default_rng(0)
    others = set()
    for _ in range(20):
        largest, smallest, *random = sampler.architectures(rng)
        assert largest == space.largest() and architecture_of(smallest) == architecture_of(space.smallest())
        others |= set(random)
    assert space is ONE or len(others) == 40


def test_uniform_gives_each_value_of_a_gene_alike():
    subnets = drawn(Uniform(DIGITS), 300)
    for name in ("stem.width", "stage1.depth", "stage2.block1.kernel", "resolution"):
        values = next(gene.values for gene in DIGITS.genes if gene.name == name)
        counts = [sum(subnet[name] == value for subnet in subnets) for value in values]
        assert scipy.stats.chisquare(counts).pvalue > 1e-3, name


@pytest.mark.parametrize("space", [DIGITS, FAMILIES["basic"]], ids=lambda space: space.name)
def test_without_a_difference_of_losses_gap_aware_is_even_over_bands(space):
    got = shares(GapAware(space), 500)
    assert np.abs(got - 1 / GapAware.BANDS).max() < 0.035


@pytest.mark.parametrize("band", [0, 2, 5])
def test_gap_aware_draws_more_from_a_band_that_lags(band):
    sampler = GapAware(DIGITS)
    sampler.state = [1.0 + (number == band) * GapAware.TEMPERATURE for number in range(GapAware.BANDS)]
    got = shares(sampler, 600)
    others = np.delete(got, band)
    even = GapAware.EVEN_SHARE / GapAware.BANDS
    # The rest of the draws goes by e**(lag / temperature): e to the band that lags, 1 to each of the five others.
    assert got[band] == pytest.approx(even + (1 - GapAware.EVEN_SHARE) * np.e / (np.e + 5), abs=0.045)
    assert others.max() < got[band] and others.min() > even


def test_gap_aware_leaves_every_band_its_even_share():
    sampler = GapAware(DIGITS)
    sampler.state = [9.0, *[0.1] * (GapAware.BANDS - 1)]
    got = shares(sampler, 600)
    even = GapAware.EVEN_SHARE / GapAware.BANDS
    assert np.all(np.abs(got[1:] - even) < 0.03) and got[0] > 0.5


def test_observe_moves_the_bands_of_the_subnets_towards_their_losses():
    sampler = GapAware(DIGITS)
    sampler.state = [1.0] * GapAware.BANDS
    for _ in range(200):
        sampler.observe([DIGITS.smallest(), DIGITS.largest()], [3.0, 0.5])
    assert sampler.state[0] == pytest.approx(3.0, abs=0.1) and sampler.state[-1] == pytest.approx(0.5, abs=0.1)
    assert sampler.state[1:-1] == [1.0] * (GapAware.BANDS - 2)


def test_in_the_long_run_gap_aware_follows_what_it_observes():
    sampler, rng = GapAware(DIGITS), np.random.default_rng(0)
    sampler.state = [1.0] * GapAware.BANDS
    for _ in range(600):
        subnets = sampler.architectures(rng)
        sampler.observe(subnets, [1.0 + 0.1 * (band_of(DIGITS, subnet) == 0) for subnet in subnets])
    got = shares(sampler, 300, seed=1)
    assert got.argmax() == 0 and got[0] > 0.3


@pytest.mark.parametrize("seed", range(3))
def test_gap_aware_is_even_from_the_first_step_where_no_band_lags(seed):
    sampler, rng, bands = GapAware(DIGITS), np.random.default_rng(seed), []
    for _ in range(150):
        subnets = sampler.architectures(rng)
        sampler.observe(subnets, [2.3] * sampler.SUBNETS)
        bands += [band_of(DIGITS, subnet) for subnet in subnets]
    assert np.bincount(bands, minlength=GapAware.BANDS).max() < 0.3 * len(bands)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("loss", [np.nan, np.inf, 1e5])
def test_gap_aware_survives_a_step_that_diverged(loss):
    sampler, rng = GapAware(DIGITS), np.random.default_rng(0)
    sampler.observe([DIGITS.smallest()], [loss])
    for _ in range(20):
        subnets = sampler.architectures(rng)
        assert len(subnets) == sampler.SUBNETS
        sampler.observe(subnets, [2.3] * sampler.SUBNETS)


def test_gap_aware_has_the_very_ends_often():
    subnets = [in_float(subnet) for subnet in drawn(GapAware(DIGITS), 500)]
    for end in (DIGITS.smallest(), DIGITS.largest()):
        assert 0.03 < subnets.count(in_float(end)) / len(subnets) < 0.07  # 0.3 of a band, of which there are six.


def test_in_float_keeps_the_architecture():
    for subnet in drawn(Uniform(DIGITS), 5):
        assert bits_of(in_float(subnet), "_bits") == {FLOAT_BITS}
        assert architecture_of(in_float(subnet)) == architecture_of(subnet)


@pytest.mark.parametrize(
    "activation_bits, bits, expected",
    [((2, 3, 4, 6, 8), 3, 3), ((8,), 3, 8), ((4, 8), 2, 4), ((4, 8), 6, 8), ((4,), 8, 4), ((2, 3, 4, 6, 8), 8, 8)],
)
def test_uniform_bits_have_the_next_activation_bits_that_there_are(activation_bits, bits, expected):
    space = DIGITS.restrict(activation_bits=activation_bits)
    subnet = uniform_bits(space, space.largest(), bits)
    assert bits_of(subnet, "weight_bits") == {bits} and bits_of(subnet, "activation_bits") == {expected}
    assert architecture_of(subnet) == architecture_of(space.largest())


@given(st.data(), SOME, st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_open_bits_are_open_and_legal(data, space, seed):
    top = space.weight_bits[-1]
    opened = tuple(sorted(data.draw(st.sets(st.sampled_from(space.weight_bits))) | {top}))
    rng = np.random.default_rng(seed)
    architecture = space.sample_by_gene(rng)
    subnet = with_open_bits(space, architecture, opened, rng)
    assert space.subnet(subnet.values) == subnet
    assert architecture_of(subnet) == architecture_of(architecture)
    assert bits_of(subnet, "weight_bits") <= set(opened)
    assert bits_of(subnet, "activation_bits") <= {next_bits(space.activation_bits, bits) for bits in opened}
    again = np.random.default_rng(seed)
    assert with_open_bits(space, space.sample_by_gene(again), opened, again) == subnet


def test_activations_have_the_next_bits_above_open_ones():
    space = DIGITS.restrict(weight_bits=(3, 8), activation_bits=(4, 8))
    rng = np.random.default_rng(0)
    for opened, expected in (((8,), {8}), ((3, 8), {4, 8})):
        drawn = [with_open_bits(space, space.largest(), opened, rng) for _ in range(50)]
        assert set.union(*(bits_of(subnet, "activation_bits") for subnet in drawn)) == expected


# A target may leave one gene fewer bits than the space has: here a depthwise layer, which is INT8 whatever its bits.
def test_open_bits_are_legal_where_a_gene_has_fewer_bits():
    target = dataclasses.replace(targets.get("litert_cpu"), objectives=(("accuracy", "max"), ("file_bytes", "min")))
    space = target.restrict(DIGITS)
    rng = np.random.default_rng(0)
    for _ in range(20):
        subnet = with_open_bits(space, space.largest(), space.weight_bits, rng)
        assert space.subnet(subnet.values) == subnet


@pytest.mark.parametrize("space", [DIGITS, LITERT], ids=["digits", "litert_cpu"])
def test_about_half_of_the_subnets_have_the_same_bits_throughout(space):
    rng = np.random.default_rng(0)
    subnets = [with_open_bits(space, space.largest(), (2, 4, 8), rng) for _ in range(600)]
    uniform = [subnet for subnet in subnets if len(bits_of(subnet, "weight_bits")) == 1]
    assert 0.42 < len(uniform) / len(subnets) < 0.58
    counts = [sum(bits_of(subnet, "weight_bits") == {bits} for subnet in uniform) for bits in (2, 4, 8)]
    expected = len(uniform) * np.array([4, 2, 1]) / 7  # In inverse proportion to 2, 4 and 8 bits.
    assert scipy.stats.chisquare(counts, expected).pvalue > 1e-3
    mixed = [subnet for subnet in subnets if subnet not in uniform]
    for name in mixed[0].values:
        if name.endswith("weight_bits"):
            assert {subnet[name] for subnet in mixed} == {2, 4, 8}, name


def test_activations_have_the_bits_that_the_space_has():
    rng = np.random.default_rng(0)
    on_litert = [with_open_bits(LITERT, LITERT.largest(), (2, 4, 8), rng) for _ in range(50)]
    assert set.union(*(bits_of(subnet, "activation_bits") for subnet in on_litert)) == {8}
    everywhere = [with_open_bits(DIGITS, DIGITS.largest(), (2, 4, 8), rng) for _ in range(50)]
    assert set.union(*(bits_of(subnet, "activation_bits") for subnet in everywhere)) == {2, 4, 8}
