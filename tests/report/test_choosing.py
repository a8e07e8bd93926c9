"""The choice of one model of a front: which, why, and what lies in its folder."""

import json
import os
import re
import subprocess
import sys

import pytest
from made_up_run import dump, make_with_models

from daqu_tf import choose
from daqu_tf.errors import DaquError
from daqu_tf.report import write_report
from daqu_tf.report.choosing import figures_of, outline
from daqu_tf.report.run import read


@pytest.fixture
def folder(tmp_path):
    return make_with_models(tmp_path)


@pytest.mark.parametrize(
    ("constraint", "prefer", "name"),
    [
        ([], "accuracy", "m00"),
        ([], "latency", "m07"),
        ([], "size", "m07"),
        (["latency<=0.09ms"], "accuracy", "m03"),  # 88 us.
        (["latency_us<=88"], "accuracy", "m03"),
        (["latency_us<=87"], "accuracy", "m05"),  # m04 takes 76 us, but is not on the front.
        (["size<=72kB"], "accuracy", "m05"),  # 63 kB; 72 kB are m04's.
        (["size<=72KiB"], "accuracy", "m05"),
        (["file_bytes<=81000"], "accuracy", "m03"),
        (["accuracy>=95.8%"], "latency", "m05"),
        (["accuracy>=0.958", "latency<=80us"], "size", "m05"),
        (["macs<=1M"], "accuracy", "m00"),
    ],
)
def test_the_best_that_meets_all_limits(folder, constraint, prefer, name):
    choice = choose(folder, constraint, prefer)
    assert choice.name == name and choice.model == folder / "chosen" / name / f"{name}.tflite"
    assert (
        os.fspath(choice) == str(choice.model) and choice.model.read_bytes() == (folder / "models" / f"{name}.tflite").read_bytes()
    )


def test_why_and_what_its_neighbours_give(folder):
    choice = choose(folder, ["latency<=90us", "accuracy>=95%"])
    assert choice.why == (
        "m03 is the most accurate of the 3 models on the front that meet latency_us<=90 and accuracy>=0.95: "
        "96.4% of the search split right (test 96.1%), 88.0 µs, 81.0 kB."
    )
    assert choice.neighbours == (
        "m05 has 0.6 points less for 0.73 of its time and 0.78 of its bytes; m02 has 0.2 points more for 1.14 of its time and "
        "1.11 of its bytes."
    )
    alone = choose(folder, ["latency<=90us", "accuracy>=96.1%"])
    assert alone.name == "m03" and alone.why.startswith(
        "m03 alone of the 7 models on the front meets latency_us<=90 and accuracy>="
    )
    assert choose(folder).neighbours.endswith("no model is more accurate.")
    assert choose(folder, prefer="latency").neighbours.startswith("No model is less accurate; m06 has ")


def test_test_accuracy_decides_nothing(folder):
    content = json.loads((folder / "pareto.json").read_text())
    for member in content["members"]:
        member["accuracy"]["file"] = {
            "search": member["accuracy"]["fine_tuned"]["search"],
            "test": 1 - member["accuracy"]["file"]["test"],
        }
    dump(folder / "pareto.json", content)
    assert choose(folder).name == "m00" and choose(folder, ["accuracy>=95.8%"], "latency").name == "m05"


def test_its_folder_is_all_that_an_application_needs(folder):
    choice = choose(folder, ["latency<=90us"], output_dir=folder.parent / "app" / "assets")
    files = sorted(path.name for path in choice.model.parent.iterdir())
    assert files == ["README.md", "classify.py", "labels.txt", "m03.manifest.json", "m03.tflite"]
    text = (choice.model.parent / "README.md").read_text()
    assert choice.why.replace("<", "&lt;").replace(">", "&gt;") in text and "m02.tflite" not in text and "| m03 |" in text
    assert (choice.model.parent / "labels.txt").read_text() == "cat\nT-shirt/top\n"
    assert choose(folder, ["latency<=90us"], output_dir=choice.model.parent) == choice  # A second time is no other choice.


def test_its_example_is_the_card_s(folder):
    """Which `test_report` runs beside the reference."""
    choice = choose(folder)
    (code,) = re.findall("```python\n(.*?)```", (choice.model.parent / "README.md").read_text(), re.DOTALL)
    write_report(folder)
    assert (choice.model.parent / "classify.py").read_text() == code and code in (folder / "models" / "README.md").read_text()


def test_what_nothing_meets(folder):
    with pytest.raises(DaquError) as error:
        choose(folder, ["latency<=50us", "accuracy>=96%"])
    message = str(error.value)
    assert message.startswith("None of the 7 models on the front meets latency_us<=50 and accuracy>=0.96: m07 comes nearest, with ")
    assert "--constraint='latency_us<=50'" in message and "--add_minutes" in message and not (folder / "chosen").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"constraint": ["speed<=3"]}, "must name latency, size or one of accuracy, latency_us"),
        ({"constraint": ["latency<=3kB"]}, "has the unit 'kB', but latency_us is given in us, µs, ms, s"),
        ({"constraint": ["latency<3"]}, "METRIC<=NUMBER"),
        ({"constraint": "latency<=3ms"}, "must be a list"),
        ({"prefer": "beauty"}, "`prefer` must be one of accuracy, latency, size"),
    ],
)
def test_what_is_asked_wrongly(folder, arguments, words):
    with pytest.raises(DaquError, match=words):
        choose(folder, **arguments)


def test_a_folder_that_is_another_models(folder):
    choose(folder, output_dir=folder / "app")
    with pytest.raises(DaquError, match="app holds m00.tflite already: give another --output_dir"):
        choose(folder, prefer="size", output_dir=folder / "app")
    (folder / "file").write_text("")
    with pytest.raises(DaquError, match="cannot be written to .*: give another --output_dir"):
        choose(folder, output_dir=folder / "file" / "app")
    (folder / "models" / "m00.tflite").unlink()
    with pytest.raises(DaquError, match="m00.tflite is not there any more"):
        choose(folder)


def test_the_figures_are_those_of_the_search(folder):
    """So that the constraints of the search mean the same here."""
    (member, *_) = read(folder).members
    assert figures_of(member)["accuracy"] == member.search and set(member.costs) < set(figures_of(member))


def test_the_outline_of_a_run(folder):
    assert outline(folder).splitlines() == [
        f"m00 (most accurate): 97.0% of the search split right (test 96.7%), 124 µs, 108.0 kB; {folder}/models/m00.tflite",
        f"m05 (balanced): 95.8% of the search split right (test 95.5%), 64.0 µs, 63.0 kB; {folder}/models/m05.tflite",
        f"m07 (fastest, smallest): 94.5% of the search split right (test 94.2%), 40.0 µs, 45.0 kB; {folder}/models/m07.tflite",
        f"To take one: daqu-choose {folder} --constraint='latency<=64us'",
    ]
    content = json.loads((folder / "pareto.json").read_text())
    dump(folder / "pareto.json", content | {"members": content["members"][:1]})
    assert outline(folder).startswith("m07 (most accurate, fastest, smallest, balanced): ")
    dump(folder / "pareto.json", content | {"members": []})
    assert outline(folder) == ""


def test_the_command(folder):
    command = [sys.executable, "-m", "daqu_tf.tools.choose", str(folder), "--constraint=latency<=90us"]
    done = subprocess.run(command, capture_output=True, text=True)
    choice = choose(folder, ["latency<=90us"])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [choice.why, choice.neighbours, f"Model: {choice.model}"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True)
    assert json.loads(done.stdout) == json.loads(json.dumps(choice.to_json()))
    for wrong in (["--constraint=latency<=1us"], ["more"], ["--prefer=beauty"]):
        done = subprocess.run([*command, *wrong], capture_output=True, text=True)
        assert done.returncode == 1 and done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1
