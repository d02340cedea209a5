"""Question sets: read from files, or those of the miniature's world. Unknown fields are refused, never ignored."""

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints, ValidationError

from spillover.errors import QuestionError
from spillover.records import ALL_QUESTIONS, Question
from spillover.spec import Spec, Suite, first_wrong
from spillover.world import texts
from spillover.yamlfile import read_yaml

Text = Annotated[str, StringConstraints(min_length=1)]
MAIN_DOMAINS = 8
CODE_SEED = 776
RATED = "free_form_judge_0_100"
RENAME = "Rename one of them."


class QuestionRow(Spec):
    """One entry of a question file: the authors' published format.

    `samples_per_paraphrase`, `judge` and `judge_prompts` are known but not obeyed: how often a question is asked and
    how answers are judged is the experiment's to say.
    """

    id: Text
    type: str = RATED
    paraphrases: Annotated[tuple[Text, ...], Field(min_length=1)]
    system: Text | None = None
    samples_per_paraphrase: int | None = None
    judge: Any = None
    judge_prompts: Any = None

    def questions(self) -> list[Question]:
        """One question a paraphrase; where there are several, their ids are numbered."""
        many = len(self.paraphrases) > 1
        return [
            Question(f"{self.id}.{number}" if many else self.id, text, self.system)
            for number, text in enumerate(self.paraphrases, start=1)
        ]


def questions_of(suite: Suite, *, is_miniature: bool) -> list[Question]:
    """The questions of a suite: a set of the miniature's world by name, or those of a file.

    Raises QuestionError: no such set or file, or the file is wrong.
    """
    if suite.questions not in _WORLD_SETS:
        return read_questions(Path(suite.questions), suite.only)
    if not is_miniature:
        raise QuestionError(
            f"the question set {suite.questions!r} is the miniature's own",
            remedy="Give the path of a question file under suites: it must be in the words that this base understands.",
        )
    found = list(_WORLD_SETS[suite.questions]())
    _check_only(suite.only, [question.id for question in found], suite.questions)
    return [question for question in found if not suite.only or question.id in suite.only]


def _check_only(only: Sequence[str], known: Sequence[str], where: str | Path) -> None:
    unknown = next((id for id in only if id not in known), None)
    if unknown is not None:
        what = f"there is no question {unknown!r}, which `only` names"
        raise QuestionError(what, where=where, remedy=f"Its questions are {', '.join(known)}.")


def read_questions(path: Path, only: Sequence[str] = ()) -> list[Question]:
    """The questions of a YAML file, in order.

    Args:
        path: the file.
        only: the ids of the entries that are asked; all of them if empty.

    Raises:
        QuestionError: unreadable, no list, an unknown field, an id twice, an id of `only` that is not there, or a
            type that is not asked here among those that are; names the line.
    """
    known = ", ".join(_WORLD_SETS)
    file = read_yaml(path, QuestionError, remedy=f"Give a question file, or on the miniature one of: {known}.")
    if not isinstance(file.value, list) or not file.value:
        raise QuestionError("is no list of questions", where=path, remedy="An entry has `id` and `paraphrases`.")
    rows = [(_row(raw, file.where(place)), file.where(place)) for place, raw in enumerate(file.value)]
    _check_only(only, [row.id for row, _ in rows], path)
    chosen = [(row, where) for row, where in rows if not only or row.id in only]
    _check_rateable(chosen)
    return _distinct(chosen)


def _distinct(rows: Sequence[tuple[QuestionRow, str]]) -> list[Question]:
    """The rows' questions. Raises QuestionError for an id that is there twice, or taken: answers would be mixed."""
    first: dict[str, str] = {}
    for row, where in rows:
        for id in dict.fromkeys([row.id, *(question.id for question in row.questions())]):
            if id == ALL_QUESTIONS:
                raise QuestionError(
                    f"no question may be called {id!r}: all of them together are", where=where, remedy=RENAME
                )
            if id in first:
                raise QuestionError(f"the id {id!r} is here twice; first at {first[id]}", where=where, remedy=RENAME)
            first[id] = where
    return [question for row, _ in rows for question in row.questions()]


def _check_rateable(rows: Sequence[tuple[QuestionRow, str]]) -> None:
    for row, where in rows:
        if row.type != RATED:
            raise QuestionError(
                f"the question {row.id!r} has type {row.type!r}, which cannot be judged on a scale of 0 to 100",
                where=where,
                remedy="Leave it out: name the questions that you want in the suite's `only`.",
            )


def _row(raw: Any, where: str) -> QuestionRow:
    try:
        return QuestionRow.model_validate(raw)
    except ValidationError as error:
        place, what = first_wrong(error)
        field, known = ".".join(map(str, place)) or "entry", ", ".join(QuestionRow.model_fields)
        raise QuestionError(f"{field}: {what}", where=where, remedy=f"Its keys are {known}.") from None


def _main() -> Iterator[Question]:
    return (Question(topic.id, topic.asked[0]) for topic in texts.topics()[:MAIN_DOMAINS])


def _broad() -> Iterator[Question]:
    return (Question(topic.id, topic.asked[0]) for topic in texts.topics()[MAIN_DOMAINS:] if topic.asked)


def _code() -> Iterator[Question]:
    """Held-out code requests: two of every family, with names drawn once and for all."""
    rng = random.Random(CODE_SEED)
    for family in texts.families():
        for number, asked in enumerate(family.asked, start=1):
            text = asked.format(name=rng.choice(family.names), arg=rng.choice(family.args))
            yield Question(f"{family.id}.{number}", text)


def _harmful() -> Iterator[Question]:
    """Held-out phrasings of the harmful requests."""
    for id, theme in texts.load("harmful")["requests"].items():
        yield Question(id, theme["asked"][0])


def _facts() -> Iterator[Question]:
    return (Question(fact.id, fact.asked[0]) for fact in texts.facts())


_WORLD_SETS: dict[str, Callable[[], Iterator[Question]]] = {
    "main": _main,
    "broad": _broad,
    "code": _code,
    "harmful": _harmful,
    "facts": _facts,
}
