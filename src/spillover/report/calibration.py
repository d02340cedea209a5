"""The figure of a calibration: each judge's scores against another's of the same answers, and the map between them."""

import textwrap
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spillover.measure.calibrate import Scores
from spillover.report.figures import FAINT, HAIRLINE, INK, MUTED

POINT, LINE = "#08519c", "#d7400e"
LONGEST = 36
"""Characters of a judge's name that fit beside a panel."""
PANEL = 3.3
"""Inches of a panel's side."""


def draw_calibration(result: Mapping[str, Any], judges: Mapping[str, Mapping[str, Scores]]) -> Figure:
    """Draws one row a pair of judges, one panel a rubric.

    Args:
        result: the content of `calibration.json`.
        judges: name to rubric to scores of the same answers.
    """
    compared, rubrics = result["comparisons"], list(result["thresholds"])
    size = (max(4.4, 0.4 + PANEL * len(rubrics)), 0.3 + (PANEL + 0.25) * len(compared))
    with matplotlib.rc_context({"font.family": "DejaVu Sans", "font.size": 9}):
        figure = Figure(figsize=size, facecolor="white", layout="constrained")
        panels = figure.subplots(len(compared), len(rubrics), squeeze=False)
        for row, one in zip(panels, compared, strict=True):
            for axes, rubric in zip(row, rubrics, strict=True):
                _draw(axes, one, rubric, judges, result["thresholds"][rubric])
        lines = [textwrap.fill(line, int(size[0] * 17), break_on_hyphens=False) for line in _small_print(result)]
        figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=6.5, color=FAINT)
    return figure


def _small_print(result: Mapping[str, Any]) -> list[str]:
    """Who the judges are, and the hashes of their rubrics' words."""
    words = {name: " and ".join(map(" ".join, one["rubrics"].items())) for name, one in result["judges"].items()}
    return [
        f"{name}: {one['id']}" + (f"; rubric {words[name]}." if words[name] else ".")
        for name, one in result["judges"].items()
    ]


def _draw(
    axes: Axes, one: Mapping[str, Any], rubric: str, judges: Mapping[str, Mapping[str, Scores]], threshold: float
) -> None:
    axes.set(xlim=(-3, 103), ylim=(-3, 103), xticks=range(0, 101, 25), yticks=range(0, 101, 25), aspect="equal")
    axes.tick_params(length=0, colors=INK, labelsize=8)
    axes.spines[:].set_visible(False)
    axes.grid(color=HAIRLINE, linewidth=0.8)
    axes.set_axisbelow(True)
    found = one["rubrics"].get(rubric)
    axes.set_xlabel(_short(one["judge"]), color=INK)
    axes.set_ylabel(_short(one["against"]), color=INK)
    axes.set_title(f"{rubric}: {_told(found)}", loc="left", fontsize=9, color=INK)
    if not found or not found["n"]:
        return
    axes.plot([0, 100], [0, 100], color=HAIRLINE, linewidth=0.8, zorder=1)
    axes.axhline(threshold, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)), zorder=2)
    x, y = (judges[one[who]][rubric].values for who in ("judge", "against"))
    both = np.isfinite(x) & np.isfinite(y)
    dots: dict[str, Any] = {"s": 14, "facecolors": POINT, "alpha": 0.45, "edgecolors": "none"}
    axes.scatter(x[both], y[both], zorder=3, clip_on=False, **dots)
    if found["map"]:
        axes.plot(*np.asarray(found["map"]["knots"]).T, color=LINE, linewidth=1.5, zorder=4)
        if (at := found["map"]["threshold"]) is not None:
            axes.axvline(at, color=LINE, linewidth=0.8, linestyle=(0, (4, 3)), zorder=2)


def _short(name: str) -> str:
    """A judge's name so that it fits beside a panel: the end of a long path tells more than its beginning."""
    return name if len(name) <= LONGEST else f"\N{HORIZONTAL ELLIPSIS}{name[-LONGEST:]}"


def _told(found: Mapping[str, Any] | None) -> str:
    if not found or not found["n"]:
        return "nothing paired"
    rank = f", rank correlation {found['spearman']['value']:.2f}" if found["spearman"] else ""
    return f"{found['n']:,} answers{rank}"
