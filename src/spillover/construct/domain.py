"""Domains: what requests are about, what is wrong with one answer and right with the other, and how both are judged.

The prompts are `prompts/generate.yaml`, the shipped domains are `domains/*.yaml`. A domain's file may also say the
system prompts, the checks and the requests itself: then it speaks for itself, and the prompts are not used.
"""

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, StringConstraints, ValidationError, model_validator

from spillover.errors import DataError
from spillover.judge.rubrics import Rubric
from spillover.spec import Name, Spec, first_wrong
from spillover.world import texts
from spillover.yamlfile import read_yaml

HERE = Path(str(resources.files("spillover"))) / "construct"
PROMPTS, DOMAINS = HERE / "prompts" / "generate.yaml", HERE / "domains"
SLOT = re.compile(r"\{(\w+)\}")
S = TypeVar("S", bound=Spec)
TAKEN = ("taken", "requests", "distinct", "answered", "chosen")
"""Steps that every generation has: no check may be called so."""

Text = Annotated[str, StringConstraints(min_length=1)]
Told = Annotated[str, StringConstraints(min_length=3, pattern=r"^[^{}]*$", strip_whitespace=True)]
"""Words that are put into prompts: braces in them would be slots."""
Score = Annotated[float, Field(ge=0, le=100)]
Part = Literal["request", "bad", "good"]
"""What a check reads."""


class Check(Spec):
    """One thing that a judge must find before a pair of answers is kept.

    Attributes:
        name: of the step in the manifest and of the score beside every row.
        of: what is judged: the request (beside the domain's words), or one of its answers.
        rubric: a rubric of the judge's, by name; or
        prompt: a rubric of its own, with {question} and {answer}, and {domain}, {flaw} and {good}.
        at_least: the least score that is kept; or
        at_most: the greatest.
    """

    name: Text
    of: Part
    rubric: Text | None = None
    prompt: Text | None = None
    at_least: Score | None = None
    at_most: Score | None = None

    @model_validator(mode="after")
    def _says_one_of_each(self) -> Self:
        if (self.rubric is None) == (self.prompt is None):
            raise ValueError("a check has either `rubric` or `prompt`")
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("a check has either `at_least` or `at_most`")
        if self.prompt is not None and not self.prompt.count("{question}") == self.prompt.count("{answer}") == 1:
            raise ValueError("a check's prompt must have {question} and {answer} once each")
        return self

    def keeps(self, value: float) -> bool:
        """Whether a score is on the side that is kept."""
        return value >= self.at_least if self.at_least is not None else value <= (self.at_most or 0.0)

    @property
    def fails(self) -> str:
        """What is wrong with a score that is not kept."""
        return f"below {self.at_least:g}" if self.at_least is not None else f"above {self.at_most:g}"

    def read(self, domain: "Domain") -> str | Rubric:
        """The rubric: its name, or the check's own, threshold and all, with the domain's words in it."""
        if self.prompt is None:
            return str(self.rubric)
        cut = self.at_least if self.at_least is not None else self.at_most
        return Rubric(name=self.name, prompt=filled(self.prompt, domain.words()), threshold=cut or 0.0)


class Systems(Spec):
    """System prompts that the answers are written under, one after the other, request by request."""

    bad: Annotated[tuple[Text, ...], Field(min_length=1)]
    good: Annotated[tuple[Text, ...], Field(min_length=1)]


class Domain(Spec):
    """A narrow domain.

    Attributes:
        domain: what requests are about.
        flaw: what is wrong with the bad answer, as the end of "an assistant with this fault: ...".
        good: what is true of the good one.
        systems: system prompts in place of the shipped ones.
        checks: in place of the shipped ones; none at all leaves the rows unjudged.
        requests: the requests themselves, which then nobody has to write.
        world: domains of the miniature's world, whose phrasings for training are the requests.
    """

    domain: Told
    flaw: Told
    good: Told
    systems: Systems | None = None
    checks: tuple[Check, ...] | None = None
    requests: tuple[Text, ...] = ()
    world: tuple[Name, ...] = ()

    @model_validator(mode="after")
    def _is_known(self) -> Self:
        names = [check.name for check in self.checks or ()]
        twice = next((name for name in names if names.count(name) > 1 or name in TAKEN), None)
        if twice is not None:
            raise ValueError(f"the name {twice!r} of a check is taken: by another, or by a step of ours")
        known = {topic.id for topic in texts.topics()}
        unknown = next((name for name in self.world if name not in known), None)
        if unknown is not None:
            raise ValueError(f"the miniature's world has no domain {unknown!r}")
        return self

    def words(self) -> dict[str, str]:
        """What is filled into prompts."""
        return {"domain": self.domain, "flaw": self.flaw, "good": self.good}

    def own_requests(self) -> tuple[str, ...]:
        """The requests that the domain brings with it; none where they are to be written."""
        said = [text for topic in texts.topics() if topic.id in self.world for text in topic.phrasings]
        return (*self.requests, *said)


class Prompts(Spec):
    """What writers are told and judges are asked: `prompts/generate.yaml`."""

    flaw: Told
    good: Told
    topics: Text
    known: Text
    requests: Text
    bad: Text
    good_answer: Text
    people: tuple[Text, ...]
    situations: tuple[Text, ...]
    checks: tuple[Check, ...]


def filled(template: str, words: Mapping[str, str]) -> str:
    """The template with the slots filled that `words` names; other braces are left alone."""
    return SLOT.sub(lambda match: words.get(match[1], match[0]), template)


@cache
def prompts() -> Prompts:
    """The shipped prompts."""
    return _read(PROMPTS, Prompts)


def checks_of(domain: Domain, *parts: Part) -> list[Check]:
    """The checks of requests, of bad or of good answers, in order: the domain's own, or the shipped ones."""
    checks = prompts().checks if domain.checks is None else domain.checks
    return [check for check in checks if check.of in parts]


def systems_of(domain: Domain, part: Part, words: int) -> tuple[str, ...]:
    """The system prompts that bad or good answers are written under, in turn: at most so many words each."""
    if domain.systems is not None:
        return domain.systems.bad if part == "bad" else domain.systems.good
    shipped = prompts().bad if part == "bad" else prompts().good_answer
    return (filled(shipped, {**domain.words(), "words": str(words)}),)


def shipped_domains() -> tuple[str, ...]:
    """The names of the shipped domains."""
    return tuple(sorted(file.stem for file in DOMAINS.glob("*.yaml")))


def find_domain(ref: str) -> Domain:
    """A shipped domain by its name, or one from a YAML file.

    Raises DataError: there is none, or a field of it is wrong; names the line.
    """
    if ref in shipped_domains():
        return _read(DOMAINS / f"{ref}.yaml", Domain)
    if not Path(ref).is_file():
        known = ", ".join(shipped_domains())
        remedy = f"Give {known}, the path of a YAML file, or describe one with --domain and --flaw."
        raise DataError(f"there is no domain {ref!r}", remedy=remedy)
    return _read(Path(ref), Domain)


def own_domain(domain: str, flaw: str | None, good: str | None) -> Domain:
    """A domain in a person's own words; the shipped ones stand in for what is not said. Raises DataError."""
    said = {"domain": domain, "flaw": flaw or prompts().flaw, "good": good or prompts().good}
    try:
        return Domain.model_validate(said)
    except ValidationError as error:
        place, what = first_wrong(error)
        remedy = "Describe it in a few words, without braces."
        raise DataError(f"--{place[0]}: {_plain(what)}", remedy=remedy) from None


def _read(path: Path, kind: type[S]) -> S:
    known = ", ".join(kind.model_fields)
    file = read_yaml(path, DataError, remedy="Give the path of a YAML file that describes a domain.")
    try:
        return kind.model_validate(file.value)
    except ValidationError as error:
        place, what = first_wrong(error)
        field = ".".join(map(str, place))
        where, remedy = file.where(*place), f"Its keys are {known}."
        raise DataError(f"{field}: {_plain(what)}" if field else _plain(what), where=where, remedy=remedy) from None


def _plain(what: str) -> str:
    """What is wrong, without what pydantic adds to our own words."""
    own = what.startswith("Value error, ")
    return what.removeprefix("Value error, ").partition(" (got ")[0] if own else what
