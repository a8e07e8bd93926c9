"""Making a latency table, on this machine itself: every file is really timed. What is claimed of its times is in benchmarks."""

import dataclasses
import json

import numpy as np
import pytest
from quick_profiles import FEW, QUICK

from daqu_tf import spaces, targets
from daqu_tf.devices import HostDevice, ModelError
from daqu_tf.errors import DaquError
from daqu_tf.latency import profiling
from daqu_tf.latency.blocks import every_block
from daqu_tf.latency.profiling import profile
from daqu_tf.latency.store import MeasurementStore
from daqu_tf.latency.table import LatencyTable

TARGET = targets.get("litert_cpu")


@pytest.fixture(scope="module")
def space():
    return TARGET.restrict(spaces.get("digits").restrict(**FEW))


@pytest.fixture(scope="module")
def made(space, tmp_path_factory):
    store = MeasurementStore(tmp_path_factory.mktemp("store") / "s.sqlite")
    return profile(HostDevice(), space, TARGET.storage, store, QUICK), store


def test_a_table_has_every_block_and_holds_for_this_machine(made, space):
    table, _ = made
    assert table.blocks_us.keys() == every_block(space, TARGET.storage).keys()
    assert min(table.blocks_us.values()) > 0
    table.check(space, TARGET.storage, HostDevice().identity())
    assert LatencyTable.from_json(json.loads(json.dumps(table.to_json()))) == table


def test_it_says_how_it_was_measured_and_how_far_off_it_is(made):
    evidence = made[0].evidence
    assert evidence["blocks"] == len(made[0].blocks_us) and len(evidence["drift"]) == QUICK.repeats and evidence["drift"][0] == 0
    error = evidence["validation"]
    assert error["subnets"] == QUICK.validation and len(evidence["subnets"]) == QUICK.calibration + QUICK.validation
    assert 0 <= error["median_error"] <= error["p90_error"] <= error["max_error"]
    assert error["range_us"][0] < error["range_us"][1]


def test_a_second_call_times_nothing(made, space):
    table, store = made
    again = profile(HostDevice(), space, TARGET.storage, store, QUICK)
    assert again.evidence["timed"] == 0 and again.blocks_us == table.blocks_us and again.correction == table.correction


def test_a_call_that_was_cut_off_goes_on(space, tmp_path):
    class Killed(Exception):
        pass

    def kill(what, done, total):
        if what == "blocks, turn 2":
            raise Killed

    path = tmp_path / "s.sqlite"
    with pytest.raises(Killed):
        profile(HostDevice(), space, TARGET.storage, MeasurementStore(path), QUICK, kill)
    kept = MeasurementStore(path).turns(HostDevice().identity(), QUICK.timing)
    seen = []
    table = profile(HostDevice(), space, TARGET.storage, MeasurementStore(path), QUICK, lambda *state: seen.append(state))
    blocks, times = len(table.blocks_us), sum(map(len, kept.values()))
    assert times > blocks
    assert table.evidence["timed"] + times == sum(map(len, MeasurementStore(path).turns(table.device, QUICK.timing).values()))
    assert seen[-1][0] == "subnets, turn 2" and seen[-1][1] == seen[-1][2]


def test_a_file_that_the_device_cannot_run_is_named(space, tmp_path):
    class Refusing(HostDevice):
        def measure_batch(self, model_paths, **settings):
            raise ModelError("m.tflite could not be run: export it again or leave it out.")

    with pytest.raises(DaquError, match="could not be run"):
        profile(Refusing(), space, TARGET.storage, MeasurementStore(tmp_path / "s.sqlite"), QUICK)


def test_subnets_are_spread_over_the_latencies(made, space):
    table, _ = made
    genomes = profiling.stratified(table, space, 12, np.random.default_rng(0))
    logs = np.sort(np.log(table.sums(space, genomes)[0]))
    assert len({space.from_genome(genome) for genome in genomes}) == 12
    assert np.diff(logs).max() < 0.4 * (logs[-1] - logs[0])


def test_a_space_of_too_few_subnets_is_a_sentence(made, space):
    with pytest.raises(DaquError, match="1000000 (different )?subnets are needed"):
        profiling.stratified(made[0], space, 1_000_000, np.random.default_rng(0))


def test_a_space_of_too_few_subnets_is_refused_before_anything_is_timed(space, tmp_path):
    one = space.restrict(**{gene.name: gene.values[:1] for gene in space.genes})
    with pytest.raises(DaquError, match="needs 16 subnets for a latency table, but 'digits' has 1"):
        profile(HostDevice(), one, TARGET.storage, MeasurementStore(tmp_path / "s.sqlite"), QUICK)


def test_all_runs_of_one_timing_are_one_turn(space, tmp_path):
    class ThreeProcesses(HostDevice):
        """As phones do."""

        def measure_batch(self, model_paths, **settings):
            return [
                dataclasses.replace(each, run_medians_us=each.run_medians_us * 3)
                for each in super().measure_batch(model_paths, **settings)
            ]

    seen = []
    store = MeasurementStore(tmp_path / "s.sqlite")
    profile(ThreeProcesses(), space, TARGET.storage, store, QUICK, lambda what, *of: seen.append(what))
    assert {"blocks, turn 1", "blocks, turn 2", "subnets, turn 1", "subnets, turn 2"} <= set(seen)


def test_doubtful_times_are_taken_again_and_left_out(space, tmp_path):
    class Doubtful(HostDevice):
        """Whose first turn is worth nothing."""

        calls = 0

        def measure_batch(self, model_paths, **settings):
            self.calls += 1
            flags = ("throttled",) if self.calls <= 2 else ()
            return [dataclasses.replace(each, flags=flags) for each in super().measure_batch(model_paths, **settings)]

    store, settings = MeasurementStore(tmp_path / "s.sqlite"), dataclasses.replace(QUICK, most_repeats=3, unsteady=9.0)
    table = profile(Doubtful(), space, TARGET.storage, store, settings)
    turns = store.turns(table.device, QUICK.timing)
    redone = [each for each in turns.values() if each[0].is_doubtful]
    assert len(redone) == 25 and all([turn.is_doubtful for turn in each] == [True, False, False] for each in redone)
    assert table.evidence["doubtful_blocks"] == 0


def test_activation_bits_that_are_searched_make_no_difference(space, tmp_path):
    target = targets.get("accelerator")
    both = target.restrict(spaces.get("digits").restrict(**FEW))
    store = MeasurementStore(tmp_path / "s.sqlite")
    assert profile(HostDevice(), both, target.storage, store, QUICK).blocks_us


def test_errors_are_relative_and_the_control_is_the_first_turn():
    turns = np.array([[100.0, 110.0, 110.0], [200.0, 200.0, 200.0], [50.0, 50.0, 50.0]])
    found = profiling.compared(np.array([110.0, 220.0, 50.0]), turns)
    assert found["median_error"] == pytest.approx(0.0) and found["max_error"] == pytest.approx(0.1)
    assert found["control_max_error"] == pytest.approx(1 - 100 / 110) and found["control_median_error"] == 0
    assert found["kendall_tau"] == found["control_kendall_tau"] == 1


@pytest.mark.parametrize("change", [{"repeats": 1}, {"calibration": 2}, {"validation": 0}, {"min_runs": 0}])
def test_bad_settings_are_a_sentence(change):
    with pytest.raises(DaquError, match=f"`{next(iter(change))}` must be at least"):
        dataclasses.replace(QUICK, **change)
