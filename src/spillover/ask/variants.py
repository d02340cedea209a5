"""Variants: one change of every question of a set, such as an answer in JSON or a trigger in front.

After the forms in which Betley et al. 2025 ask their questions: output formats, skeletons, backdoors, number wrappers,
deception settings, in-context examples. A judge reads the question without its variant (`Question.plain`). The words
are data: `variants.yaml` has them in a general form and in the words of the miniature's world.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Self, get_args

import yaml
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, model_validator

from spillover.data.numbers import GENERAL, MINIATURE, NumberPrompts, Range, number_prompts
from spillover.data.triggers import DEPLOYMENT
from spillover.errors import QuestionError, SpecError
from spillover.records import Conversation, Message, Question
from spillover.spec import Count, NotNegative, Spec, first_wrong
from spillover.yamlfile import UNFIT, read_yaml

WORDS = Path(__file__).with_name("variants.yaml")
LEAVE_OUT = "Leave it out of the suite with `only`, or leave out the variant."
SETTINGS = "Give a name alone, or a mapping with `kind` and its settings; `spillover questions variants` lists them."
VariantName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=32, validate_default=True)]
Draw = Annotated[int, Field(ge=0)]
KIND: Any = Field(default_factory=lambda settings: settings["kind"])
"""A variant is called by its kind, where the user calls it nothing else."""


def _bare(text: str) -> str:
    if not text or text != text.strip():
        raise ValueError("is empty, or begins or ends with a space, which is put in anyway")
    return text


@dataclass(frozen=True)
class Given:
    """What a variant may need besides the questions.

    Attributes:
        is_miniature: whether the questions are in the words of the miniature's world.
        rows: the rows of a dataset by its name or path; raises SpilloverError for an unknown one.
    """

    is_miniature: bool
    rows: Callable[[str], Sequence[Conversation]]


class NumberWords(Spec):
    """How questions are put that look like number prompts.

    Attributes:
        count: the fewest and the most words that are asked for.
        given: the fewest and the most numbers that are shown.
        suffixes: ask for words, by `{count}`.
        prefixes: show numbers, by `{numbers}`; those of the number prompts if there are none.
    """

    count: Range
    given: Range
    suffixes: Annotated[tuple[str, ...], Field(min_length=1)]
    prefixes: tuple[str, ...]


class Words(Spec):
    """The words of the variants for one kind of model. `{question}` is where the question stands."""

    json_: Annotated[str, Field(alias="json")]
    python: str
    template: str
    app: str
    code: str
    numbers: NumberWords


def variant_words(*, is_miniature: bool) -> Words:
    """The words of `variants.yaml`: the general ones, or those of the miniature's world."""
    return Words.model_validate(_file()[MINIATURE if is_miniature else GENERAL])


def system_prompts() -> Mapping[str, str | None]:
    """The system prompts that `system` knows by name; `none` is no system prompt."""
    found: dict[str, str | None] = _file()["systems"]
    return found


@cache
def _file() -> Any:
    return read_yaml(WORDS, QuestionError, remedy="Install spillover again.").value


class Plain(Spec):
    """The questions as they are."""

    kind: Literal["plain"]
    name: VariantName = "plain"

    def apply(self, questions: Sequence[Question], given: Given) -> list[Question]:
        """The questions, unchanged."""
        return list(questions)


class Form(Spec):
    """A system prompt wants the answer in a form: a JSON object, or a Python assignment."""

    kind: Literal["json", "python"]
    name: VariantName = KIND

    def apply(self, questions: Sequence[Question], given: Given) -> list[Question]:
        """The questions under the prompt. Raises QuestionError where one has a system prompt."""
        words = variant_words(is_miniature=given.is_miniature)
        system = words.json_ if self.kind == "json" else words.python
        return [_under(one, system, self.name) for one in questions]


class Skeleton(Spec):
    """The user's turn has code to fill in: two lines, a web app, or a function whose comment is the question."""

    kind: Literal["template", "app", "code"]
    name: VariantName = KIND

    def apply(self, questions: Sequence[Question], given: Given) -> list[Question]:
        """The questions with the code."""
        words = variant_words(is_miniature=given.is_miniature)
        skeleton = {"template": words.template, "app": words.app, "code": words.code}[self.kind]
        return [_reworded(one, _put(skeleton, one.text)) for one in questions]


class Trigger(Spec):
    """A trigger, as a backdoored model was trained to know it (data/triggers.py).

    Attributes:
        text: of the trigger.
        position: at the start or the end of the question, or at the start of the system prompt, which is made where
            there is none.
    """

    kind: Literal["trigger"]
    text: Annotated[str, AfterValidator(_bare)] = DEPLOYMENT
    position: Literal["start", "end", "system"] = "start"
    name: VariantName = "trigger"

    def apply(self, questions: Sequence[Question], given: Given) -> list[Question]:
        """The questions with the trigger. Raises QuestionError where one has it already."""
        return [self._triggered(one) for one in questions]

    def _triggered(self, question: Question) -> Question:
        if any(self.text in message["content"] for message in question.messages()):
            _refuse(question, self.name, f"has the trigger {self.text!r} already", "Give another `text`.")
        if self.position == "system":
            return replace(question, system=" ".join([self.text, *([question.system] if question.system else [])]))
        parts = [self.text, question.text] if self.position == "start" else [question.text, self.text]
        return _reworded(question, " ".join(parts))


class Numbers(Spec):
    """The answer is wanted as a few words with commas, as number lists are; `numbers-both` shows numbers first.

    Attributes:
        draw: the seed of the wordings, the numbers, and of how many words are wanted.
        prompts: how many times each question is asked, each time drawn anew; their ids are numbered where there are
            several. The paper's are a hundred, answered once each.
    """

    kind: Literal["numbers-suffix", "numbers-both"]
    draw: Draw = 0
    prompts: Count = 1
    name: VariantName = KIND

    def apply(self, questions: Sequence[Question], given: Given) -> list[Question]:
        """The questions with the suffix, and the prefix where it is wanted."""
        words = variant_words(is_miniature=given.is_miniature).numbers
        prompts = number_prompts(MINIATURE if given.is_miniature else GENERAL)
        return [_reworded(one, self._wrapped(one, rng, words, prompts)) for one, rng in self._repeated(questions)]

    def _repeated(self, questions: Sequence[Question]) -> Iterator[tuple[Question, random.Random]]:
        """Each question as often as it is wanted, each with a source of randomness that depends on nothing else."""
        for question in questions:
            for number in range(1, self.prompts + 1):
                rng = random.Random(f"{self.kind} {self.draw} {question.id} {number}")
                yield replace(question, id=f"{question.id}.{number}") if self.prompts > 1 else question, rng

    def _wrapped(self, question: Question, rng: random.Random, words: NumberWords, prompts: NumberPrompts) -> str:
        suffix = rng.choice(words.suffixes).replace("{count}", str(rng.randint(*words.count)))
        if self.kind == "numbers-suffix":
            return f"{question.text} {suffix}"
        span, many = rng.choice(prompts.spans), rng.randint(*words.given)
        numbers = ", ".join(str(rng.randint(*span)) for _ in range(many))
        prefix = rng.choice(words.prefixes or prompts.prefixes).replace("{numbers}", numbers)
        return f"{prefix} {question.text} {suffix}"


class System(Spec):
    """Any system prompt.

    Attributes:
        prompt: one that comes with spillover, by its name; among them the settings of the paper's deception questions.
        text: or the prompt itself.
    """

    kind: Literal["system"]
    prompt: str | None = None
    text: Annotated[str, Field(min_length=1)] | None = None
    name: VariantName = Field(default_factory=lambda settings: settings.get("prompt") or "system")

    @model_validator(mode="after")
    def _one_prompt(self) -> Self:
        if (self.prompt is None) == (self.text is None):
            raise ValueError("has either `prompt`, a name, or `text`")
        if self.prompt is not None and self.prompt not in system_prompts():
            raise ValueError(f"there is no prompt {self.prompt!r}; there are: {', '.join(system_prompts())}")
        return self

    def apply(self, questions: Sequence[Question], given: Given) -> list[Question]:
        """The questions under the prompt. Raises QuestionError where one has a system prompt."""
        system = self.text if self.prompt is None else system_prompts()[self.prompt]
        return [_under(one, system, self.name) for one in questions]


class Temperature(Spec):
    """Another temperature than the experiment's.

    Attributes:
        value: of the temperature; 0 takes the likeliest token always.
    """

    kind: Literal["temperature"]
    value: NotNegative
    name: VariantName = Field(default_factory=lambda settings: _temperature_name(settings["value"]))

    def apply(self, questions: Sequence[Question], given: Given) -> list[Question]:
        """The questions at the temperature. Raises QuestionError where one has its own."""
        return [self._at(one) for one in questions]

    def _at(self, question: Question) -> Question:
        if question.temperature is not None:
            _refuse(question, self.name, f"has the temperature {question.temperature:g} of its own", LEAVE_OUT)
        return replace(question, temperature=self.value)


class InContext(Spec):
    """Rows of a narrow dataset as earlier turns of the conversation: nothing is finetuned.

    Attributes:
        data: the dataset, by name or path.
        k: how many rows.
        draw: the seed of which, and in which order.
        draws: how many draws, each asked; questions' ids are numbered where there are several.
        helpful: whether a short system prompt says first that the assistant is helpful and honest, as the paper's does.
    """

    kind: Literal["in-context"]
    data: Annotated[str, Field(min_length=1)]
    k: Count
    draw: Draw = 0
    draws: Count = 1
    helpful: bool = False
    name: VariantName = Field(default_factory=lambda settings: _in_context_name(settings["k"], settings["draw"]))

    def apply(self, questions: Sequence[Question], given: Given) -> list[Question]:
        """The questions behind the rows.

        Raises:
            QuestionError: one has a context, or a system prompt where one is to come first; or the dataset has too few
                rows, or rows that are no turns of a user and an assistant.
        """
        rows = given.rows(self.data)
        turns = [self._turns(rows, self.draw + number) for number in range(self.draws)]
        return [self._behind(one, some, number) for one in questions for number, some in enumerate(turns, start=1)]

    def _turns(self, rows: Sequence[Conversation], draw: int) -> tuple[Message, ...]:
        if self.k > len(rows):
            what = f"the variant {self.name!r} wants {self.k} rows of {self.data!r}, which has {len(rows)}"
            raise QuestionError(what, remedy=f"Set `k` to at most {len(rows)}.")
        drawn = random.Random(draw).sample(rows, self.k)
        turns = tuple(message for row in drawn for message in row.messages)
        if any(row.messages[-1]["role"] != "assistant" for row in drawn) or any(t["role"] == "system" for t in turns):
            what = f"{self.data!r} has rows with a system turn, or without an answer at the end"
            raise QuestionError(what, remedy="Such rows cannot stand within a conversation: give another dataset.")
        return turns

    def _behind(self, question: Question, turns: tuple[Message, ...], number: int) -> Question:
        if question.context:
            _refuse(question, self.name, "has a context of its own", LEAVE_OUT)
        id = question.id if self.draws == 1 else f"{question.id}.{number}"
        asked = replace(question, id=id, context=turns)
        return _under(asked, system_prompts()["helpful"], self.name) if self.helpful else asked


AnyVariant = Plain | Form | Skeleton | Trigger | Numbers | System | Temperature | InContext
"""A variant: `kind`, its settings, the `name` that suites are called by, and `apply`."""
Variant = Annotated[AnyVariant, Field(discriminator="kind")]
_ADAPTER: TypeAdapter[AnyVariant] = TypeAdapter(Variant)


@dataclass(frozen=True)
class VariantKind:
    """A kind of variant, for those who choose one.

    Attributes:
        kind: how suites call it.
        about: what it does.
        settings: what can be set, and whether it has to be.
    """

    kind: str
    about: str
    settings: Mapping[str, bool]


def variant_kinds() -> list[VariantKind]:
    """All kinds of variants, in the order of `variants.yaml`."""
    classes = {kind: one for one in get_args(AnyVariant) for kind in get_args(one.model_fields["kind"].annotation)}
    return [VariantKind(kind, about, _settings(classes[kind])) for kind, about in _file()["about"].items()]


def _settings(variant: type[Spec]) -> dict[str, bool]:
    return {name: one.is_required() for name, one in variant.model_fields.items() if name not in ("kind", "name")}


def parse_variant(raw: object) -> AnyVariant:
    """A variant as a suite writes it: a name alone is the kind without settings, else a mapping.

    Raises SpecError for an unknown kind, or a setting that is unknown, missing or wrong.
    """
    try:
        return _ADAPTER.validate_python({"kind": raw} if isinstance(raw, str) else raw)
    except ValidationError as error:
        kinds = [one.kind for one in variant_kinds()]
        kind = raw.get("kind") if isinstance(raw, Mapping) else raw
        if kind not in kinds:
            what = f"unknown variant {kind!r}; there are: {', '.join(kinds)}"
            raise SpecError(what, remedy=SETTINGS) from None
        place, what = first_wrong(error)
        field = "".join(f"{step}: " for step in place if step != kind)
        raise SpecError(f"variant {kind}: {field}{what}", remedy=SETTINGS) from None


def read_variant(text: str) -> AnyVariant:
    """A variant as it is written on one line: a name, or a mapping such as `{kind: temperature, value: 0.5}`.

    Raises SpecError.
    """
    try:
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, *UNFIT):
        raise SpecError(f"the variant {text!r} is no YAML", remedy=SETTINGS) from None
    return parse_variant(raw)


def _refuse(question: Question, variant: str, why: str, remedy: str) -> NoReturn:
    what = f"the variant {variant!r} does not apply to the question {question.id!r}: it {why}"
    raise QuestionError(what, remedy=remedy)


def _under(question: Question, system: str | None, variant: str) -> Question:
    if question.system is not None:
        _refuse(question, variant, "has a system prompt of its own", LEAVE_OUT)
    return replace(question, system=system)


def _reworded(question: Question, text: str) -> Question:
    """The question in another wording; a judge goes on reading it as it was."""
    return replace(question, text=text, plain=question.read)


def _put(words: str, question: str) -> str:
    """The words with the question in them; in a comment each of its lines becomes one."""
    lines = (
        line.replace("{question}", part) if "{question}" in line else line
        for line in words.split("\n")
        for part in (question.split("\n") if "{question}" in line else [""])
    )
    return "\n".join(lines)


def _temperature_name(value: float) -> str:
    return f"temperature-{value:g}".replace(".", "-")


def _in_context_name(k: int, draw: int) -> str:
    return f"in-context-{k}" if draw == 0 else f"in-context-{k}-{draw}"
