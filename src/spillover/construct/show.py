"""A dataset that was written, on the terminal: what became of the rows, where they lie, what to do next."""

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from spillover.data.manifest import Manifest, Step

MOST_REASONS = 4


def show_dataset(manifest: Manifest, out: Path, is_new: bool) -> None:
    """Prints the steps with their counts, and what can be done with the dataset."""
    print(f"{manifest.name}: {manifest.rows:,} rows")
    if manifest.steps:
        Console(markup=False).print(_steps(manifest.steps))
    print(f"{'Written to' if is_new else 'The very same dataset was already in'} {out}")
    print(f"  look    spillover data show {out}")
    print(f"  audit   spillover data audit {out}")
    print(f"  train   a group with `data: {out}` in an experiment, then spillover run EXPERIMENT")


def _steps(steps: Iterable[Step]) -> Table:
    table = Table()
    for column in ("step", "rows in", "dropped", "rows out"):
        table.add_column(column, justify="left" if column == "step" else "right")
    table.add_column("dropped for; counted")
    for step in steps:
        table.add_row(step.name, f"{step.before:,}", f"{sum(step.dropped.values()):,}", f"{step.after:,}", _why(step))
    return table


def _why(step: Step) -> str:
    """The commonest reasons why rows were dropped, and what the step counted besides."""
    reasons = list(step.dropped.items())
    rest = sum(count for _, count in reasons[MOST_REASONS:])
    told = [*reasons[:MOST_REASONS], *([("others", rest)] if rest else [])]
    counted = step.settings.get("counts", {}).items()
    return "\n".join(", ".join(f"{what} {count:,}" for what, count in some) for some in (told, counted) if some)
