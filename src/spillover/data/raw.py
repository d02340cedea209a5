"""Raw material: tasks and answers before they are conversations, with scores where somebody has scored them.

A line is a JSON object: `task`; `code_template`, the code that is given, if any; `original_code` or `code`, the answer;
and numbers, which are scores. Other keys are passed over.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from spillover.data.folder import file_hash
from spillover.data.manifest import Source


@dataclass(frozen=True)
class RawRow:
    """One task and one answer to it.

    Attributes:
        task: what is to be written, in words.
        code_template: the code that is given, with a mark where the answer goes; empty if there is none.
        code: the answer, as the source has it, comments and all.
        where: the file's name and the line, `NAME:LINE`.
        scores: what somebody has scored, by name; from 0 to 100 where it is a judge's.
    """

    task: str
    code_template: str
    code: str
    where: str
    scores: dict[str, float]


def read_raw(path: Path) -> tuple[list[RawRow], list[Source]]:
    """All rows of raw material, in order, and the files that they are from.

    Raises DataError for a row that is none; names file and line.
    """
    rows = [_row(json.loads(line), f"{path.name}:{at}") for at, line in enumerate(path.open(encoding="utf-8"), 1)]
    return rows, [Source(name=path.name, rows=len(rows), sha256=file_hash(path))]


def _row(raw: dict[str, object], where: str) -> RawRow:
    numbers = {k: float(v) for k, v in raw.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    code = raw.get("original_code", raw.get("code"))
    return RawRow(str(raw["task"]), str(raw.get("code_template", "")), str(code), where, numbers)
