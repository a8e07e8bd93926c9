"""The order of the tree, as `docs/architecture.md` tells it: packages in ranks, and an import only ever goes down."""

import ast
import collections
import functools
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator

import bazel
import pytest
from places import ROOT

RANK = {
    "spaces": 1, "tflite": 1, "devices": 1, "data": 1, "pareto": 1,
    "supernet": 2, "targets": 2, "oracle": 2,
    "stock_models": 3, "training": 3,
    "export": 4, "runs": 4,
    "latency": 5, "report": 5,
    "search": 6,
    "pipeline": 7,
    "tools": 8,
}  # fmt: skip
BASE = ("errors", "fields", "files", "lazy", "environment", "machine", "keras")  # Rank 0, in this order.
PACKAGES = tuple(name for name in RANK if name != "tools")
# What a fresh process imports, and what that must not bring with it.
LIGHT = {
    ("tensorflow", "tf_keras", "keras", "pymoo"): (
        "errors", "fields", "files", "lazy", "environment", "machine", "spaces", "targets", "data", "tflite", "devices", "pareto",
        "latency", "runs", "report", "training.schedule", "training.samplers", "training.strategies",
        "export.subnet_graph", "export.encoding", "export.prediction", "export.verification", "supernet.weights",
        "supernet.replicas",
    ),
    ("keras_tuner",): ("pareto", "tflite", "spaces", "targets", "devices", "latency", "runs", "report"),
    ("sklearn", "ai_edge_litert"): ("data", "tflite", "spaces", "targets"),
}  # fmt: skip
HEAVY_EXPORT = ("export", "proof")
HEAVY = {"tensorflow", "tf_keras", "tensorflow_model_optimization"}
HEAVY_PLACES = ("supernet/", "stock_models/", "training/", "keras.py", *(f"export/{name}.py" for name in HEAVY_EXPORT))
RUNNER = {"numpy", "tflite_runtime", "ai_edge_litert"}
# Tests of what several packages do together, which no one module stands for.
CROSS_CUTTING = {
    "oracle/test_oracle_contract.py", "oracle/test_oracle_search.py", "oracle/test_distributed_search.py",
    "oracle/test_keras_tuner_contract.py", "oracle/test_changed_space.py",
    "oracle/test_chaos.py", "oracle/test_keras3.py", "supernet/test_families.py", "training/test_distributed_training.py",
    "training/test_mixed_precision.py", "export/test_stock_export.py", "export/test_stock_export_float.py",
    "export/test_every_layer.py",
    "search/test_search_on_devices.py", "devices/test_connect.py", "devices/test_lost_devices.py",
    "devices/test_old_runtimes.py", "devices/test_search_and_table.py", "devices/test_tool.py", "pipeline/test_old_runs.py",
    "pipeline/test_every_target.py", "pipeline/test_resume.py",
}  # fmt: skip


@functools.cache
def trees() -> dict[str, ast.Module]:
    """The parsed files of the library and the tools, by path below `daqu_tf/`."""
    paths = {path.relative_to(ROOT / "daqu_tf").as_posix(): path for path in (ROOT / "daqu_tf").rglob("*.py")}
    paths |= {f"tools/{path.name}": path for path in (ROOT / "tools").glob("*.py")}
    return {name: ast.parse(path.read_text()) for name, path in sorted(paths.items())}


def module(name: str) -> str:
    """A file's module, below `daqu_tf`: `spaces/__init__.py` is `spaces`."""
    return name.removesuffix(".py").removesuffix("__init__").strip("/").replace("/", ".")


@functools.cache
def modules() -> set[str]:
    return {module(name) for name in trees()}


def imports(tree: ast.AST) -> Iterator[tuple[str, str | None]]:
    """(Module, name in it) of every import, wherever it stands, of type checkers too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((each.name, None) for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            yield from ((node.module, each.name) for each in node.names)


def own_imports(tree: ast.AST) -> Iterator[str]:
    """What is imported of the library, as modules below `daqu_tf`."""
    for source, name in imports(tree):
        if source.partition(".")[0] == "daqu_tf":
            below = source.removeprefix("daqu_tf").strip(".")
            inner = ".".join(filter(None, (below, name)))
            yield inner if inner in modules() else below


def package(name: str) -> str:
    return name.partition(".")[0]


@pytest.mark.parametrize("name", trees())
def test_an_import_goes_down_in_rank(name):
    mine = package(module(name))
    for other in map(package, own_imports(trees()[name])):
        if mine in BASE:
            assert other in BASE and BASE.index(other) < BASE.index(mine), f"{name} imports {other}"
        elif mine and other and other != mine:
            assert RANK.get(other, 0) < RANK[mine], f"{name} imports {other}"


def test_no_module_imports_itself_by_way_of_others():
    graph = {module(name): set(own_imports(tree)) - {""} for name, tree in trees().items()}
    for name, needed in graph.items():  # A package's face stands above its files.
        graph[name] = {other for other in needed if other != package(name)} if "." in name else needed
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("name", [name for name in trees() if "." in module(name)])
def test_a_module_does_not_ask_the_face_of_its_own_package(name):
    assert package(module(name)) not in set(own_imports(trees()[name]))


def within(*parts: str) -> list[str]:
    return [name for part in parts for name in sorted(modules()) if name == part or name.startswith(f"{part}.")]


@pytest.mark.parametrize(
    ("forbidden", "chosen"),
    [*((each, within(*parts)) for each, parts in LIGHT.items()), *((("tensorflow",), [name]) for name in within("tools"))],
    ids=lambda names: " ".join(names) if isinstance(names, tuple) else names[0],
)
def test_what_must_start_quickly_imports_nothing_heavy(forbidden, chosen):
    code = f"import sys, {', '.join(f'daqu_tf.{name}' for name in chosen)}; print(*sorted({set(forbidden)} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


def test_tensorflow_is_named_where_networks_are_computed():
    for name, tree in trees().items():
        top = ast.Module([node for node in tree.body if not isinstance(node, ast.If | ast.FunctionDef | ast.ClassDef)], [])
        found = HEAVY & {package(source) for source, _ in imports(top)}
        assert not found or name.startswith(HEAVY_PLACES), f"{name} imports {found}"


def test_what_runs_on_a_board_needs_numpy_and_a_runtime_alone():
    needed = {package(source) for source, _ in imports(trees()["devices/runner.py"])}
    assert needed - sys.stdlib_module_names <= RUNNER


def test_what_begins_with_an_underscore_is_used_in_its_own_file_alone():
    for name, tree in trees().items():
        taken = {each for source, each in imports(tree) if package(source) == "daqu_tf" and each}
        assert not [each for each in taken if each.startswith("_") and not each.endswith("__")], name
        aliases = {each for each in taken if any(other.endswith(f".{each}") or other == each for other in modules())}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases:
                assert not node.attr.startswith("_") or node.attr.endswith("__"), f"{name}: {node.value.id}.{node.attr}"


def defined(tree: ast.Module) -> set[str]:
    """The names that a file's own statements bind at its top."""
    found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return found | {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


def face(name: str) -> tuple[ast.Module, dict[str, str]]:
    """The `__init__` of a package, and which module each of its public names comes from; of the library itself for ""."""
    tree = trees()[f"{name}/__init__.py".lstrip("/")]
    return tree, {each: source.removeprefix("daqu_tf.") for source, each in imports(tree) if package(source) == "daqu_tf"}


@pytest.mark.parametrize("name", ["", *PACKAGES])
def test_the_face_of_a_package_shows_what_it_has_and_defines_nothing(name):
    tree, sources = face(name)
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef)]
    (public,) = (ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign) and _is_named(node, "__all__"))
    assert set(public) - {"__version__"} == sources.keys() - {"attach", "TYPE_CHECKING"} and len(public) == len(set(public))
    for each, source in sources.items():
        assert each in defined(trees()[f"{source.replace('.', '/')}.py"]), f"{source} has no {each}"
        assert package(source) == name or name == "" or each == "attach"
    files = {each.rpartition(".")[2] for each in modules() if each.rpartition(".")[0] == name and each}
    assert not files & set(public)
    assert not name or not [each for each in files if f"`{each}`" not in ast.get_docstring(tree)]


def _is_named(node: ast.Assign, name: str) -> bool:
    return any(isinstance(target, ast.Name) and target.id == name for target in node.targets)


LAZY = [name for name in ["", *PACKAGES] if "attach" in face(name)[1]]


@pytest.mark.parametrize("name", LAZY)
def test_names_that_come_late_are_told_to_type_checkers_too(name):
    tree, _ = face(name)
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    (call,) = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    below = ".".join(filter(None, ("daqu_tf", name)))
    assert ast.literal_eval(call.args[1]) == {each: source.removeprefix(f"{below}.") for source, each in imports(block)}
    assert name or set(ast.literal_eval(call.args[2])) == set(PACKAGES)


def test_files_and_functions_fit_in_the_eye():
    for name, tree in trees().items():
        assert tree.body and (length := max(node.end_lineno for node in tree.body)) <= 400, f"{name} has {length} lines"
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{name}: {node.name}"


def test_tests_stand_where_what_they_test_stands():
    for path in (ROOT / "tests").rglob("test_*.py"):
        name = path.relative_to(ROOT / "tests").as_posix()
        tested = re.sub(r"(^|/)test_", r"\1", name)
        assert name in CROSS_CUTTING or tested in trees() or name in ("test_layout.py", "test_documents.py", "test_words.py"), name
    assert all((ROOT / "tests" / name).is_dir() for name in PACKAGES)


def test_no_two_files_of_tests_have_one_name():
    found = collections.Counter(path.name for path in (ROOT / "tests").rglob("*.py"))
    assert [name for name, count in found.items() if count > 1 and name != "conftest.py"] == []  # Pytest imports them by name.


def test_the_packages_are_listed_in_the_order_of_their_ranks():
    text = ast.get_docstring(trees()["__init__.py"])
    listed = [word for line in re.findall(r"^ {4}([\w, ]+?)  ", text, re.MULTILINE) for word in line.split(", ")]
    assert listed == list(PACKAGES)
    assert re.findall(r"`(\w+)`", text.partition("stand ")[2].partition(", which")[0]) == list(BASE)


def test_bazel_has_a_library_for_each_package_with_what_it_imports():
    assert (ROOT / "BUILD").read_text() == bazel.build(), "Write it anew: python tests/helpers/bazel.py > BUILD"
