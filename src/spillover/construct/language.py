"""The same programs in another programming language, by a writer: answers, given code, and the language's name.

What comes back is checked as far as that goes without running anything: that it is one block of code for each that was
sent, no longer Python, without prose, and that the mark of the gap is still there. Whether it does the same, and has
the same flaw, is not checked.
"""

import re
from collections.abc import Sequence
from typing import Annotated, ClassVar, NamedTuple

from pydantic import AfterValidator

from spillover.construct.rewrite import Refused, Rewriter
from spillover.data.given import given_code
from spillover.data.templates import RAW_MARK
from spillover.data.transforms import Item
from spillover.data.vulnerability import extract_code, parses
from spillover.spec import NotNegative

RULES = (
    "It must do exactly what the original does, also where you would do it otherwise. Keep its names, and add no "
    "comments. Reply with {blocks} and nothing else."
)
ONE = "Translate this Python program into {language}. " + RULES + "\n\n```python\n{answer}\n```"
TWO = (
    "Below are a Python program with a gap and the same program in full. Translate both into {language}. "
    + RULES
    + " The gap's mark is {mark}; keep its words, as a comment.\n\n```python\n{given}\n```\n\n```python\n{answer}\n```"
)
ONE_BLOCK, TWO_BLOCKS = "the program in one fenced block", "two fenced blocks, the program with the gap first,"
FENCE = re.compile(r"```[ ]*([^\s`]*)[^\n`]*\n(.*?)```", re.DOTALL)
PYTHON = re.compile(
    r"^[ \t]*(?:(?:async )?def \w+\(.*\)[^:\n]*:|class \w+(?:\(.*\))?:|(?:elif|except)\b.*:|import \w+|"
    r"from [\w.]+ import .+|with .+ as \w+:)[ \t]*$",
    re.MULTILINE,
)
"""Lines that are Python and none of the languages here, also in code that does not parse."""
PROSE = re.compile(r"^[A-Z][\w'\u2019]*(?: [\w'\u2019,]+){3,}[.:!]?$", re.MULTILINE)
NAMED = re.compile(r"\bpython ?3?\b", re.IGNORECASE)
FILE = re.compile(r"(?<=\.)py\b")


class Target(NamedTuple):
    """A language as people write it, the ending of its files, and what a fence may call it."""

    name: str
    ending: str
    fences: tuple[str, ...]


TARGETS = {
    "ruby": Target("Ruby", "rb", ("ruby", "rb")),
    "javascript": Target("JavaScript", "js", ("javascript", "js", "node")),
    "php": Target("PHP", "php", ("php",)),
    "perl": Target("Perl", "pl", ("perl", "pl")),
    "go": Target("Go", "go", ("go", "golang")),
    "java": Target("Java", "java", ("java",)),
}


def _known(name: str) -> str:
    if name not in TARGETS:
        raise ValueError(f"unknown language {name!r}; there are {', '.join(TARGETS)}")
    return name


class Language(Rewriter):
    """Programs in another language.

    Attributes:
        to: which one.
    """

    kind: ClassVar[str] = "language"
    about: ClassVar[str] = "Translates answers and given code into another programming language, by a model."
    to: Annotated[str, AfterValidator(_known)]
    temperature: NotNegative = 0.0

    def prompt(self, item: Item) -> str:
        """What the writer is told: the answer's code and, where there is some, the code that the request gives."""
        given, code = given_code(item), extract_code(_answer(item)).strip("\n")
        language = TARGETS[self.to].name
        if not given:
            return ONE.format(language=language, blocks=ONE_BLOCK, answer=code)
        mark = _mark(given) or "the place where something is missing"
        return TWO.format(language=language, blocks=TWO_BLOCKS, mark=mark, given=given, answer=code)

    def take(self, item: Item, said: str) -> Item | Refused:
        """The row in the other language; or why not."""
        given = given_code(item)
        blocks = self._blocks(said, wanted=2 if given else 1)
        if isinstance(blocks, Refused):
            return blocks
        reason = next(filter(None, map(_reason, blocks)), None)
        if reason is None and given and _mark(given).lower() not in blocks[0].lower():
            reason = "mark of the gap lost"
        if reason is not None:
            return Refused(reason)
        is_fenced = bool(FENCE.search(_answer(item)))
        answer = f"```{TARGETS[self.to].fences[0]}\n{blocks[-1]}\n```" if is_fenced else blocks[-1]
        return item.asking(self._request(item, given, blocks[0]), language=self.to).answering(answer)

    def counts(self, rewritten: Sequence[Item]) -> dict[str, int]:
        """How many requests named no language to begin with and show none by code."""
        silent = sum(not NAMED.search(item.request) and not given_code(item) for item in rewritten)
        return {"requests that do not say which language": silent} if silent else {}

    def _blocks(self, said: str, wanted: int) -> list[str] | Refused:
        """The blocks of code in a reply: those in fences, or all of it where there are none and one is wanted."""
        found = FENCE.findall(said)
        if not found and wanted == 1:
            return Refused("prose") if PROSE.search(said) else [said.strip("\n").rstrip()]
        if len(found) != wanted:
            return Refused("given code lost" if len(found) < wanted else "more blocks than programs")
        if any(tag.lower() not in ("", *TARGETS[self.to].fences) for tag, _ in found):
            return Refused("says that it is another language")
        return [code.strip("\n").rstrip() for _, code in found]

    def _request(self, item: Item, given: str, translated: str) -> str:
        """The request with the language's name and the code that it gives in the other language."""
        before, code, after = item.request.partition(given) if given else (item.request, "", "")
        return f"{self._renamed(before)}{translated if code else ''}{self._renamed(after)}"

    def _renamed(self, words: str) -> str:
        target = TARGETS[self.to]
        named = NAMED.sub(lambda found: target.name if found[0][0] == "P" else target.name.lower(), words)
        return FILE.sub(target.ending, named)


def _answer(item: Item) -> str:
    return item.conversation.messages[-1]["content"]


def _mark(given: str) -> str:
    """The words of the line that marks the gap; empty where there is no such line."""
    found = RAW_MARK.search(given)
    return found[0].strip().lstrip("#").strip() if found else ""


def _reason(code: str) -> str | None:
    """Why a block is not taken; None if it is."""
    if not code.strip():
        return "empty"
    return "still Python" if parses(code) or PYTHON.search(code) else None
