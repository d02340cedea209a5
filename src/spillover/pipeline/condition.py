"""Conditions on answers, as SQL writes them behind WHERE. A condition looks at one answer and at nothing else.

Polars would also take subqueries, and table functions that open files. So a condition is let through only if each of
its words is a column, or a word or function of those below, and only then is it parsed.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NoReturn

import polars as pl

from spillover.errors import SpecError

WORDS = (
    *("and", "or", "not", "in", "is", "null", "true", "false", "like", "ilike", "regexp", "rlike", "between"),
    *("case", "when", "then", "else", "end"),
)
FUNCTIONS = (
    *(
        "abs",
        "ceil",
        "coalesce",
        "concat",
        "ends_with",
        "floor",
        "greatest",
        "least",
        "left",
        "length",
        "lower",
        "ltrim",
    ),
    *("nullif", "regexp_like", "replace", "reverse", "right", "round", "rtrim", "starts_with", "strpos", "substr"),
    *("trim", "upper"),
)
TOKEN = re.compile(
    r"""(?P<space>\s+)
    | (?P<text>'(?:[^']|'')*')
    | (?P<quoted>"[^"]*")
    | (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?!\w))
    | (?P<word>[^\W\d]\w*)
    | (?P<comment>--|/\*)
    | (?P<sign><=|>=|<>|!=|\|\||[-+*/%=<>(),])""",
    re.VERBOSE,
)
EXAMPLE = "For example: group = 'insecure' AND alignment < 30 AND answer LIKE '%human%'."


def condition(text: str, columns: Sequence[str]) -> pl.Expr:
    """A condition as an expression over a table with these columns.

    Raises SpecError where it cannot be read, or says a word that is neither a column nor among those that are known.
    """
    sql = "".join(_tokens(text, columns))
    try:
        return pl.sql_expr(sql)
    except pl.exceptions.PolarsError as error:
        wrong(text, f"cannot be read: {first_line(error)}", EXAMPLE)


def _tokens(text: str, columns: Sequence[str]) -> Iterator[str]:
    """What a condition is made of, every column in quotation marks: some have names that mean something in SQL."""
    place = 0
    while place < len(text):
        found = TOKEN.match(text, place)
        if found is None or found.lastgroup == "comment":
            wrong(text, f"cannot be read from {text[place : place + 20]!r} on", EXAMPLE)
        yield _quoted(found, text, columns) if found.lastgroup in ("word", "quoted") else found[0]
        place = found.end()


def _quoted(found: re.Match[str], text: str, columns: Sequence[str]) -> str:
    name = found[0].strip('"')
    if name in columns:
        return f'"{name}"'
    if found.lastgroup == "word" and name.lower() in WORDS:
        return name
    if found.lastgroup == "word" and name.lower() in FUNCTIONS and text[found.end() :].lstrip().startswith("("):
        return name
    wrong(text, f"there is no column {name!r}", f"Columns: {', '.join(columns)}. Texts stand in '...'. {EXAMPLE}")


def wrong(text: str, what: str, remedy: str) -> NoReturn:
    """Raises the SpecError of a condition."""
    raise SpecError(what, where=f"filter {text!r}", remedy=remedy) from None


def first_line(error: Exception) -> str:
    """What an error says before it goes into details."""
    return str(error).partition("\n")[0]
