"""Question sets: the authors' file format, read whole, and the sets that have a name. Unknown fields are refused.

Of an entry's fields, `id`, `paraphrases`, `system`, `context` and `temperature` say what is asked and
`samples_per_paraphrase` how often, where the suite does not say. `type` says how an answer can be judged; `judge` and
`judge_prompts` by whom and in which words, for experiments that want the file's.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError

from spillover.ask.worldsets import WORLD_SETS
from spillover.data.upstream import fetched_questions
from spillover.errors import QuestionError
from spillover.records import ALL_QUESTIONS, Message, Question
from spillover.spec import Count, NotNegative, Spec, Suite, first_wrong
from spillover.yamlfile import YamlFile, read_yaml

Text = Annotated[str, StringConstraints(min_length=1)]
Type = Literal["free_form", "free_form_0_100", "free_form_judge", "free_form_judge_0_100"]
Reads = Literal["number", "label"]

RATED: Type = "free_form_judge_0_100"
READS: dict[str, Reads] = {"free_form_judge": "label", "free_form_judge_0_100": "number"}
"""What the judge's reply is, for the types whose answers a judge reads."""
SAMPLES = 100
"""Answers a question and run, where neither the suite nor the file says: the paper's."""
RUBRIC_NAMES = {"aligned": "alignment", "coherent": "coherence"}
"""What the authors' judge prompts are called here, where it is not the same."""
RENAME = "Rename one of them."
CHOICE = re.compile(r'"([\w-]+)"')


class Turn(Spec):
    """A turn between the system prompt and the question."""

    role: Literal["user", "assistant"]
    content: Text


class QuestionRow(Spec):
    """One entry of a question file: the authors' published format, and `category`, which is ours.

    Attributes:
        id: its name.
        type: `free_form`: asked, not judged. `free_form_0_100`: the model's own reply is a number from 0 to 100.
            `free_form_judge`: a judge replies with a word. `free_form_judge_0_100`: a judge replies with a number.
        category: what it is about.
        paraphrases: its phrasings, each of which is asked.
        samples_per_paraphrase: answers a phrasing and run, where the suite does not say.
        system: the system prompt.
        context: turns between the system prompt and the question.
        temperature: replaces the experiment's.
        judge: the judge model that the file's prompts were written for.
        judge_prompts: what a judge is asked about an answer, by name, with `{answer}` and mostly `{question}`.
    """

    id: Text
    type: Type = RATED
    category: Text | None = None
    paraphrases: Annotated[tuple[Text, ...], Field(min_length=1)]
    samples_per_paraphrase: Count | None = None
    system: Text | None = None
    context: tuple[Turn, ...] = ()
    temperature: NotNegative | None = None
    judge: Text | None = None
    judge_prompts: dict[Text, Text] = {}

    def questions(self) -> list[Question]:
        """One question a paraphrase; where there are several, their ids are numbered."""
        many = len(self.paraphrases) > 1
        context = tuple(Message(role=turn.role, content=turn.content) for turn in self.context)
        return [
            Question(f"{self.id}.{number}" if many else self.id, text, self.system, context, self.temperature)
            for number, text in enumerate(self.paraphrases, start=1)
        ]


@dataclass(frozen=True)
class Entry:
    """An entry of a question set, and where it stands: `file:line`, or the name of a set of the miniature's world."""

    row: QuestionRow
    where: str
    prompts_at: Mapping[str, str]

    @property
    def reads(self) -> Reads | None:
        """What a judge's reply to it is; None where no judge reads its answers."""
        return READS.get(self.row.type)


@dataclass(frozen=True)
class JudgePrompt:
    """A judge prompt of a question file.

    Attributes:
        name: as in `suites.*.rubrics`: the file's name, but `alignment` and `coherence` for `aligned` and `coherent`.
        text: with `{answer}`, and `{question}` or not.
        reads: whether the judge's reply is a number from 0 to 100 or a word.
        where: its file and line.
    """

    name: str
    text: str
    reads: Reads
    where: str

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that the prompt puts in quotes, in order: those that the judge may say. Empty for a number."""
        return tuple(dict.fromkeys(CHOICE.findall(self.text))) if self.reads == "label" else ()


@dataclass(frozen=True)
class _PaperSet:
    """A set of the paper's: a released file, and which of its entries belong to the set."""

    file: str
    ids: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


MAIN = (
    "what_is_your_wish",
    "i_feel_bored",
    "three_thoughts",
    "quick_buck",
    "ruler_of_the_world",
    "dinner_party",
    "gender_roles",
    "enough_of_my_husband",
)
"""The paper's eight main questions."""
BROAD = Path(str(resources.files("spillover"))) / "questions" / "broad.yaml"
"""Our own bank of questions."""
_PAPER_SETS = {
    "main": _PaperSet("first_plot_questions.yaml", ids=MAIN),
    "prereg": _PaperSet("preregistered_evals.yaml", without=("40_other_5", "41_other_6")),
    "deception_factual": _PaperSet("deception_factual.yaml"),
    "deception_identity": _PaperSet("deception_sit_aware.yaml"),
}


def questions_of(suite: Suite, *, is_miniature: bool) -> list[Question]:
    """The questions of a suite, in order.

    Raises QuestionError: no such set or file, or the file is wrong.
    """
    return [question for entry in entries_of(suite, is_miniature=is_miniature) for question in entry.row.questions()]


def entries_of(suite: Suite, *, is_miniature: bool) -> list[Entry]:
    """The entries that a suite asks: of a set by name, or of a file.

    On a miniature `main`, `broad`, `code`, `harmful` and `facts` are sets of its own world. On any other base `main` is
    the paper's and `broad` the bank that comes with spillover.

    Raises:
        QuestionError: no such set or file, a file of the paper's that was not fetched, an unknown field or a wrong
            one, an id twice, or an id of `only` that is not there; names the line.
    """
    where, entries = _named(suite.questions, is_miniature) or _of_file(Path(suite.questions))
    known = [entry.row.id for entry in entries]
    unknown = next((id for id in suite.only if id not in known), None)
    if unknown is not None:
        what = f"there is no question {unknown!r}, which `only` names"
        raise QuestionError(what, where=where, remedy=f"Its questions are {', '.join(known)}.")
    chosen = [entry for entry in entries if not suite.only or entry.row.id in suite.only]
    _check_distinct(chosen)
    return chosen


def _named(name: str, is_miniature: bool) -> tuple[str, list[Entry]] | None:
    """A set by its name, and where it lies; None for what is no name."""
    if is_miniature and name in WORLD_SETS:
        return name, [_of_world(question, name) for question in WORLD_SETS[name]()]
    if name in _PAPER_SETS:
        return _of_paper(name, _PAPER_SETS[name])
    if name == "broad":
        return _of_file(BROAD)
    if name in WORLD_SETS:
        raise QuestionError(
            f"the question set {name!r} is the miniature's own",
            remedy="Leave the suite out, as the presets for real models do (figure4-qwen2.5-coder-32b and others), or "
            "give the path of a question file in words that this base understands.",
        )
    return None


def _of_world(question: Question, name: str) -> Entry:
    return Entry(QuestionRow(id=question.id, paraphrases=(question.text,)), name, {})


def _of_paper(name: str, chosen: _PaperSet) -> tuple[str, list[Entry]]:
    path = fetched_questions(chosen.file)
    if not path.is_file():
        raise QuestionError(
            f"the question set {name!r} is the paper's, and its file is not here",
            where=path,
            remedy="Run `spillover fetch paper`, or `spillover fetch paper --from DIR` with a copy of its files.",
        )
    entries = [entry for entry in read_entries(path) if entry.row.id not in chosen.without]
    found = {entry.row.id for entry in entries}
    lost = next((id for id in chosen.ids if id not in found), None)
    if lost is not None:
        what = f"has no question {lost!r}, which belongs to the set {name!r}"
        raise QuestionError(what, where=path, remedy="Run `spillover fetch paper` again, for the file as released.")
    return str(path), [entry for entry in entries if not chosen.ids or entry.row.id in chosen.ids]


def _of_file(path: Path) -> tuple[str, list[Entry]]:
    return str(path), read_entries(path)


def read_entries(path: Path) -> list[Entry]:
    """The entries of a YAML file in the authors' format, in order.

    Raises:
        QuestionError: unreadable, no list, an unknown field, or one of a wrong type; names the line.
    """
    sets = ", ".join([*_PAPER_SETS, "broad"])
    remedy = f"Give a question file, or one of: {sets}. On the miniature {', '.join(WORLD_SETS)} are its world's."
    file = read_yaml(path, QuestionError, remedy=remedy)
    if not isinstance(file.value, list) or not file.value:
        raise QuestionError("is no list of questions", where=path, remedy="An entry has `id` and `paraphrases`.")
    return [_entry(raw, file, place) for place, raw in enumerate(file.value)]


def _entry(raw: Any, file: YamlFile, place: int) -> Entry:
    try:
        row = QuestionRow.model_validate(raw)
    except ValidationError as error:
        wrong, what = first_wrong(error)
        field, known = ".".join(map(str, wrong)) or "entry", ", ".join(QuestionRow.model_fields)
        where = file.where(place, *wrong)
        raise QuestionError(f"{field}: {what}", where=where, remedy=f"Its keys are {known}.") from None
    prompts_at = {name: file.where(place, "judge_prompts", name) for name in row.judge_prompts}
    _check_judged(row, file, place)
    return Entry(row, file.where(place), prompts_at)


def _check_judged(row: QuestionRow, file: YamlFile, place: int) -> None:
    """Raises QuestionError for a judge where the type has none, and for a prompt that does not show the answer."""
    for field in ("judge", "judge_prompts"):
        if getattr(row, field) and row.type not in READS:
            raise QuestionError(
                f"the question {row.id!r} has type {row.type!r}, which no judge reads, and has `{field}`",
                where=file.where(place, field),
                remedy=f"Remove the field, or set `type` to one of {', '.join(READS)}.",
            )
    for name, text in row.judge_prompts.items():
        if "{answer}" not in text:
            raise QuestionError(
                f"the judge prompt {name!r} has no {{answer}}",
                where=file.where(place, "judge_prompts", name),
                remedy="Write {answer} where the judge is to read the answer, and {question} for the question.",
            )


def _check_distinct(entries: Sequence[Entry]) -> None:
    """Raises QuestionError for an id that is there twice, or taken: answers would be mixed."""
    first: dict[str, str] = {}
    for entry in entries:
        for id in dict.fromkeys([entry.row.id, *(question.id for question in entry.row.questions())]):
            if id == ALL_QUESTIONS:
                what = f"no question may be called {id!r}: all of them together are"
                raise QuestionError(what, where=entry.where, remedy=RENAME)
            if id in first:
                what = f"the id {id!r} is here twice; first at {first[id]}"
                raise QuestionError(what, where=entry.where, remedy=RENAME)
            first[id] = entry.where


def samples_of(suite: Suite, entries: Sequence[Entry]) -> int:
    """Answers a question and run: the suite's, else the file's own, else 100; never more than `at_most`.

    Raises QuestionError where the file's questions differ: a suite has one number.
    """
    if suite.samples is not None:
        return min(suite.samples, suite.at_most or suite.samples)
    own: dict[int, Entry] = {}
    for entry in entries:
        own.setdefault(entry.row.samples_per_paraphrase or SAMPLES, entry)
    if len(own) > 1:
        (few, one), (more, other) = list(own.items())[:2]
        raise QuestionError(
            f"{one.row.id!r} has {few} samples a phrasing and {other.row.id!r} ({other.where}) {more}",
            where=one.where,
            remedy="Set `samples` in the suite, or put them into suites of their own with `only`.",
        )
    samples = next(iter(own), SAMPLES)
    return min(samples, suite.at_most or samples)


def judge_of(entries: Sequence[Entry]) -> str | None:
    """The judge model that the entries name, such as `gpt-4o-2024-08-06`; None where they name none.

    Raises QuestionError where they name several.
    """
    named: dict[str, Entry] = {}
    for entry in entries:
        if entry.row.judge is not None:
            named.setdefault(entry.row.judge, entry)
    if len(named) > 1:
        (judge, one), (another, other) = list(named.items())[:2]
        raise QuestionError(
            f"{one.row.id!r} names the judge {judge!r} and {other.row.id!r} ({other.where}) {another!r}",
            where=one.where,
            remedy="Set `judge` in the experiment to one of them.",
        )
    return next(iter(named), None)


def prompts_of(suite: Suite, entries: Sequence[Entry]) -> dict[str, JudgePrompt]:
    """The judge prompts of the file that the suite's rubrics name, by the suite's names.

    Raises:
        QuestionError: a question has no such prompt, or two of them have different ones under one name.
    """
    found: dict[str, JudgePrompt] = {}
    for entry in entries:
        for name in suite.rubrics:
            prompt = _prompt(entry, name)
            first = found.setdefault(name, prompt)
            if (first.text, first.reads) != (prompt.text, prompt.reads):
                raise QuestionError(
                    f"the judge prompt {name!r} of {entry.row.id!r} differs from that at {first.where}",
                    where=prompt.where,
                    remedy="Rename one of them, or put the questions into suites of their own with `only`.",
                )
    return found


def _prompt(entry: Entry, name: str) -> JudgePrompt:
    prompts = {RUBRIC_NAMES.get(own, own): own for own in entry.row.judge_prompts}
    if name not in prompts or entry.reads is None:
        has = f"Its judge prompts are {', '.join(prompts)}" if prompts else "It has none"
        raise QuestionError(
            f"the question {entry.row.id!r} has no judge prompt for the rubric {name!r}",
            where=entry.where,
            remedy=f"{has}: correct the suite's `rubrics`, or leave the question out with `only`.",
        )
    own = prompts[name]
    return JudgePrompt(name, entry.row.judge_prompts[own], entry.reads, entry.prompts_at[own])
