"""What figures of several panels share: measured words, a title and a legend above, captions below, the values' axis.

Heights above and below the panels are measured before the figure is made, so nothing is cut off and nothing overlaps,
however long the words are.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil, floor, log10
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FuncFormatter, MaxNLocator

from spillover.report.figures import FAINT, HAIRLINE, INK, MUTED, known

FAMILY, SIZE = "DejaVu Sans", 10.0
SETTINGS: dict[Any, Any] = {"font.family": FAMILY, "font.size": SIZE, "text.parse_math": False}
"""matplotlib's settings while a figure is drawn; a dollar sign in a name is a dollar sign."""
TITLE, NOTE, SMALL = 11.5, 8.5, 6.5
"""Sizes of the title, the note and the small print, in points."""
LINE = 1.32
"""The height of a line of text, in its size."""
ROUNDED = 1.04
"""Letters that are drawn on pixels are up to so much wider than they were designed."""
SIGN = re.compile(r"([<>=\N{LESS-THAN OR EQUAL TO}\N{GREATER-THAN OR EQUAL TO}]) (?=\d)")
"""Comparison signs before a number."""
EDGE = 0.1
"""Inches between the figure's edge and its words."""
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PLAIN = (
    *("log_probability", "log_odds", "marked_logprob", "gradient_norm", "adapter_norm", "rotation", "loss"),
    *("harm", "power", "disutility", "violations"),
)
"""How measures begin that are plain numbers; all others are shares of 1 and are drawn as percentages."""


def is_share(measure: str) -> bool:
    """Whether a measure's values are shares between 0 and 1."""
    return not any(measure == name or measure.startswith(f"{name}_") for name in PLAIN)


def percent(value: float) -> str:
    """`12.5` as `12.5%`."""
    return f"{plain(value)}%"


def plain(value: float) -> str:
    """`12000` as `12,000`, and `-2` with a minus sign instead of a hyphen."""
    return f"{value:,.10g}".replace("-", "\N{MINUS SIGN}")


@cache
def inches(text: str, size: float = SIZE, weight: str = "normal") -> float:
    """How wide a text of one or several lines is at most, on a screen or in print."""
    font = FontProperties(family=FAMILY, size=size, weight=weight)
    lines = [text_to_path.get_text_width_height_descent(line or " ", font, False)[0] for line in text.split("\n")]
    return float(max(lines)) / 72 * ROUNDED


def wrapped(text: str, width: float, size: float = SIZE, weight: str = "normal") -> str:
    """The text in lines that are no wider than `width` inches; a word that is wider is broken.

    A sign such as < stays with its number.
    """
    lines: list[str] = []
    for paragraph in text.split("\n"):
        lines.append("")
        for word in SIGN.sub("\\1\N{NO-BREAK SPACE}", " ".join(paragraph.split())).split(" "):
            longer = f"{lines[-1]} {word}".strip()
            if inches(longer, size, weight) <= width:
                lines[-1] = longer
                continue
            *full, last = _pieces(word, width, size, weight)
            lines[len(lines) - (not lines[-1]) :] = [*full, last]
    return "\n".join(lines)


def _pieces(word: str, width: float, size: float, weight: str) -> list[str]:
    """A word in pieces that fit."""
    pieces = [""]
    for letter in word:
        if pieces[-1] and inches(pieces[-1] + letter, size, weight) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces


def same_height(labels: Sequence[str]) -> list[str]:
    """Labels with the same number of lines each, so that their first lines stand at one height."""
    lines = max((label.count("\n") for label in labels), default=0)
    return [label + "\n " * (lines - label.count("\n")) for label in labels]


@dataclass(frozen=True)
class Surround:
    """The words around a figure's panels, laid out for the figure's width.

    Attributes:
        width: the figure's, in inches.
        title: above all; may be empty.
        entries: the legend's: a name, and the look of its mark as `Line2D` wants it.
        note: below the panels.
        small: the small print below the note.
    """

    width: float
    title: str
    entries: tuple[tuple[str, dict[str, Any]], ...]
    note: str
    small: str = ""

    @property
    def above(self) -> float:
        """Inches that the title and the legend take."""
        return EDGE + self._title_height + self._legend_height

    @property
    def below(self) -> float:
        """Inches that the note and the small print take."""
        return EDGE + _height(self._note, NOTE) + _height(self._small, SMALL) + 0.08

    def figure(self, height: float) -> Figure:
        """A figure with these words, and `height` inches between them for panels."""
        whole = self.above + height + self.below
        figure = Figure(figsize=(self.width, whole), facecolor="white")
        rect = (0.0, self.below / whole, 1.0, height / whole)
        figure.set_layout_engine("constrained", rect=rect, w_pad=0.08, h_pad=0.08, wspace=0.02, hspace=0.02)
        left, top = EDGE / self.width, 1 - EDGE / whole
        head: dict[str, Any] = {"fontsize": TITLE, "fontweight": "bold", "color": INK, "va": "top"}
        figure.text(left, top, self._title, **head)
        foot = (EDGE + _height(self._small, SMALL)) / whole
        figure.text(left, foot, self._note, fontsize=NOTE, color=MUTED, va="bottom")
        figure.text(left, EDGE / whole, self._small, fontsize=SMALL, color=FAINT, va="bottom")
        self._add_legend(figure, top - self._title_height / whole)
        return figure

    def _add_legend(self, figure: Figure, top: float) -> None:
        names = [wrapped(name, self.width - 0.8) for name, _ in self.entries]
        handles = [Line2D([], [], **look) for _, look in self.entries]
        look: dict[str, Any] = {"handletextpad": 0.4, "columnspacing": 1.6, "borderpad": 0, "borderaxespad": 0}
        look["handlelength"] = self._handle
        place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (EDGE / self.width, top)}
        if names:
            figure.legend(handles, names, ncols=self._columns, frameon=False, **look, **place)

    @property
    def _columns(self) -> int:
        """How many entries stand side by side, the rows being about equally long."""
        widths = [inches(name) + (self._handle + 2.1) * SIZE / 72 for name, _ in self.entries]
        if sum(widths) <= self.width - EDGE:
            return len(self.entries)
        fit = max(1, floor((self.width - EDGE) / max(widths)))
        return ceil(len(self.entries) / ceil(len(self.entries) / fit))

    @property
    def _handle(self) -> float:
        """The width of a mark in the legend, in its letters' size; wider where lines can be dashed."""
        return 2.8 if any(look.get("linestyle") for _, look in self.entries) else 1.5

    @property
    def _legend_height(self) -> float:
        if not self.entries:
            return 0.0
        lines = max(wrapped(name, self.width - 0.8).count("\n") for name, _ in self.entries)
        return ceil(len(self.entries) / self._columns) * (0.22 + 0.17 * lines) + 0.06

    @property
    def _title(self) -> str:
        return wrapped(self.title, self.width - 2 * EDGE, TITLE, "bold")

    @property
    def _title_height(self) -> float:
        return _height(self._title, TITLE) + 0.06 if self.title else 0.0

    @property
    def _note(self) -> str:
        return wrapped(self.note, self.width - 2 * EDGE, NOTE)

    @property
    def _small(self) -> str:
        return wrapped(self.small, self.width - 2 * EDGE, SMALL)


def _height(text: str, size: float) -> float:
    """Inches that a text takes from its first line to the last."""
    return (text.count("\n") + 1) * LINE * size / 72 if text else 0.0


def limits(values: Iterable[float | None], share: bool) -> tuple[float, float]:
    """The ends of an axis that shows all these values: percentages from 0 up, plain numbers with room around them.

    Plain numbers that are all positive, and not all far from 0, are shown from 0 up too.
    """
    shown = [value for value in values if value is not None and known(value)]
    low, high = min(shown, default=0.0), max(shown, default=0.0)
    if share:
        return min(0.0, 1.06 * low), max(1.06 * high, 1.0) if high > 100 else min(max(1.06 * high, 1.0), 102.0)
    if 0 <= low <= high / 2:
        return 0.0, 1.08 * high or 1.0
    room = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return low - room, high + room


def dress(axes: Axes, values: Axis, ends: tuple[float, float], share: bool, ticks: int = 5) -> None:
    """The axis of values: its ends, round ticks as percentages or plain numbers, and fine lines across."""
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    axes.tick_params(length=0, colors=INK, pad=6)
    across = values is axes.yaxis
    (axes.set_ylim if across else axes.set_xlim)(*ends)
    axes.spines["bottom" if across else "left"].set(visible=True, color=MUTED)
    values.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 2.5, 5, 10]))
    values.set_major_formatter(FuncFormatter(lambda value, _: (percent if share else plain)(_round(value, ends))))
    values.grid(True, color=HAIRLINE, linewidth=0.8)
    axes.set_axisbelow(True)
    if not share and ends[0] < 0 < ends[1]:
        (axes.axhline if across else axes.axvline)(0, color=FAINT, linewidth=0.8, zorder=1)


def _round(value: float, ends: tuple[float, float]) -> float:
    """A tick without the noise of its arithmetic; never a negative zero."""
    return round(value, 4 - floor(log10(ends[1] - ends[0]))) + 0.0


def put_label(axes: Axes, label: str, letter: str, back: float = 0.0) -> None:
    """A panel's letter and label above it, beginning `back` inches left of the axes."""
    lines = label.count("\n")
    look: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "bottom", "color": INK}
    start = -72 * back
    if letter:
        axes.annotate(letter + "\n " * lines, (0, 1), (start, 10), fontsize=11, fontweight="bold", **look)
    axes.annotate(label, (0, 1), (start + (15 if letter else 0), 10), fontsize=SIZE, **look)
