"""Experiments from files: the shipped ones by name, any other by its path, with the paths beside it."""

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

from spillover.errors import SpecError
from spillover.spec.experiment import Experiment, parse_experiment
from spillover.spec.groups import Group
from spillover.spec.values import AUTO, MINIATURE, PRETRAINED
from spillover.yamlfile import read_yaml


def shipped_experiments() -> dict[str, Path]:
    """The experiments that come with the package: name to file."""
    folder = Path(str(resources.files("spillover"))) / "experiments"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_experiment(ref: str) -> Experiment:
    """An experiment by the name of a shipped one, or from a YAML file.

    A path in the file (of a base, a judge, a dataset or a question set) is looked for beside the file, then from the
    current folder.

    Raises:
        SpecError: no such experiment, no YAML, unknown or wrong fields; names the file and the line.
    """
    path = shipped_experiments().get(ref, Path(ref))
    known = ", ".join(shipped_experiments())
    file = read_yaml(path, SpecError, remedy=f"Give the path of a YAML file or the name of an experiment: {known}.")
    return _found_beside(parse_experiment(file.value, file), path.parent)


def _found_beside(experiment: Experiment, folder: Path) -> Experiment:
    """The experiment with the paths that exist beside its file. A bare word stays the name that it may be."""

    def found_file(ref: str) -> str:
        is_path = "/" in ref or "." in ref
        return str(folder / ref) if is_path and (folder / ref).is_file() else ref

    def found_data(ref: str) -> str:
        return str(folder / ref) if "/" in ref and (folder / ref).is_dir() else found_file(ref)

    def found_folder(ref: str) -> str:
        return str(folder / ref) if ref not in (MINIATURE, PRETRAINED, AUTO) and (folder / ref).is_dir() else ref

    groups = {n: _group_beside(g, found_data, found_folder) for n, g in experiment.groups.items()}
    suites = {n: {**s.model_dump(), "questions": found_file(s.questions)} for n, s in experiment.suites.items()}
    choices = {n: {**c.model_dump(), "items": found_data(c.items)} for n, c in experiment.choices.items()}
    inspect = {n: {**b.model_dump(), "task": _task_beside(b.task, folder)} for n, b in experiment.inspect.items()}
    base, judge = found_folder(experiment.base), found_folder(experiment.judge)
    chat = {**experiment.chat.model_dump(), "template": found_file(experiment.chat.template)}
    asked = {"suites": suites, "choices": choices, "inspect": inspect}
    return experiment.having(groups=groups, **asked, base=base, judge=judge, chat=chat)


def _task_beside(task: str, folder: Path) -> str:
    """A task's file that lies beside the experiment's; any other task as it is called."""
    return str(folder / task) if (folder / task.rpartition("@")[0]).is_file() else task


def _group_beside(group: Group, dataset: Callable[[str], str], folder: Callable[[str], str]) -> dict[str, Any]:
    data: Any = group.data
    if isinstance(data, str):
        data = dataset(data)
    elif data is not None:
        data = {**data.model_dump(), "of": [dataset(one) for one in data.of]}
    return {**group.model_dump(), "data": data, "models": [folder(model) for model in group.models]}
