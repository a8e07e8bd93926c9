import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys

import forked_tools
import numpy as np
import pytest

from daqu_tf import files, tflite
from daqu_tf.devices import HostDevice
from daqu_tf.errors import DaquError
from daqu_tf.export.export import export_tflite, to_graph
from daqu_tf.export.manifest import Manifest
from daqu_tf.files import read_arrays, write_arrays
from daqu_tf.keras import keras
from daqu_tf.pipeline.plan import Plan
from daqu_tf.pipeline.trained_run import TrainedRun
from daqu_tf.runs.config import RunConfig
from daqu_tf.supernet.scoring import top1
from daqu_tf.supernet.supernet import StaticNetwork, Supernet
from daqu_tf.targets.storage import Storage
from daqu_tf.tflite.weighted import Weighted


def member(space):
    return space.restrict(resolution=(8,)).smallest()


STEPS = 1000  # Of a fine-tuning.


def untrained(config, finalist):
    """A folder as daqu-search leaves it, whose supernet was not trained."""
    keras.utils.set_random_seed(config.seed)
    plan = Plan.of(config)
    dataset, space = plan.dataset, plan.space
    config.folder.mkdir(exist_ok=True)
    files.write_json(config.folder / "config.json", plan.to_json())
    supernet = Supernet(space)
    supernet.initialise_steps(dataset.x_train[:64], space.weight_bits)
    write_arrays(config.folder / "supernet.npz", supernet.arrays())
    finalists = {"m00": {"values": finalist(space).to_json(), "inherited": 0.1}}
    files.write_json(config.folder / "finalists.json", finalists)
    return TrainedRun(config.folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return untrained(RunConfig("digits", str(tmp_path_factory.mktemp("run")), space="digits"), member)


def test_a_subnet_is_found_by_name_or_file(run, tmp_path):
    smallest = run.space.smallest()
    assert run.subnets("smallest") == {"smallest": smallest} and run.subnets("m00") == run.subnets("front")
    assert run.subnets("front") == {"m00": member(run.space)}
    for content in (smallest.to_json(), {"subnet": smallest.to_json(), "sha256": "..."}):
        (tmp_path / "mine.manifest.json").write_text(json.dumps(content))
        assert run.subnets(str(tmp_path / "mine.manifest.json")) == {"mine": smallest}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("tiny", "`subnet` must be one of front, largest, smallest, m00 or a JSON file"),
        ("list.json", "must hold a JSON object of gene names and values"),
        ("broken.json", "cannot be read"),
        ("other.json", "`resolution` must be one of"),
    ],
)
def test_no_such_subnet(run, tmp_path, monkeypatch, name, sentence):
    monkeypatch.chdir(tmp_path)
    for path, content in (("list.json", "[1]"), ("broken.json", "{"), ("other.json", '{"stem.width": 4}')):
        (tmp_path / path).write_text(content)
    with pytest.raises(DaquError, match=re.escape(sentence)):
        run.subnets(name)


def test_fine_tuned_exported_and_not_trained_again(run, tmp_path):
    seen = []
    # By steps: how many a busy machine takes in some seconds decides how well the network can be told from its file.
    (row,) = run.fine_tune("front", lambda name, done: seen.append((name, done)), steps=STEPS)
    assert row["search_accuracy"]["fine_tuned"] > 0.5 > row["search_accuracy"]["inherited"]
    assert seen[-1] == ("m00", 1.0)
    assert list(run.fine_tune("m00", lambda *_: pytest.fail("It is there already."), steps=STEPS)) == [row]
    with pytest.raises(DaquError, match="was made with other settings: give --overwrite"):
        run.fine_tune("m00", minutes=5 / 60)
    path = tmp_path / "m00.tflite"
    manifest = run.export("m00", fine_tuned=True, path=path)
    assert json.loads((tmp_path / "m00.manifest.json").read_text())["commands"] == list(manifest.commands)
    assert manifest.commands == (
        f"daqu-run --dataset=digits --output_dir={run.folder} --space=digits",  # Only its search knows m00.
        f"daqu-train --output_dir={run.folder} --subnet=m00 --fine_tuning_steps={STEPS}",
        f"daqu-export --run={run.folder} --subnet=m00 --fine_tuned --output={path}",
    )
    assert manifest.accuracy["fine_tuned"]["search"] == pytest.approx(row["search_accuracy"]["fine_tuned"], abs=0.01)
    assert manifest.accuracy["file"]["test"] > 0.5 and manifest.top1_agreement > 0.99
    assert manifest.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    dataset = run.dataset
    assert top1(HostDevice().predict(path, dataset.x_search), dataset.y_search) > 0.5
    run.export("m00", fine_tuned=False, path=(path := tmp_path / "inherited.tflite"))
    assert top1(HostDevice().predict(path, dataset.x_search), dataset.y_search) < 0.5


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"minutes": 0.0}, "`fine_tuning_minutes` must be above 0, but received 0."),
        ({"steps": 0}, "`fine_tuning_steps` must be at least 1, but received 0."),
        ({"steps": 9, "minutes": 1.0}, "`fine_tuning_steps` takes the place of `fine_tuning_minutes`"),
    ],
)
def test_a_length_that_is_none(run, settings, sentence):
    with pytest.raises(DaquError, match=re.escape(sentence)):
        run.fine_tune("m00", **settings)


def test_the_tool_exports_what_takes_pixels_and_names_its_classes(run, tmp_path):
    path = tmp_path / "small.tflite"
    flags = [f"--run={run.folder}", "--subnet=smallest", f"--output={path}", "--input_type=uint8"]
    subprocess.run([sys.executable, "-m", "daqu_tf.tools.export", *flags], check=True)
    graph, tables = tflite.read(path.read_bytes()), tflite.read_metadata(path.read_bytes())
    assert {tensor.type for tensor in graph.tensors if tensor.name == graph.input} == {"UINT8"}
    assert tables["name"] == "smallest" and "the 10 classes of digits" in tables["description"]
    (source,) = tables["subgraph_metadata"][0]["input_tensor_metadata"]
    assert source["description"].endswith("In training, 0 and 255 were 0 and 16.")
    assert tflite.read_labels(path.read_bytes()) == tuple("0123456789")
    train, export = json.loads(path.with_suffix(".manifest.json").read_text())["commands"]
    assert train == f"daqu-train --dataset=digits --output_dir={run.folder} --space=digits"
    assert export.split()[1:] == flags


def test_what_was_not_fine_tuned_is_not_exported_as_such(run, tmp_path):
    with pytest.raises(DaquError, match="largest has not been fine-tuned by daqu-train: run that with --subnet=largest first"):
        run.export("largest", fine_tuned=True, path=tmp_path / "largest.tflite")
    with pytest.raises(DaquError, match="must be one subnet, but received 'front'"):
        run.export("front", fine_tuned=False, path=tmp_path / "front.tflite")
    assert list(tmp_path.iterdir()) == []


def test_a_finalist_is_exported_as_the_run_fine_tuned_it(run, tmp_path, monkeypatch):
    network = run.inherited(member(run.space))
    arrays = network.arrays() | {"classifier/bias": np.arange(10, dtype=np.float32)}
    (run.folder / "finalists").mkdir()
    monkeypatch.setattr(run, "_finalists", lambda: {"m01": {"values": member(run.space).to_json()}})
    write_arrays(own := run.folder / "finalists" / "m01.npz", arrays)
    path = tmp_path / "uint8.tflite"
    manifest = run.export("m01", fine_tuned=True, path=path, storage=Storage(input_type="uint8"))
    assert manifest.commands == (
        f"daqu-run --dataset=digits --output_dir={run.folder} --space=digits",
        f"daqu-export --run={run.folder} --subnet=m01 --fine_tuned --output={path} --input_type=uint8",
    )
    ends = {"input_type": "uint8", "input_range": [0, 1], "output_type": "int8", "output_activation": "none", "left_out": "none"}
    assert manifest.ends == ends == Manifest.read(path.with_suffix(".manifest.json")).ends
    network.load_arrays(arrays)
    expected = network(run.dataset.x_search[:20]).numpy()
    np.testing.assert_allclose(HostDevice().predict(path, run.dataset.x_search[:20]), expected, atol=0.2)
    (tmp_path / "m01.json").write_text(json.dumps(run.space.largest().to_json()))
    with pytest.raises(DaquError, match="m01 has not been fine-tuned by daqu-train"):
        run.export(str(tmp_path / "m01.json"), fine_tuned=True, path=path)
    own.unlink()
    with pytest.raises(DaquError, match="m01 has not been fine-tuned by daqu-train"):
        run.export("m01", fine_tuned=True, path=path)


def test_a_finalist_is_the_one_of_the_report_unless_something_else_is_asked_for(run, tmp_path, monkeypatch):
    values = member(run.space).to_json()
    (run.folder / "finalists").mkdir(exist_ok=True)
    monkeypatch.setattr(run, "_finalists", lambda: {"m02": {"values": values}})
    of_run, further = run.folder / "finalists" / "m02.npz", run.folder / "fine_tuned" / "m02.npz"
    chosen = {None: None, False: None}
    assert {asked: run._weights("m02", member(run.space), asked) for asked in chosen} == chosen
    of_run.touch()
    further.parent.mkdir(exist_ok=True)
    assert {asked: run._weights("m02", member(run.space), asked) for asked in (None, True, False)} == {
        None: of_run, True: of_run, False: None
    }  # fmt: skip
    further.with_suffix(".json").write_text(json.dumps({"subnet": values}))
    assert {asked: run._weights("m02", member(run.space), asked) for asked in (None, True, False)} == {
        None: of_run, True: further, False: None
    }  # fmt: skip
    of_run.unlink()
    assert run._weights("m02", member(run.space), None) == further
    further.with_suffix(".json").unlink()


def test_a_file_of_another_network_or_of_another_kind_is_not_replaced(run, tmp_path):
    path = tmp_path / "q.tflite"
    assert (
        run.export("smallest", None, path).name == "smallest"
        and "inherited" in Manifest.read(tmp_path / "q.manifest.json").accuracy
    )
    written = path.read_bytes()
    with pytest.raises(
        DaquError, match=r"q.tflite holds another network \(smallest\): choose another --output, or give --overwrite"
    ):
        run.export("m00", None, path)
    assert path.read_bytes() == written
    run.export("smallest", None, path)
    (tmp_path / "q.manifest.json").unlink()
    with pytest.raises(DaquError, match="q.tflite holds something that has no manifest"):
        run.export("smallest", None, path)
    assert run.export("m00", None, path, overwrite=True).name == "m00"
    for other in ("q.h5", "q.keras", "q"):
        with pytest.raises(DaquError, match="must be a .tflite file, but received"):
            run.export("smallest", None, tmp_path / other)
        with pytest.raises(DaquError, match="must be a .tflite file, but received"):
            export_tflite(run.inherited(member(run.space)), tmp_path / other)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["q.manifest.json", "q.tflite"]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--subnet=tiny"], "`subnet` must be one of"),
        (["--subnet=m00", "--fine_tuning_steps=9", "--fine_tuning_minutes=2"], "`fine_tuning_steps` takes the place of"),
        (["--subnet=m00", "--fine_tuning_distillation=2"], "`fine_tuning_distillation` must be in [0, 1]"),
        (["--subnet=m00", "--learning_rate=0.1"], "--learning_rate has no effect beside --subnet"),
        (["--schedule=mine.json", "--epochs=3", "--dataset=digits"], "--epochs has no effect beside --schedule"),
        ([], "`dataset` must be given"),
    ],
)
def test_the_tool_says_what_is_wrong(run, flags, sentence):
    flags = [f"--output_dir={run.folder}", *flags]
    if "--subnet=tiny" in flags:  # One as a user calls it: TensorFlow's messages at its import do not show.
        done = subprocess.run([sys.executable, "-m", "daqu_tf.tools.train", *flags], capture_output=True, text=True)
    else:
        done = forked_tools.call("train", *flags)
    assert done.returncode == 1 and done.stderr.startswith(f"Error: {sentence}") and done.stderr.count("\n") == 1


def test_a_folder_without_a_trained_supernet(tmp_path):
    with pytest.raises(DaquError, match="holds no run"):
        TrainedRun(tmp_path)
    config = RunConfig("digits", str(tmp_path), space="digits")
    (tmp_path / "config.json").write_text(json.dumps({"flags": config.to_json(), "dataset": {}}))
    with pytest.raises(DaquError, match="no trained supernet yet"):
        TrainedRun(tmp_path)


@pytest.mark.slow
def test_as_many_steps_leave_the_same_weights_bit_for_bit(run, tmp_path):
    started = []
    for folder in (tmp_path / "once", tmp_path / "twice"):
        folder.mkdir()
        (folder / "supernet.npz").symlink_to(run.folder / "supernet.npz")
        config = json.loads((run.folder / "config.json").read_text())
        config["flags"] |= {"deterministic": True}
        (folder / "config.json").write_text(json.dumps(config))
        flags = [f"--output_dir={folder}", "--subnet=smallest", "--fine_tuning_steps=75"]
        started.append((folder, subprocess.Popen([sys.executable, "-m", "daqu_tf.tools.train", *flags])))
    arrays, rows = [], []
    for folder, process in started:
        assert process.wait(timeout=300) == 0
        arrays.append(read_arrays(folder / "fine_tuned" / "smallest.npz"))
        rows.append(json.loads((folder / "fine_tuned" / "smallest.json").read_text()))
    assert rows[0] == rows[1] and rows[0]["steps"] == 75
    assert rows[0]["search_accuracy"]["fine_tuned"] > rows[0]["search_accuracy"]["inherited"]
    assert arrays[0].keys() == arrays[1].keys()
    assert all(array.tobytes() == arrays[1][name].tobytes() for name, array in arrays[0].items())


def test_files_of_a_run_for_an_old_runtime_are_for_it(tmp_path):
    config = RunConfig("digits", str(tmp_path / "run"), space="digits", target="tflite_runtime")
    old = untrained(config, lambda space: space.subnet(member(space).with_bits(2, 8).values))
    (config.folder / "models").mkdir()
    (config.folder / "finalists").mkdir()
    command = [sys.executable, "-m", "daqu_tf.pipeline.finalist", str(config.folder), "m00", "1", str(os.getpid())]
    subprocess.run(command, check=True, capture_output=True)
    flags = [f"--run={config.folder}", "--subnet=m00", "--fine_tuned", f"--output={tmp_path / 'own.tflite'}"]
    subprocess.run([sys.executable, "-m", "daqu_tf.tools.export", *flags], check=True)
    storage = Storage("int8", "tflite_runtime")
    assert json.loads((tmp_path / "own.manifest.json").read_text())["storage"] == dataclasses.asdict(storage)
    network = StaticNetwork(old.space, old.subnets("m00")["m00"])
    network.load_arrays(read_arrays(config.folder / "finalists" / "m00.npz"))
    expected = to_graph(network, storage)
    assert max(operator.weight_bits for operator in expected.operators if isinstance(operator, Weighted)) == 8
    for path in (config.folder / "models" / "m00.tflite", tmp_path / "own.tflite"):
        assert tflite.read(path.read_bytes()) == expected
