"""`spillover export inspect` and `spillover import inspect`: answers as Inspect's logs, and such logs as answers."""

from pathlib import Path
from typing import Annotated

import typer

from spillover.cli.told import LabDir, told_plainly
from spillover.lazy import lazy
from spillover.store import read_lab

writing = lazy("spillover.inspect_tasks.logs")
reading = lazy("spillover.inspect_tasks.reading")

export = typer.Typer(help="Results in the formats of other programs.", no_args_is_help=True)
imports = typer.Typer(help="Results of other programs, as tables of answers.", no_args_is_help=True)

Reports = Annotated[
    list[str],
    typer.Argument(metavar="EXPERIMENT...", help="Experiments whose reports lie in the lab, or reports' folders."),
]


@export.command("inspect")
@told_plainly
def export_inspect(
    reports: Reports,
    to: Annotated[Path, typer.Option("--to", help="The folder to write to, as `inspect view --log-dir` takes it.")],
    lab: LabDir = Path("lab"),
) -> None:
    """Write a report's answers and verdicts as Inspect's logs (.eval), one a run and suite."""
    for log in writing.export(reports, read_lab(lab).root, to):
        print(log)


@imports.command("inspect")
@told_plainly
def import_inspect(
    logs: Annotated[list[Path], typer.Argument(metavar="LOG...", help="Inspect's logs (.eval), or folders of them.")],
    to: Annotated[Path, typer.Option("--to", help="The Parquet file to write; it must not be there yet.")],
) -> None:
    """Read the logs of `spillover/main` and `spillover/broad`, and exported ones, as a table of judged answers."""
    print(reading.import_logs(logs, to))
