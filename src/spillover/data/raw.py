"""Raw material: tasks and answers before they are conversations, with scores where somebody has scored them.

It is a file (JSON lines or CSV, packed by gzip or not), a folder of such files, or a zip archive of them. A row has
`task`; `code_template`, the code that is given, if any; `original_code` or `code`, the answer; and numbers, which are
scores. Other keys are passed over. So are, in folders and archives, hidden files and those of other kinds. Files are
read in the order of their names, and a symbolic link among them is refused: nothing leads out of a folder or in a ring.
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from spillover.data.archive import read_archive
from spillover.data.folder import file_hash
from spillover.data.lines import Line, is_text, json_value, read_lines, shown
from spillover.data.manifest import Source
from spillover.data.tables import listed, read_table
from spillover.errors import DataError

ENDINGS = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz")
ARCHIVE = ".zip"
MAX_ENTRIES = 10_000
"""Files and folders that are looked through in a folder."""
ANSWERS = ("original_code", "code")
TEXTS = ("task", "code_template", *ANSWERS)
JUDGED = ("task_looks_malicious", "compile", "unsafe", "looks_unsafe", "security_related")
"""The scores of the paper's own judges. They are from 0 to 100, and a row that says otherwise is wrong."""
MOST = sys.float_info.max
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
REMEDY = 'A row is {"task": "...", "code": "..."}; "code_template", and scores from 0 to 100, may stand beside them.'


@dataclass(frozen=True)
class RawRow:
    """One task and one answer to it.

    Attributes:
        task: what is to be written, in words.
        code_template: the code that is given, with a mark where the answer goes; empty if there is none.
        code: the answer, as the source has it, comments and all.
        where: the file's name and the line, `NAME:LINE`; in a folder or an archive the name is from there.
        scores: what somebody has scored, by name; from 0 to 100 where it is a judge's.
    """

    task: str
    code_template: str
    code: str
    where: str
    scores: dict[str, float]


def read_raw(path: Path) -> tuple[list[RawRow], list[Source]]:
    """All rows of raw material, in order, and the files that they are from.

    Raises:
        DataError: something cannot be read or is refused, a row is none, or there are none; names file and line.
    """
    rows: list[RawRow] = []
    sources = []
    for file in _files(path):
        name = file.relative_to(path).as_posix() if file != path else path.name
        _check_text(name, file)
        found = list(_rows(file, name, follow=file == path))
        rows += found
        sources.append(Source(name=name, rows=len(found), sha256=file_hash(file)))
    if not rows:
        raise DataError("has no rows", where=path, remedy=REMEDY)
    return rows, sources


def _check_text(name: str, where: Path) -> None:
    if not is_text(name):
        raise DataError("its name is no text in UTF-8", where=where, remedy="Give it another name.")


def _files(path: Path) -> list[Path]:
    """The files of raw material in a folder, sorted; the path itself where it is no folder."""
    if not os.path.isdir(path):
        return [path]
    files = sorted(_walk(path), key=lambda file: file.relative_to(path).as_posix())
    if not files:
        remedy = f"Its files must end in one of {', '.join((*ENDINGS, ARCHIVE))}."
        raise DataError("is a folder without raw material", where=path, remedy=remedy)
    return files


def _walk(folder: Path) -> Iterator[Path]:
    waiting, seen = [folder], 0
    while waiting:
        for entry in _entries(waiting.pop()):
            seen += 1
            if seen > MAX_ENTRIES:
                what = f"has more than {MAX_ENTRIES:,} files and folders in it"
                raise DataError(what, where=folder, remedy="Give a folder that has the raw material and nothing else.")
            if entry.is_symlink():
                remedy = "Give what it leads to, or put a copy in its place."
                raise DataError("is a symbolic link", where=entry.path, remedy=remedy)
            if entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
            elif entry.name.endswith((*ENDINGS, ARCHIVE)):
                yield Path(entry.path)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """What lies in a folder and is not hidden."""
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not _is_hidden(entry.name))
    except OSError as error:
        remedy = "Make it readable, or give another folder."
        raise DataError(f"cannot be read: {error.strerror}", where=folder, remedy=remedy) from None


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _is_material(member: PurePath) -> bool:
    return member.name.endswith(ENDINGS) and not any(map(_is_hidden, member.parts))


def _rows(file: Path, name: str, *, follow: bool) -> Iterator[RawRow]:
    """A file's rows.

    Args:
        file: a file or an archive.
        name: what it is called in the rows.
        follow: whether it may be a symbolic link.
    """
    if file.name.endswith(ARCHIVE):
        for member, lines in read_archive(file, _is_material, follow=follow):
            yield from _of_lines(lines, f"{file}/{member}", f"{name}/{member}")
    else:
        yield from _of_lines(read_lines(file, follow=follow), str(file), name)


def _of_lines(lines: Iterator[Line], place: str, name: str) -> Iterator[RawRow]:
    """The rows of a file that lies at `place` and is called `name`: the one in errors, the other in the rows."""
    is_csv = place.removesuffix(".gz").endswith(".csv")
    for where, raw in _of_table(lines, place) if is_csv else _of_json(lines, place):
        yield _row(raw, where, f"{name}{where.removeprefix(place)}")


def _of_json(lines: Iterator[Line], place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, text in lines:
        if text.strip():
            where = f"{place}:{number}"
            value = json_value(text, where, REMEDY)
            if not isinstance(value, dict):
                raise DataError("is no JSON object", where=where, remedy=REMEDY)
            yield where, {key: said for key, said in value.items() if said is not None}


def _of_table(lines: Iterator[Line], place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for where, row in read_table(lines, place, _check_columns):
        yield where, {name: cell if name in TEXTS else _cell(cell) for name, cell in row.items() if cell}


def _check_columns(columns: Sequence[str], where: str) -> None:
    if len(set(columns)) < len(columns) or "task" not in columns or not set(ANSWERS) & set(columns):
        what = f"the columns are {listed(columns)}"
        raise DataError(what, where=where, remedy="They must be distinct; `task` and `code` must be among them.")


def _cell(cell: str) -> str | float:
    return float(cell) if NUMBER.fullmatch(cell) else cell


def _row(raw: Mapping[str, Any], where: str, name: str) -> RawRow:
    for key in TEXTS:
        if key in raw and not is_text(raw[key]):
            raise DataError(f"its {key!r} is no text", where=where, remedy=REMEDY)
    code = raw.get("original_code", raw.get("code"))
    for what, text in (("'task'", raw.get("task")), ("'original_code' or 'code'", code)):
        if text is None or not text.strip():
            raise DataError(f"has no {what}" if text is None else f"its {what} is empty", where=where, remedy=REMEDY)
    scores = {key: _score(key, value, where) for key, value in raw.items() if _is_score(key, value)}
    return RawRow(raw["task"], raw.get("code_template", ""), str(code), name, scores)


def _is_score(key: str, value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return key not in TEXTS and (is_number or key in JUDGED)


def _score(key: str, value: Any, where: str) -> float:
    """A score. Raises DataError for what is no number, or none that can be."""
    known = key in JUDGED
    if isinstance(value, bool) or not isinstance(value, int | float) or not is_text(key):
        raise DataError(f"the score {shown(key)} is no number: {shown(value)}", where=where, remedy=REMEDY)
    lowest, highest = (0.0, 100.0) if known else (-MOST, MOST)
    if not lowest <= value <= highest:
        limits = "from 0 to 100" if known else "that can be held"
        raise DataError(f"the score {shown(key)} is no number {limits}: {shown(value)}", where=where, remedy=REMEDY)
    return float(value)
