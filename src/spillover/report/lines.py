"""Figures of lines over a number: rows in a dataset, examples in a prompt, steps of training, a share, a temperature.

Panels stand one above the other and share the axis below. A line of few points shows them as marks with bars; one of
many is a line in a band. What has no value is left out, and the line is broken there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import nan
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation, Transform

from spillover.report.canvas import LETTERS, SETTINGS, Surround, dress, limits, put_label, wrapped
from spillover.report.figures import FAINT, Style, draw_rate, known, legend_name, styles
from spillover.report.scale import Scale, scale_for

FEW = 12
"""A line with more points than these is drawn in a band instead of with bars."""
HEIGHTS = (3.2, 2.1, 1.6)
"""Inches of a panel's axes: alone, one of two, one of more."""
LABEL, BELOW = 0.42, 0.42
"""Inches: above a panel, and for the label of the axis below all."""
APART, ASIDE = 0.075, 0.18
"""Inches: between the marks of two lines that have values at the same number, and how far aside one is at most."""
BACK = 0.42
"""Inches left of its axes where a panel's label begins."""


@dataclass(frozen=True)
class Strip:
    """One of the panels.

    Attributes:
        label: what stands above it.
        share: whether its values are shares between 0 and 1, drawn as percentages.
    """

    label: str
    share: bool = True


@dataclass(frozen=True)
class Series:
    """One line in one panel.

    Attributes:
        label: what the legend calls it; lines with the same label, style and dashes are one entry.
        style: the group whose colour and mark it has.
        points: x, value, and the ends of the value's interval, each of them None where there is none.
        panel: which panel it is in, counted from 0.
        runs: x and value of single runs; the legend then says how many there are.
        dashed: for a second line of the same group.
    """

    label: str
    style: str
    points: tuple[tuple[float, float | None, float | None, float | None], ...]
    panel: int = 0
    runs: tuple[tuple[tuple[float, float | None], ...], ...] = ()
    dashed: bool = False

    @property
    def few(self) -> bool:
        """Whether every point is a mark of its own."""
        return len(self.points) <= FEW

    @property
    def rates(self) -> list[tuple[float, dict[str, float | None]]]:
        """The points from left to right."""
        told = sorted(self.points, key=lambda point: point[0])
        return [(x, {"value": value, "low": low, "high": high}) for x, value, low, high in told]

    @property
    def values(self) -> list[float | None]:
        """All values that are drawn, with their intervals."""
        return [value for _, *told in self.points for value in told] + [y for run in self.runs for _, y in run]

    @property
    def places(self) -> list[float]:
        """Where on the axis below something is drawn."""
        shown = [(x, value) for x, *told in self.points for value in told]
        return [x for x, value in [*shown, *(point for run in self.runs for point in run)] if known(value)]

    def dressed(self, looks: Mapping[str, Style]) -> Style:
        """Its group's style; the second line of a group has the other kind of mark, hollow or filled."""
        style = looks[self.style]
        return replace(style, hollow=not style.hollow) if self.dashed else style

    def look(self, style: Style) -> dict[str, Any]:
        """The line with its marks, as `Axes.plot` wants it."""
        return style.mark | {"color": style.colour, "linestyle": (0, (4, 2)) if self.dashed else "-", "linewidth": 1.6}


def draw_over(
    series: Sequence[Series],
    x_label: str,
    panels: Sequence[Strip],
    log_x: bool = False,
    title: str = "",
    note: str = "",
    small: str = "",
    ticks: Mapping[float, str] | None = None,
) -> Figure:
    """Draws lines over a number.

    Args:
        series: the lines, each in the panel that it names.
        x_label: what the number is.
        panels: from top to bottom.
        log_x: whether equal factors are equally far apart; 0 then stands a little left of the least number.
        title: what stands above.
        note: what stands below; what marks, bars and bands are is added.
        small: small print, such as who judged.
        ticks: names to write at some numbers, instead of numbers.

    Raises:
        ValueError: there is no panel, or a line is in one that is not there.
    """
    if not panels or any(not 0 <= one.panel < len(panels) for one in series):
        raise ValueError("every line needs a panel that is there")
    looks = styles(tuple(dict.fromkeys(one.style for one in series)))
    scale = scale_for([x for one in series for x in one.places], log_x, ticks or {})
    height = len(panels) * (HEIGHTS[min(len(panels), 3) - 1] + LABEL) + BELOW + scale.height
    with matplotlib.rc_context(SETTINGS):
        around = Surround(scale.width, title, _legend(series, looks), _explained(note, series), small)
        figure = around.figure(height)
        grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False).flatten()
        for index, axes in enumerate(grid):
            scale.put(axes)
            _draw(axes, panels[index], [one for one in series if one.panel == index], looks, scale)
            label = wrapped(panels[index].label, scale.width - BACK - 0.6)
            put_label(axes, label, LETTERS[index % len(LETTERS)] if len(panels) > 1 else "", BACK)
        grid[-1].set_xlabel(x_label, labelpad=6)
    return figure


def _legend(series: Sequence[Series], looks: Mapping[str, Style]) -> tuple[tuple[str, dict[str, Any]], ...]:
    """An entry for each kind of line, with its number of runs if that is known."""
    kinds: dict[tuple[str, str, bool], list[int]] = {}
    for one in series:
        kinds.setdefault((one.label, one.style, one.dashed), []).extend([len(one.runs)] if one.runs else [])
    shown = {(one.label, one.style, one.dashed): one.look(one.dressed(looks)) for one in series}
    return tuple((legend_name(kind[0], runs), shown[kind]) for kind, runs in kinds.items())


def _explained(note: str, series: Sequence[Series]) -> str:
    """The note, and what of marks, bars, bands and thin lines there is."""
    told = [
        f"{name}: the mean over runs{interval if any(known(rate['low']) for o in own for _, rate in o.rates) else ''}."
        for name, few, interval in (
            ("Large marks", True, ", with its 95% interval"),
            ("Lines in bands", False, ", in a band of its 95% interval"),
        )
        if (own := [one for one in series if one.few == few])
    ]
    if any(one.runs for one in series):
        told.append("Pale: single runs.")
    return "\n".join(filter(None, [note, " ".join(told)]))


def _draw(axes: Axes, strip: Strip, series: Sequence[Series], looks: Mapping[str, Style], scale: Scale) -> None:
    """One panel."""
    times = 100.0 if strip.share else 1.0
    values = [times * value for one in series for value in one.values if value is not None and known(value)]
    dress(axes, axes.yaxis, limits(values, strip.share), strip.share)
    axes.tick_params(axis="x", length=3, color=FAINT)
    axes.grid(False, axis="x")
    step = min(APART, 0.6 * scale.gap / max(len(series), 1), 2 * ASIDE / max(len(series) - 1, 1))
    for index, one in enumerate(series):
        aside = (index - (len(series) - 1) / 2) * step if one.few else 0.0
        style = one.dressed(looks)
        _draw_runs(axes, one, style, times, aside)
        (_draw_marks if one.few else _draw_band)(axes, one, style, times, _moved(axes, aside))
    if not values:
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", va="center", color=FAINT)


def _line(one: Series, times: float) -> tuple[list[float], list[float]]:
    """Where the line goes; it is broken where there is no value."""
    return [x for x, _ in one.rates], [_times(rate["value"], times) for _, rate in one.rates]


def _moved(axes: Axes, aside: float) -> Transform:
    """The axes' own numbers, drawn some inches to the right."""
    return axes.transData + ScaledTranslation(aside, 0, axes.figure.dpi_scale_trans)


def _times(value: float | None, times: float) -> float:
    return times * value if value is not None and known(value) else nan


def _draw_runs(axes: Axes, one: Series, style: Style, times: float, aside: float) -> None:
    """Single runs as thin pale lines, with points if these are few; runs of one point stand a little apart."""
    look: dict[str, Any] = {"color": style.tint, "linewidth": 0.8, "zorder": 2, "alpha": 0.75, "clip_on": False}
    for run, further in zip(one.runs, _asides(one), strict=True):
        x, y = [x for x, _ in sorted(run, key=_x)], [_times(value, times) for _, value in sorted(run, key=_x)]
        points: dict[str, Any] = {"marker": style.marker, "markersize": 3.4, "mew": 0} if len(run) <= FEW else {}
        axes.plot(x, y, transform=_moved(axes, aside + further), **points, **look)


def _x(point: tuple[float, float | None]) -> float:
    return point[0]


def _asides(one: Series) -> list[float]:
    """Inches that each run stands to the right: runs of one point spread where they have the same number."""
    starts = [min(x for x, _ in run) if len(run) == 1 else None for run in one.runs]
    ranks = [starts[:index].count(start) for index, start in enumerate(starts)]
    spread = [APART / 2 * (rank - (starts.count(start) - 1) / 2) for rank, start in zip(ranks, starts, strict=True)]
    return [0.0 if start is None else aside for aside, start in zip(spread, starts, strict=True)]


def _draw_marks(axes: Axes, one: Series, style: Style, times: float, to: Transform) -> None:
    """A line through few points, each a mark with a bar."""
    line: dict[str, Any] = one.look(style) | {"marker": "", "zorder": 3, "transform": to, "clip_on": False}
    axes.plot(*_line(one, times), **line)
    for x, rate in one.rates:
        draw_rate(axes, style, x, rate, times, transform=to)


def _draw_band(axes: Axes, one: Series, style: Style, times: float, to: Transform) -> None:
    """A line of many points in a band, with some marks to tell it by."""
    low, high = ([_times(rate[end], times) for _, rate in one.rates] for end in ("low", "high"))
    x, y = _line(one, times)
    axes.fill_between(x, low, high, color=style.colour, alpha=0.16, linewidth=0, zorder=2, transform=to)
    every = 1 if any(value != value for value in y) else max(1, len(x) // 8)
    look: dict[str, Any] = one.look(style) | {"markersize": 6, "zorder": 4, "transform": to, "clip_on": False}
    axes.plot(x, y, markevery=every, **look)
