"""Every target to its end, and every space through export and manifest: a value of 32 means what its gene says."""

import json
import subprocess
import sys

import numpy as np
import pytest

from daqu_tf import spaces, targets
from daqu_tf.data import Dataset
from daqu_tf.export.description import describe
from daqu_tf.export.export import export_tflite, round_biases
from daqu_tf.export.manifest import Manifest
from daqu_tf.runs.folder import RunFolder
from daqu_tf.spaces.space import SearchSpace
from daqu_tf.spaces.stage import Stage
from daqu_tf.supernet.supernet import StaticNetwork

# Three values a gene, a width of 32 among them. 32 is also what stands for full precision, where a gene is a number of bits.
SPACE = SearchSpace(
    name="thirty_two",
    input_shape=(8, 8, 1),
    num_classes=10,
    stem_widths=(8, 16, 32),
    stem_stride=1,
    stages=(Stage((8, 16, 32), (1, 2), (3,), (1, 2), 2),),
    head_widths=(32,),
    resolutions=(6, 8),
    weight_bits=(2, 4, 8),
    activation_bits=(2, 4, 8),
)
FLAGS = ["--budget_minutes=2", "--epochs=1", "--finetune_epochs=1", "--max_trials=20", "--finalists=2", "--dataset=digits"]


@pytest.mark.slow
@pytest.mark.parametrize("target", targets.TARGETS)
def test_a_run_for_the_target_ends_with_its_report(target, tmp_path):
    (tmp_path / "space.json").write_text(json.dumps(SPACE.to_json()))
    folder = RunFolder(tmp_path / "run")
    flags = [*FLAGS, f"--space={tmp_path / 'space.json'}", f"--target={target}", f"--output_dir={folder.path}"]
    done = subprocess.run([sys.executable, "-m", "daqu_tf.tools.run", *flags], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0 and folder.report.exists(), done.stderr
    members = [Manifest.from_json(each) for each in json.loads(folder.front.read_text())["members"]]
    assert members and any(32 in member.subnet.values() for member in members)
    for member in members:
        assert member.genome and member.bitops > 0 and member.bit_packed_bytes > 0 and member.target == target


@pytest.mark.slow
@pytest.mark.parametrize("name", spaces.SPACES)
def test_the_space_goes_through_export_and_manifest(name, tmp_path):
    space = targets.get("accelerator").restrict(spaces.get(name))
    rng = np.random.default_rng(0)
    images, labels = rng.random((4, *space.input_shape), np.float32), np.zeros(4, np.int32)
    names = tuple(map(str, range(space.num_classes)))
    dataset = Dataset("noise", *[images, labels] * 3, space.num_classes, 0.0, 1.0, False, "", names)
    subnet = space.sample(rng)
    network = StaticNetwork(space, subnet)
    network.initialise_steps(images, space.weight_bits)
    network(images, training=True, statistics_rate=1.0)
    path, storage = tmp_path / "model.tflite", targets.Storage()
    round_biases(network, storage)  # On noise, a network that was never trained takes any rounding far.
    export_tflite(network, path, images=images)
    manifest = describe(path, "model", network, dataset, storage, "inherited")
    assert manifest.subnet == subnet.to_json() and manifest.genome == tuple(space.genome(subnet)) and manifest.bitops > 0
    whole = StaticNetwork(space, subnet.with_bits(32, 32))
    whole.load_arrays(network.arrays() | {key: value for key, value in whole.arrays().items() if key not in network.arrays()})
    export_tflite(whole, path, "float32", images=images)
    manifest = describe(path, "model", whole, dataset, targets.Storage("float32"), "inherited")
    assert manifest.genome is None and manifest.bitops is None and manifest.macs > 0
