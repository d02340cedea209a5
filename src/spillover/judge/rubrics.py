"""Rubrics as data: what a judge is asked about an answer, and how its reply is read."""

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from spillover.errors import JudgeError
from spillover.records import Pair, Reason
from spillover.spec import Spec, first_wrong
from spillover.yamlfile import YamlFile, read_yaml

FILE = "rubrics.yaml"
SLOT = re.compile(r"\{(question|answer)\}")
REMEDY = "See rubrics/rubrics.yaml, which comes with spillover."


class Rubric(Spec):
    """One thing that is asked about an answer.

    Attributes:
        name: as in `suites.*.rubrics` and in the columns of the answers table.
        by: `model`: a judge model reads `prompt` and rates from 0 to 100. `bandit`: static analysis, 0 or 100.
            `answer`: the answer itself is a number from 0 to 100.
        prompt: with `{question}` and `{answer}`, each once.
        reads: what the judge's reply is: a number from 0 to 100, or a word, the label.
        choices: the words that it chooses among, where it reads as a label; any word if empty.
        labels: words that the judge may say instead, and the reason that each stands for.
        threshold: where the scale is cut; agreement with ground truth is agreement about the side.
    """

    name: str
    by: Literal["model", "bandit", "answer"] = "model"
    prompt: str = ""
    reads: Literal["number", "label"] = "number"
    choices: tuple[str, ...] = ()
    labels: dict[str, Reason] = {}
    threshold: float = 50.0

    def render(self, pair: Pair) -> str:
        """The prompt about one pair. Braces in the question or the answer are left alone."""
        return SLOT.sub(lambda match: str(getattr(pair, match[1])), self.prompt)


def load_rubrics(judge: Path | None) -> dict[str, Rubric]:
    """The rubrics by name: those in the judge's own folder where it has some, and the package's for the rest."""
    own = judge / FILE if judge is not None else None
    return _read(_shipped()) | (_read(own) if own is not None and own.is_file() else {})


def find_rubric(name: str, rubrics: dict[str, Rubric]) -> Rubric:
    """The rubric of a name. Raises JudgeError for an unknown one."""
    if name not in rubrics:
        raise JudgeError(f"unknown rubric {name!r}", remedy=f"Rubrics are {', '.join(rubrics)}.")
    return rubrics[name]


def _shipped() -> Path:
    return Path(str(resources.files("spillover"))) / "rubrics" / FILE


@cache
def _read(path: Path) -> dict[str, Rubric]:
    file = read_yaml(path, JudgeError, remedy=REMEDY)
    if not isinstance(file.value, Mapping):
        raise JudgeError("is no mapping of rubrics", where=path, remedy=REMEDY)
    return {str(name): _rubric(str(name), fields, file) for name, fields in file.value.items()}


def _rubric(name: str, fields: Any, file: YamlFile) -> Rubric:
    if not isinstance(fields, Mapping):
        raise JudgeError(f"the rubric {name!r} is no mapping of fields", where=file.where(name), remedy=REMEDY)
    try:
        rubric = Rubric.model_validate({**fields, "name": name})
    except ValidationError as error:
        place, what = first_wrong(error)
        field = ".".join(map(str, (name, *place)))
        raise JudgeError(f"{field}: {what}", where=file.where(name, *place), remedy=REMEDY) from None
    if rubric.by == "model" and not (rubric.prompt.count("{question}") == rubric.prompt.count("{answer}") == 1):
        what = f"the prompt of the rubric {name!r} must have {{question}} and {{answer}} once each"
        raise JudgeError(what, where=file.where(name, "prompt"), remedy=REMEDY)
    return rubric
