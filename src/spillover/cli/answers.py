"""`spillover answers`: all answers of a report, filtered from the command line."""

from pathlib import Path
from typing import Annotated

import typer

from spillover.cli.told import LabDir, names, told_plainly
from spillover.lazy import lazy
from spillover.store import read_lab

filtering = lazy("spillover.pipeline.answers")

SHOWN = 20
"""Answers that are shown where nobody says how many."""


@told_plainly
def answers(
    experiment: Annotated[
        str, typer.Argument(metavar="EXPERIMENT", help="A report in the lab, by name, or a YAML file.")
    ],
    where: Annotated[
        str | None,
        typer.Argument(
            metavar="FILTER", help="What SQL has behind WHERE, as in \"alignment < 30 AND answer LIKE '%human%'\"."
        ),
    ] = None,
    lab: LabDir = Path("lab"),
    columns: Annotated[str | None, typer.Option("--columns", help="Only these, separated by commas.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help=f"At most so many; {SHOWN} are shown.")] = None,
    count: Annotated[bool, typer.Option("--count", help="Only say how many there are.")] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write them to a new file instead: .parquet, .csv or .jsonl.")
    ] = None,
) -> None:
    """Filter all answers of a finished report."""
    folder = filtering.report_folder(read_lab(lab).root, experiment)
    found = filtering.find_answers(folder, where)
    if out is not None:
        found.write(out, names(columns), limit)
    elif not count:
        filtering.show_answers(found, names(columns), limit or SHOWN)
        return
    filtering.show_count(found, limit, out)
