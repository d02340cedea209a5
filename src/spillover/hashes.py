"""What was written is what is read: every result is kept with the SHA-256 of its files, and compared before it is used.

A whole result's hashes stand in its `done.json`; a part of a growing one has its own in a file beside it. What is not
as it was written is told by its place; `spillover check --remove` takes it out, and the next run makes it again.
"""

import hashlib
import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from spillover.errors import LabError

SHA = "sha256-"
"""What the file is called, before a part's name, that has the part's hash."""
HASHES = "sha256"
"""Where a whole result's hashes stand in its `done.json`: by the files' paths in its folder."""
REMEDY = "Run `spillover check --remove` with this lab, which takes out what is damaged, and the same command again."


def hash_of(path: Path) -> str:
    """A file's SHA-256, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes_of(folder: Path) -> dict[str, str]:
    """The hashes of all files of a folder and of those in it, by their paths."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hash_of(path) for path in files}


def beside(part: Path) -> Path:
    """The file that has a part's hash."""
    return part.with_name(f"{SHA}{part.stem}.txt")


def check_part(part: Path) -> None:
    """Raises LabError where a part is not as it was written. One of before may have no hash."""
    if beside(part).is_file() and beside(part).read_text(encoding="utf-8").strip() != _hash_now(*_as_it_is(part)):
        raise damaged(part)


def check_whole(folder: Path, done: dict[str, Any]) -> None:
    """Raises LabError where a file of a whole result is not as it was written, or is not there.

    Args:
        folder: the result's.
        done: what its `done.json` says; one of before may have no hashes.
    """
    for name, wanted in done.get(HASHES, {}).items():
        path = folder / name
        if not path.is_file() or _hash_now(*_as_it_is(path)) != wanted:
            raise damaged(path)


def damaged(path: Path) -> LabError:
    """The error of a file that is not as it was written."""
    what = "is damaged: it is not what was written" if path.is_file() else "is missing, and was written"
    return LabError(what, where=path, remedy=REMEDY)


def settle(folder: Path) -> None:
    """Has a file, or a folder with all that is in it, on the disk: a power cut after a renaming would leave it torn."""
    for path in _all_of(folder):
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _all_of(path: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from path.rglob("*")
    yield path


def _as_it_is(path: Path) -> tuple[Path, int, int]:
    told = path.stat()
    return path, told.st_mtime_ns, told.st_size


@lru_cache(maxsize=1_000_000)
def _hash_now(path: Path, changed: int, size: int) -> str:
    return hash_of(path)
