"""The parts of growing results: Parquet files of answers or verdicts, and what their metadata say."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from spillover.ask.asker import Asked, Reply
from spillover.hashes import beside, check_part
from spillover.judge.rubrics import Rubric
from spillover.measure.table import with_pairs
from spillover.pipeline.cells import Cell
from spillover.records import ANSWER_COLUMNS, VERDICT_COLUMNS, Pair, Question, Verdict
from spillover.spec import short_hash
from spillover.store import Lab

PART = 4096
"""Most answers, or verdicts, of one part."""
FAILED = "failed"
"""How outcomes and reasons begin that may pass: they are counted, and tried again by the next `ask` or `judge`."""
SECONDS = "seconds"
EFFECT = "effect"
"""In the spec of what a checkpoint was asked: how much its adapter was seen to change the base."""
PAGE = 32 * 1024
"""Bytes of a column that are packed together: so some rows of a part can be had without unpacking all its texts."""
SAID = ("answer", "tokens", "truncated", "outcome")
"""The columns of an answer that asking again replaces."""


def parts(folder: Path) -> list[Path]:
    """The finished parts of a growing result, in order. Raises LabError where one is not as it was written."""
    found = part_paths(folder)
    for part in found:
        check_part(part)
    return found


def part_paths(folder: Path) -> list[Path]:
    """As `parts`, for those who do not read them: nothing is compared."""
    return sorted(folder.glob("part-*.parquet"))


def tried(folders: Iterable[Path]) -> str:
    """A short hash of growing results' parts, another one once any was made anew: clocks may go back."""
    told = [(part.name, beside(part)) for folder in folders for part in part_paths(folder)]
    return short_hash([(name, file.read_text(encoding="utf-8") if file.is_file() else "") for name, file in told])


def write_rows(path: Path, rows: pl.DataFrame, spent: float, failed: int) -> None:
    """Writes a part: its rows, the seconds that it took, and how many of its rows failed."""
    told = {SECONDS: f"{spent:.3f}", FAILED: str(failed)}
    rows.write_parquet(path, metadata=told, data_page_size=PAGE)


def seconds_of(part: Path) -> float:
    """How long a part took."""
    return float(pl.read_parquet_metadata(part)[SECONDS])


def failed_of(part: Path) -> int:
    """How many of a part's rows failed, after every retry."""
    return int(pl.read_parquet_metadata(part)[FAILED])


def schema(columns: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """A table's columns as polars wants them."""
    return {name: getattr(pl, kind) for name, kind in columns}


def missing_spans(cell: Cell, lab: Lab) -> Iterator[range]:
    """Ranges of sample numbers that are not in the lab yet, of a size that makes a part."""
    size = max(1, PART // len(cell.questions))
    for gap in _gaps([_span(path) for path in part_paths(cell.folder(lab))], cell.samples):
        for first in range(gap.start, gap.stop, size):
            yield range(first, min(first + size, gap.stop))


def _span(part: Path) -> range:
    """The sample numbers of a part of answers, which stand in its name."""
    _, start, stop = part.stem.split("-")
    return range(int(start), int(stop))


def _gaps(spans: Sequence[range], stop: int) -> Iterator[range]:
    """What of 0 to `stop` is in none of some spans, which are in order: a later one may have been ready before."""
    start = 0
    for span in [*spans, range(stop, stop)]:
        if start < min(span.start, stop):
            yield range(start, min(span.start, stop))
        start = max(start, span.stop)


def answer_frame(cell: Cell, span: range, given: Sequence[tuple[Asked, list[Reply]]]) -> pl.DataFrame:
    """The answers of a part, question by question; each with the name of its pair, hashed while the text is at hand."""
    run = (cell.checkpoint.run.group, cell.checkpoint.run.name, cell.suite)
    rows = [
        (*run, one.question.id, number, *_put(one.question), *_said(reply, seed))
        for one, replies in given
        for number, seed, reply in zip(span, one.seeds, replies, strict=True)
    ]
    return with_pairs(pl.DataFrame(rows, schema(ANSWER_COLUMNS), orient="row"))


def _put(question: Question) -> tuple[str | None, str, str | None]:
    return question.system, question.text, question.plain


def _said(reply: Reply, seed: int) -> tuple[str, int, int, bool, str | None]:
    return reply.text, seed, reply.tokens, reply.truncated, reply.outcome


def failed_answers() -> pl.Expr:
    """Which answers a provider failed to give."""
    return pl.col("outcome").str.starts_with(FAILED).fill_null(False)


def failed_asked(rows: pl.DataFrame, cell: Cell) -> list[Asked]:
    """What is to be asked again of a part, in the order of its rows."""
    questions = {question.id: question for question in cell.questions}
    failed = rows.filter(failed_answers()).partition_by("question", maintain_order=True)
    return [Asked(questions[some["question"][0]], tuple(some["seed"])) for some in failed]


def with_replies(rows: pl.DataFrame, replies: Sequence[Reply]) -> pl.DataFrame:
    """A part's rows with new replies in place of those that failed, in the order of `failed_asked`."""
    numbered = rows.with_row_index("row")
    places = numbered.filter(failed_answers()).partition_by("question", maintain_order=True)
    told = {name: kind for name, kind in schema(ANSWER_COLUMNS).items() if name in SAID}
    said = [(reply.text, reply.tokens, reply.truncated, reply.outcome) for reply in replies]
    new = pl.DataFrame(said, told, orient="row").with_columns(pl.concat(places)["row"])
    whole = numbered.update(new, on="row", include_nulls=True).drop("row")
    return with_pairs(whole.drop("pair", strict=False))


def verdict_frame(pairs: Sequence[Pair], found: Sequence[Verdict], judge: str, rubric: Rubric) -> pl.DataFrame:
    """Verdicts as a table, one row a pair; each says which judge gave it, and by which words."""
    by = (judge, rubric.key())
    rows = [
        (pair.id, verdict.value, verdict.label, verdict.reason, json.dumps(verdict.table, ensure_ascii=False), *by)
        for pair, verdict in zip(pairs, found, strict=True)
    ]
    return pl.DataFrame(rows, schema(VERDICT_COLUMNS), orient="row")
