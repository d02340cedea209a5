"""The page of an audit: one HTML file from `audit.html.j2`, in the report's style. It shows what audit.json holds.

Texts of the dataset are specimens: the template escapes all of them, and the page has no script at all.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from spillover.audit.standout import lines_told
from spillover.report import page as report
from spillover.report.page import percent

HERE = Path(__file__).parent
LINES = 3
"""How many lines of a finding are named; audit.json names all."""
GROUPS = {"severity": "By severity", "rule": "By bandit's rules", "cwe": "By weakness (CWE)"}
"""What findings with a `/` in their name are gathered under, by what comes before it."""


def render_audit(record: Mapping[str, Any]) -> str:
    """The page as text.

    Args:
        record: the audit as plain data, as `Audit.record` gives it.
    """
    return _template().render(audit=record, groups=GROUPS)


def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(HERE)
    env = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    env.filters |= {"percent": percent, "lines": _lines, "width": _width, "number": _number, "bars": _bars}
    env.tests |= {"found": lambda finding: finding["count"] > 0}
    env.globals["css"] = (Path(report.__file__).with_name("page.css")).read_text(encoding="utf-8")
    return env.get_template("audit.html.j2")


def _lines(lines: Sequence[int]) -> str:
    return lines_told(lines, LINES)


def _width(share: float | None) -> str:
    """A share as the length of a bar, in per cent; a share above zero can be seen."""
    return f"{max(100 * share, 0.4 if share else 0):.2f}" if share is not None else "0"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or float(value).is_integer() else f"{value:,.1f}"


def _bars(histogram: Mapping[str, Sequence[int]]) -> list[dict[str, Any]]:
    """A histogram's bars: from, to, rows, and the height as a share of the highest."""
    edges, rows = histogram["edges"], histogram["rows"]
    most = max([*rows, 1])
    bounds = itertools.pairwise(edges)
    return [
        {"low": low, "high": high, "rows": n, "height": n / most} for (low, high), n in zip(bounds, rows, strict=True)
    ]
