"""ChoiceScript's expressions and texts: parsed and computed here, within limits; nothing of them reaches Python's eval.

ChoiceScript is the language of choiceofgames.com. Values are numbers, truth values and texts. From loose to tight:

    or    and    = != < > <= >=    + - & %+ %-    * / % modulo    ^    #

`&` joins texts, `#` takes a character by its number, and `%+` and `%-` are shares of what is left up to 100 or down to
0. `{name}` is the variable that `name` names, `a[1]` the variable `a_1`; functions are not, round, length and log. In
texts `${x}` stands for a value, `$!{x}` for one with a capital, `$!!{x}` for one in capitals, and `@{x one|two}` for
one of several wordings.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Protocol

from spillover.ask.values import FUNCTIONS, MOST_SIGNS, OPERATIONS, Value, finite, number, text, told, truth, wrong
from spillover.data.lines import shown
from spillover.errors import QuestionError

MOST_DEPTH = 40
"""Brackets within brackets."""
CACHED = 2**16
TOKEN = re.compile(
    r'(?P<number>[0-9]+(?:\.[0-9]+)?|\.[0-9]+)|"(?P<text>(?:[^"\\]|\\.)*)"|(?P<word>[^\W\d]\w*)'
    r"|(?P<sign>%\+|%-|<=|>=|!=|[-+*/%^&#=<>(){}\[\]])|(?P<blank>\s+)",
    re.DOTALL,
)
LEVELS = {"or": 0, "and": 1} | dict.fromkeys(("=", "!=", "<", ">", "<=", ">="), 2)
LEVELS |= dict.fromkeys(("+", "-", "&", "%+", "%-"), 3) | dict.fromkeys(("*", "/", "%", "modulo"), 4) | {"^": 5, "#": 6}
PARTNERS = {"(": ")", "{": "}", "[": "]"}
PLACEHOLDER = re.compile(r"(?P<sign>[$@])(?P<capitals>!{0,2})\{")
RELATIVE = re.compile(r"%\+|%-|modulo\b|[-+*/%^&#]")
"""What a `*set` begins with that changes a value instead of replacing it."""


class Variables(Protocol):
    """Whoever knows the values of variables."""

    def read(self, name: str) -> Value:
        """The value of a variable by its name in lower case. Raises QuestionError where there is none."""
        ...


Expression = Callable[[Variables], Value]
Wording = Callable[[Variables], str]


@lru_cache(CACHED)
def expression(source: str, depth: int = 0) -> Expression:
    """An expression, ready to be computed. Raises QuestionError for what is none, or too deep or too long."""
    return _Parser(source, depth).whole()


@lru_cache(CACHED)
def variable(source: str, depth: int = 0) -> Wording:
    """What names a variable (`x`, `{x}`, `x[1]`), ready to say the name, in lower case. Raises QuestionError."""
    parser = _Parser(source, depth)
    found = parser.name()
    parser.end()
    return found


@lru_cache(CACHED)
def assigned(source: str, *, changes: bool) -> tuple[Wording, Expression]:
    """What stands behind `*set` or the like: the variable that is set, and to what.

    Args:
        source: the variable and a value.
        changes: whether what begins with an operator changes the old value, as in `*set gold +5`. All that follows the
            operator is its right side.
    """
    first = split(source, 1)
    target = variable(first[0]) if first else variable("")
    rest = first[1] if len(first) > 1 else '""'
    sign = RELATIVE.match(rest) if changes else None
    if sign is None:
        return target, expression(rest)
    operate, right = OPERATIONS[sign[0]], expression(rest[sign.end() :])
    return target, lambda variables: operate(variables.read(target(variables)), right(variables))


@lru_cache(CACHED)
def wording(source: str, depth: int = 0) -> Wording:
    """A text with its placeholders, ready to be told. Raises QuestionError."""
    if depth > MOST_DEPTH:
        raise wrong(f"wordings are nested more than {MOST_DEPTH} deep")
    parts, place = list[Wording](), 0
    while found := PLACEHOLDER.search(source, place):
        end = _closing(source, found.end() - 1)
        inner = source[found.end() : end]
        made = _value(inner, depth) if found["sign"] == "$" else _one_of(inner, depth)
        parts += [_said(source[place : found.start()]), _capitals(made, len(found["capitals"]))]
        place = end + 1
    parts.append(_said(source[place:]))
    return parts[0] if len(parts) == 1 else lambda variables: "".join(part(variables) for part in parts)


def _said(source: str) -> Wording:
    return lambda _: source


def _value(source: str, depth: int) -> Wording:
    found = expression(source, depth + 1)
    return lambda variables: text(found(variables))


def _capitals(part: Wording, count: int) -> Wording:
    if count == 0:
        return part
    if count == 2:
        return lambda variables: part(variables).upper()
    return lambda variables: (said := part(variables))[:1].upper() + said[1:]


def _one_of(source: str, depth: int) -> Wording:
    first = split(source, 1)
    if len(first) < 2:
        raise wrong(f"@{{{shown(source)}}} has no wordings to choose from")
    chooser = expression(first[0], depth + 1)
    options = [wording(option, depth + 1) for option in _cut(first[1], "|")]

    def said(variables: Variables) -> str:
        value = chooser(variables)
        place = (1 if value else 2) if isinstance(value, bool) else number(value)
        if place != int(place) or not 1 <= place <= len(options):
            raise wrong(f"there are {len(options)} wordings, and no number {told(value)}")
        return options[int(place) - 1](variables)

    return said


def _depths(source: str, opening: str = "({[", closing: str = ")}]", quote: str = '"') -> Iterable[int]:
    """How deep in brackets each character stands; the brackets themselves and what is quoted stand deep."""
    inside, quoted, escaped = 0, False, False
    for sign in source:
        closes = not quoted and sign in closing
        inside += not quoted and sign in opening
        is_quote = sign == quote and not escaped
        yield inside + quoted + is_quote
        inside = max(0, inside - closes)
        quoted, escaped = quoted != is_quote, quoted and sign == "\\" and not escaped


def _cut(source: str, at: str) -> list[str]:
    """A text, cut where a character stands outside all braces."""
    places = [n for n, depth in enumerate(_depths(source, "{", "}", "")) if depth == 0 and source[n] == at]
    return [source[begin + 1 : end] for begin, end in zip([-1, *places], [*places, len(source)], strict=True)]


def split(source: str, most: int = -1) -> list[str]:
    """Words, parted by blanks outside brackets and quotes.

    Args:
        source: the words.
        most: how many are parted; the rest is the last word.
    """
    words, word = list[str](), ""
    for place, depth in enumerate(_depths(source)):
        if depth == 0 and source[place].isspace():
            words += [word] if word else []
            word = ""
            if len(words) == most:
                rest = source[place:].strip()
                return [*words, rest] if rest else words
        else:
            word += source[place]
    return [*words, word] if word else words


def outside(source: str, sign: str) -> int:
    """The first place of a character outside brackets and quotes; -1 where there is none."""
    depths = enumerate(_depths(source))
    return next((place for place, depth in depths if depth == 0 and source[place] == sign), -1)


def _closing(source: str, begin: int) -> int:
    """The place of the brace that closes the one at `begin`. Raises QuestionError."""
    steps = ({"{": 1, "}": -1}.get(sign, 0) for sign in source[begin:])
    found = next((n for n, depth in enumerate(accumulate(steps)) if depth == 0), None)
    if found is None:
        raise wrong(f"a brace is not closed: {shown(source[begin:])}")
    return begin + found


class _Parser:
    """Makes expressions of tokens, by recursive descent with the operators' levels."""

    def __init__(self, source: str, depth: int) -> None:
        self.source, self.tokens, self.place, self.depth = source, _tokens(source), 0, depth

    def whole(self) -> Expression:
        found = self.binary(0)
        self.end()
        return found

    def end(self) -> None:
        if self.next != ("", ""):
            raise self.odd()

    @property
    def next(self) -> tuple[str, str]:
        """The next token's kind and text; empty at the end."""
        return self.tokens[self.place] if self.place < len(self.tokens) else ("", "")

    def odd(self) -> QuestionError:
        kind, found = self.next
        return wrong(f"{shown(self.source)} is no expression: {shown(found) if kind else 'its end'} is odd")

    def take(self, sign: str) -> None:
        if self.next != ("sign", sign):
            raise self.odd()
        self.place += 1

    def operator(self) -> str:
        kind, found = self.next
        return found.lower() if kind in ("sign", "word") and found.lower() in LEVELS else ""

    def binary(self, least: int) -> Expression:
        """Operands of operators of this level or a tighter one. One level's operators are computed in a loop."""
        left = self.unary()
        while (level := LEVELS.get(self.operator(), -1)) >= least:
            rest = list[tuple[str, Expression]]()
            while LEVELS.get(found := self.operator(), -1) == level:
                self.place += 1
                rest.append((found, self.binary(level + 1)))
            left = _chain(left, rest)
        return left

    def unary(self) -> Expression:
        minus = False
        while self.next in (("sign", "-"), ("sign", "+")):
            minus ^= self.next[1] == "-"
            self.place += 1
        found = self.primary()
        return (lambda variables: finite(-number(found(variables)))) if minus else found

    def primary(self) -> Expression:
        kind, found = self.next
        if kind == "number":
            self.place += 1
            return _constant(number(found))
        if kind == "text":
            self.place += 1
            return wording(re.sub(r"\\(.)", r"\1", found, flags=re.DOTALL), self.depth + 1)
        if (kind, found) == ("sign", "("):
            return self.inside("(")
        if kind == "word" and found.lower() in ("true", "false"):
            self.place += 1
            return _constant(found.lower() == "true")
        if kind == "word" and found.lower() in FUNCTIONS and self.tokens[self.place + 1 :][:1] == [("sign", "(")]:
            self.place += 1
            return _called(FUNCTIONS[found.lower()], self.inside("("))
        return _read(self.name())

    def inside(self, bracket: str) -> Expression:
        """What stands in brackets."""
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise wrong(f"brackets are nested more than {MOST_DEPTH} deep")
        self.take(bracket)
        found = self.binary(0)
        self.take(PARTNERS[bracket])
        self.depth -= 1
        return found

    def name(self) -> Wording:
        """A variable's name, which may itself be computed."""
        kind, found = self.next
        if (kind, found) == ("sign", "{"):
            return _named("", [self.inside("{")])
        if kind != "word" or self.operator():
            raise self.odd()
        self.place += 1
        indices = list[Expression]()
        while self.next == ("sign", "["):
            indices.append(self.inside("["))
        return _named(found.lower(), indices)


def _tokens(source: str) -> Sequence[tuple[str, str]]:
    if len(source) > MOST_SIGNS:
        raise wrong(f"an expression is longer than {MOST_SIGNS} characters")
    found, place = list[tuple[str, str]](), 0
    while place < len(source):
        token = TOKEN.match(source, place)
        if token is None:
            raise wrong(f"{shown(source)} is no expression: {shown(source[place:])} is odd")
        kind = str(token.lastgroup)
        found += [(kind, token[kind])] if kind != "blank" else []
        place = token.end()
    return found


def _constant(value: Value) -> Expression:
    return lambda _: value


def _called(function: Callable[[Value], Value], argument: Expression) -> Expression:
    return lambda variables: function(argument(variables))


def _read(name: Wording) -> Expression:
    return lambda variables: variables.read(name(variables))


def _named(word: str, indices: Sequence[Expression]) -> Wording:
    if not indices:
        return lambda _: word
    return lambda variables: "_".join([word] * bool(word) + [text(one(variables)).lower() for one in indices])


def _chain(first: Expression, rest: Sequence[tuple[str, Expression]]) -> Expression:
    """Operators of one level, from left to right; of `and` and `or` no more is computed than decides."""
    if rest[0][0] in ("and", "or"):
        decides, parts = rest[0][0] == "or", [first, *(operand for _, operand in rest)]
        return lambda variables: decides == any(truth(part(variables)) == decides for part in parts)
    steps = [(OPERATIONS[sign], operand) for sign, operand in rest]

    def computed(variables: Variables) -> Value:
        value = first(variables)
        for operate, operand in steps:
            value = operate(value, operand(variables))
        return value

    return computed
