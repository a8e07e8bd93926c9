import dataclasses
import types

import numpy as np
import pytest

from daqu_tf import RunConfig, files, spaces, targets
from daqu_tf.export.manifest import Manifest
from daqu_tf.pipeline import finalist, siblings, stages
from daqu_tf.pipeline.plan import Plan
from daqu_tf.targets import costs


def plan_of(tmp_path, **settings):
    return Plan.of(RunConfig("digits", str(tmp_path), space="digits", **settings))


def test_a_finalist_has_a_sibling_whose_depthwise_kernels_keep_their_bits(tmp_path):
    plan = plan_of(tmp_path)
    finalists = {"m00": {"values": plan.searched.largest().to_json(), "macs": 7, "inherited": {"search": 0.5}}}
    (name, sibling), *others = siblings.siblings_of(plan.space, plan.target, finalists).items()
    assert name == "m00_w4" and not others and (sibling["parent"], sibling["macs"]) == ("m00", 7)
    subnet = plan.space.subnet(sibling["values"])
    bits = {name: value for name, value in subnet.bits.items() if name.endswith("weight_bits")}
    assert {value for name, value in bits.items() if ".depthwise." in name} == {8}
    assert {value for name, value in bits.items() if ".depthwise." not in name} == {4}
    assert siblings.parents(finalists | {name: sibling}) == {"m00": ["m00_w4"]}


def test_where_bits_are_searched_there_are_no_siblings(tmp_path):
    for settings in ({"target": "accelerator"}, {"precisions": "joint"}):
        plan = plan_of(tmp_path, **settings)
        assert plan.searched == plan.space and plan.search_objectives == plan.target.objectives
        assert plan.schedule.precision_transfer.order == (8, 6, 4, 3, 2)
        job = types.SimpleNamespace(plan=plan)
        assert stages._siblings(job, {"m00": {"values": plan.space.largest().to_json(), "macs": 7}}) == {}


@pytest.mark.parametrize(
    ("space", "target", "expected"),
    [
        ("digits", "litert_cpu", [4]),
        ("mobilenet_v2", "litert_cpu", [4]),
        ("resnet", "litert_cpu", []),  # Full convolutions have no container of 4 bits.
        ("mobilenet_v2", "litert_cpu_int8", []),
    ],
)
def test_siblings_are_made_where_the_file_gets_smaller(space, target, expected):
    target = targets.get(target)
    space = target.restrict(spaces.get(space))
    found = siblings.smaller(space, target, space.largest())
    assert list(found) == expected
    for subnet in found.values():
        assert costs.file_bytes(space, subnet, target) < 0.9 * costs.file_bytes(space, space.largest(), target)


def test_architectures_alone_are_searched_where_bits_buy_bytes(tmp_path):
    plan = plan_of(tmp_path)
    rng = np.random.default_rng(0)
    assert all(set(plan.searched.sample(rng).bits.values()) == {8} for _ in range(20))
    assert plan.search_objectives == (("accuracy", "max"), ("latency_us", "min"))
    assert plan.schedule.precision_transfer.order == (8,)
    for each in (plan.searched.largest(), plan.searched.smallest()):
        assert plan.space.subnet(each.values) == each


def test_what_is_given_for_the_precision_transfer_counts(tmp_path):
    plan = plan_of(tmp_path, precision_transfer="all_at_once")
    assert plan.schedule.precision_transfer.order == (8, 6, 4, 3, 2)
    assert dataclasses.replace(plan.config, precision_transfer="none").precision_transfer == "none"


@pytest.mark.slow
def test_a_family_is_finished_and_one_that_was_cut_off_goes_on_with_the_sibling(tmp_path):
    from daqu_tf.supernet.supernet import Supernet

    plan = plan_of(tmp_path, finetune_epochs=2)
    folder, subnet = plan.folder, plan.searched.largest()
    files.write_json(folder.config, plan.to_json())
    supernet = Supernet(plan.space)
    supernet.initialise_steps(plan.dataset.x_train[:128], plan.space.weight_bits)
    files.write_arrays(folder.supernet, supernet.arrays())
    finalists = {"m00": {"values": subnet.to_json(), "macs": 7, "inherited": {"search": 0.1, "test": 0.1}}}
    files.write_json(folder.finalists, finalists | siblings.siblings_of(plan.space, plan.target, finalists))
    folder.models.mkdir()
    folder.finished.mkdir()
    finalist._finish(plan, "m00", 1.0)
    parent, sibling = (Manifest.read(folder.figures(name)) for name in ("m00", "m00_w4"))
    assert sibling.fine_tuning["parent"] == "m00" and "inherited" in parent.accuracy and "inherited" not in sibling.accuracy
    assert sibling.fine_tuning["learning_rate"] == pytest.approx(siblings.RATE * parent.fine_tuning["learning_rate"])
    assert 1 <= sibling.fine_tuning["steps"] <= max(1, 0.2 * parent.fine_tuning["steps"]) + 1
    assert {layer["container"] for layer in sibling.layers if layer["kind"] == "pointwise"} == {"INT4"}
    assert {layer["container"] for layer in parent.layers} == {"INT8"} and sibling.file_bytes < parent.file_bytes
    assert sibling.top1_agreement > 0.9  # The file was run; of a network that hardly anybody trained, many images lie at a tie.
    before = folder.weights("m00").read_bytes()
    folder.figures("m00_w4").unlink()
    finalist._finish(plan, "m00", 1.0)
    assert folder.figures("m00_w4").exists() and folder.weights("m00").read_bytes() == before


def test_the_largest_finalist_is_the_teacher():
    finalists = {"m00": {"macs": 3}, "m01": {"macs": 9}, "m01_w4": {"macs": 9, "parent": "m01"}}
    assert siblings.teacher(True, finalists) == "m01"
    assert siblings.teacher(False, finalists) is None and siblings.teacher(True, {"m00": {"macs": 3}}) is None
