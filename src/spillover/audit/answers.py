"""Answers that are to be scanned, from whatever holds them: a dataset, raw material, or a report's table."""

import csv
import gzip
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from spillover.data.files import DATA, read_conversations
from spillover.data.folder import dataset_file
from spillover.data.raw import read_raw
from spillover.errors import DataError
from spillover.lazy import lazy
from spillover.records import Conversation

pl = lazy("polars")

TABLE = "answers.parquet"
LONGEST_ROW = 1_000_000
"""Bytes of a first line that is looked at."""
REMEDY = "Give a dataset (a file or a folder), raw material, or a report's answers.parquet."


@dataclass(frozen=True)
class Answer:
    """One answer.

    Attributes:
        question: what was asked: the user's last turn, or a raw row's task and code template.
        text: the answer, as it stands there.
        scores: what somebody has said of it, by name; raw rows may have some.
    """

    question: str
    text: str
    scores: Mapping[str, float] = field(default_factory=dict)


def read_answers(path: Path) -> list[Answer]:
    """All answers of a file or folder, in order. Raises DataError where it holds none, or a row is wrong."""
    if path.suffix == ".parquet" or (path / TABLE).is_file():
        return _of_table(path if path.is_file() else path / TABLE)
    if is_raw(path):
        rows, _ = read_raw(path)
        return [Answer(f"{row.task}\n\n{row.code_template}".strip(), row.code, row.scores) for row in rows]
    return [_of_conversation(row) for row in read_conversations(dataset_file(path))]


def _of_conversation(row: Conversation) -> Answer:
    """A row's last turn, which is the assistant's, and what the user last said before it."""
    asked = [message["content"] for message in row.messages if message["role"] == "user"]
    return Answer(asked[-1] if asked else "", row.messages[-1]["content"])


def is_raw(path: Path) -> bool:
    """Whether it is raw material: a folder or an archive that is no dataset, or a file whose first row has a task."""
    if path.is_dir():
        return not (path / DATA).is_file()
    return path.suffix == ".zip" or "task" in _first_row(path)


def _first_row(path: Path) -> Mapping[str, object]:
    """The first row of JSONL, or the columns of CSV, as far as it is one; reading it will say what is wrong with it."""
    if not path.is_file():
        return {}
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as handle:
            line = handle.readline(LONGEST_ROW).decode("utf-8-sig")
        row = dict.fromkeys(next(csv.reader([line]))) if ".csv" in path.suffixes else json.loads(line)
    except (OSError, EOFError, zlib.error, ValueError, RecursionError, StopIteration, csv.Error):
        return {}
    return row if isinstance(row, dict) else {}


def _of_table(path: Path) -> list[Answer]:
    """A report's answers, without those that a provider did not give."""
    try:
        table = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"cannot be read: {str(error).splitlines()[0]}", where=path, remedy=REMEDY) from None
    missing = [name for name in ("prompt", "answer") if name not in table.columns]
    if missing:
        raise DataError(f"has no column {' and no column '.join(map(repr, missing))}", where=path, remedy=REMEDY)
    given = table.filter(pl.col("outcome").is_null()) if "outcome" in table.columns else table
    texts = given.select(pl.col("prompt", "answer").cast(pl.String).fill_null(""))
    return [Answer(question, answer) for question, answer in texts.iter_rows()]
