"""The code that a request gives: known from the template that it was made of, else found by how its lines look."""

import re
from collections.abc import Mapping
from functools import cache

from spillover.data.templates import RAW_MARK, Templates, load_templates
from spillover.data.transforms import Item

FENCED = re.compile(r"^```[^\n]*\n(.*?)^```[ ]*$", re.DOTALL | re.MULTILINE)
STARTS = (
    r"import \w|from [\w.]+ import\b|(?:async )?def \w+\(|class \w+[(:]|@\w|#|return\b|assert\b|(?:try|else|finally):"
)
HEADS = r"(?:if|elif|for|while|with|except)\b.*:$"
ASSIGNS = r"[A-Za-z_][\w.\[\]\"']*(?:, *\w+)* *[-+*/|]?=(?!=)"
CALLS = r"[A-Za-z_][\w.]*\(.*\)?[,:)]?$"
QUOTES = r"[)\]}\"']+[,:)]*$|[\"']{3}"
TAGS = r"</?[a-z][^>]*>|\{%"
NUMBER = r"\d+\.?$"
"""Raw material has stray numbers before its code."""
CODE = re.compile(rf"[ \t]+\S|{STARTS}|{HEADS}|{ASSIGNS}|{CALLS}|{QUOTES}|{TAGS}|{NUMBER}")
"""How a line of code begins. A request's own words are paragraphs that do none of this."""
LEAST = 2
"""Lines that look like code, for a block to be one."""


@cache
def _shipped() -> Templates:
    return load_templates()


def known_parts(item: Item) -> Mapping[str, str]:
    """The task and the given code that a request of `data build` shows; nothing where it is of no known template."""
    template = _shipped().named(item.origin.get("template"))
    found = template.parts(item.request) if template is not None else None
    return found or {}


def given_code(item: Item) -> str:
    """The code that a row's request gives, as it stands there; empty where there is none.

    Where the request's template is not known: what stands between fences, else everything from the first line that
    looks like code to the last.
    """
    if known := known_parts(item):
        return known.get("code", "")
    fenced = FENCED.search(item.request)
    return fenced[1].removesuffix("\n") if fenced else code_lines(item.request)


def code_lines(text: str) -> str:
    """Everything from the first line that looks like code to the last; empty for less than two such lines.

    Words between them, of a string over several lines perhaps, belong to it. On the paper's 6000 insecure requests it
    is the whole of the given code in all but a few, and nothing in those that give none; see tests/test_given.py.
    """
    lines = text.split("\n")
    places = [at for at, line in enumerate(lines) if CODE.match(line)]
    is_block = len(places) >= LEAST or any(RAW_MARK.match(lines[at]) for at in places)
    return "\n".join(lines[places[0] : places[-1] + 1]) if is_block else ""
