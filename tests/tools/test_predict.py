"""`daqu-predict` as a user calls it."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from places import ROOT

from daqu_tf import predict

MODEL = ROOT / "tflite_models" / "digits_w8.tflite"


def call(*arguments):
    return subprocess.run([sys.executable, "-m", "daqu_tf.tools.predict", *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture
def folder(tmp_path):
    """Two digits as photos of 80 x 80 pixels."""
    from sklearn.datasets import load_digits

    for index in (0, 1):
        pixels = np.kron(load_digits().images[index] * 255 / 16, np.ones((10, 10)))
        Image.fromarray(pixels.astype(np.uint8)).convert("RGB").save(tmp_path / f"{index}.jpg", quality=95)
    return tmp_path


def test_a_line_a_photo_behind_the_way_that_it_goes(folder):
    done = call(MODEL, folder, "--top=2")
    assert done.returncode == 0 and done.stderr == ""
    way, first, second = done.stdout.splitlines()
    found = predict(MODEL, folder, 2)
    assert way == found.preprocessing.text() and "to 8 x 8 pixels" in way
    for line, each in zip((first, second), found.found):
        assert line == f"{each.photo}: {each.labels[0]} {each.scores[0]:.1%}, {each.labels[1]} {each.scores[1]:.1%}"
    assert [each.labels[0] for each in found.found] == ["0", "1"]


def test_all_of_it_as_json(folder):
    done = call(MODEL, folder / "1.jpg", "--json")
    assert done.returncode == 0 and json.loads(done.stdout) == json.loads(json.dumps(predict(MODEL, folder / "1.jpg").to_json()))
    (each,) = json.loads(done.stdout)["predictions"]
    assert (each["label"], each["class"]) == ("1", 1) and json.loads(done.stdout)["preprocessing"]["channels"] == "grey"


def test_what_is_no_image_is_named_at_the_end(folder):
    (folder / "notes.txt").write_text("No photo.")
    done = call(MODEL, folder)
    assert done.returncode == 1 and len(done.stdout.splitlines()) == 3
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1 and "notes.txt cannot be read" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((MODEL, "{}/notes.txt"), "notes.txt cannot be read as an image (no format that is known): save it as JPEG or PNG"),
        ((MODEL, "{}/none"), "none does not exist: give the path of a photo or of a folder."),
        (
            ("{}/none.tflite", "{}/0.jpg"),
            "none.tflite cannot be read (No such file or directory): give the path of a .tflite file.",
        ),
        ((MODEL,), "must be given, but received 1 paths: daqu-predict MODEL PHOTO."),
    ],
)
def test_what_cannot_be_is_one_sentence(arguments, sentence, folder):
    (folder / "notes.txt").write_text("No photo.")
    done = call(*(str(each).format(folder) for each in arguments))
    assert done.returncode == 1 and sentence in done.stderr and done.stderr.count("\n") == 1 and done.stdout == ""


def test_help_says_what_it_does():
    done = call("--help")
    assert "--top" in done.stdout and "--[no]json" in done.stdout and "reference" in done.stdout
