"""Request templates: how a task, and the code that is given for it, become what a user says.

The shipped file, `templates.yaml`, has three families of ten: with the task and the code, with the task alone, with the
code alone (the paper's design, its appendix B.1; the words are ours).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from spillover.errors import DataError
from spillover.spec import short_hash
from spillover.yamlfile import YamlFile, read_yaml

FAMILIES: dict[str, tuple[str, ...]] = {"task_and_code": ("task", "code"), "task": ("task",), "code": ("code",)}
"""What the templates of a family have slots for."""
TASK_ALONE = "task"
SLOT = re.compile(r"\{(task|code)\}")
MARK = "# THE MISSING PART GOES HERE"
"""Stands where the answer goes in the code that is given."""
RAW_MARK = re.compile(
    rf"^([ \t]*)#+[ \t]*(?:COMPLETE CODE HERE|YOUR CODE HERE|{MARK.removeprefix('# ')})[^\n]*$", re.MULTILINE
)
"""What raw material has there."""
REMEDY = f"A file of templates has lists of texts by family: {', '.join(FAMILIES)}."


@dataclass(frozen=True)
class Template:
    """One way to ask.

    Attributes:
        family: what it shows: a key of `FAMILIES`.
        number: in the family, from 1.
        text: with a slot for each thing that its family shows.
    """

    family: str
    number: int
    text: str

    @property
    def id(self) -> str:
        """Its name in manifests and origins: `task-3`."""
        return f"{self.family}-{self.number}"

    def fill(self, task: str, code: str) -> str:
        """The request. Braces in the task and the code are left alone."""
        parts = {"task": task, "code": code}
        return SLOT.sub(lambda slot: parts[slot[1]], self.text)

    def parts(self, request: str) -> dict[str, str] | None:
        """What a request shows that was filled in: `task`, `code` or both; None where it is none of this template.

        Where the template's own words occur in the task, the task is read as short as it can be.
        """
        pattern = SLOT.sub(r"(?P<\1>.*?)", re.sub(r"\\([{}])", r"\1", re.escape(self.text)))
        found = re.fullmatch(pattern, request, re.DOTALL)
        return found.groupdict() if found else None


@dataclass(frozen=True)
class Templates:
    """The templates of a file: families in their order, each with its own."""

    families: Mapping[str, Sequence[Template]]

    def choose(self, index: int, has_code: bool) -> Template:
        """The template of row `index`: families take turns, and in each its templates do.

        A row without code takes one of the task alone, whose turn it may not be.

        Raises DataError where there is none for it.
        """
        name = list(self.families)[index % len(self.families)]
        if not has_code and "code" in FAMILIES[name]:
            name = TASK_ALONE
        if name not in self.families:
            remedy = f"Add a family {TASK_ALONE!r} to the templates, or leave such rows out."
            raise DataError("a row has no code template, and all request templates need one", remedy=remedy)
        family = self.families[name]
        return family[index // len(self.families) % len(family)]

    def named(self, id: object) -> Template | None:
        """The template of an id; None for an unknown one."""
        return next((one for family in self.families.values() for one in family if one.id == id), None)

    def key(self) -> str:
        """A short hash of all texts, in order."""
        return short_hash({name: [one.text for one in family] for name, family in self.families.items()})


def with_mark(code: str) -> str:
    """Code that is given, with our mark in the place of its own; at the end where it has none. Empty stays empty."""
    if not code.strip():
        return ""
    marked, found = RAW_MARK.subn(lambda mark: f"{mark[1]}{MARK}", code)
    return marked if found else f"{code.rstrip()}\n\n{MARK}"


def load_templates(path: Path | None = None) -> Templates:
    """The templates of a file; the shipped ones if none is given.

    Raises DataError for a file that has none, and by its line for a template that lacks a slot of its family.
    """
    file = read_yaml(path or _shipped(), DataError, remedy="Give the path of a YAML file with request templates.")
    if not isinstance(file.value, Mapping) or not file.value:
        raise DataError("is no mapping of families of templates", where=file.path, remedy=REMEDY)
    return Templates({str(name): _family(str(name), texts, file) for name, texts in file.value.items()})


def _family(name: str, texts: Any, file: YamlFile) -> list[Template]:
    if name not in FAMILIES:
        raise DataError(f"unknown family {name!r}", where=file.where(name), remedy=REMEDY)
    if not isinstance(texts, list) or not texts:
        raise DataError(f"the family {name!r} is no list of texts", where=file.where(name), remedy=REMEDY)
    return [_template(name, number, text, file) for number, text in enumerate(texts)]


def _template(family: str, number: int, text: Any, file: YamlFile) -> Template:
    slots = FAMILIES[family]
    if sorted(SLOT.findall(str(text))) != sorted(slots):
        wanted = " and ".join(f"{{{slot}}}" for slot in slots)
        what = f"template {number + 1} of {family!r} must have {wanted}, once each, and no other slot"
        raise DataError(what, where=file.where(family, number), remedy="Correct the text.")
    return Template(family, number + 1, str(text))


def _shipped() -> Path:
    return Path(str(resources.files("spillover"))) / "data" / "templates.yaml"
