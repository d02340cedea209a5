"""The stages: each makes what its part of the plan is missing in the lab, and touches nothing that is there.

data -> finetune -> ask -> judge. A stage reads what the stage before it wrote, and says what to run where that is
missing.
"""

import contextlib
import dataclasses
import itertools
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from spillover.ask.asker import Asked, Asker, Reply, answer_seed
from spillover.ask.local import LocalAsker
from spillover.data.files import read_conversations, write_conversations
from spillover.display import Display
from spillover.errors import LabError
from spillover.finetune.train import Job, LocalTrainer, save_checkpoint
from spillover.judge.judge import AnswerJudge, BanditJudge, Judge
from spillover.judge.local import LocalJudge
from spillover.judge.rubrics import Rubric
from spillover.pipeline.plan import Cell, Checkpoint, Dataset, Plan
from spillover.records import ANSWER_COLUMNS, VERDICT_COLUMNS, Pair, Verdict, pair_id
from spillover.store import Lab

FLEET = 6
"""Most runs of a fleet. More are hardly faster, and what is lost by a kill is one fleet's work."""
ALIKE = 1.25
"""How many times longer than another's a group's rows may be, on average, for a run of each to share a fleet."""
PART = 4096
"""Most answers, or verdicts, of one part."""
SECONDS = "seconds"


def make_data(plan: Plan, lab: Lab, display: Display) -> None:
    """Writes every group's rows as chat JSONL."""
    missing = [d for d in plan.datasets.values() if not lab.exists(d.folder(lab))]
    for dataset in display.track("data", missing):
        began = time.monotonic()
        rows = dataset.rows()
        spec = {"group": dataset.group, "source": dataset.source, "key": dataset.key, "rows": len(rows)}
        with lab.whole(dataset.folder(lab), spec) as (folder, notes):
            write_conversations(folder / "data.jsonl", rows)
            notes[SECONDS] = time.monotonic() - began


def finetune(plan: Plan, lab: Lab, display: Display) -> None:
    """Trains every run whose checkpoint is missing, in fleets of one group each, or of small groups with like rows.

    A fleet is trained whole if any of its members is missing, so that its company, and with it the last bit of every
    weight, does not depend on when an earlier attempt was interrupted.
    """
    tuned = [checkpoint for checkpoint in plan.checkpoints if checkpoint.dataset is not None]
    if all(_trained(one, lab) for one in tuned):
        return
    fleets = [fleet for fleet in _fleets(tuned, lab) if any(not _trained(one, lab) for one in fleet)]
    trainer = LocalTrainer(plan.base, plan.experiment.train.precision)
    with display.bar("finetune", sum(len(fleet) for fleet in fleets)) as bar:
        for fleet in fleets:
            _train_fleet(plan, lab, trainer, fleet, bar.within(len(fleet)))


def _fleets(tuned: Sequence[Checkpoint], lab: Lab) -> list[list[Checkpoint]]:
    fleets: list[list[Checkpoint]] = []
    for _, members in itertools.groupby(tuned, key=lambda checkpoint: checkpoint.run.group):
        for some in _evenly(list(members)):
            with_room = (fleet for fleet in fleets if len(fleet) + len(some) <= FLEET)
            company = next((fleet for fleet in with_room if _alike(fleet[-1], some[0], lab)), None)
            if company is None:
                fleets.append(some)
            else:
                company += some
    return fleets


def _evenly(group: list[Checkpoint]) -> Iterator[list[Checkpoint]]:
    """A group cut into as few fleets as may be, of about one size."""
    size = -(-len(group) // -(-len(group) // FLEET))
    return (group[start : start + size] for start in range(0, len(group), size))


def _alike(one: Checkpoint, other: Checkpoint, lab: Lab) -> bool:
    """Whether two runs' rows are of about one length: in a fleet the shorter ones would be padded."""
    sizes = [_characters_a_row(checkpoint, lab) for checkpoint in (one, other)]
    return max(sizes) <= ALIKE * min(sizes)


def _characters_a_row(checkpoint: Checkpoint, lab: Lab) -> float:
    job = _job(checkpoint, lab)
    return sum(len(message["content"]) for row in job.rows for message in row.messages) / len(job.rows)


def _trained(checkpoint: Checkpoint, lab: Lab) -> bool:
    folder = checkpoint.folder(lab)
    return folder is None or lab.exists(folder)


def _train_fleet(plan: Plan, lab: Lab, trainer: LocalTrainer, fleet: list[Checkpoint], progress: Any) -> None:
    began = time.monotonic()
    spec = plan.experiment.train
    jobs = [_job(checkpoint, lab) for checkpoint in fleet]
    results = trainer.train(jobs, spec, progress)
    seconds = (time.monotonic() - began) / len(fleet)
    for checkpoint, job, trained in zip(fleet, jobs, results, strict=True):
        folder = checkpoint.folder(lab)
        if folder is None or lab.exists(folder):
            continue
        told = {"run": job.run.name, "base": plan.base.key, "data": job.source, "train": spec.model_dump(mode="json")}
        with lab.whole(folder, told) as (aside, notes):
            save_checkpoint(aside, trained, job, spec, plan.experiment.base)
            notes[SECONDS] = seconds


def _job(checkpoint: Checkpoint, lab: Lab) -> Job:
    dataset = checkpoint.dataset
    assert dataset is not None, "the base is not trained"
    _need(lab, dataset.folder(lab), "dataset", "spillover train")
    return Job(checkpoint.run, _rows(dataset, lab), dataset.source)


def _rows(dataset: Dataset, lab: Lab) -> Any:
    return read_conversations(dataset.folder(lab) / "data.jsonl")


def _need(lab: Lab, folder: Path, what: str, command: str) -> None:
    if not lab.exists(folder):
        raise LabError(f"the {what} is not there", where=folder, remedy=f"Run `{command}` with this experiment first.")


def ask(plan: Plan, lab: Lab, display: Display) -> None:
    """Asks every checkpoint for the answers that are missing; those that are there stay."""
    missing = [(cell, span) for cell in plan.cells for span in missing_spans(cell, lab)]
    if not missing:
        return
    for cell, _ in missing:
        folder = cell.checkpoint.folder(lab)
        if folder is not None:
            _need(lab, folder, "checkpoint", "spillover train")
    asker = LocalAsker(plan.base.path, plan.experiment.train.precision)
    with display.bar("ask", sum(_size(*one) for one in missing)) as bar:
        for block in _asked_together(missing):
            _ask_block(plan, lab, asker, block)
            bar.advance(sum(_size(*one) for one in block))


def _size(cell: Cell, span: range) -> int:
    return len(span) * len(cell.questions)


def _asked_together(missing: Sequence[tuple[Cell, range]]) -> Iterator[list[tuple[Cell, range]]]:
    """What one checkpoint is asked at once: all its suites, up to PART answers, so that batches are large."""
    for _, work in itertools.groupby(missing, key=lambda one: one[0].checkpoint):
        block: list[tuple[Cell, range]] = []
        for one in work:
            if block and sum(_size(*other) for other in [*block, one]) > PART:
                yield block
                block = []
            block.append(one)
        yield block


def missing_spans(cell: Cell, lab: Lab) -> Iterator[range]:
    """Ranges of sample numbers that are not in the lab yet, of a size that makes a part."""
    start = max((int(path.stem.split("-")[2]) for path in parts(cell.folder(lab))), default=0)
    size = max(1, PART // len(cell.questions))
    for first in range(start, cell.samples, size):
        yield range(first, min(first + size, cell.samples))


def parts(folder: Path) -> list[Path]:
    """The finished parts of a growing result, in order."""
    return sorted(folder.glob("part-*.parquet"))


def _ask_block(plan: Plan, lab: Lab, asker: Asker, block: Sequence[tuple[Cell, range]]) -> None:
    began = time.monotonic()
    checkpoint = block[0][0].checkpoint
    asked = [
        [Asked(q, tuple(answer_seed(checkpoint.key, q, n) for n in span)) for q in cell.questions]
        for cell, span in block
    ]
    replies = iter(asker.ask(checkpoint.folder(lab), list(itertools.chain(*asked)), plan.experiment.sampling))
    each = (time.monotonic() - began) / sum(_size(*one) for one in block)
    # All parts are written before the first is renamed: but for a kill between two renames, whoever resumes asks all
    # of them together again, or none.
    with contextlib.ExitStack() as stack:
        for (cell, span), some in zip(block, asked, strict=True):
            name, spec = f"part-{span.start:06d}-{span.stop:06d}.parquet", _asked_spec(plan, cell)
            given = list(zip(some, itertools.islice(replies, len(some)), strict=True))
            aside = stack.enter_context(lab.part(cell.folder(lab), name, spec))
            _write_rows(aside, _answer_frame(cell, span, given), each * _size(cell, span))


def _asked_spec(plan: Plan, cell: Cell) -> dict[str, Any]:
    return {
        "run": cell.checkpoint.run.name,
        "checkpoint": cell.checkpoint.key,
        "suite": cell.suite,
        "questions": [dataclasses.asdict(question) for question in cell.questions],
        "sampling": plan.experiment.sampling.model_dump(mode="json"),
    }


def _answer_frame(cell: Cell, span: range, given: Sequence[tuple[Asked, list[Reply]]]) -> pl.DataFrame:
    run = (cell.checkpoint.run.group, cell.checkpoint.run.name, cell.suite)
    rows = [
        (*run, one.question.id, number, one.question.system, one.question.text, *_said(reply, seed))
        for one, replies in given
        for number, seed, reply in zip(span, one.seeds, replies, strict=True)
    ]
    return pl.DataFrame(rows, _schema(ANSWER_COLUMNS), orient="row")


def _said(reply: Reply, seed: int) -> tuple[str, int, int, bool, str | None]:
    return reply.text, seed, reply.tokens, reply.truncated, reply.outcome


def _schema(columns: Sequence[tuple[str, str]]) -> dict[str, Any]:
    return {name: getattr(pl, kind) for name, kind in columns}


def _write_rows(path: Path, rows: pl.DataFrame, spent: float) -> None:
    rows.write_parquet(path, metadata={SECONDS: f"{spent:.3f}"})


def answers(plan: Plan, lab: Lab) -> pl.DataFrame:
    """Every answer that the plan wants, in the order of its cells.

    Raises LabError where some were not asked yet.
    """
    for cell in plan.cells:
        if any(missing_spans(cell, lab)):
            raise LabError(
                "answers are missing", where=cell.folder(lab), remedy="Run `spillover ask` with this experiment first."
            )
    frames = [
        pl.read_parquet(path).filter(pl.col("sample") < cell.samples)
        for cell in plan.cells
        for path in parts(cell.folder(lab))
    ]
    return pl.concat(frames)


def judge(plan: Plan, lab: Lab, display: Display) -> None:
    """Judges every (question, answer) pair that has no verdict yet, by each rubric of its suite; equal pairs once."""
    asked = answers(plan, lab)
    todo = {name: unjudged(plan, lab, asked, rubric) for name, rubric in plan.rubrics.items()}
    total = sum(len(pairs) for pairs in todo.values())
    if not total:
        return
    judges = _judges(plan, [plan.rubrics[name] for name, pairs in todo.items() if pairs])
    with display.bar("judge", total) as bar:
        for name, pairs in todo.items():
            for block in _blocks(pairs):
                _judge_part(plan, lab, judges[plan.rubrics[name].by], plan.rubrics[name], block)
                bar.advance(len(block))


def _blocks(pairs: Sequence[Pair]) -> Iterator[Sequence[Pair]]:
    return (pairs[start : start + PART] for start in range(0, len(pairs), PART))


def _judges(plan: Plan, rubrics: Sequence[Rubric]) -> dict[str, Judge]:
    judges: dict[str, Judge] = {"bandit": BanditJudge(), "answer": AnswerJudge()}
    if plan.judge is not None and any(rubric.by == "model" for rubric in rubrics):
        judges["model"] = LocalJudge(plan.judge.base, plan.judge.adapter, plan.experiment.train.precision)
    return judges


def unjudged(plan: Plan, lab: Lab, asked: pl.DataFrame, rubric: Rubric) -> list[Pair]:
    """The different pairs that the rubric's suites hold and that have no verdict yet, in order."""
    suites = [name for name, suite in plan.experiment.suites.items() if rubric.name in suite.rubrics]
    given = asked.filter(pl.col("suite").is_in(suites), pl.col("outcome").is_null())
    wanted = given.select("prompt", "answer").unique(maintain_order=True)
    there = set(verdicts(plan, lab, rubric)["pair"])
    return [Pair(q, a) for q, a in wanted.iter_rows() if pair_id(q, a) not in there]


def _judge_part(plan: Plan, lab: Lab, judge: Judge, rubric: Rubric, pairs: Sequence[Pair]) -> None:
    began = time.monotonic()
    frame = verdict_frame(pairs, judge.judge(pairs, rubric), plan.judge_id(rubric), rubric)
    spec = {"rubric": rubric.model_dump(mode="json"), "judge": plan.judge_id(rubric)}
    folder = plan.verdict_folder(lab, rubric)
    name = f"part-{len(parts(folder)):06d}.parquet"
    with lab.part(folder, name, spec) as aside:
        _write_rows(aside, frame, time.monotonic() - began)


def verdict_frame(pairs: Sequence[Pair], found: Sequence[Verdict], judge: str, rubric: Rubric) -> pl.DataFrame:
    """Verdicts as a table, one row a pair; each says which judge gave it, and by which words."""
    by = (judge, rubric.key())
    rows = [
        (pair.id, verdict.value, verdict.label, verdict.reason, json.dumps(verdict.table, ensure_ascii=False), *by)
        for pair, verdict in zip(pairs, found, strict=True)
    ]
    return pl.DataFrame(rows, _schema(VERDICT_COLUMNS), orient="row")


def verdicts(plan: Plan, lab: Lab, rubric: Rubric) -> pl.DataFrame:
    """A rubric's verdicts that are in the lab: of this experiment's answers and of any others' by the same judge."""
    frames = [pl.read_parquet(path) for path in parts(plan.verdict_folder(lab, rubric))]
    return pl.concat(frames) if frames else pl.DataFrame(schema=_schema(VERDICT_COLUMNS))


def seconds(plan: Plan, lab: Lab) -> dict[str, float]:
    """Seconds that each stage took for the results of this plan, whenever they were made."""
    datasets = [dataset.folder(lab) for dataset in plan.datasets.values()]
    tuned = [folder for one in plan.checkpoints if (folder := one.folder(lab)) is not None]
    asked = [path for cell in plan.cells for path in parts(cell.folder(lab))]
    judged = [path for rubric in plan.rubrics.values() for path in parts(plan.verdict_folder(lab, rubric))]
    return {
        "data": sum(lab.done(folder)[SECONDS] for folder in datasets),
        "finetune": sum(lab.done(folder)[SECONDS] for folder in tuned),
        "ask": sum(_part_seconds(path) for path in asked),
        "judge": sum(_part_seconds(path) for path in judged),
    }


def _part_seconds(path: Path) -> float:
    return float(pl.read_parquet_metadata(path)[SECONDS])
