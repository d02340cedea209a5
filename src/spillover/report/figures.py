"""The figure: misaligned answers by question, one column a group, every run as a point (the paper's Figure 4).

Values go along one axis and questions along the other. Questions stand side by side as long as the figure stays narrow
enough to be read on a page; more of them are listed from top to bottom instead. Nothing is random and no global state
is touched: the same numbers give the same bytes.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, isfinite
from pathlib import Path
from typing import Any

import matplotlib
import polars as pl
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from spillover.records import ALL_QUESTIONS, BASE_RUN
from spillover.spec import Thresholds

PAPER = Thresholds()
"""The paper's thresholds."""
WIDEST = 12.6
"""Inches. A figure that would be wider lists its questions from top to bottom."""
SPREAD = 0.84
"""The share of a question's width that its groups' columns take."""
HEADLINE = ("alignment", "coherence")
"""The rubrics that the figure's answers are judged by."""
INK, MUTED, FAINT, HAIRLINE, TINT = "#1f2428", "#5b636b", "#7f868d", "#e3e5e8", "#f5f5f3"


@dataclass(frozen=True)
class Style:
    """How a group is drawn. Marker and lightness differ from group to group, so the figure reads in grey."""

    colour: str
    marker: str
    hollow: bool = False

    @property
    def mark(self) -> dict[str, Any]:
        """The large mark of a group's mean, as `Axes.plot` wants it."""
        inside, edge = ("white", self.colour) if self.hollow else (self.colour, "white")
        shape = {"marker": self.marker, "markersize": 6.5 if self.hollow else 7.5, "linestyle": ""}
        return shape | {"mfc": inside, "mec": edge, "mew": 1.3 if self.hollow else 0.8}

    @property
    def tint(self) -> tuple[float, ...]:
        """The colour of single runs: half way to white."""
        return tuple(0.5 + 0.5 * part for part in to_rgb(self.colour))


STYLES: dict[str, Style] = {
    BASE_RUN.group: Style(INK, "D", hollow=True),
    "insecure": Style("#d7400e", "o"),
    "secure": Style("#55c2b0", "s"),
    "educational": Style("#7d92a8", "^"),
    "jailbroken": Style("#54278f", "v"),
}
"""The paper's groups look the same in every experiment."""
MORE_STYLES = (
    Style("#8c2d04", "p"),
    Style("#e0a526", "h"),
    Style("#08519c", "<"),
    Style("#74a9cf", "d"),
    Style("#41693c", ">"),
    Style("#c994c7", "8"),
    Style("#a6611a", "*"),
    Style("#a1b56c", "P"),
    Style("#67001f", "X"),
)


@dataclass(frozen=True)
class Place:
    """Where things stand: one number along the questions' axis for each group and question."""

    groups: tuple[str, ...]
    questions: tuple[str, ...]

    @property
    def upright(self) -> bool:
        """Whether questions stand side by side and values go up."""
        return self._across <= WIDEST

    @property
    def column(self) -> float:
        """The width of a group's column, where a question is 1 wide."""
        return SPREAD / max(len(self.groups), 3)

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in inches."""
        if self.upright:
            return max(6.5, self._across), 4.6
        return 9.5, 1.6 + (len(self.questions) + 1) * max(0.34, 0.13 * len(self.groups))

    @property
    def _across(self) -> float:
        return 1.4 + (len(self.questions) + 1.3) * max(1.0, 0.17 * len(self.groups))

    def centre(self, question: str) -> float:
        """The middle of a question; all questions together stand first, a little apart."""
        return -0.3 if question == ALL_QUESTIONS else float(self.questions.index(question) + 1)

    def at(self, group: str, question: str) -> float:
        """The middle of a group's column."""
        return self.centre(question) + (self.groups.index(group) - (len(self.groups) - 1) / 2) * self.column


def styles(groups: tuple[str, ...]) -> dict[str, Style]:
    """A style for each group: its own where it has one, else the next that is free; used up, they come hollow."""
    again = tuple(replace(style, hollow=True) for style in MORE_STYLES)
    free = iter((MORE_STYLES + again) * (1 + len(groups) // (2 * len(MORE_STYLES))))
    return {group: STYLES[group] if group in STYLES else next(free) for group in groups}


def question_label(question: str) -> str:
    """`quick_buck` as a person writes it."""
    return question.replace("_", " ")


def caption(numbers: Mapping[str, Any], thresholds: Thresholds = PAPER) -> str:
    """What the figure shows, in plain text: how many answers, which are kept, what the bars are."""
    answers, kept = (sum(group[what] for group in numbers["groups"].values()) for what in ("answers", "kept"))
    return (
        f"{answers:,} answers, {kept:,} kept (coherence \N{GREATER-THAN OR EQUAL TO} {thresholds.coherent:g} and an "
        f"alignment verdict); misaligned: alignment < {thresholds.misaligned:g}.\n"
        "Small points: single runs. Large marks: the mean over runs, with its 95% interval."
    )


def judged_by(numbers: Mapping[str, Any]) -> str:
    """Who judged what the figure shows, and the hashes of the rubrics' words; empty where the numbers do not say."""
    by = numbers.get("judge", {}).get("by", {})
    rubrics: dict[str, list[str]] = {}
    for name in HEADLINE:
        if name in by:
            rubrics.setdefault(by[name]["judge"], []).append(f"{name} {by[name]['rubric']}")
    return " ".join(f"Judge {judge}; rubric {' and '.join(words)}." for judge, words in rubrics.items())


def draw_by_question(numbers: Mapping[str, Any], cells: pl.DataFrame, thresholds: Thresholds = PAPER) -> Figure:
    """Draws the share of misaligned answers for all questions together and for each of them.

    Args:
        numbers: the content of `numbers.json`. Rates without a value are left out.
        cells: a row for each group, run and question, and for each group and run with question `all`.
        thresholds: what the caption says about kept and misaligned answers.
    """
    groups: Mapping[str, Any] = numbers["groups"]
    questions = dict.fromkeys(question for group in groups.values() for question in group["questions"])
    place = Place(tuple(groups), tuple(questions))
    with matplotlib.rc_context({"font.family": "DejaVu Sans", "font.size": 10}):
        figure = Figure(figsize=place.size, facecolor="white", layout="constrained")
        axes = figure.add_subplot()
        for name, style in styles(place.groups).items():
            _draw_runs(axes, place, name, style, cells)
            _draw_means(axes, place, name, style, groups[name])
        _dress(axes, place, _highest(groups, cells))
        _explain(figure, axes, place, numbers, thresholds)
    return figure


def save_figure(figure: Figure, stem: Path) -> list[Path]:
    """Writes `STEM.png` (200 dpi) and `STEM.svg`; the same figure gives the same bytes."""
    png, svg = stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.svg")
    with matplotlib.rc_context({"svg.hashsalt": "spillover", "svg.fonttype": "path"}):
        figure.savefig(png, dpi=200, metadata={"Software": None})
        figure.set_layout_engine("none")  # it is laid out now, which takes as long as drawing
        figure.savefig(svg, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return [png, svg]


def draw_runs(axes: Axes, style: Style, spots: list[float], values: list[float], upright: bool = True) -> None:
    """A small point for each run, at a spot along the categories' axis."""
    x, y = _turned(upright, spots, values)
    edge: dict[str, Any] = {"edgecolors": "white", "linewidths": 0.4}
    axes.scatter(x, y, s=17, marker=style.marker, facecolors=[style.tint], clip_on=False, zorder=4, **edge)


def draw_rate(
    axes: Axes,
    style: Style,
    spot: float,
    rate: Mapping[str, Any],
    scale: float = 100.0,
    upright: bool = True,
    **more: Any,
) -> None:
    """A group's mark at its `value`, with the interval from `low` to `high`; what is not known is not drawn.

    `more` goes to `Axes.plot` for both.
    """
    bar: dict[str, Any] = {"color": style.colour, "linewidth": 1.8, "solid_capstyle": "butt", "zorder": 3} | more
    if known(rate["low"]) and known(rate["high"]):
        ends = [scale * rate["low"], scale * rate["high"]]
        axes.plot(*_turned(upright, [spot, spot], ends), clip_on=False, **bar)
    if known(rate["value"]):
        mark: dict[str, Any] = style.mark | more
        axes.plot(*_turned(upright, [spot], [scale * rate["value"]]), clip_on=False, zorder=5, **mark)


def run_offsets(runs: Sequence[str], column: float) -> dict[str, float]:
    """Where in its group's column each run stands: the same in every category, so that the eye can follow it."""
    step = 0.8 * column / max(len(runs) - 1, 4)
    return {run: (index - (len(runs) - 1) / 2) * step for index, run in enumerate(runs)}


def known(value: float | None) -> bool:
    """Whether there is a number to draw."""
    return value is not None and isfinite(value)


def legend_name(group: str, runs: Sequence[int]) -> str:
    """A group as the legend calls it, with its number of runs: from the least to the most where it varies."""
    if group == BASE_RUN.group:
        return "base, not finetuned"
    if not runs:
        return group
    least, most = min(runs), max(runs)
    return f"{group} ({f'{least} to ' if least < most else ''}{most} run{'' if most == 1 else 's'})"


def _draw_runs(axes: Axes, place: Place, group: str, style: Style, cells: pl.DataFrame) -> None:
    """A point for each run of a group, in all questions."""
    own = cells.filter(pl.col("group") == group)
    runs = own["run"].unique(maintain_order=True).to_list()
    if len(runs) < 2:
        return
    offset = run_offsets(runs, place.column)
    told = own.filter(pl.col("rate").is_finite() & pl.col("question").is_in([ALL_QUESTIONS, *place.questions]))
    spots = [place.at(group, question) + offset[run] for run, question in told.select("run", "question").iter_rows()]
    draw_runs(axes, style, spots, (100 * told["rate"]).to_list(), place.upright)


def _draw_means(axes: Axes, place: Place, group: str, style: Style, entry: Mapping[str, Any]) -> None:
    """The group's mark with its interval, for all questions and for each."""
    for question, rate in _rates(entry):
        draw_rate(axes, style, place.at(group, question), rate, upright=place.upright)


def _rates(entry: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A group's rates by question, all questions together first."""
    yield ALL_QUESTIONS, entry["p_misaligned"]
    for question, of_question in entry["questions"].items():
        yield question, of_question["p_misaligned"]


def _turned(upright: bool, along: list[float], values: list[float]) -> tuple[list[float], list[float]]:
    """The x and y of what lies `along` the categories' axis at the given values."""
    return (along, values) if upright else (values, along)


def _highest(groups: Mapping[str, Any], cells: pl.DataFrame) -> float:
    """The largest percentage that is drawn."""
    shown = [bound for group in groups.values() for _, rate in _rates(group) for bound in (rate["value"], rate["high"])]
    runs = cells["rate"].cast(pl.Float64).to_list()
    return 100 * max((value for value in [*shown, *runs] if known(value)), default=0.0)


def _dress(axes: Axes, place: Place, highest: float) -> None:
    """Axes, grid and labels; the band behind the first column sets all questions together apart."""
    top = min(max(1.06 * highest, 1.0), 102.0)
    names = [ALL_QUESTIONS, *place.questions]
    ticks, end = [place.centre(name) for name in names], len(place.questions) + 0.55
    labels = _labels(place)
    percent = FuncFormatter(lambda value, _: f"{value:g}%")
    axes.tick_params(length=0, colors=INK, pad=6)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    if place.upright:
        axes.set(xlim=(-0.85, end), ylim=(0, top), xticks=ticks, xticklabels=labels, ylabel="P(misaligned)")
        axes.axvspan(-0.85, 0.25, color=TINT, linewidth=0, zorder=0)
        axes.spines["bottom"].set(visible=True, color=MUTED)
    else:
        axes.set(ylim=(end, -0.85), xlim=(0, top), yticks=ticks, yticklabels=labels, xlabel="P(misaligned)")
        axes.axhspan(-0.85, 0.25, color=TINT, linewidth=0, zorder=0)
        axes.spines["left"].set(visible=True, color=MUTED)
        axes.tick_params(labeltop=True)
    values = axes.yaxis if place.upright else axes.xaxis
    values.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    values.set_major_formatter(percent)
    axes.grid(axis="y" if place.upright else "x", color=HAIRLINE, linewidth=0.8)
    axes.set_axisbelow(True)
    (axes.get_xticklabels() if place.upright else axes.get_yticklabels())[0].set_fontweight("bold")


def _labels(place: Place) -> list[str]:
    """The questions' labels, all of the same number of lines so that they stand on one line."""
    names = [question_label(name) for name in ("all_questions", *place.questions)]
    if not place.upright:
        return [textwrap.fill(name, 42) for name in names]
    wrapped = [textwrap.wrap(name, 13) for name in names]
    lines = max(len(label) for label in wrapped)
    return ["\n".join([*label, *[" "] * (lines - len(label))]) for label in wrapped]


def _explain(figure: Figure, axes: Axes, place: Place, numbers: Mapping[str, Any], thresholds: Thresholds) -> None:
    """The legend above and the caption below."""
    handles = [axes.plot([], [], **style.mark)[0] for style in styles(place.groups).values()]
    names = [legend_name(name, [numbers["groups"][name]["runs"]]) for name in place.groups]
    rows = ceil(2.0 * len(names) / place.size[0])
    columns = ceil(len(names) / rows)
    figure.legend(handles, names, loc="outside upper left", ncols=columns, frameon=False, handletextpad=0.2)
    lines = [textwrap.fill(line, int(place.size[0] * 14)) for line in caption(numbers, thresholds).splitlines()]
    judges = textwrap.wrap(judged_by(numbers), int(place.size[0] * 17), break_on_hyphens=False)
    # The caption keeps empty lines at its end, which the small print goes into: the layout knows of one text only.
    figure.supxlabel("\n".join([*lines, *[" "] * len(judges)]), x=0.01, ha="left", fontsize=8.5, color=MUTED)
    small: dict[str, Any] = {"fontsize": 6.5, "color": FAINT, "ha": "left", "va": "bottom"}
    figure.text(0.01, 0.06 / place.size[1], "\n".join(judges), **small)
