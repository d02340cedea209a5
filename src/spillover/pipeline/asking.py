"""The stage that asks: checkpoint by checkpoint, all its suites together, in parts that are whole or not there."""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from spillover.ask.asker import Asked, Reply, answer_seed
from spillover.crew import Lost
from spillover.display import Display
from spillover.pipeline.cells import Cell, Checkpoint
from spillover.pipeline.parts import (
    EFFECT,
    answer_frame,
    failed_answers,
    failed_asked,
    failed_of,
    missing_spans,
    parts,
    seconds_of,
    with_replies,
    write_rows,
)
from spillover.pipeline.plan import Plan
from spillover.pipeline.staff import Staff
from spillover.pipeline.stages import need
from spillover.pipeline.workers import Workers
from spillover.store import Lab

WRITTEN = 500
"""Characters that are read about as fast as an answer is written."""


@dataclass(frozen=True)
class Block:
    """What one checkpoint is asked at once: samples of cells, so that batches are large."""

    spans: tuple[tuple[Cell, range], ...]

    @property
    def checkpoint(self) -> Checkpoint:
        """Who is asked."""
        return self.spans[0][0].checkpoint

    @property
    def answers(self) -> int:
        """How many answers are wanted."""
        return sum(_size(*one) for one in self.spans)

    def asked(self) -> list[Asked]:
        """The questions with their seeds, span after span."""
        key = self.checkpoint.key
        return [
            Asked(question, tuple(answer_seed(key, question, number) for number in span))
            for cell, span in self.spans
            for question in cell.questions
        ]


def ask(plan: Plan, lab: Lab, display: Display, staff: Staff) -> None:
    """Asks every checkpoint for the answers that are missing or failed; those that are there stay."""
    missing = [(cell, span) for cell in plan.cells for span in missing_spans(cell, lab)]
    failed = [(cell, part) for cell in plan.cells for part in parts(cell.folder(lab)) if failed_of(part)]
    if not missing and not failed:
        return
    for cell, _ in missing:
        folder = cell.checkpoint.folder(lab)
        if folder is not None:
            need(lab, folder, "checkpoint", "spillover train")
    wanted = sum(_size(*one) for one in missing)
    total = wanted + sum(failed_of(part) for _, part in failed)
    work = wanted + sum(_read(*one) for one in missing)
    with Workers(plan, lab, staff, work) as workers, display.bar("ask", total) as bar:
        for cell, part in failed:
            bar.advance(failed_of(part))
            _ask_again(plan, lab, workers, cell, part)
        blocks, began = list(_blocks(missing, workers.answers)), time.monotonic()
        for number, asked, replies in workers.asked([(block.checkpoint, block.asked) for block in blocks]):
            now = time.monotonic()
            bar.advance(blocks[number].answers)
            if isinstance(replies, Lost):
                staff.lost.append(f"answers of {blocks[number].checkpoint.run.name}: {replies.why}")
                continue
            _write(plan, lab, workers, blocks[number], list(zip(asked, replies, strict=True)), now - began)
            began = now


def _size(cell: Cell, span: range) -> int:
    return len(span) * len(cell.questions)


def _read(cell: Cell, span: range) -> int:
    """What reading the questions comes to, beside the answers: much where they have long contexts."""
    texts = sum(len(message["content"]) for question in cell.questions for message in question.messages())
    return len(span) * texts // WRITTEN


def _blocks(missing: Sequence[tuple[Cell, range]], most: int) -> Iterator[Block]:
    """All that a checkpoint is asked, up to so many answers at once."""
    for _, work in itertools.groupby(missing, key=lambda one: one[0].checkpoint):
        spans: list[tuple[Cell, range]] = []
        for one in work:
            if spans and sum(_size(*other) for other in [*spans, one]) > most:
                yield Block(tuple(spans))
                spans = []
            spans.append(one)
        yield Block(tuple(spans))


def _write(
    plan: Plan, lab: Lab, workers: Workers, block: Block, given: Sequence[tuple[Asked, list[Reply]]], spent: float
) -> None:
    """Writes a block's answers, a part a cell.

    All parts are written before the first is renamed: but for a kill between two renames, whoever resumes asks all of
    them together again, or none.
    """
    left, each = iter(given), spent / block.answers
    with contextlib.ExitStack() as stack:
        for cell, span in block.spans:
            name, spec = f"part-{span.start:06d}-{span.stop:06d}.parquet", _spec(plan, cell, workers)
            some = list(itertools.islice(left, len(cell.questions)))
            aside = stack.enter_context(lab.part(cell.folder(lab), name, spec))
            _write_answers(aside, answer_frame(cell, span, some), each * _size(cell, span))


def _write_answers(path: Path, rows: pl.DataFrame, spent: float) -> None:
    write_rows(path, rows, spent, rows.filter(failed_answers()).height)


def _ask_again(plan: Plan, lab: Lab, workers: Workers, cell: Cell, part: Path) -> None:
    """Asks once more for the answers of a part that a provider failed to give, and writes the part anew.

    Whoever is asked now may be another: who answers is in no key.
    """
    began, rows = time.monotonic(), pl.read_parquet(part)
    ((_, _, replies),) = workers.asked([(cell.checkpoint, lambda: failed_asked(rows, cell))])
    if isinstance(replies, Lost):
        return  # they stay failed, and are told as such
    whole = with_replies(rows, list(itertools.chain(*replies)))
    with lab.part(cell.folder(lab), part.name, _spec(plan, cell, workers)) as aside:
        _write_answers(aside, whole, seconds_of(part) + time.monotonic() - began)


def _spec(plan: Plan, cell: Cell, workers: Workers) -> dict[str, Any]:
    return {
        "run": cell.checkpoint.run.name,
        "checkpoint": cell.checkpoint.key,
        "suite": cell.suite,
        "questions": [dataclasses.asdict(question) for question in cell.questions],
        "sampling": plan.experiment.sampling.model_dump(mode="json"),
        EFFECT: workers.effect(cell.checkpoint),
    }
