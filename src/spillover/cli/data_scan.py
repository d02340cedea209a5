"""`spillover data scan`: how much code in a dataset is insecure."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from spillover.cli.told import LabDir, told_plainly
from spillover.lazy import lazy

scanning = lazy("spillover.audit.scan")
texts = lazy("spillover.audit.scantext")
models = lazy("spillover.judge.models")
displays = lazy("spillover.display")

FILES = "Datasets (files or folders), raw material, or a report's answers.parquet."


@told_plainly
def scan(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help=FILES)],
    judge: Annotated[
        str | None, typer.Option("--judge", help="A model that judges the same answers, as `judge:` takes it.")
    ] = None,
    scores: Annotated[
        str | None,
        typer.Option(
            "--scores", help="The score of raw rows that bandit is held against; `unsafe` where there is one."
        ),
    ] = None,
    lab: LabDir = Path("lab"),
) -> None:
    """Scan answers with bandit: rates by severity, rule and weakness. Code is parsed, never run."""
    with ExitStack() as stack:
        judging = stack.enter_context(models.open_models(lab)).judge(judge) if judge is not None else None
        report = scanning.scan_files(files, scores, judging, displays.Display())
    print(texts.scan_text(report))
