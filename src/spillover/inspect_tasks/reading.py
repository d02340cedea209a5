"""Inspect's logs as tables of judged answers: `spillover import inspect`."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from inspect_ai.log import EvalLog, EvalSample, read_eval_log

from spillover.ask.failures import shortened
from spillover.errors import DataError, LabError
from spillover.inspect_tasks.samples import Columns, columns_of, judged_columns, row_of
from spillover.measure.table import kept_and_set_aside
from spillover.spec import Thresholds
from spillover.store import ASIDE

NOT_NEEDED = {"events", "store", "timelines", "events_data"}
"""What takes most of the room of a log, and holds nothing of a row."""
ROW = ("run", "suite", "question", "sample")
OF_OURS = "Give logs of spillover/main or spillover/broad, or those that `spillover export inspect` wrote."


def import_logs(paths: Sequence[Path], to: Path) -> Path:
    """Writes the answers of some logs, with their verdicts, as one table.

    Args:
        paths: logs, or folders of them.
        to: the Parquet file, which must not be there yet.

    Raises:
        DataError: a log cannot be read, holds no verdicts of ours, or holds the same answers as another.
        LabError: the file is there already.
    """
    if to.exists():
        raise LabError("is there already, and is not written over", where=to, remedy="Give another file with --to.")
    frame = read_logs(paths)
    aside = to.with_name(f"{to.name}{ASIDE}")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(aside)
        aside.replace(to)
    finally:
        aside.unlink(missing_ok=True)
    return to


def read_logs(paths: Sequence[Path]) -> pl.DataFrame:
    """The answers of some logs with their verdicts, log by log; see `import_logs`."""
    files = [file for path in paths for file in _files(path)]
    frames = {file: read_log(file) for file in files}
    found = pl.concat(frames.values(), how="diagonal")
    _check_distinct(frames)
    return found


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(path.rglob("*.eval"))
    if not found:
        raise DataError("holds no .eval file", where=path, remedy=OF_OURS)
    return found


def read_log(path: Path) -> pl.DataFrame:
    """The answers of a log with their verdicts, in the order of the questions and samples.

    Raises DataError where it cannot be read, did not end well, or holds no verdicts of ours.
    """
    log = _opened(path)
    told = log.eval.metadata or {}
    columns = _columns(log, told, path)
    order = {str(id): place for place, id in enumerate(log.eval.dataset.sample_ids or [])}
    samples = sorted(log.samples or [], key=lambda one: (order.get(str(one.id), len(order)), one.epoch))
    rubrics = [name for name in columns.rubrics if name in told["rubrics"]]
    for sample in samples:
        _check_scored(sample, rubrics, path)
    try:
        rows = [row_of(sample, columns, str(told["suite"]), log.eval.model) for sample in samples]
        frame = pl.DataFrame(rows, columns.told)
        return kept_and_set_aside(frame, Thresholds.model_validate(told["thresholds"])).select(columns.names)
    except (KeyError, TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"holds a sample that is none of ours: {shortened(error)}", where=path, remedy=OF_OURS
        ) from None


def _opened(path: Path) -> EvalLog:
    if not path.is_file():
        raise DataError("there is no such file", where=path, remedy="Give an .eval file, or a folder of them.")
    try:
        log = read_eval_log(path, resolve_attachments="core", format="eval", exclude_fields=NOT_NEEDED)
    except Exception as error:  # an archive of others', and what it holds, may raise anything
        what = f"is no log of Inspect's that can be read: {shortened(error)}"
        raise DataError(what, where=path, remedy="Give an .eval file that is whole.") from None
    if log.status != "success":
        what = f"the evaluation did not end well (status {log.status!r})"
        raise DataError(what, where=path, remedy="Go on with it: `inspect eval-retry`.")
    return log


def _columns(log: EvalLog, told: dict[str, Any], path: Path) -> Columns:
    """The columns of the log's table: those that it was exported with, or those of its rubrics."""
    rubrics = told.get("rubrics")
    if not isinstance(rubrics, dict) or not isinstance(told.get("suite"), str):
        what = f"is a log of the task {log.eval.task!r}, whose answers have no verdicts of ours"
        raise DataError(what, where=path, remedy=OF_OURS)
    names = told.get("columns")
    columns = columns_of(names) if isinstance(names, list) else judged_columns(list(rubrics))
    if columns.unknown:
        what = f"has the unknown column {columns.unknown[0]!r}"
        raise DataError(what, where=path, remedy="Install the newer spillover that wrote it.")
    return columns


def _check_scored(sample: EvalSample, rubrics: Sequence[str], path: Path) -> None:
    missing = [name for name in rubrics if name not in (sample.scores or {})]
    if missing and sample.error is None:
        raise DataError(
            f"the answer to {sample.id!r}, epoch {sample.epoch}, has no score {missing[0]!r}",
            where=path,
            remedy="Score it: `inspect score LOG --scorer spillover/RUBRIC`.",
        )


def _check_distinct(frames: dict[Path, pl.DataFrame]) -> None:
    """Raises DataError for an answer that is there twice."""
    seen: dict[tuple[Any, ...], Path] = {}
    for path, frame in frames.items():
        for key, count in Counter(frame.select(ROW).iter_rows()).items():
            other = path if count > 1 else seen.setdefault(key, path)
            if other != path or count > 1:
                what = f"holds an answer of {key[0]!r} to {key[2]!r} that is in {other} too"
                raise DataError(what, where=path, remedy="Give only one of them.")
