"""Figures of several panels: a measure by suite, one column a group; or by group, one row a group.

Every panel looks as the figure by question does: single runs as small points, their mean as a large mark with its
interval. Panels by suite stand upright as long as they fit on a page; wider ones, and panels by group, list their
categories from top to bottom. What was not asked, or has no value, leaves a gap.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spillover.report.canvas import LETTERS, SETTINGS, Surround, dress, limits, put_label, same_height, wrapped
from spillover.report.figures import (
    FAINT,
    TINT,
    Style,
    draw_rate,
    draw_runs,
    legend_name,
    run_offsets,
    styles,
)
from spillover.report.sheets import LONGEST, MARGIN, Page, Panel, Sheet

__all__ = ["Panel", "draw_by_suite"]

LABELS = 0.75
"""Inches above and below a row of panels' axes: the panels' label, and the ticks."""


def draw_by_suite(
    suites: Mapping[str, Any], rates: pl.DataFrame, panels: Sequence[Panel], title: str, note: str, small: str = ""
) -> Figure:
    """Draws measures by suite or by group.

    Args:
        suites: the `suites` of `numbers.json`.
        rates: columns suite, group, run, measure, answers, kept, rate; one row a run.
        panels: what to draw, one panel each.
        title: what stands above.
        note: what stands below; what points and bars are is added.
        small: small print, such as who judged.

    Raises:
        ValueError: there is no panel.
    """
    page = Page(tuple(Sheet(panel, suites, rates) for panel in panels))
    if not page.sheets:
        raise ValueError("a figure needs a panel")
    looks = styles(tuple(dict.fromkeys(group for suite in suites.values() for group in suite["groups"])))
    with matplotlib.rc_context(SETTINGS):
        around = Surround(page.width, title, _legend(page, looks), _explained(note, page), small)
        figure = around.figure(sum(page.axes_heights()) + page.down * _between(page))
        ratios: dict[str, Any] = {"width_ratios": page.axes_widths(), "height_ratios": page.axes_heights()}
        grid = figure.subplots(page.down, page.beside, squeeze=False, **ratios).flatten()
        for axes, sheet in zip(grid, page.sheets, strict=False):
            _draw(axes, sheet, page, looks)
        for empty in grid[len(page.sheets) :]:
            empty.set_axis_off()
    return figure


def _between(page: Page) -> float:
    """Inches that the words above and below a row of panels take."""
    return LABELS + 0.18 * (max(label.count("\n") for sheet in page.sheets for label in _names(sheet, page)) + 1)


def _names(sheet: Sheet, page: Page) -> list[str]:
    """The categories' names as they are drawn; upright ones with equally many lines."""
    if not page.upright:
        return [wrapped(label, LONGEST) for label in sheet.labels] or [""]
    unit = (page.stretched(page.sheets.index(sheet)) - MARGIN) / max(len(sheet.labels), 1)
    return same_height([wrapped(label, unit - 0.1) for label in sheet.labels])


def _legend(page: Page, looks: Mapping[str, Style]) -> tuple[tuple[str, dict[str, Any]], ...]:
    """Groups that are columns, and suites that are: an entry each."""
    groups = dict.fromkeys(group for sheet in page.sheets if sheet.by_suite for group in sheet.groups)
    counts = {name: [count for sheet in page.sheets for count in sheet.counts(name)] for name in groups}
    told = [(legend_name(name, counts[name]), looks[name].mark) for name in groups]
    for sheet in page.sheets:
        if not sheet.by_suite and len(sheet.columns) > 1:
            own = _looks(sheet, looks)
            told += [(sheet.panel.called(suite), own[suite].mark) for suite in sheet.columns]
    return tuple(dict(told).items())


def _looks(sheet: Sheet, looks: Mapping[str, Style]) -> Mapping[str, Style]:
    """The styles of a panel's columns, or of its categories where a category holds one mark."""
    return looks if sheet.by_suite or len(sheet.columns) < 2 else styles(sheet.columns)


def _explained(note: str, page: Page) -> str:
    """The note, and what points and bars are."""
    entries = [mark.entry for sheet in page.sheets for mark in sheet.marks]
    if any(entry["runs"] > 1 for entry in entries):
        bars = "Small points: single runs. Large marks: the mean over runs, with its 95% interval."
    else:
        held = any(entry["low"] is not None for entry in entries)
        bars = f"Marks: one run each{', with its 95% interval' if held else ''}."
    return "\n".join(filter(None, [note, bars]))


def _draw(axes: Axes, sheet: Sheet, page: Page, looks: Mapping[str, Style]) -> None:
    """One panel."""
    own = _looks(sheet, looks)
    for group in sheet.groups:
        _draw_group_runs(axes, sheet, group, own, page.upright)
    for mark in sheet.marks:
        style = own[mark.group if mark.group in own else mark.suite]
        draw_rate(axes, style, sheet.at(mark), mark.entry, sheet.scale, page.upright)
    _dress(axes, sheet, page)
    if not sheet.values:
        (axes.set_yticks if page.upright else axes.set_xticks)([])
        axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", va="center", color=FAINT)


def _draw_group_runs(axes: Axes, sheet: Sheet, group: str, own: Mapping[str, Style], upright: bool) -> None:
    """A group's single runs in all categories; a run alone is its group's large mark already."""
    runs = sheet.runs.filter(pl.col("group") == group)
    names = runs["run"].unique(maintain_order=True).to_list()
    offset = run_offsets(names, sheet.column)
    for mark in sheet.of(group) if len(names) > 1 else ():
        told = runs.filter(pl.col("suite") == mark.suite)
        spots = [sheet.at(mark) + offset[run] for run in told["run"]]
        style = own[group if group in own else mark.suite]
        draw_runs(axes, style, spots, (sheet.scale * told["rate"]).to_list(), upright)


def _dress(axes: Axes, sheet: Sheet, page: Page) -> None:
    """The axes of a panel, its label, and a tint behind every other category that has several columns."""
    count, index = len(sheet.labels), page.sheets.index(sheet)
    dress(axes, axes.yaxis if page.upright else axes.xaxis, limits(sheet.values, sheet.share), sheet.share, 5)
    names = _names(sheet, page) if page.is_named(sheet) else []
    ends, shade = (-0.5, max(count, 1) - 0.5), axes.axvspan if page.upright else axes.axhspan
    if page.upright:
        axes.set(xlim=ends, xticks=range(count), xticklabels=names or [""] * count)
    else:
        axes.set(ylim=ends[::-1], yticks=range(count), yticklabels=names or [""] * count)
    for category in range(0, count if count > 1 < len(sheet.columns) else 0, 2):
        shade(category - 0.5, category + 0.5, color=TINT, linewidth=0, zorder=0)
    letter = LETTERS[index % len(LETTERS)] if len(page.sheets) > 1 else ""
    room = page.room(index) - (0.21 if letter else 0.0)
    put_label(axes, wrapped(sheet.panel.label, room), letter, MARGIN / 2 if page.upright else 0.0)
    axes.tick_params(axis="x" if page.upright else "y", pad=6 if page.upright else 10)
