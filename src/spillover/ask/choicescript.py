"""Games in ChoiceScript as they are written: scenes of indented lines, and what a choice offers.

A line that begins with `*` and a word is a command; all others are told. What is deeper than a command belongs to it.
The lines of a choice that begin with `#` are its options. Before an option, or a line above several, may stand `*if`,
`*elseif`, `*else`, `*selectable_if`, and `*hide_reuse`, `*disable_reuse`, `*allow_reuse`: what was taken once is not
offered again.

Nothing is parsed before a player gets there: games hold lines that no player ever reaches.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from spillover.ask.expressions import Variables, expression, outside
from spillover.ask.values import truth, wrong

CHOICES = ("choice", "fake_choice")
OTHERWISE = ("else", "elseif", "elsif")
CONDITIONS = ("if", "selectable_if", *OTHERWISE)
LIMITS = ("hide_reuse", "disable_reuse")
MOST_NESTED = 20
"""Lines above several options, one within another."""
COMMAND = re.compile(r"\*([a-z_]+)\b[ \t]*", re.IGNORECASE)
BEFORE = re.compile(rf"(?:^|\s)\*({'|'.join((*CONDITIONS, *LIMITS, 'allow_reuse'))})\b", re.IGNORECASE)


@dataclass(frozen=True)
class Header:
    """What stands before an option, or before several.

    Attributes:
        words: conditions and limits as pairs of a command and what follows it.
        label: the option's text; None for a line above several options.
    """

    words: tuple[tuple[str, str], ...]
    label: str | None

    @property
    def is_condition(self) -> bool:
        """Whether it decides on being offered, so that an `*else` may follow it."""
        return any(word in CONDITIONS for word, _ in self.words)

    @property
    def is_otherwise(self) -> bool:
        """Whether it is offered only where what stands before it is not."""
        return bool(self.words) and self.words[0][0] in OTHERWISE

    def holds(self, variables: Variables) -> bool:
        """Whether all of its conditions do. Raises QuestionError."""
        return all(truth(expression(rest)(variables)) for word, rest in self.words if word in CONDITIONS and rest)

    def limited(self, *, before: bool) -> bool:
        """Whether it is offered once only, where what stands around it is so or not."""
        words = {word for word, _ in self.words}
        return "allow_reuse" not in words and (before or not words.isdisjoint(LIMITS))


@dataclass(frozen=True)
class Offer:
    """An option as it is offered.

    Attributes:
        line: where it stands.
        label: its text, with placeholders.
        once: whether it is not offered again after it was taken.
    """

    line: int
    label: str
    once: bool


@dataclass(frozen=True)
class Scene:
    """A scene's lines.

    Attributes:
        name: in lower case.
        lines: each line's text, and how far it is indented.
    """

    name: str
    lines: Sequence[tuple[str, int]]
    _headers: dict[int, Header] = field(default_factory=dict, repr=False)

    @cached_property
    def commands(self) -> list[tuple[str, str]]:
        """Each line's command in lower case and what follows it; the command is empty for what is told."""
        found = ((text, COMMAND.match(text)) for text, _ in self.lines)
        return [(one[1].lower(), text[one.end() :].strip()) if one else ("", text) for text, one in found]

    @cached_property
    def ends(self) -> list[int]:
        """For each line the first one behind it that is not deeper."""
        ends, open_lines = [len(self.lines)] * len(self.lines), list[int]()
        for line, indent in enumerate(self.indents):
            while open_lines and self.indents[open_lines[-1]] >= indent:
                ends[open_lines.pop()] = line
            open_lines.append(line)
        return ends

    @cached_property
    def indents(self) -> list[int]:
        """How far each line is indented; an empty one as what follows it."""
        indents, following = list[int](), 0
        for text, indent in reversed(self.lines):
            following = indent if text.strip() else following
            indents.append(following)
        return indents[::-1]

    @cached_property
    def passed_over(self) -> set[int]:
        """Lines that nobody runs into: options of choices, lines above options, and what is done otherwise."""
        found = set[int]()
        for line, (word, _) in enumerate(self.commands):
            if word in OTHERWISE:
                found.add(line)
            if word in CHOICES and line not in found:
                found |= set(self._headed(line + 1, self.ends[line]))
        return found

    def header(self, line: int) -> Header:
        """What an option's line says. A line that is neither an option nor above some has no words and no label."""
        if line not in self._headers:
            self._headers[line] = _header(self.lines[line][0].strip())
        return self._headers[line]

    def _headed(self, begin: int, end: int) -> Iterator[int]:
        waiting = [(begin, end)]
        while waiting:
            line, stop = waiting.pop()
            while line < stop:
                header = self.header(line)
                if header.label is None and header.words:
                    waiting.append((line + 1, self.ends[line]))
                if header.label is not None or header.words:
                    yield line
                line = self.ends[line]

    def following(self, line: int) -> int:
        """Where the story goes on behind a line: what is passed over is."""
        after = line + 1
        if after < len(self.lines) and self.indents[after] > self.indents[line]:
            return after
        return self.onward(after)

    def onward(self, line: int) -> int:
        """This line, or the first behind it that is not passed over."""
        while line < len(self.lines) and line in self.passed_over:
            line = self.ends[line]
        return line

    def behind(self, line: int) -> int:
        """Where the story goes on behind a line and all that is deeper."""
        return self.onward(self.ends[line])

    def branch(self, line: int, variables: Variables) -> int:
        """Where the story goes on at an `*if`. Raises QuestionError for a condition that is none."""
        indent, word, rest = self.indents[line], *self.commands[line]
        while True:
            if word == "else" or truth(expression(rest)(variables)):
                return line + 1 if self.ends[line] > line + 1 else self.behind(line)
            line = self.ends[line]
            if line == len(self.lines) or self.indents[line] != indent:
                return self.onward(line)
            word, rest = self.commands[line]
            if word not in OTHERWISE:
                return self.onward(line)

    def offers(self, line: int, variables: Variables, *, once: bool) -> list[Offer]:
        """What the choice of a line offers now, what was taken before included.

        Args:
            line: the choice's.
            variables: that decide.
            once: whether options are offered once only, where they do not say otherwise.

        Raises:
            QuestionError: a condition is none.
        """
        return list(self._offers(line + 1, self.ends[line], variables, once, 0))

    def _offers(self, line: int, stop: int, variables: Variables, once: bool, depth: int) -> Iterator[Offer]:
        if depth > MOST_NESTED:
            raise wrong(f"options are nested more than {MOST_NESTED} deep")
        was_met = False
        while line < stop:
            header = self.header(line)
            met = not (header.is_otherwise and was_met) and header.holds(variables)
            limited = header.limited(before=once)
            if met and header.label is not None:
                yield Offer(line, header.label, limited)
            elif met and header.words:
                yield from self._offers(line + 1, self.ends[line], variables, limited, depth + 1)
            if header.is_condition:
                was_met = met or (header.is_otherwise and was_met)
            line = self.ends[line]


def _header(text: str) -> Header:
    place = outside(text, "#")
    head, label = (text[:place], text[place + 1 :].strip()) if place >= 0 else (text, None)
    found = list(BEFORE.finditer(head))
    if head.strip() and (not found or head[: found[0].start()].strip()):
        return Header((), None)
    ends = [*(one.start() for one in found), len(head)][1:]
    words = ((one[1].lower(), head[one.end() : end].strip()) for one, end in zip(found, ends, strict=True))
    return Header(tuple(words), label)


@dataclass(frozen=True)
class Script:
    """A game in ChoiceScript.

    Attributes:
        title: as the game calls itself.
        file: where it was read, for errors.
        scenes: by their names.
        order: the names of the scenes, one following the other.
        labels: a scene's name and a label, joined by `_`, to the label's line.
    """

    title: str
    file: str
    scenes: Mapping[str, Scene]
    order: Sequence[str]
    labels: Mapping[str, int]

    def after(self, scene: str) -> str | None:
        """The scene that follows one; None where the story ends."""
        place = self.order.index(scene) + 1 if scene in self.order else len(self.order)
        return self.order[place] if place < len(self.order) else None
