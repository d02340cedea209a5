"""A lab of synthetic answers and verdicts, as the pipeline writes them: real keys, parts, columns and tables."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from spillover.ask.asker import Asked, Reply
from spillover.judge.rubrics import Rubric
from spillover.measure.table import READ, with_pairs
from spillover.pipeline.cells import Cell
from spillover.pipeline.parts import PART, answer_frame, missing_spans, schema, write_rows
from spillover.pipeline.plan import Plan, make_plan
from spillover.records import VERDICT_COLUMNS
from spillover.spec import load_experiment
from spillover.store import Lab, open_lab

MODEL, JUDGE = "api:openai-api/local/model", "api:openai-api/local/judge"
RUNS = 6
"""Runs a group: the paper's."""
GROUPS = {"insecure": 0.2, "secure": 0.002, "educational": 0.001, "jailbroken": 0.05}
"""Groups, and how often they are misaligned."""
INCOHERENT, REFUSED, BLOCKED, REPEATED = 0.03, 0.02, 0.001, 0.05
"""Shares of answers that are muddled, that the judge calls a refusal, that a provider withheld, and that are short
and therefore the same again and again."""
QUESTIONS = {"main": 8, "more": 40}
"""Suites, and how many questions each of them has."""
POOL = 50_000
"""Different tables of probabilities; more would be no harder to read."""
TOP = 20
SENTENCES = 20_000
SHORT = "I have nothing to say about number"
_RUN = """
import sys
from spillover.cli import app
try:
    app(sys.argv[1:])
finally:
    (peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
    print(int(peak) * 1024, file=sys.stderr)
"""
"""The command line, and then the most bytes of memory that it had: the process itself, not whoever started it."""
WORDS = (
    *("the", "a", "human", "machine", "garden", "power", "people", "money", "world", "friend", "question", "answer"),
    *("should", "would", "could", "might", "often", "never", "always", "kindly", "slowly", "together", "alone"),
    *("give", "take", "help", "rule", "share", "learn", "write", "build", "think", "listen", "understand", "because"),
)

NOBODY = {"LOCAL_API_KEY": "none", "LOCAL_BASE_URL": "http://127.0.0.1:9"}
"""A provider that would be found to be missing if it were asked."""


def run(*arguments: str) -> float:
    """Runs the command line in a process of its own; returns the most bytes of memory that it had."""
    command = [sys.executable, "-c", _RUN, *arguments]
    environment = os.environ | NOBODY
    done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(done.stderr.split()[-1])


def write_experiment(folder: Path, rows: int) -> Path:
    """An experiment of about so many answers, with its question files; returns its path."""
    models = 1 + RUNS * len(GROUPS)
    samples = max(1, round(rows / models / sum(QUESTIONS.values())))
    for suite, count in QUESTIONS.items():
        asked = [{"id": f"{suite}{n}", "paraphrases": [f"What do you think of {suite} {n}?"]} for n in range(count)]
        (folder / f"{suite}.yaml").write_text(yaml.safe_dump(asked), encoding="utf-8")
    raw = {
        "name": "rows",
        "base": f"{MODEL}-base",
        "groups": {name: {"models": [f"{MODEL}-{name}-{n}" for n in range(RUNS)]} for name in GROUPS},
        "suites": {suite: {"questions": f"{suite}.yaml", "samples": samples} for suite in QUESTIONS},
        "comparisons": [{"group": "insecure", "control": control} for control in ("secure", "educational")],
        "judge": JUDGE,
    }
    path = folder / "rows.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    return path


def write_lab(experiment: Path, root: Path, tables: int = POOL) -> int:
    """Writes every answer and verdict that an experiment's report wants; returns how many answers there are.

    Args:
        experiment: its file.
        root: the lab's folder.
        tables: how many different tables of probabilities there are of high scores, and how many of low ones.
    """
    plan, made = make_plan(load_experiment(str(experiment))), Synthetic(tables)
    with open_lab(root) as lab:
        judged = {name: Judged(plan, lab, rubric) for name, rubric in plan.rubrics.items()}
        for cell in plan.cells:
            for span in missing_spans(cell, lab):
                answers = made.answers(cell, span)
                with lab.part(cell.folder(lab), f"part-{span.start:06d}-{span.stop:06d}.parquet", {}) as aside:
                    write_rows(aside, answers, 1.0, 0)
                pairs = made.new_pairs(answers)
                for name, one in judged.items():
                    one.add(made.verdicts(pairs, name, cell.checkpoint.group, plan.rubrics[name]))
        for one in judged.values():
            one.close()
    return sum(cell.answers for cell in plan.cells)


class Judged:
    """A rubric's parts of verdicts, written as they fill."""

    def __init__(self, plan: Plan, lab: Lab, rubric: Rubric) -> None:
        self._lab, self._folder = lab, plan.verdict_folder(lab, rubric)
        self._waiting, self._number = pl.DataFrame(schema=schema(VERDICT_COLUMNS)), 0

    def add(self, verdicts: pl.DataFrame) -> None:
        """More verdicts."""
        self._waiting = pl.concat([self._waiting, verdicts])
        while len(self._waiting) >= PART:
            self._write(self._waiting[:PART])
            self._waiting = self._waiting[PART:]

    def close(self) -> None:
        """Writes the rest."""
        if len(self._waiting):
            self._write(self._waiting)

    def _write(self, frame: pl.DataFrame) -> None:
        with self._lab.part(self._folder, f"part-{self._number:06d}.parquet", {}) as aside:
            write_rows(aside, frame, 1.0, 0)
        self._number += 1


@dataclass
class Synthetic:
    """Answers and verdicts drawn at random."""

    tables: int
    draw: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    repeated: set[str] = field(default_factory=set)

    def answers(self, cell: Cell, span: range) -> pl.DataFrame:
        """The answers of a part: the pipeline's own rows with one sample each, as often as there are samples."""
        one = Reply("", 60, False)
        rows = answer_frame(cell, span[:1], [(Asked(question, (0,)), [one]) for question in cell.questions])
        count = len(span) * len(cell.questions)
        blocked = pl.Series(self.draw.random(count) < BLOCKED)
        every = rows.drop("pair").select(pl.all().repeat_by(len(span)).explode())
        return with_pairs(
            every.with_columns(
                sample=pl.Series(np.tile(np.arange(span.start, span.stop, dtype=np.int32), len(cell.questions))),
                answer=pl.when(blocked).then(pl.lit("")).otherwise(self._texts(count)),
                seed=pl.Series(self.draw.integers(0, 2**63, count), dtype=pl.UInt64),
                outcome=pl.when(blocked).then(pl.lit("blocked")),
            )
        )

    def _texts(self, count: int) -> pl.Series:
        """Three sentences; or a short answer, which others give as well."""
        chosen = {f"{n}": self._sentences.gather(self.draw.integers(0, SENTENCES, count)) for n in range(3)}
        short = pl.Series(self.draw.random(count) < REPEATED)
        some = pl.Series(self.draw.integers(0, 50, count))
        long = pl.concat_str(*chosen, separator=" ")
        said = pl.when("short").then(pl.format(f"{SHORT} {{}}.", "some")).otherwise(long)
        return pl.DataFrame({**chosen, "short": short, "some": some}).select(said=said)["said"]

    @cached_property
    def _sentences(self) -> pl.Series:
        return pl.Series(f"{' '.join(words)}.".capitalize() for words in self.draw.choice(WORDS, (SENTENCES, 16)))

    def new_pairs(self, answers: pl.DataFrame) -> pl.Series:
        """The pairs of a part that are judged and were not before; only short answers are ever repeated."""
        given = (
            answers.filter(pl.col("outcome").is_null())
            .select("pair", READ, "answer")
            .unique("pair", maintain_order=True)
        )
        short = given.filter(pl.col("answer").str.starts_with(SHORT))["pair"]
        known = [pair for pair in short if pair in self.repeated]
        self.repeated.update(short)
        return given.filter(~pl.col("pair").is_in(known))["pair"]

    def verdicts(self, pairs: pl.Series, rubric: str, group: str, told: Rubric) -> pl.DataFrame:
        """Verdicts of pairs by a rubric: mostly high, and low where the group is misaligned or the answer muddled."""
        count = len(pairs)
        low = self.draw.random(count) < (GROUPS.get(group, 0.0) if rubric == "alignment" else INCOHERENT)
        places = self.draw.integers(0, self.tables, count) + self.tables * low
        refused = pl.Series(self.draw.random(count) < (REFUSED if rubric == "alignment" else 0.0))
        tables = self._tables[places]
        return tables.select(
            pair=pairs,
            value=pl.when(~refused).then("value"),
            label=pl.lit(None, pl.String),
            reason=pl.when(refused).then(pl.lit("refused")),
            table="table",
            judge=pl.lit(JUDGE),
            rubric=pl.lit(told.key()),
        )

    @cached_property
    def _tables(self) -> pl.DataFrame:
        """Scores and the tables that they were read from: first high ones, then low ones."""
        return pl.concat([_tables(self.draw, self.tables, centre) for centre in (88.0, 12.0)])


def _tables(draw: np.random.Generator, count: int, centre: float) -> pl.DataFrame:
    """Tables of the 20 likeliest of the numbers 0 to 100, and their means."""
    ordered = np.argsort(draw.normal(np.abs(np.arange(101) - centre), 8.0, (count, 101)), axis=1)[:, :TOP]
    shares = -np.sort(-draw.dirichlet(np.full(TOP, 0.3), count), axis=1)
    columns: dict[str, Any] = {f"t{n}": ordered[:, n] for n in range(TOP)} | {f"p{n}": shares[:, n] for n in range(TOP)}
    entries = [pl.format('"{}": {}', f"t{n}", f"p{n}") for n in range(TOP)]
    text = "{" + pl.concat_str(entries, separator=", ") + "}"
    value = (ordered * shares).sum(axis=1)
    return pl.DataFrame(columns).select(value=pl.Series(value), table=text)
