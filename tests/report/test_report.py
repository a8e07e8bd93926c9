import csv
import dataclasses
import html.parser
import json
import re
import subprocess
import sys

import numpy as np
import other_systems
import pytest
import tflite_networks
from made_up_run import WAY, dump, make
from PIL import Image

from daqu_tf import predict, tflite
from daqu_tf.data.photos import GREY
from daqu_tf.errors import DaquError
from daqu_tf.report import write_report
from daqu_tf.report.run import read

ENDS = ("name", "input", "output")
HOSTILE = "<script>alert('x')</script>$\\bad{"


@pytest.fixture
def folder(tmp_path):
    """An output folder to change."""
    return make(tmp_path)


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """An output folder with its report, to read."""
    folder = make(tmp_path_factory.mktemp("output"))
    assert write_report(folder) == folder / "report.html"
    return folder


def change(path, edit):
    value = json.loads(path.read_text())
    edit(value)
    dump(path, value)


class Tags(html.parser.HTMLParser):
    """Collects tags and attributes, and insists that what opens is closed."""

    def __init__(self, text):
        super().__init__()
        self.seen, self.open, self.attributes = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "img", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def rewritten(folder):
    write_report(folder)
    return page_of(folder)


def page_of(folder):
    text = (folder / "report.html").read_text()
    tags = Tags(text)
    assert not tags.open
    return text, tags


def test_the_page_tells_the_result_first(reported):
    text, _ = page_of(reported)
    lead = re.search("<p class=lead>(.*?)</p>", text).group(1)
    assert lead.startswith("7 models are on the front: m00 gets 96.7% of the test images right in 124 µs")
    assert "m07, the fastest, 94.2% in 40.0 µs with a file of 45.0 kB." in lead


def test_the_page_shows_everything_it_was_given(reported):
    text, _ = page_of(reported)
    words = [
        "150 trials (1 more failed)",
        "1,294 train, 144 search, 359 test",
        "no test split",
        "standard error",
        "4.1 min",
    ]
    words += ["digits has 1.2e+15 subnets, of which 3.4e+12 differ on litert_cpu", "(m04)", "budget_minutes", "2.21.0"]
    words += ["ai-edge-litert 2.3.0, 1 thread, on AMD EPYC", "stage1.block1.expand", "precision transfer", "Seed 0"]
    for word in words:
        assert word in text, word


def test_the_tool_writes_the_same_page_on_other_systems(reported, folder, tmp_path_factory):
    done = other_systems.call(tmp_path_factory.mktemp("hidden"), "-m", "daqu_tf.tools.report", f"--run={folder}")
    assert done.returncode == 0, done.stderr
    assert (folder / "report.html").read_text() == (reported / "report.html").read_text()


def test_the_page_needs_no_other_file(reported):
    text, tags = page_of(reported)
    for key, value in tags.attributes:
        assert key not in ("src", "srcset", "href") or value.startswith(("data:image/png;base64,", "models/m"))
    assert "http" not in text and "url(" not in text and tags.seen.count("script") == 2


def test_the_table_holds_every_member_once(reported):
    with open(reported / "pareto.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [f"m{index:02d}" for index in range(8)]
    assert float(rows[0]["accuracy_test_file"]) == pytest.approx(0.967) and float(rows[0]["latency_us"]) == 124
    assert rows[4]["on_front"] == "0" and int(rows[0]["file_bytes"].split(".")[0]) == 108_000


def test_the_picture_is_a_png_and_nothing_else_is_left(reported):
    assert (reported / "pareto.png").read_bytes().startswith(b"\x89PNG")
    kept = {"config.json", "pareto.json", "search", "training.csv", "timeline.json", "models"}
    assert {path.name for path in reported.iterdir()} == kept | {"pareto.csv", "pareto.png", "report.html"}
    assert [path.name for path in (reported / "models").iterdir()] == ["README.md"]


def test_the_card_says_what_the_models_are_and_how_to_feed_them(reported):
    text = (reported / "models" / "README.md").read_text()
    lines = text.splitlines()
    assert lines[0] == "# Image classifiers for digits, on litert_cpu" and "](../pareto.png)" in text
    rows = [line for line in lines if line.startswith("| m")]
    assert [row.split()[1] for row in rows] == ["model", *(f"m{index:02d}" for index in range(8) if index != 4)]
    assert re.fullmatch(
        r"\| m00 \| 96.70% \| 124 \| 108,000 \| 28 x 20 \| \d\.\d bits on average, \d+ of 26 layers INT4 \|", rows[1]
    )
    for words in (
        "Also here, but dominated by others: m04.",
        "standard error of",
        "Latency is the median, timed by ai-edge-litert 2.3.0, 1 thread, on AMD EPYC",
        "Cut out the largest rectangle of 30 to 42 around its centre.",
        "Bring it to 30 x 42 pixels (width x height), and then to 20 x 28, with an antialiased triangle filter, which is",
        "feed `round(pixel / 255 / 0.015625) - 3` as int8. That is m00; the others differ in their own pixels alone",
        "`daqu-predict m00.tflite photo.jpg`",
        "0 cat, 1 T-shirt/top.",
        "daqu-run '--dataset=my images.npz' --space=digits --budget_minutes=4\n",
        "Seed 0. Versions: tensorflow 2.21.0, ai-edge-litert 2.3.0.",
    ):
        assert words in text, words
    assert "/home" not in text and "How to feed them, from the photo on, is in" in (reported / "report.html").read_text()


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("jpeg", (90, 70)), ("jpeg", (400, 301)), ("grey model", (20, 11)), ("turned", (50, 200)), ("transparent", (64, 64))],
)
def test_the_code_of_the_card_does_what_the_reference_does(kind, shape, folder, tmp_path_factory):
    """The code is run as a script, on photos of other shapes than the model's."""
    place, rng = tmp_path_factory.mktemp("app"), np.random.default_rng(0)
    way = dataclasses.replace(WAY, channels=GREY) if kind == "grey model" else WAY
    change(folder / "pareto.json", lambda pareto: [each.update(preprocessing=way.to_json()) for each in pareto["members"]])
    write_report(folder)
    network = tflite_networks.RandomNetwork(0, (1, 28, 20, 1 if kind == "grey model" else 3))
    graph = network.graph(network.dense(network.pool(network.conv("input", 8)), 2))
    model = renamed(graph, {graph.input: "image", graph.output: "classifier"})
    metadata = tflite.Metadata("m00", "", ("cat", "T-shirt/top"), preprocessing=way.to_json())
    (place / "m00.tflite").write_bytes(tflite.write_with_metadata(model, metadata))
    (code,) = re.findall("```python\n(.*?)```", (folder / "models" / "README.md").read_text(), re.DOTALL)
    (place / "app.py").write_text(f"{code}\nnp.save('pixels.npy', pixel)\n")
    photo = Image.fromarray(rng.integers(0, 256, (*shape, 4 if kind == "transparent" else 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6 if kind == "turned" else 1
    photo.save(name := place / ("photo.png" if kind == "transparent" else "photo.jpg"), exif=exif)
    done = subprocess.run([sys.executable, "app.py", name.name], capture_output=True, text=True, cwd=place)
    (expected,) = predict(place / "m00.tflite", name).found
    assert done.stdout == f"{expected.labels[0]} {expected.scores[0]:.1%}\n", done.stderr
    np.testing.assert_array_equal(np.load(place / "pixels.npy")[0], way.pixels(name))


def renamed(graph, names):
    """The graph with other names of tensors."""

    def new(record):
        return dataclasses.replace(record, **{key: names.get(value, value) for key, value in vars(record).items() if key in ENDS})

    tensors, operators = tuple(map(new, graph.tensors)), tuple(map(new, graph.operators))
    return dataclasses.replace(graph, tensors=tensors, operators=operators, input=names[graph.input], output=names[graph.output])


def test_a_card_of_other_images_and_of_many_classes(folder):
    def change_members(pareto):
        for member in pareto["members"]:
            member["input"] |= {"offset": -1.0, "scale": 2.0}
            del member["preprocessing"]
            member["class_names"] = [f"class {number} | <b>" for number in range(120)]

    change(folder / "pareto.json", change_members)
    change(
        folder / "config.json", lambda config: config["flags"].update(schedule="/a/mine.json", warmup="none", deterministic=True)
    )
    write_report(folder)
    text = (folder / "models" / "README.md").read_text()
    assert "`round(clip((value - -1) / 2, 0, 1) * 255) - 128`. The largest" in text and "pixel - 128" not in text
    assert "as `tf.image.resize` does without antialiasing, for so these models were trained" in text and "python" not in text
    assert "99 class 99 \\| &lt;b&gt;, and 20 more in each file" in text
    assert "--schedule=mine.json --deterministic\n" in text and "warmup" not in text


def test_a_card_of_what_is_known(folder):
    def strip(pareto):
        for member in pareto["members"]:
            for key in ("input", "class_names", "latency", "layers", "file_bytes", "accuracy"):
                del member[key]

    change(folder / "pareto.json", strip)
    dump(folder / "config.json", {})
    write_report(folder)
    text = (folder / "models" / "README.md").read_text()
    assert "| m00 | – | – | – | – | – |" in text and "How to feed" not in text and "Classes" not in text and "None" not in text


def test_hostile_names_are_escaped(folder):
    def poison(pareto):
        pareto["members"][0] |= {"name": HOSTILE, "subnet_text": HOSTILE}
        pareto["members"][0]["layers"][0] |= {"name": f'"{HOSTILE}', "container": HOSTILE}
        pareto["members"][0]["latency"]["runtime"] = HOSTILE

    change(folder / "pareto.json", poison)
    change(folder / "config.json", lambda config: config["dataset"].update(name=HOSTILE))
    change(folder / "config.json", lambda config: config["flags"].update({HOSTILE: HOSTILE}))
    change(folder / "config.json", lambda config: config.update(space=HOSTILE, target=HOSTILE, seed=HOSTILE))
    change(folder / "timeline.json", lambda stages: stages[0].update(stage=HOSTILE))
    training = (folder / "training.csv").read_text().replace("warm_up", HOSTILE).replace("_mean", f"_{HOSTILE}")
    (folder / "training.csv").write_text(training)
    text, tags = rewritten(folder)
    assert tags.seen.count("script") == 2 and "<script>alert" not in text and "&lt;script&gt;" in text
    assert r"\u003cscript>alert" in text  # Within the figures of the explorer.


def test_only_two_files_are_needed(folder):
    for name in ("training.csv", "timeline.json", "search/trials.jsonl"):
        (folder / name).unlink()
    text, _ = rewritten(folder)
    assert "Where the time went" not in text and "<h2>Training" not in text


def test_figures_that_are_not_known_are_left_out(folder):
    def strip(pareto):
        for member in pareto["members"][1:]:
            for key in ("latency", "layers", "top1_agreement", "deflated_bytes"):
                del member[key]
        pareto["members"][0]["accuracy"] = {"inherited": {"search": 0.9, "test": None}}
        pareto["members"][1]["accuracy"]["file"]["test"] = float("nan")

    change(folder / "pareto.json", strip)
    text, _ = rewritten(folder)
    words = re.findall("[A-Za-z]+", re.sub('base64,[^"]*', "", text))
    assert not {"nan", "NaN", "None"} & set(words)


def test_an_empty_front_and_an_empty_config(folder):
    change(folder / "pareto.json", lambda pareto: pareto.update(members=[]))
    dump(folder / "config.json", {})
    text, _ = rewritten(folder)
    assert "No model reached the front." in text


def test_other_objectives_get_their_own_views(folder):
    def accelerator(pareto):
        pareto["objectives"] = [{"name": name} for name in ("accuracy", "bitops", "bit_packed_bytes")]
        for index, member in enumerate(pareto["members"]):
            del member["latency"]
            member |= {"bitops": 10**7 * (index + 1), "bit_packed_bytes": 10**4 * (index + 1)}

    change(folder / "pareto.json", accelerator)
    rewritten(folder)
    assert "bitops" in (folder / "pareto.csv").read_text().splitlines()[0]


@pytest.mark.parametrize("name", ["config.json", "pareto.json"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe", b"[1]"])
def test_a_folder_that_is_not_of_a_run(folder, name, content):
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(DaquError, match=r"^[^\n]*\.$"):
        write_report(folder)
    assert not (folder / "report.html").exists()


def test_the_plan_stands_beside_what_the_time_went_to(folder):
    plan = {"minutes": {"supernet": 0.0, "finalists": 18.5, "timing and report": 1.5}, "finalists": 4, "images": [2056711, 1507840]}
    change(folder / "config.json", lambda config: config.update(forecast=plan))
    change(folder / "config.json", lambda config: config["flags"].update(architectures="hand_scaled"))
    text = write_report(folder).read_text()
    assert "Planned were, in minutes: finalists 18.5, timing and report 1.5; 4 networks at most, which see 2,056,711 to" in text
    assert "None was searched: the minutes were too few" in text
    for broken in ({}, [], {"minutes": {"x": "y"}, "images": ["?", None]}, {"minutes": {HOSTILE: 1.0}}):
        change(folder / "config.json", lambda config, broken=broken: config.update(forecast=broken))
        assert HOSTILE not in write_report(folder).read_text()


def test_a_member_stands_where_its_file_is_not_where_its_simulation_is(folder):
    def state(pareto):
        pareto["members"][2]["accuracy"]["file"]["search"] = 0.5

    name = json.loads((folder / "pareto.json").read_text())["members"][2]["name"]
    change(folder / "pareto.json", state)
    found = {member.name: member for member in read(folder).members}
    assert found[name].search == 0.5 and found[name].search_fine_tuned > 0.9
    assert all(member.search == member.search_fine_tuned for other, member in found.items() if other != name)
