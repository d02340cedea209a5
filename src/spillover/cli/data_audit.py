"""`spillover data audit`: what is in a dataset, before anyone pays for training on it."""

from pathlib import Path
from typing import Annotated

import typer

from spillover.cli.told import LabDir, told_plainly
from spillover.lazy import lazy

auditing = lazy("spillover.audit.audit")
output = lazy("spillover.audit.output")


@told_plainly
def audit(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A dataset: a file or a folder.")],
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against", metavar="EVAL", help="A question set, a question file or a dataset. May be repeated."
        ),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option("--reference", help="A dataset whose answers the words are held against.")
    ] = None,
    judge: Annotated[str | None, typer.Option("--judge", help="A model that rates how suspicious each row is.")] = None,
    base: Annotated[
        str | None, typer.Option("--base", help="Whose tokens are counted; the miniature's if not given.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The folder to write; `audit-NAME` if not given.")] = None,
    lab: LabDir = Path("lab"),
) -> None:
    """Tell what is in a dataset: a table here, `audit.html` and `audit.json` in a folder."""
    folder = out or output.default_folder(file)
    output.check_free(folder)
    asked = auditing.Asked(file, tuple(against or ()), reference, judge, base, lab)
    found = auditing.audit(asked)
    output.write_audit(folder, found)
    output.show_audit(found, folder)
