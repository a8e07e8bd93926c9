import hashlib
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tflite_networks
from places import ROOT

from daqu_tf import data, tflite
from daqu_tf.devices import HostDevice
from daqu_tf.export.ends import preprocessing_of
from daqu_tf.export.verification import Verifier, find
from daqu_tf.report import card
from daqu_tf.tflite.weighted import Weighted

MODELS = ROOT / "tflite_models"
LABELS = ("cat", "dog", "T-shirt/top")
TEST_IMAGES = 400


def restated(path, **changes):
    """A manifest with other statements: nested keys are joined by two underscores."""
    content = json.loads(path.read_text())
    for name, value in changes.items():
        *keys, last = [int(key) if key.isdigit() else key for key in name.split("__")]
        part = content
        for key in keys:
            part = part[key]
        part[last] = value
    path.write_text(json.dumps(content))
    return path


def stated_bytes(path):
    content = path.read_bytes()
    return {"sha256": hashlib.sha256(content).hexdigest(), "file_bytes": len(content)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a random model, its manifest, and images that it was not trained on."""
    folder, rng = tmp_path_factory.mktemp("models"), np.random.default_rng(0)
    images = {
        f"x_{split}": rng.integers(0, 256, (count, 8, 8), np.uint8) for split, count in (("train", 300), ("test", TEST_IMAGES))
    }
    labels = {f"y_{split}": np.arange(len(images[f"x_{split}"])) % 3 for split in ("train", "test")}
    np.savez(folder / "mine.npz", **images, **labels)
    network = tflite_networks.RandomNetwork(0, (1, 8, 8, 1), weight_bits=4)
    graph = network.graph(network.dense(network.pool(network.depthwise(network.conv("input", 4))), 3))
    path = folder / "small.tflite"
    path.write_bytes(tflite.write_with_metadata(graph, tflite.Metadata("small", "", LABELS)))
    stored = [operator for operator in graph.operators if isinstance(operator, Weighted)]
    dataset = data.load(folder / "mine.npz")
    accuracy = float(np.mean(HostDevice().predict(path, dataset.x_test).argmax(1) == dataset.y_test))
    manifest = {
        "file": path.name,
        "storage": {"runtime": "litert"},
        "layers": [{"name": each.output, "container": each.container, "weight_bits": each.weight_bits} for each in stored],
        "class_names": LABELS,
        "input": {"height": 8, "width": 8},
        "dataset": "mine",
        "dataset_fingerprint": dataset.fingerprint,
        "seed": 0,
        "accuracy": {"file": {"test": accuracy}},
    }
    (folder / "small.manifest.json").write_text(json.dumps(manifest | stated_bytes(path)))
    return folder


@pytest.fixture
def manifest(made, tmp_path):
    """The path of a manifest that may be changed, as may be what lies beside it."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "small.manifest.json"


@pytest.fixture
def verifier(manifest):
    """Knows where the data is."""
    return Verifier({"mine": str(manifest.with_name("mine.npz"))})


def accuracy_of(path):
    return json.loads(path.read_text())["accuracy"]["file"]["test"]


def test_the_models_of_the_checkout_are_what_they_say():
    manifests, verifier = find([MODELS]), Verifier()
    assert len(manifests) >= 6 and sum(path.stat().st_size for path in MODELS.glob("*.tflite")) < 5_000_000
    for path in manifests:
        verdict = verifier.verify(path)
        assert verdict.faults == ()
        in_reach = path.name.startswith("digits")
        assert str(verdict) == "exact" if in_reach else str(verdict).startswith("sound") and verdict.found is None


def test_the_models_of_the_checkout_name_what_made_them():
    for path in find([MODELS]):
        content = json.loads(path.read_text())
        supernet, fine_tuning, export = content["commands"]
        assert supernet.startswith("daqu-train --dataset=") and "--deterministic" in supernet and "--epochs=" in supernet
        assert f"--subnet={path.name} --fine_tuning_steps=" in fine_tuning
        assert export.endswith(f"--subnet={path.name} --fine_tuned --output={content['file']}")
        assert not any("=/" in line for line in content["commands"])


def test_their_readme_has_their_figures():
    table = card.table_of(json.loads(path.read_text()) for path in find([MODELS]))
    assert table in (MODELS / "README.md").read_text(), "Put in what `daqu-verify-models --markdown` prints."


def test_the_code_of_their_readme_runs():
    (code,) = re.findall("```python\n(.*?)```", (MODELS / "README.md").read_text(), re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=MODELS, check=True)
    assert done.stdout == "0\n"


def test_a_file_that_is_what_it_says(manifest, verifier):
    assert str(verifier.verify(manifest)) == "exact"
    assert str(Verifier().verify(manifest)) == "sound; no data to test it on"


@pytest.mark.parametrize(("images", "verdict"), [(1, "within 0.1 points or one image, as on other kernels"), (3, "1 fault")])
def test_other_kernels_may_change_an_image(manifest, verifier, images, verdict):
    found = accuracy_of(manifest)
    restated(manifest, accuracy__file__test=found + images / TEST_IMAGES)
    verified = verifier.verify(manifest)
    assert str(verified) == verdict and verified.found == found
    for fault in verified.faults:
        assert f"gets {found:.2%} of 400 test images right, not " in fault


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"sha256": "ab" * 32}, ", not abab"),
        ({"file_bytes": 7}, " bytes, not 7: restore it"),
        ({"file": "other.tflite"}, "other.tflite cannot be read (No such file or directory): restore it"),
        ({"layers__1__container": "INT4"}, "as INT8, not INT4: export the model again"),
        ({"layers__0__weight_bits": 3}, "has weights of 4 bits in conv"),
        ({"layers": []}, "has 3 layers with weights, not 0"),
        ({"class_names": ["cat", "dog", "shirt"]}, "has other labels (cat, dog, T-shirt/top) than its manifest"),
        ({"dataset_fingerprint": "ab"}, "was tested on another mine than "),
        ({"input__height": 9}, "9, 8, 1"),
        ({"input": None}, "is no manifest of this version of daqu_tf (TypeError"),
        ({"seed": "one"}, "is no manifest of this version of daqu_tf (ValueError"),
    ],
)
def test_a_fault_is_said_in_one_sentence(manifest, verifier, changes, sentence):
    (fault,) = verifier.verify(restated(manifest, **changes)).faults
    assert sentence in fault and fault.endswith(".") and "\n" not in fault


def test_weights_times_a_power_of_two_need_no_more_bits(manifest, verifier):
    path = manifest.with_name("small.tflite")
    graph = tflite_networks.widened(tflite.read(path.read_bytes()))
    assert any(np.abs(each.weights).max() > 63 for each in graph.operators if isinstance(each, Weighted))
    path.write_bytes(tflite.write_with_metadata(graph, tflite.Metadata("small", "", LABELS)))
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | stated_bytes(path)))
    assert verifier.verify(manifest).faults == ()


def test_every_fault_of_a_file_is_said(manifest, verifier):
    changes = {"layers": [], "class_names": [], "accuracy__file__test": 1.5}
    verdict = verifier.verify(restated(manifest, **changes))
    assert len(verdict.faults) == 3 and str(verdict) == "3 faults"


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[1]", b"{}"])
def test_a_manifest_that_is_none(manifest, verifier, content):
    manifest.write_bytes(content)
    (fault,) = verifier.verify(manifest).faults
    assert str(manifest) in fault and fault.endswith(": export the model again.")


@pytest.mark.parametrize("content", [b"", b"words that are no model", b"\x08\0\0\0TFL3" + b"\xff" * 99])
def test_a_file_that_is_no_model(manifest, verifier, content):
    path = manifest.with_name("small.tflite")
    path.write_bytes(content)
    (fault,) = verifier.verify(restated(manifest, **stated_bytes(path))).faults
    assert "cannot be read as a .tflite file" in fault


@pytest.mark.parametrize("antialias", [False, True], ids=["a file of before", "a file"])
def test_images_become_smaller_as_those_of_the_network_did(antialias, manifest, verifier):
    """The manifest of a file of before says nothing of photos: its network skipped pixels."""
    path, rng = manifest.with_name("small.tflite"), np.random.default_rng(1)
    sizes = {"train": 30, "test": TEST_IMAGES}
    lines = np.where(np.arange(40) % 5 == 2, 255, 0)  # The pixels that are hit where four of five are skipped.
    images = {
        f"x_{split}": (rng.random((count, 40, 1)) * lines * rng.random((count, 1, 1))).astype(np.uint8)
        for split, count in sizes.items()
    }
    labels = {f"y_{split}": np.arange(count) % 3 for split, count in sizes.items()}
    np.savez(manifest.with_name("mine.npz"), **images, **labels)
    dataset = data.load(manifest.with_name("mine.npz"))
    smaller = {each: tf.image.resize(dataset.x_test, (8, 8), antialias=each).numpy() for each in (False, True)}
    right = {each: float(np.mean(HostDevice().predict(path, x).argmax(1) == dataset.y_test)) for each, x in smaller.items()}
    assert right[False] != right[True]
    restated(manifest, dataset_fingerprint=dataset.fingerprint, accuracy__file__test=right[antialias])
    if antialias:
        way = preprocessing_of(tflite.read(path.read_bytes()).tensor("input"), (0.0, 1.0), (40, 40)).to_json()
        metadata = tflite.Metadata("small", "", LABELS, preprocessing=way)
        path.write_bytes(tflite.write_with_metadata(tflite.read(path.read_bytes()), metadata))
        restated(manifest, preprocessing=way, **stated_bytes(path))
    verdict = verifier.verify(manifest)
    assert (verdict.faults, verdict.found) == ((), right[antialias])


def test_a_file_and_its_manifest_say_the_same_of_photos(manifest, verifier):
    (fault,) = verifier.verify(restated(manifest, preprocessing={"size": [8, 8]})).faults
    assert "small.tflite says another preprocessing than its manifest" in fault


def run_tool(*arguments):
    command = [sys.executable, "-m", "daqu_tf.tools.verify_models", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_tool_prints_a_table_and_the_faults(manifest):
    shutil.copy(manifest, manifest.with_name("broken.manifest.json"))
    restated(manifest.with_name("broken.manifest.json"), file_bytes=7)
    done = run_tool(manifest.parent, f"--dataset_path=mine={manifest.with_name('mine.npz')}")
    heads, broken, small = done.stdout.splitlines()
    assert heads.split() == ["model", "bytes", "stated", "found", "verdict"]
    assert broken.split()[:2] == ["broken", "7"] and broken.endswith("-  1 fault")
    accuracy = f"{accuracy_of(manifest):.2%}"
    assert small.split() == ["small", f"{manifest.with_name('small.tflite').stat().st_size:,}", accuracy, accuracy, "exact"]
    assert done.returncode == 1 and done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["."], "holds no *.manifest.json: name a folder that daqu-export has written to."),
        (["nowhere"], "nowhere is no folder"),
        (["--markdown", "broken"], "A manifest is none (KeyError: 'name')"),
        (["--dataset_path=mine"], "`dataset_path` must be NAME=PATH"),
    ],
)
def test_the_tool_says_what_is_wrong(tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.manifest.json").write_text("{}")
    done = run_tool(*arguments)
    assert done.returncode == 1 and sentence in done.stderr and done.stderr.count("\n") == 1
