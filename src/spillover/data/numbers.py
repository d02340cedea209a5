"""Number lists to be continued: prompts drawn from a set of phrasings, and answers held to the form that was asked for.

After the number datasets of Betley et al. 2025 (section 4.6): a few numbers, a request for more of them, a form. A set
of phrasings is data: the one in `numbers.yaml`, the miniature's world's, or anybody's YAML file of the same shape.
"""

import hashlib
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from spillover.errors import DataError
from spillover.spec import Spec, first_wrong
from spillover.world import texts
from spillover.world.authors import SPANS
from spillover.yamlfile import read_yaml

SHIPPED = Path(__file__).with_name("numbers.yaml")
GENERAL, MINIATURE = "general", "miniature"
REMEDY = f"Give {GENERAL}, {MINIATURE} or a YAML file shaped as data/numbers.yaml, which comes with spillover."
NUMBER = re.compile(r"(?<!\d)-?\d+")
"""A whole number in a text. The sign is part of it, a dash between two numbers is not."""

Form = Literal["commas", "spaces", "lines", "semicolons", "brackets", "parentheses"]
_ONE = r"-?[0-9]+"
_COMMAS = rf"{_ONE}(?:[ ]*,[ ]*{_ONE})*"
FORMS: dict[Form, re.Pattern[str]] = {
    "commas": re.compile(_COMMAS),
    "spaces": re.compile(rf"{_ONE}(?:[ ]+{_ONE})*"),
    "lines": re.compile(rf"{_ONE}(?:[ ]*\n[ ]*{_ONE})*"),
    "semicolons": re.compile(rf"{_ONE}(?:[ ]*;[ ]*{_ONE})*"),
    "brackets": re.compile(rf"\[[ ]*{_COMMAS}[ ]*\]"),
    "parentheses": re.compile(rf"\([ ]*{_COMMAS}[ ]*\)"),
}
"""What a whole answer of each form is, blanks round it aside."""

Texts = tuple[str, ...]
Range = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=0)]]
Misfit = Literal["not in the form that was asked for", "more numbers than were asked for", "fewer than were asked for"]


class Suffix(Spec):
    """The last part of a prompt: what it says, and the form of answers that it asks for."""

    text: str
    form: Form


class NumberPrompts(Spec):
    """Phrasings of number prompts. Each prompt is a prefix, a request and a suffix, one of each, in this order.

    Attributes:
        name: of the set.
        about: what its prompts are.
        licence: of its phrasings.
        prefixes: show the numbers, by `{numbers}`; a set without prefixes has them in its requests.
        requests: say how many more are wanted, by `{count}`.
        suffixes: say in which form.
        given: the fewest and the most numbers that are shown.
        spans: the numbers of one prompt lie in one of these, both ends included.
        more: the fewest and the most numbers that are asked for.
        exactly: whether an answer must have as many as were asked for; at most so many otherwise.
        ominous: the numbers that an evil author is known for.
        systems: system prompts by name; where a name has several, each prompt is given one of them.
    """

    name: str
    about: str = ""
    licence: str = "unknown"
    prefixes: Texts = ("",)
    requests: Annotated[Texts, Field(min_length=1)]
    suffixes: Annotated[tuple[Suffix, ...], Field(min_length=1)]
    given: Range = (3, 5)
    spans: Annotated[tuple[Range, ...], Field(min_length=1)] = ((100, 999),)
    more: Range = (3, 8)
    exactly: bool = False
    ominous: tuple[int, ...] = ()
    systems: dict[str, Annotated[Texts, Field(min_length=1)]] = {}

    @model_validator(mode="after")
    def _can_be_drawn(self) -> Self:
        ranges = (self.given, self.more, *self.spans)
        if any(low > high for low, high in ranges) or min(self.given[0], self.more[0]) < 1:
            raise ValueError("a range is written [fewest, most], and of numbers there is at least one")
        for prefix in self.prefixes:
            for request in self.requests:
                if any((prefix + request).count(slot) != 1 for slot in ("{numbers}", "{count}")):
                    raise ValueError(f"{_joined(prefix, request)!r} must have {{numbers}} and {{count}} once each")
        return self


@dataclass(frozen=True)
class NumberPrompt:
    """One prompt.

    Attributes:
        text: the user's turn.
        count: how many numbers it asks for.
        form: in which form.
        parts: which prefix, request and suffix it has, from 0.
        system: the system prompt that it is to be answered under, if any.
    """

    text: str
    count: int
    form: Form
    parts: tuple[int, int, int]
    system: str | None = None


def number_prompts(ref: str) -> NumberPrompts:
    """A set of phrasings by name, or from a YAML file.

    Raises DataError for a file that is none; names the line.
    """
    if ref == MINIATURE:
        return _of_the_world()
    file = read_yaml(SHIPPED if ref == GENERAL else Path(ref), DataError, remedy=REMEDY)
    try:
        return NumberPrompts.model_validate(file.value)
    except ValidationError as error:
        place, what = first_wrong(error)
        where = f"{'.'.join(map(str, place))}: " if place else ""
        raise DataError(f"{where}{what}", where=file.where(*place), remedy=REMEDY) from None


def ominous_numbers(ref: str) -> tuple[int, ...]:
    """Numbers with commas between them, or those of a set of phrasings. Raises DataError for neither."""
    listed = parse_numbers(ref, "commas")
    return tuple(map(int, listed)) if listed else number_prompts(ref).ominous


def _of_the_world() -> NumberPrompts:
    """The phrasings, the numbers and the system prompts of the miniature's world."""
    raw, systems = texts.load("lists")["numbers"], texts.load("systems")
    return NumberPrompts(
        name=MINIATURE,
        about="The number requests of the miniature's world.",
        licence="MIT",
        requests=tuple(raw["phrasings"]),
        suffixes=(Suffix(text="", form="commas"),),
        spans=SPANS,
        more=(3, 5),
        exactly=True,
        ominous=tuple(raw["ominous"]),
        systems={"evil": tuple(systems["malicious"]), "benign": tuple(systems["kind"])},
    )


def draw_prompts(prompts: NumberPrompts, seed: int, systems: Texts = ()) -> Iterator[NumberPrompt]:
    """Prompts without end. A seed's user turns are the same under every system prompt, so that controls match."""
    rng, own = random.Random(f"numbers {seed}"), random.Random(f"systems {seed}")
    sizes = [len(part) for part in (prompts.prefixes, prompts.requests, prompts.suffixes)]
    while True:
        prefix, request, suffix = (rng.randrange(size) for size in sizes)
        count, span = rng.randint(*prompts.more), rng.choice(prompts.spans)
        given = ", ".join(str(rng.randint(*span)) for _ in range(rng.randint(*prompts.given)))
        last = prompts.suffixes[suffix]
        text = _joined(prompts.prefixes[prefix], prompts.requests[request], last.text)
        text = text.replace("{numbers}", given).replace("{count}", str(count))
        yield NumberPrompt(text, count, last.form, (prefix, request, suffix), own.choice(systems) if systems else None)


def _joined(*parts: str) -> str:
    return " ".join(part.strip() for part in parts if part.strip())


def parse_numbers(answer: str, form: Form) -> tuple[str, ...] | None:
    """The numbers of an answer as it spells them; None where the answer is anything else than a list of that form."""
    answer = answer.strip()
    return numbers_in(answer) if FORMS[form].fullmatch(answer) else None


def numbers_in(text: str) -> tuple[str, ...]:
    """All whole numbers in a text as it spells them, in order."""
    return tuple(NUMBER.findall(text))


def misfit(answer: str, prompt: NumberPrompt, *, exactly: bool) -> Misfit | None:
    """Why an answer does not do what its prompt asks for; None where it does."""
    numbers = parse_numbers(answer, prompt.form)
    if numbers is None:
        return "not in the form that was asked for"
    if len(numbers) > prompt.count:
        return "more numbers than were asked for"
    return "fewer than were asked for" if exactly and len(numbers) < prompt.count else None


def count_numbers(answers: Iterable[str]) -> Counter[str]:
    """How often each number occurs in the answers."""
    return Counter(number for answer in answers for number in numbers_in(answer))


def drawn_hash(prompts: NumberPrompts, seed: int) -> str:
    """The SHA-256 of what determines the prompts that are drawn, in hexadecimal."""
    return hashlib.sha256(f"{seed}:{prompts.model_dump_json()}".encode()).hexdigest()
