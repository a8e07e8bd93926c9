"""The latency table: what it predicts, what it refuses, and the store of measurements behind it."""

import dataclasses
import json
import sqlite3

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from latency_tables import DEVICE, SPACE, TARGET, table_of

from daqu_tf import spaces
from daqu_tf.devices import Latency
from daqu_tf.errors import DaquError
from daqu_tf.latency.store import MeasurementStore, Turn
from daqu_tf.latency.table import Correction, LatencyTable
from daqu_tf.targets.storage import Storage


def test_a_prediction_is_the_corrected_sum():
    table, subnet = table_of(), SPACE.smallest()
    layers = len(SPACE.layers(subnet))
    depth = sum(value for name, value in subnet.choices if name.endswith(".depth"))
    assert table.predict(SPACE, subnet) == pytest.approx(2 + layers - 0.5 * (depth + 2))


def test_between_the_containers_it_goes_by_macs():
    table = table_of()
    high = SPACE.largest()
    layers = {layer.name: layer for layer in SPACE.layers(high)}
    values = dict(high.values) | {"stage2.block1.expand.weight_bits": 4}
    expand, project = (layers[f"stage2.block1.{name}"].macs for name in ("expand", "project"))
    saved = table.predict(SPACE, high) - table.predict(SPACE, SPACE.subnet(values))
    assert saved == pytest.approx(1.5 * expand / (expand + project))


def test_many_are_predicted_as_one_by_one():
    table, genomes = table_of(), SPACE.sample_genomes(np.random.default_rng(0), 40)
    one_by_one = [table.predict(SPACE, SPACE.from_genome(genome)) for genome in genomes]
    assert np.allclose(table.predict_many(SPACE, genomes), one_by_one)


@given(st.floats(-5, 5), st.floats(0.5, 2), st.floats(-1, 1))
def test_the_correction_is_found_again(fixed, scale, block):
    rng = np.random.default_rng(0)
    sums, counts = rng.uniform(40, 200, 30), rng.integers(4, 12, 30)  # No latency is so small that it is clipped.
    measured = Correction(fixed, scale, block).apply(sums, counts)
    found = Correction.fitted(sums, counts, measured)
    assert np.allclose(dataclasses.astuple(found), (fixed, scale, block), atol=1e-6)


def test_a_correction_needs_subnets():
    with pytest.raises(DaquError, match="at least 3 measured subnets, but received 2"):
        Correction.fitted(np.ones(2), np.ones(2), np.ones(2))


def test_it_is_written_and_read_whole(tmp_path):
    table = table_of()
    table.save(tmp_path / "table.json")
    assert LatencyTable.load(tmp_path / "table.json") == table
    with pytest.raises(DaquError, match="cannot be written"):
        table.save(tmp_path / "nowhere" / "table.json")


@pytest.mark.parametrize(
    "text, match",
    [
        ("", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[1]", "object of format 1"),
        ('{"format": 7}', "object of format 1"),
        ('{"format": 1}', "must have `"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_table_is_a_sentence(tmp_path, text, match):
    if text is not None:
        (tmp_path / "t.json").write_text(text)
    with pytest.raises(DaquError, match=match):
        LatencyTable.load(tmp_path / "t.json")


@pytest.mark.parametrize(
    "change, match",
    [
        ({"blocks_us": {}}, "finite numbers"),
        ({"blocks_us": {"a": None}}, "finite numbers"),
        ({"blocks_us": {"a": float("nan")}}, "finite numbers"),
        ({"blocks_us": [1]}, "`blocks_us` of a latency table must be a JSON object"),
        ({"blocks_us": {"a": True}}, "finite numbers"),
        ({"blocks_us": {"a": 10**400}}, "finite numbers"),
        ({"storage": 5}, "`storage` of a latency table must be a JSON object"),
        ({"storage": {"a": 1}}, "must have `container` and `runtime`"),
        ({"storage": {"container": "int3"}}, "`container` must be one of"),
        ({"device": []}, "`device` of a latency table must be a JSON object"),
        ({"evidence": None}, "`evidence` of a latency table must be a JSON object"),
        ({"correction": {"fixed_us": 1}}, "must have `"),
        ({"correction": {"fixed_us": "1", "scale": 1, "block_us": 0}}, "finite numbers"),
        ({"more": 1}, "received `more`"),
    ],
)
def test_a_damaged_table_is_a_sentence(change, match):
    with pytest.raises(DaquError, match=match):
        LatencyTable.from_json(json.loads(json.dumps(table_of().to_json() | change)))


def test_another_space_storage_or_device_is_refused():
    table = table_of()
    table.check(SPACE, TARGET.storage, DEVICE)
    table.check(SPACE.restrict(resolution=SPACE.genes[0].values[-1:]), TARGET.storage)
    with pytest.raises(DaquError, match="of space 'digits', has no block `20x20x1 conv3/2"):
        table.check(TARGET.restrict(spaces.get("mobilenet_v2_28")), TARGET.storage)
    with pytest.raises(DaquError, match="stored as .*'auto'.*, not .*'int8'"):
        table.check(SPACE, Storage("int8"))
    with pytest.raises(DaquError, match="another device or runtime .`cpu` is 'a cpu' there and 'another' here"):
        table.check(SPACE, TARGET.storage, DEVICE | {"cpu": "another"})
    with pytest.raises(DaquError, match="`delegate` is None there and 'gpu' here"):
        table.check(SPACE, TARGET.storage, DEVICE | {"delegate": "gpu"})


def latency(sha256, *medians):
    return Latency(medians, medians, 3, 1, "xnnpack", "ai-edge-litert", "2.3.0", {}, sha256)


def test_the_store_keeps_what_was_added(tmp_path):
    store = MeasurementStore(tmp_path / "deep" / "s.sqlite")
    store.add([latency("a", 1.0, 2.0), latency("b", 3.0)], DEVICE, {"min_runs": 5})
    store.add([dataclasses.replace(latency("a", 4.0), flags=("spread",))], DEVICE, {"min_runs": 5})
    store.close()
    again = MeasurementStore(tmp_path / "deep" / "s.sqlite")
    assert again.turns(DEVICE, {"min_runs": 5}) == {"a": [Turn(1.5, False), Turn(4.0, True)], "b": [Turn(3.0, False)]}
    assert again.turns(dict(reversed(DEVICE.items())), {"min_runs": 5}) != {}
    assert again.turns(DEVICE | {"threads": 2}, {"min_runs": 5}) == again.turns(DEVICE, {"min_runs": 6}) == {}


def test_two_processes_write_to_one_store(tmp_path):
    stores = [MeasurementStore(tmp_path / "s.sqlite") for _ in range(2)]
    for number in range(20):
        stores[number % 2].add([latency(str(number), 1.0)], DEVICE, {})
    assert len(stores[0].turns(DEVICE, {})) == 20


def test_what_is_no_store_is_a_sentence(tmp_path):
    (tmp_path / "text.sqlite").write_text("no database" * 100)
    with pytest.raises(DaquError, match="cannot be used"):
        MeasurementStore(tmp_path / "text.sqlite")
    with sqlite3.connect(tmp_path / "other.sqlite") as other:
        other.execute("CREATE TABLE theirs (a)")
    with pytest.raises(DaquError, match="no store of measurements"):
        MeasurementStore(tmp_path / "other.sqlite")
    with pytest.raises(DaquError, match="cannot be used"):
        MeasurementStore(tmp_path)
