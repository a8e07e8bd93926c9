"""The part of the page that can be played with: its figures, and, where there is Node.js, what it does with them."""

import json
import re
import shutil
import subprocess

import pytest
from made_up_run import dump, make

from daqu_tf import choose
from daqu_tf.report import explorer, write_report
from daqu_tf.report.run import read

# A document with as much of a browser's as the script uses; it keeps what the script puts in.
BROWSER = """
class Element {
  constructor(name) { Object.assign(this, {name, attributes: {}, children: [], handlers: {}, dataset: {}, clientWidth: 700}); }
  get namespaceURI() { return 'svg'; }
  get value() { return this.attributes.value ?? '0'; }
  set value(value) { this.attributes.value = String(value); }
  get textContent() { return this.text ?? this.children.map((each) => each.textContent ?? each).join(''); }
  set textContent(value) { this.text = value; }
  setAttribute(key, value) { this.attributes[key] = String(value); }
  append(...inner) { this.children.push(...inner); }
  replaceChildren(...inner) { this.children = inner; this.text = undefined; }
  addEventListener(event, handler) { this.handlers[event] = handler; }
  querySelector() { return new Element('svg'); }
  scrollIntoView() {}
  all() { return [this, ...this.children.flatMap((each) => each instanceof Element ? each.all() : [])]; }
}
const known = {run: new Element('script'), explorer: new Element('div'), still: new Element('div')};
known.run.textContent = RUN;
globalThis.window = new Element('window');
globalThis.document = {
  getElementById: (name) => known[name], querySelectorAll: () => [], createElement: (name) => new Element(name),
  createElementNS: (space, name) => new Element(name),
};
"""
PLAY = """
const find = (test) => known.explorer.all().filter(test);
const drag = (name, place) => {
  const [slider] = find((each) => each.attributes['data-limit'] === name);
  slider.value = place;
  slider.handlers.input();
};
const state = () => ({
  choice: find((each) => each.attributes.class === 'choice')[0].textContent,
  points: find((each) => (each.attributes.class ?? '').startsWith('member')).map((each) => [
    each.attributes['data-name'], Number(each.attributes.cx), Number(each.attributes.cy), each.attributes.class.split(/ +/)]),
  ticks: find((each) => each.name === 'text').map((each) => each.textContent),
});
"""


@pytest.fixture
def folder(tmp_path):
    folder = make(tmp_path)
    for index in range(8):
        (folder / "models" / f"m{index:02d}.tflite").write_bytes(b"a model")
    return folder


def played(folder, *moves):
    """What the page shows after each move."""
    if shutil.which("node") is None:
        pytest.skip("there is no Node.js")
    (run,) = re.findall("id=run>(.*?)</script>", explorer.write(read(folder)), re.DOTALL)
    code = f"const RUN = {json.dumps(run)};\n{BROWSER}\n{explorer.SCRIPT}\n{PLAY}\nconst shown = [state()];\n"
    code += "".join(f"{move}; shown.push(state());\n" for move in moves) + "console.log(JSON.stringify(shown));"
    done = subprocess.run(["node", "--input-type=commonjs", "--eval", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_its_figures_are_the_run_s(folder):
    (text,) = re.findall("id=run>(.*?)</script>", explorer.write(read(folder)), re.DOTALL)
    content = json.loads(text)
    assert [cost["name"] for cost in content["costs"]] == ["latency_us", "file_bytes", "deflated_bytes", "macs", "parameters"]
    assert [(each["name"], each["search"], each["costs"]) for each in content["members"]] == [
        (member.name, member.search, member.costs) for member in read(folder).members
    ]
    assert len(content["trials"]) == 150 and sum(each["front"] for each in content["members"]) == 7


def test_a_run_without_costs_has_none(folder):
    pareto = json.loads((folder / "pareto.json").read_text())
    dump(folder / "pareto.json", pareto | {"members": []})
    assert explorer.write(read(folder)) == ""
    write_report(folder)
    assert "<script" not in (folder / "report.html").read_text()


def test_it_draws_every_model_at_its_figures(folder):
    (shown,) = played(folder)
    points = {name: (x, y) for name, x, y, _ in shown["points"]}
    assert len(points) == 8
    assert sorted(points, key=lambda name: points[name][0]) == [f"m{index:02d}" for index in range(7, -1, -1)]  # By latency.
    assert sorted(points, key=lambda name: points[name][1]) == [f"m{index:02d}" for index in range(8)]  # By accuracy, from above.
    kinds = {name: kinds for name, _, _, kinds in shown["points"]}
    assert "beaten" in kinds["m04"] and "beaten" not in kinds["m03"] and "chosen" in kinds["m00"]
    assert "latency, µs" in shown["ticks"] and "accuracy, %" in shown["ticks"]


def test_limits_choose_what_the_command_chooses(folder):
    start, fast, both, none = played(folder, "drag('latency_us', 3)", "drag('accuracy', 2)", "drag('file_bytes', 6)")
    assert (
        start["choice"].startswith("m00: 97.0% of the search split right, 124 µs, 108 kB") and "daqu-choose RUN" in start["choice"]
    )
    for shown, limits in ((fast, ["latency_us<=88"]), (both, ["latency_us<=88", "accuracy>=95.8%"])):
        assert shown["choice"].startswith(f"{choose(folder, limits).name}: ")
        assert all(f"--constraint='{limit}'" in shown["choice"] for limit in limits)
    out = {name for name, _, _, kinds in both["points"] if "out" in kinds}
    assert out == {"m00", "m01", "m02", "m06", "m07"}
    assert none["choice"].startswith("No model of the front meets all limits.")


def test_another_cost_and_another_scale(folder):
    start, linear = played(
        folder, "const [log] = find((each) => each.attributes.id === 'log'); log.checked = false; log.handlers.input()"
    )
    assert start["points"] != linear["points"]
    places = {name: x for name, x, _, _ in linear["points"]}
    assert places["m06"] - places["m07"] == pytest.approx(places["m00"] - places["m01"], rel=1e-6)  # 12 us each.
    start, by_size = played(
        folder, "const [costs] = find((each) => each.name === 'select'); costs.value = 1; costs.handlers.input()"
    )
    assert "size, kB" in by_size["ticks"] and "latency, µs" not in by_size["ticks"]
