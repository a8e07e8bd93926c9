"""The file BUILD: one library a package, whose dependencies are what it imports: `python tests/helpers/bazel.py > BUILD`."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).parents[2]
HEAD = """\
# Bazel targets, one for each package, for workspaces that build TensorFlow code with Bazel. The supported way to build, test and
# install is pip (see the Makefile); TensorFlow and the other requirements of setup.py come from the workspace.
# Written by `python tests/helpers/bazel.py > BUILD`.

load("@rules_python//python:defs.bzl", "py_library")

package(default_visibility = ["//visibility:public"])

licenses(["notice"])

exports_files(["LICENSE"])
"""
LIBRARY = """
py_library(
    name = "{name}",
    srcs = glob(["{sources}"]),{data}{deps}
)
"""


def imported(folder: pathlib.Path) -> set[str]:
    """What the files of a folder import of the library: the first name below `daqu_tf`."""
    found = set()
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "daqu_tf":
                found |= {each.name for each in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module.startswith("daqu_tf."):
                found.add(node.module.split(".")[1])
            elif isinstance(node, ast.Import):
                found |= {each.name.split(".")[1] for each in node.names if each.name.startswith("daqu_tf.")}
    return found


def build() -> str:
    """The content of the file."""
    folders = {path.parent.name: path.parent for path in sorted(ROOT.glob("daqu_tf/*/__init__.py")) if path.parent.name != "tools"}
    libraries = [_library("base", "daqu_tf/*.py", (), '\n    data = ["daqu_tf/py.typed"],')]
    for name, folder in {**folders, "tools": ROOT / "tools"}.items():
        deps = {"base"} | (imported(folder) & folders.keys() - {name})
        pages = any(path.suffix in (".css", ".js") for path in folder.iterdir())
        data = f'\n    data = glob(["{folder.relative_to(ROOT)}/*.css", "{folder.relative_to(ROOT)}/*.js"]),' if pages else ""
        libraries.append(_library(name, f"{folder.relative_to(ROOT)}/*.py", deps, data))
    return HEAD + "".join(libraries)


def _library(name: str, sources: str, deps: set[str] | tuple[()], data: str = "") -> str:
    lines = [f'":{each}"' for each in sorted(deps)]
    text = (
        ""
        if not lines
        else f"\n    deps = [{lines[0]}],"
        if len(lines) == 1
        else "".join(["\n    deps = [", *(f"\n        {line}," for line in lines), "\n    ],"])
    )
    return LIBRARY.format(name=name, sources=sources, data=data, deps=text)


if __name__ == "__main__":
    print(build(), end="")
