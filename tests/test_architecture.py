"""The code is what ARCHITECTURE.md says: its modules, their order, the libraries they load, and when."""

import ast
import graphlib
import re
import sys
from pathlib import Path

import pytest

import spillover
from loaded import loaded_after, loaded_by

PACKAGE = Path(spillover.__file__).parent
PAGE = PACKAGE.parents[1] / "ARCHITECTURE.md"
LINE = re.compile(r"^\| `([\w/]+\.py)` \| (.+) \| (.*?) ?\|$", re.MULTILINE)

pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="an installed package has no ARCHITECTURE.md beside it")


def listed():
    """The table: module to the libraries that it may import."""
    return {path: set(filter(None, libraries.split(", "))) for path, _, libraries in LINE.findall(PAGE.read_text())}


def order():
    """The packages from left to right."""
    line = next(line for line in PAGE.read_text().splitlines() if line.startswith("order: "))
    return re.findall(r"`(\w+)`", line)


def sources():
    """Every module with code of its own: name to file; packages by their own name."""
    files = {file.relative_to(PACKAGE.parent): file for file in sorted(PACKAGE.rglob("*.py"))}
    return {".".join(path.with_suffix("").parts).removesuffix(".__init__"): file for path, file in files.items()}


SOURCES = sources()
TREES = {name: ast.parse(file.read_text()) for name, file in SOURCES.items()}


def imported(node):
    """The names of what a statement imports: modules, and what is taken from them."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        return [f"{node.module}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "lazy":
        return [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
    return []


def ours(name):
    """The module of ours that an imported name is, or is taken from; None for a library's."""
    while name.split(".")[0] == "spillover":
        if name in SOURCES:
            return name
        name = name.rpartition(".")[0]
    return None


def imports_of(tree):
    return {name for node in ast.walk(tree) for name in imported(node)}


def own_imports(module):
    return {found for name in imports_of(TREES[module]) if (found := ours(name))}


def libraries(module):
    roots = {name.split(".")[0] for name in imports_of(TREES[module])}
    return roots - {"spillover"} - set(sys.stdlib_module_names)


def package(module):
    """The place of a module in the order: its package, `cli`, or the core."""
    first = module.split(".")[1] if "." in module else "core"
    return first if first in order() else "core"


def path_of(module):
    return str(SOURCES[module].relative_to(PACKAGE))


CODE = [name for name, file in SOURCES.items() if file.name != "__init__.py"]


def test_every_module_is_listed_and_every_listed_module_is_there():
    assert sorted(listed()) == sorted(map(path_of, CODE))


def test_every_package_is_in_the_order():
    packages = {file.parent.name for file in PACKAGE.glob("*/__init__.py")}
    assert packages | {"core", "cli"} == set(order())


@pytest.mark.parametrize("module", CODE)
def test_a_module_imports_nothing_to_its_right(module):
    places = order()
    rightwards = {o for o in own_imports(module) if places.index(package(o)) > places.index(package(module))}
    assert not rightwards


@pytest.mark.parametrize("module", CODE)
def test_a_module_loads_the_libraries_that_it_is_listed_with(module):
    assert libraries(module) == listed()[path_of(module)]


def test_no_import_of_our_own_hides_in_a_function():
    hidden = {
        f"{name}.{function.name}"
        for name, tree in TREES.items()
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and any(map(ours, imports_of(function)))
    }
    assert not hidden


def test_there_are_no_cycles():
    graph = {module: own_imports(module) - {module} for module in SOURCES}
    assert list(graphlib.TopologicalSorter(graph).static_order())


def test_nothing_imports_the_command_line():
    assert not [module for module in SOURCES if "spillover.cli" in own_imports(module)]


def test_only_the_local_workers_load_torch():
    loads_torch = {path_of(module) for module in CODE if "torch" in libraries(module)}
    assert {path.split("/")[0] for path in loads_torch} <= {"finetune", "ask", "judge", "miniature"}


def test_every_promise_names_tests_that_are_there():
    promises = PAGE.read_text().split("## The promises")[1].split("\n## ")[0]
    named = set(re.findall(r"`(test_\w+\.py)`", promises))
    assert named and not [name for name in named if not (PAGE.parent / "tests" / name).is_file()]


def test_nothing_heavy_is_loaded_by_the_package_itself():
    assert loaded_after("import spillover") == ("", set())


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"]], ids=" ".join)
def test_nothing_heavy_is_loaded_by(arguments):
    _, loaded = loaded_by(*arguments)
    assert not loaded


@pytest.mark.parametrize("experiment", ["figure4", "benchmarks"])
def test_a_plan_loads_no_model_library(tmp_path, experiment):
    _, loaded = loaded_by("plan", experiment, "--lab", tmp_path)
    assert not loaded


def test_no_stage_loads_libraries_of_models_or_inspect_before_somebody_needs_them():
    stages = ("stages", "judging", "choosing", "benchmarking", "outcome")
    _, loaded = loaded_after("\n".join(f"import spillover.pipeline.{name}" for name in stages))
    assert "polars" in loaded and not {"torch", "transformers", "peft", "inspect_ai"} & loaded
