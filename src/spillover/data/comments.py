"""Comments out of Python code, by its own rules for strings and comments, whether or not the code is whole.

The standard library's tokenizer gives up where code stops in the middle of a bracket or a string, and its view of
f-strings differs between versions of Python. So this is a scanner of its own: it knows strings and comments and
nothing else. On code that parses it finds the comments that the tokenizer finds (of f-strings as they were before
Python 3.12: without their own kind of quote inside).

HTML comments go too: in strings, because pages are often written as strings, and outside them, where they can only
stand in what is no Python. Other languages' comments in strings (`//`, `/* */`), and `#` in strings, are text.
"""

import re
from collections.abc import Iterator

_OPEN, _CLOSE = "<!--", "-->"
_BLANK = " \t\f"
_ESCAPE = r"\\(?:\r\n|.)?"
STRING_OR_COMMENT = re.compile(
    rf"""'''(?:[^'\\]|{_ESCAPE}|'(?!''))*+(?:''')?  # a string that nobody closed goes on to the end,
      |  \"""(?:[^"\\]|{_ESCAPE}|"(?!""))*+(?:\""")?
      |  '(?:[^'\\\r\n]|{_ESCAPE})*+'?              # or to the end of its line
      |  "(?:[^"\\\r\n]|{_ESCAPE})*+"?
      |  \#[^\r\n]*""",
    re.DOTALL | re.VERBOSE,
)
"""A string of Python code, without the letters before it, or a comment."""
_TOKEN = re.compile(rf"{STRING_OR_COMMENT.pattern}|{_OPEN}", STRING_OR_COMMENT.flags)
_LINE_END = re.compile(r"[ \t\f]*+(\r\n?|\n|\Z)")
_CONTINUED = ("\\\n", "\\\r", "\\\r\n")
_IN_STRING = re.compile(rf"\\.|(?<!<)(?<!<!)(?<!<!-){_OPEN}.*?{_CLOSE}", re.DOTALL)
"""An escape; or an HTML comment, unless what stands before it would make another one of what stands behind it."""
_SLOT = re.compile(r"[{}]|%[(sdrif]")
"""Where a string is filled in: without it, other values would go into the other slots."""


def without_comments(code: str) -> str:
    """The code without its comments; lines that held nothing else are gone, all other lines are as they were.

    What the code means stays, but for the HTML comments in its strings; those with a slot to be filled in are kept.
    Takes any text, in time linear in its length; doing it twice is doing it once.
    """
    kept: list[str] = []
    at = 0
    for start, end, instead in _changes(code):
        kept += [code[at:start], instead]
        at = end
    return "".join([*kept, code[at:]])


def _changes(code: str) -> Iterator[tuple[int, int, str]]:
    """What changes: from where to where, and what stands there instead."""
    at, last_close = 0, code.rfind(_CLOSE)
    while token := _TOKEN.search(code, at):
        before, (start, at) = at, token.span()
        if token[0] == _OPEN and at > last_close:
            continue
        if token[0] == _OPEN:
            at = code.index(_CLOSE, at) + len(_CLOSE)
        if token[0][0] in "#<":
            start, at, instead = _with_its_line(code, before, start, at)
            yield start, at, instead
        elif _OPEN in token[0]:
            yield start, at, _without_html(token[0], code[at : at + 1])


def _with_its_line(code: str, before: int, start: int, end: int) -> tuple[int, int, str]:
    """What goes with a comment: the space before it, and its line where nothing else is on it.

    Behind a backslash a line's end stays: else the line before would be joined to the one after, or to nothing.
    """
    rest = _LINE_END.match(code, end)
    if rest is None:
        return start, end, " "
    while start > before and code[start - 1] in _BLANK:
        start -= 1
    alone = start == 0 or code[start - 1] in "\r\n"
    continued = code[max(0, start - 3) : start].endswith(_CONTINUED)
    if alone and not continued:
        return start, rest.end(), ""
    return start, rest.start(1), "\n" if continued and not rest[1] else ""


def _without_html(literal: str, following: str) -> str:
    """A string's source without HTML comments; as it was where it would end elsewhere without them."""
    closed = literal.rfind(_CLOSE) + len(_CLOSE)
    changed = _IN_STRING.sub(_kept, literal[:closed]) + literal[closed:]
    whole = _TOKEN.match(changed + following)
    return changed if whole is not None and whole.end() == len(changed) else literal


def _kept(found: re.Match[str]) -> str:
    return found[0] if found[0].startswith("\\") or _SLOT.search(found[0]) else ""
