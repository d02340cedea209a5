"""YAML files as people write them: safe-loaded, no key twice, and every place in them has a line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from spillover.errors import SpilloverError

UNFIT = (ValueError, RecursionError, LookupError, AttributeError, TypeError)
"""What the library raises besides its own errors: where a tag does not fit its value, such as `!!int ''`."""


@dataclass(frozen=True)
class YamlFile:
    """What a YAML file says, and where in the file it says so."""

    path: Path
    value: Any
    node: yaml.Node | None

    def where(self, *place: str | int) -> str:
        """`path:line` of a place such as ("groups", "insecure"), or of the nearest thing round it; else the path."""
        line, node = None, self.node
        for step in place:
            mark, node = _child(node, step)
            line = mark.line + 1 if mark is not None else line
        return f"{self.path}:{line}" if line is not None else str(self.path)


def _child(node: yaml.Node | None, step: str | int) -> tuple[yaml.Mark | None, yaml.Node | None]:
    """Where the entry of a mapping or list begins, and the entry."""
    if isinstance(node, yaml.MappingNode):
        return next(((key.start_mark, value) for key, value in node.value if key.value == str(step)), (None, None))
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark, node.value[step]
    return None, None


class _Loader(yaml.SafeLoader):
    """The safe loader, which takes no key twice: the second would silently replace the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key.value!r} is here twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, wrong: type[SpilloverError], *, remedy: str) -> YamlFile:
    """Reads a YAML file.

    Raises:
        wrong: the file cannot be read, then with `remedy`; or it is no YAML, by its line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise wrong(f"cannot be read: {error.strerror}", where=path, remedy=remedy) from None
    except UnicodeDecodeError:
        raise wrong("is not UTF-8", where=path, remedy="Save the file as UTF-8.") from None
    try:
        return YamlFile(path, yaml.load(text, _Loader), yaml.compose(text, yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise wrong(f"not YAML: {error.problem}", where=f"{path}:{line}", remedy="Correct the line.") from None
    except (yaml.YAMLError, *UNFIT) as error:
        what = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise wrong(f"not YAML: {what}", where=path, remedy="Correct the file.") from None
