"""The rules of `CONTRIBUTING.md` for words: a docstring stands without its neighbour, and a class has a name of its own."""

import ast
import collections
import re
from collections.abc import Iterator

import pytest
from places import ROOT

# First words that need a noun from the line above, or from the name that they follow.
LEANING = re.compile(
    r"(Of|As|And|Or|Likewise|See|Same|Whose|Its|Their|Those|That|It|They)\b|The (same|other|others|latter)\b|In order\b"
)
EMPTY = re.compile(r"(None|Nothing)\.")
SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields):")
ENTRY = re.compile(r" {4}\*{0,2}\w+: (.*)")


def leans(line: str) -> bool:
    return bool(LEANING.match(line) or EMPTY.fullmatch(line))


def docstrings(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """The name and the docstring of a module, and of the public classes, functions and methods in it."""
    yield "the module", ast.get_docstring(tree) or ""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name, ast.get_docstring(node) or ""


def beginnings(docstring: str) -> Iterator[str]:
    """The first line of a docstring, of each argument, attribute and error, and of what is returned."""
    first, *others = docstring.split("\n")
    yield first
    section = ""
    for line in others:
        if found := SECTION.fullmatch(line):
            section = found[1]
        elif section in ("Args", "Attributes", "Raises") and (entry := ENTRY.fullmatch(line)):
            yield entry[1]
        elif section in ("Returns", "Yields") and line:
            yield line.strip()
            section = ""


def names() -> list[str]:
    found = [path.relative_to(ROOT).as_posix() for folder in ("daqu_tf", "tools") for path in (ROOT / folder).rglob("*.py")]
    return sorted(found)


def test_a_class_has_a_name_of_its_own():
    found = collections.Counter(
        node.name for name in names() for node in ast.parse((ROOT / name).read_text()).body if isinstance(node, ast.ClassDef)
    )
    assert max(found.values()) == 1, found.most_common(1)


@pytest.mark.parametrize("name", names())
def test_a_docstring_stands_without_its_neighbour(name):
    for owner, docstring in docstrings(ast.parse((ROOT / name).read_text())):
        assert not [line for line in beginnings(docstring) if leans(line)], owner


@pytest.mark.parametrize(
    "line",
    ["Of the supernet.", "As of `Storage`.", "Likewise.", "See `Device.check`.", "The same for images.", "None.", "In order."],
)
def test_what_leans_is_seen(line):
    assert leans(line)


@pytest.mark.parametrize("line", ["The space of the supernet.", "Offsets of a layer.", "Asks the chief.", "None if there is none."])
def test_what_stands_is_let_alone(line):
    assert not leans(line)
