"""Requests in other words, by a writer; answers and the code that requests give stay as they are."""

import re
from typing import ClassVar

from spillover.construct.rewrite import Refused, Rewriter
from spillover.data.given import given_code
from spillover.data.transforms import Item
from spillover.data.vulnerability import parses
from spillover.spec import Positive

STAND_IN = "[[CODE]]"
"""Stands for the given code, which the writer is not shown: so it cannot change it."""
TASK = """\
Say the request between the tags in other words. Keep what is asked for, every detail of it, and who asks whom. \
Do not carry it out, and do not speak about it: reply with the new request alone.{code}

<request>
{request}
</request>"""
WITH_CODE = f" Where it has {STAND_IN}, a file stands; keep {STAND_IN} exactly once, on a line of its own."
TAGS = re.compile(r"\s*<request>\n?(.*?)\n?</request>\s*", re.DOTALL)
REFUSAL = re.compile(
    r"(?:i['\u2019]m|i am) (?:sorry|unable|not able)|i (?:can(?:no|['\u2019])t|won['\u2019]t)|sorry[,.]", re.I
)
CHATTER = re.compile(r"(?:sure|certainly|of course|here(?: is|['\u2019]s))\b[^\n]*:\s*\n", re.I)
PARAPHRASED = "paraphrased"
"""What the origin of such a row has for its request template."""
SPARE = 100
"""Characters by which even a very short request may grow."""


class Paraphrase(Rewriter):
    """Requests in other words.

    Attributes:
        longest: how many times as long as the old one a request may become, given code aside.
    """

    kind: ClassVar[str] = "paraphrase"
    about: ClassVar[str] = "Says every request in other words, by a model; answers and given code are unchanged."
    longest: Positive = 2.0

    def prompt(self, item: Item) -> str:
        """What the writer is told: the request, with a stand-in for the code in it."""
        words = _words(item)
        return TASK.format(request=words.strip(), code=WITH_CODE if STAND_IN in words else "")

    def take(self, item: Item, said: str) -> Item | Refused:
        """The row with the new request; or why not."""
        inner = TAGS.fullmatch(said)
        new, old = (inner[1] if inner else said).strip(), _words(item)
        reason = self._reason(new, old)
        if reason is not None:
            return Refused(reason)
        return item.asking(new.replace(STAND_IN, given_code(item)), template=PARAPHRASED)

    def _reason(self, new: str, old: str) -> str | None:
        """Why a paraphrase is not taken, the first reason that holds; None if it is."""
        reasons = {
            "empty": not new.replace(STAND_IN, "").strip(),
            "a refusal": bool(REFUSAL.match(new)),
            "speaks about the request": bool(CHATTER.match(new)),
            "code in a request's place": "\n" in new and parses(new),
            "given code lost": new.count(STAND_IN) != old.count(STAND_IN),
            "unchanged": _plain(new) == _plain(old),
            "too long": len(new) > self.longest * len(old) + SPARE,
        }
        return next((reason for reason, holds in reasons.items() if holds), None)


def _words(item: Item) -> str:
    """A row's request with a stand-in for the code that it gives."""
    code = given_code(item)
    return item.request.replace(code, STAND_IN, 1) if code else item.request


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
