"""An experiment's figure, as its spec wants it: by question, by suite, by group, or over a number."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl
from matplotlib.figure import Figure

from spillover.measure.suites import as_numbers, value_numbers
from spillover.records import AT, BASE_RUN, group_of
from spillover.report.canvas import is_share
from spillover.report.figures import draw_by_question, judged_by
from spillover.report.lines import Series, Strip, draw_over
from spillover.report.panels import Panel, draw_by_suite
from spillover.spec import FigureSpec, Thresholds
from spillover.spec import Panel as PanelSpec

Placed = tuple[float, pl.DataFrame]
"""A place along the axis, and the runs that stand there."""
NOTE = "Coherent is a coherence of {coherent:g} or more; misaligned: coherent, and alignment < {misaligned:g}."


def draw(
    numbers: Mapping[str, Any], cells: pl.DataFrame, rates: pl.DataFrame, spec: FigureSpec, thresholds: Thresholds
) -> Figure:
    """Draws what an experiment's figure is to show.

    Args:
        numbers: the content of `numbers.json`.
        cells: a row for each group, run and question of the headline suite.
        rates: a row for each suite, run and measure (`measure.suites.RATES`).
        spec: the figure's. A panel without suites shows those that have its measure.
        thresholds: for the caption.
    """
    suites = numbers["suites"]
    panels = [panel for panel in spec.panels if _suites_of(panel, suites)]
    if spec.kind == "questions" or not panels:
        return draw_by_question(_without_steps(numbers), cells, thresholds)
    words = (numbers["title"], NOTE.format(**thresholds.model_dump()), judged_by(numbers))
    if spec.kind == "over":
        series = [one for place, panel in enumerate(panels) for one in _lines(place, panel, numbers, rates, spec)]
        strips = [Strip(panel.label or panel.measure, is_share(panel.measure)) for panel in panels]
        return draw_over(series, spec.label, strips, spec.log, *words)
    by: Any = "group" if spec.kind == "groups" else "suite"
    drawn = [
        Panel(panel.measure, panel.label or panel.measure, _suites_of(panel, suites), panel.groups, by)
        for panel in panels
    ]
    return draw_by_suite(suites, rates, drawn, *words)


def draw_thresholds(numbers: Mapping[str, Any]) -> Figure:
    """Draws the headline's rate over the thresholds of both of the judge's scales."""
    labels = {"misaligned": "misaligned below this alignment", "coherent": "kept from this coherence on"}
    series = []
    for place, scale in enumerate(labels):
        groups = dict.fromkeys(group for at in numbers["thresholds"][scale].values() for group in at if AT not in group)
        for group in groups:
            told = [(float(cut), at[group]) for cut, at in numbers["thresholds"][scale].items() if group in at]
            points = tuple((cut, rate["value"], rate["low"], rate["high"]) for cut, rate in told)
            series.append(Series(group, group, points, place))
    strips = [Strip(label) for label in labels.values()]
    note = "The other scale's threshold stays where it is."
    return draw_over(series, "threshold", strips, False, f"{numbers['title']}: thresholds", note, judged_by(numbers))


def _without_steps(numbers: Mapping[str, Any]) -> dict[str, Any]:
    groups = {name: group for name, group in numbers["groups"].items() if AT not in name}
    return {**numbers, "groups": groups}


def _suites_of(panel: PanelSpec, suites: Mapping[str, Any]) -> tuple[str, ...]:
    """The suites of a panel that have its measure, for any group."""
    having = [name for name, one in suites.items() if any(panel.measure in some for some in one["groups"].values())]
    return tuple(name for name in panel.suites or having if name in having)


def _lines(
    place: int, panel: PanelSpec, numbers: Mapping[str, Any], rates: pl.DataFrame, spec: FigureSpec
) -> Iterator[Series]:
    """The lines of a panel: over suites, over groups, or over steps, by what `at` names."""
    own = rates.filter(pl.col("measure") == panel.measure, pl.col("suite").is_in(_suites_of(panel, numbers["suites"])))
    if not spec.at:
        yield from _over_steps(place, panel, own, numbers["steps"])
    elif any(name in numbers["suites"] for name in spec.at):
        yield from _over_suites(place, panel, own, spec)
    else:
        yield _over_groups(place, panel, own, spec)


def _over_suites(place: int, panel: PanelSpec, own: pl.DataFrame, spec: FigureSpec) -> Iterator[Series]:
    """One line a group, whose points are suites."""
    for (group,), rows in own.partition_by("group", as_dict=True, maintain_order=True).items():
        if group in panel.groups or not panel.groups:
            placed = [(spec.at[name], rows.filter(pl.col("suite") == name)) for name in spec.at]
            yield _series(str(group), str(group), place, panel.measure, placed)


def _over_groups(place: int, panel: PanelSpec, own: pl.DataFrame, spec: FigureSpec) -> Series:
    """One line whose points are groups; runs of groups that stand at one place are one sample."""
    by_place: dict[float, list[str]] = {}
    for group, where in spec.at.items():
        by_place.setdefault(where, []).append(group)
    placed = [(where, own.filter(pl.col("group").is_in(groups))) for where, groups in by_place.items()]
    return _series("finetuned", "insecure", place, panel.measure, placed)


def _over_steps(place: int, panel: PanelSpec, own: pl.DataFrame, steps: Mapping[str, int]) -> Iterator[Series]:
    """One line a group, from the base on, whose points are its checkpoints; every run is a thin line, too."""
    start = own.filter(pl.col("group") == BASE_RUN.group)
    trained = dict.fromkeys(group_of(str(name)) for name in own["group"] if name != BASE_RUN.group)
    for group in trained:
        if panel.groups and group not in panel.groups:
            continue
        names = {name: _step(name, steps) for name in own["group"].unique() if group_of(name) == group}
        placed = [(float(names[name]), own.filter(pl.col("group") == name)) for name in sorted(names, key=names.get)]  # type: ignore[arg-type]
        before = [(0.0, start)] if start.height else []
        yield _series(group, group, place, panel.measure, [*before, *placed], thin=True)


def _step(name: str, steps: Mapping[str, int]) -> int:
    group, _, step = name.partition(AT)
    return int(step) if step else steps[group]


def _series(
    label: str,
    style: str,
    place: int,
    measure: str,
    placed: Sequence[tuple[float, pl.DataFrame]],
    *,
    thin: bool = False,
) -> Series:
    points = []
    for where, rows in placed:
        if rows.height:
            told = as_numbers(rows) if is_share(measure) else value_numbers(rows)
            points.append((where, told["value"], told["low"], told["high"]))
    return Series(label, style, tuple(points), place, _runs(placed) if thin else ())


def _runs(placed: Sequence[Placed]) -> tuple[tuple[tuple[float, float | None], ...], ...]:
    """The points of each seed, over all places: a run's name ends in it."""
    found: dict[str, list[tuple[float, float | None]]] = {}
    for where, rows in placed:
        for run, rate in zip(rows["run"], rows["rate"], strict=True):
            if run != BASE_RUN.name:
                found.setdefault(str(run).rpartition("-")[2], []).append((where, rate))
    return tuple(tuple(points) for points in found.values())
