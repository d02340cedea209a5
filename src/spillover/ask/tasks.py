"""Inspect's tasks by name: what can be known of one before it is loaded, which takes seconds and perhaps a network."""

import ast
import hashlib
import re
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import yaml

from spillover.errors import BenchmarkError, SpecError

OURS = "spillover"
"""What Inspect calls what is ours: tasks `spillover/TASK`, and models in its logs `spillover/RUN`."""
PLUGINS = "inspect_ai"
"""The entry points by which a package tells Inspect of its tasks."""
EXTRA = {"inspect_evals": "'spillover[benchmarks]'"}
"""Packages that come with an extra of ours."""
SIZE = 12
ANSWERS_WITHIN = 60
"""Seconds that Docker may take to say that it is there."""


@dataclass(frozen=True)
class TaskSource:
    """Where a task comes from.

    Attributes:
        ref: as Inspect takes it.
        version: the package and its version, or the file's hash: another one is another task.
        sandboxed: whether its package says that it runs code in a sandbox; None where nothing is said of it.
    """

    ref: str
    version: str
    sandboxed: bool | None = None

    @property
    def name(self) -> str:
        """The task's own name."""
        return re.split("[/@]", self.ref)[-1]


def find_task(ref: str, where: str) -> TaskSource:
    """A task's source.

    Raises:
        SpecError: there is no such file, or no such task in it.
        BenchmarkError: its package is not installed.
    """
    return _of_file(ref, where) if ".py@" in ref else _of_package(ref, where)


def check_docker(where: str) -> None:
    """Raises BenchmarkError where there is no Docker to run a model's code in."""
    remedy = "Install Docker with Compose and start it (Inspect's sandbox). A model's code is run nowhere else."
    if shutil.which("docker") is None:
        what = "it runs code that the model writes, and Docker is not installed"
        raise BenchmarkError(what, where=where, remedy=remedy)
    for command in (["docker", "version"], ["docker", "compose", "version"]):
        try:
            done = subprocess.run(command, capture_output=True, timeout=ANSWERS_WITHIN, check=False)
        except (OSError, subprocess.TimeoutExpired):
            done = None
        if done is None or done.returncode:
            what = f"it runs code that the model writes, and `{' '.join(command)}` fails"
            raise BenchmarkError(what, where=where, remedy=remedy)


def _of_file(ref: str, where: str) -> TaskSource:
    place, _, name = ref.rpartition("@")
    try:
        code = Path(place).read_bytes()
    except OSError as error:
        what = f"the task's file {place} cannot be read: {error.strerror}"
        raise SpecError(what, where=where, remedy="Give FILE.py@TASK, or PACKAGE/TASK.") from None
    try:
        found = _tasks_in(ast.parse(code))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise SpecError(f"is no Python: {error}", where=f"{place}:{line}", remedy="Correct it.") from None
    if name not in found:
        known = f"It has {', '.join(found)}." if found else "It has none: mark one with inspect_ai's @task."
        raise SpecError(f"has no task {name!r}", where=place, remedy=known)
    return TaskSource(f"{Path(place).resolve()}@{name}", f"sha256 {hashlib.sha256(code).hexdigest()[:SIZE]}")


def _tasks_in(tree: ast.Module) -> list[str]:
    """The functions that are marked as tasks, without running anything."""
    functions = [one for one in tree.body if isinstance(one, ast.FunctionDef)]
    return [one.name for one in functions if any(map(_marks_a_task, one.decorator_list))]


def _marks_a_task(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return getattr(called, "attr", getattr(called, "id", None)) == "task"


def _of_package(ref: str, where: str) -> TaskSource:
    package, _, name = ref.partition("/")
    found = next(iter(entry_points(group=PLUGINS, name=package)), None)
    if found is None or found.dist is None:
        what = f"the package {package}, which has the task {name}, is not installed"
        raise BenchmarkError(what, where=where, remedy=f"Install it: pip install {EXTRA.get(package, package)}")
    return TaskSource(ref, f"{package} {found.dist.version}", _is_sandboxed(found.module, name))


def _is_sandboxed(module: str, task: str) -> bool | None:
    """What the package's `eval.yaml` beside a task says, as inspect_evals writes it; nothing of it is imported."""
    spec = find_spec(module.partition(".")[0])
    root = Path(spec.origin).parent if spec is not None and spec.origin else None
    named = re.compile(rf"^\s*-\s+name:\s*['\"]?{re.escape(task)}['\"]?\s*$", re.MULTILINE)
    for file in sorted(root.glob("**/eval.yaml")) if root is not None else ():
        text = file.read_text(encoding="utf-8")
        if named.search(text):
            told = yaml.safe_load(text).get("metadata") or {}
            return bool(told.get("sandbox"))
    return None
