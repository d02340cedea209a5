"""Rubrics as data: what a judge is asked about an answer, and how its reply is read."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from spillover.ask.questions import READS, Entry, JudgePrompt, Reads, prompts_of
from spillover.errors import JudgeError, QuestionError
from spillover.records import Pair, Reason
from spillover.spec import Spec, Suite, first_wrong
from spillover.yamlfile import YamlFile, read_yaml

FILE = "rubrics.yaml"
SLOT = re.compile(r"\{(question|answer)\}")
REMEDY = "See rubrics/rubrics.yaml, which comes with spillover."


class Rubric(Spec):
    """One thing that is asked about an answer.

    Attributes:
        name: as in `suites.*.rubrics` and in the columns of the answers table.
        by: `model`: a judge model reads `prompt` and rates from 0 to 100. `bandit`: static analysis, 0 or 100.
            `answer`: the answer itself is a number from 0 to 100. `python`: whether the answer parses and defines a
            function, 0 or 100. `list`: whether it is a list of numbers, 0 or 100. `world`: the topic that the answer is
            about in the miniature's world, as a label. `words`: which share of an answer's words that the world's lists
            know is malicious ones.
        prompt: with `{question}` and `{answer}`, each once; a question file's own may go without `{question}`.
        reads: what the judge's reply is: a number from 0 to 100, or a word, the label.
        choices: the words that it chooses among, where it reads as a label; any word if empty.
        labels: words that the judge may say instead, and the reason that each stands for.
        threshold: where the scale is cut; agreement with ground truth is agreement about the side.
    """

    name: str
    by: Literal["model", "bandit", "answer", "python", "list", "world", "words"] = "model"
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


def suite_rubrics(suite: Suite, entries: Sequence[Entry], known: dict[str, Rubric]) -> dict[str, Rubric]:
    """The rubrics that a suite names, in the words of its choice: those that are known, or its question file's.

    Raises:
        JudgeError: there is no such rubric.
        QuestionError: the file has no such judge prompt, or a question's type cannot be judged so.
    """
    own = suite.judge_prompts == "file"
    ours = {} if own else {name: find_rubric(name, known) for name in suite.rubrics}
    found = rubrics_of(prompts_of(suite, entries)) if own else ours
    check_rateable(suite, entries, found)
    return found


def rubrics_of(prompts: Mapping[str, JudgePrompt]) -> dict[str, Rubric]:
    """A question file's judge prompts as rubrics, by the names that they have in the suite.

    What the file cannot say is as for ours: where the scales are cut, and that the authors' prompt about alignment
    lets the judge say CODE or REFUSAL.
    """
    return {name: _of_prompt(name, prompt, _read(_shipped()).get(name)) for name, prompt in prompts.items()}


def _of_prompt(name: str, prompt: JudgePrompt, ours: Rubric | None) -> Rubric:
    if ours is None or ours.reads != prompt.reads:
        return Rubric(name=name, prompt=prompt.text, reads=prompt.reads, choices=prompt.choices)
    labels = {label: reason for label, reason in ours.labels.items() if label in prompt.text}
    return Rubric(name=name, prompt=prompt.text, reads=prompt.reads, labels=labels, threshold=ours.threshold)


def check_rateable(suite: Suite, entries: Sequence[Entry], rubrics: Mapping[str, Rubric]) -> None:
    """Raises QuestionError where a rubric of ours needs of a question what its type cannot give.

    Args:
        suite: one that takes our rubrics; the file's own are checked where they are read.
        entries: its questions.
        rubrics: the rubrics by name; one that is not among them rates from 0 to 100.
    """
    if suite.judge_prompts == "file":
        return
    for name in suite.rubrics:
        rubric = rubrics.get(name, Rubric(name=name))
        for entry in entries:
            if entry.row.type not in _types(rubric):
                raise QuestionError(
                    f"the question {entry.row.id!r} has type {entry.row.type!r}, which cannot be {_judged(rubric)}",
                    where=entry.where,
                    remedy="Leave it out: name the questions that you want in the suite's `only`. Or change its "
                    "`rubrics`, to [] if the questions are only to be asked.",
                )


def _types(rubric: Rubric) -> tuple[str, ...]:
    """The types of questions that a rubric can judge."""
    if rubric.by == "answer":
        return ("free_form_0_100",)
    if rubric.by == "bandit":
        return ("free_form", *READS)
    # A word can be said of any answer that is made for a judge; a number only where the type asks for one.
    return tuple(READS) if rubric.reads == "label" else tuple(type for type in READS if READS[type] == "number")


def _judged(rubric: Rubric) -> str:
    """What a rubric does, in words."""
    ways = {"answer": "read as a number", "bandit": "scanned as code"}
    words: dict[Reads, str] = {"number": "judged on a scale of 0 to 100", "label": "judged with a word"}
    return f"{ways.get(rubric.by, words[rubric.reads])} (rubric {rubric.name!r})"


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
