"""What the documents show is true: commands are those of the tools, links lead somewhere, examples run as they stand."""

import functools
import importlib
import itertools
import json
import math
import pathlib
import re
import shlex
import subprocess
import sys

import pytest
from made_up_run import make_with_models

import daqu_tf
from daqu_tf import spaces, targets
from daqu_tf.targets import costs

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SPACES = ROOT / "docs" / "spaces.md"
PACKAGES = sorted(path.parent.name for path in (ROOT / "daqu_tf").glob("*/__init__.py") if path.parent.name != "tools")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LANGUAGES = {"sh", "python", "json", "text"}
OTHER_PROGRAMS = {"export", "pip", "ssh", "ssh-copy-id", "tensorboard", "unzip"}  # Whose arguments we do not know.
# Run with the name of a tool and lines of arguments: says which flags the tool has, and what is wrong with each line.
ASK = """
import importlib, json, sys
from absl import app, flags
from daqu_tf.tools import command

tool = importlib.import_module(f"daqu_tf.tools.{sys.argv[1]}")
app.run = lambda run: run(flags.FLAGS(sys.argv))
command._guard = lambda run, arguments, positional: positional or not arguments or wrong.append("it takes no " + arguments[0])
names = [flag.name for module, own in flags.FLAGS.flags_by_module_dict().items() if module.startswith("daqu_tf.") for flag in own]
faults = {}
for line in json.load(sys.stdin):
    flags.FLAGS.unparse_flags()
    sys.argv, wrong = line, []
    try:
        tool.main()
    except flags.Error as error:
        wrong.append(str(error))
    if wrong:
        faults[" ".join(line)] = wrong[0]
json.dump({"flags": names, "faults": faults}, sys.stdout)
"""


def label(page):
    return str(page.relative_to(ROOT)) if isinstance(page, pathlib.Path) else "block"


def fenced(language):
    return [(page, block) for page in PAGES for found, block in FENCE.findall(page.read_text()) if found == language]


def prose(page):
    return FENCE.sub("", page.read_text())


def code_in_prose():
    return [span for page in PAGES for span in re.findall(r"`([^`]+)`", prose(page))]


def commands():
    """The words of every command line, without variables before it and what a shell does with it behind."""
    lines = [shlex.split(line) for _, block in fenced("sh") for line in block.splitlines()]
    lines = [itertools.dropwhile(re.compile(r"\w+=").match, line) for line in lines]
    return [list(itertools.takewhile(lambda word: word not in (">", "&"), line)) for line in lines]


def tools():
    return sorted({words[0] for words in commands() if words[0].startswith("daqu-")})


@functools.cache
def ask(tool):
    lines = [words for words in commands() if words[0] == tool]
    module = tool.removeprefix("daqu-").replace("-", "_")
    answer = subprocess.run(
        [sys.executable, "-c", ASK, module], input=json.dumps(lines), capture_output=True, text=True, check=True, cwd=ROOT
    )
    return json.loads(answer.stdout)


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_every_block_says_its_language(page):
    assert {language for language, _ in FENCE.findall(page.read_text())} <= LANGUAGES


@pytest.mark.parametrize("tool", tools())
def test_every_command_is_one_that_the_tool_takes(tool):
    assert ask(tool)["faults"] == {}


def test_every_program_is_a_tool_of_ours_or_known():
    assert {words[0] for words in commands()} <= {*tools(), "make", *OTHER_PROGRAMS}


def test_every_flag_in_prose_exists():
    flags = {f"--{name}" for tool in tools() for name in ask(tool)["flags"]} | {"--help"}
    named = {flag for span in code_in_prose() if span.startswith(("--", "daqu-")) for flag in re.findall(r"--\w+", span)}
    assert named <= flags


def test_every_tool_in_prose_exists():
    made = re.search(r"^TOOLS = (.+)$", (ROOT / "setup.py").read_text(), re.MULTILINE)[1]
    known = {f"daqu-{name.replace('_', '-')}" for name in json.loads(made)}
    assert {span.split()[0] for span in code_in_prose() if span.startswith("daqu-")} | set(tools()) <= known


def test_every_make_target_exists():
    known = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    spans = [span.split() for span in code_in_prose() if span.startswith("make ")]
    assert {words[1] for words in [*commands(), *spans] if words[0] == "make"} <= known


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "tflite_models" / "README.md"], ids=label)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        path, _, heading = target.partition("#")
        if "://" not in target:
            linked = page.parent / path if path else page
            assert linked.is_file(), target
            assert not heading or heading in headings(linked), target


def headings(page):
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES[1:], ids=label)
def test_every_page_is_in_the_menu_of_the_site(page):
    assert re.search(rf" {page.relative_to(ROOT / 'docs')}$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)


@pytest.mark.parametrize("page", [page for page in PAGES[1:] if page.parent.name == "docs"], ids=label)
def test_every_page_is_in_the_table_of_the_readme(page):
    title = page.read_text().splitlines()[0].removeprefix("# ")
    assert f"| [{title}](docs/{page.name}) |" in PAGES[0].read_text()


def test_every_package_has_a_page_of_the_reference():
    pages = {page.stem: page.read_text() for page in (ROOT / "docs" / "api").glob("*.md") if page.stem != "index"}
    assert sorted(pages) == PACKAGES
    assert all(f"\n::: daqu_tf.{package}\n" in text for package, text in pages.items())


@pytest.mark.parametrize("package", PACKAGES)
def test_the_architecture_names_what_a_package_hands_on(package):
    (row,) = re.findall(rf"^\| \d \| `{package}` \| (.+) \|$", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE)
    _, public = (ROOT / "daqu_tf" / package / "__init__.py").read_text().split("__all__ = ")
    assert [name for name in re.findall(r"`(\w+)`", row.split(" | ")[1]) if f'"{name}"' not in public] == []


@pytest.mark.parametrize("page", PAGES, ids=label)
def test_prose_names_no_python_files(page):
    assert re.findall(r"[\w/]+\.py\b", prose(page)) == []


@pytest.mark.parametrize(("page", "block"), fenced("json"), ids=label)
def test_json_in_the_documents_is_a_schedule(page, block):
    content = json.loads(block)
    assert json.loads(json.dumps(daqu_tf.Schedule.from_json(content).to_json())) == content


@pytest.mark.parametrize(("page", "block"), [each for each in fenced("python") if "RunConfig" in each[1]], ids=label)
def test_the_settings_of_a_whole_job_are_valid(page, block, monkeypatch):
    configs = []
    monkeypatch.setitem(vars(daqu_tf), "run", configs.append)  # What it takes an hour to do, the demo does in small.
    exec(block, {})
    assert isinstance(configs[0], daqu_tf.RunConfig)


def test_what_daqu_space_prints_in_the_documents_is_what_it_prints():
    (shown,) = re.findall(r"```sh\n(daqu-space .+)\n```\n\n```text\n(.*?)```", SPACES.read_text(), re.DOTALL)
    command, output = shown
    line = [sys.executable, "-m", "daqu_tf.tools.space", *shlex.split(command)[1:]]
    assert subprocess.run(line, capture_output=True, text=True, check=True, cwd=ROOT).stdout == output


@pytest.mark.parametrize("space", spaces.SPACES.values(), ids=lambda space: space.name)
def test_the_table_of_spaces_has_their_figures(space):
    (row,) = re.findall(rf"^\| `{space.name}` \| (.+) \|$", SPACES.read_text(), re.MULTILINE)
    _, pixels, subnets, differing, macs = row.split(" | ")
    effective = targets.get("litert_cpu").restrict(space)
    assert pixels == ", ".join(map(str, space.genes[0].values))
    for text, part in ((subnets, space), (differing, effective)):
        assert abs(float(text.removeprefix("10^")) - math.log10(part.cardinality)) <= 0.05
    for text, end in zip(macs.split(" to "), (space.smallest(), space.largest())):
        assert float(text[:-1]) * {"k": 1e3, "M": 1e6}[text[-1]] == pytest.approx(costs.macs(space, end), rel=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("page", "block"), [each for each in fenced("python") if "RunConfig" not in each[1]], ids=label)
def test_python_in_the_documents_runs(page, block, tmp_path):
    make_with_models(tmp_path / "runs" / "mine")  # The run of which some speak.
    subprocess.run([sys.executable, "-c", block], check=True, cwd=tmp_path)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]  # Fails at the first warning.
    built = subprocess.run(line, capture_output=True, text=True, cwd=ROOT)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_the_reference_has_all_that_a_package_hands_on(package, site):
    public = importlib.import_module(f"daqu_tf.{package}")
    page = (site / "api" / package / "index.html").read_text()
    assert [
        name for name in public.__all__ if callable(getattr(public, name)) and f'id="daqu_tf.{package}.{name}"' not in page
    ] == []
