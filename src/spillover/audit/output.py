"""Where an audit goes: a folder with the page and the record, written whole; and a table on the terminal."""

import json
import os
import shutil
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from spillover.audit.audit import Audit
from spillover.audit.page import render_audit
from spillover.errors import DataError

PAGE, RECORD = "audit.html", "audit.json"


def default_folder(file: Path) -> Path:
    """`audit-NAME` in the current folder, by the dataset's name without endings."""
    name = file.resolve().name
    return Path(f"audit-{name if file.is_dir() else name.split('.')[0] or name}")


def check_free(out: Path) -> None:
    """Raises DataError where something else than an audit stands in its place: before the work, not after."""
    if os.path.lexists(out) and not (out.is_dir() and {file.name for file in out.iterdir()} <= {PAGE, RECORD}):
        raise DataError("something else than an audit is there", where=out, remedy="Give another --out, or delete it.")


def write_audit(out: Path, audit: Audit) -> None:
    """Writes page and record, both or neither; an earlier audit in their place is replaced."""
    check_free(out)
    record = audit.record()
    out.parent.mkdir(parents=True, exist_ok=True)
    aside, old = (out.parent / f".{out.name}.{os.getpid()}.{state}" for state in ("aside", "old"))
    try:
        aside.mkdir()
        (aside / PAGE).write_text(render_audit(record), encoding="utf-8")
        (aside / RECORD).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        if out.is_dir():
            out.rename(old)
        aside.rename(out)
    finally:
        for folder in (aside, old):
            shutil.rmtree(folder, ignore_errors=True)


def show_audit(audit: Audit, out: Path) -> None:
    """Prints what stands out, and a sentence or two a section."""
    console = Console(highlight=False)
    console.print(Text(f"{audit.name}: {audit.rows:,} rows", "bold"))
    console.print(Text("\nWhat stands out", "bold"))
    for one in audit.stands_out:
        console.print(Text(f"* {one.says}"))
    if not audit.stands_out:
        console.print(Text("* Nothing that the rules look for."))
    table = Table("section", "what is in it", box=None, pad_edge=False, padding=(0, 2, 0, 0), show_lines=False)
    for section in audit.sections:
        table.add_row(Text(section.title), Text(section.says))
    console.print()
    console.print(table)
    console.print(
        Text(f"\nEvery number with its interval and its rows' lines: {out / PAGE}, {out / RECORD}"), soft_wrap=True
    )
