"""A dataset as a folder: rows, where each came from, manifest and card. Written whole, and never over another.

In the folder lie `data.jsonl`, the rows as chat JSONL; `origins.jsonl`, one object a row that says where it came from,
its template and its scores, where that is known; `manifest.json` (data/manifest.py); and `README.md`, the card.
"""

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from spillover.data.card import card
from spillover.data.files import DATA as DATA
from spillover.data.files import dataset_file as dataset_file
from spillover.data.files import read_conversations, write_conversations
from spillover.data.lines import json_value, open_file, read_lines, read_text
from spillover.data.manifest import Manifest, Source
from spillover.errors import DataError
from spillover.records import Conversation
from spillover.spec import first_wrong
from spillover.store import write_json

ORIGINS, MANIFEST, CARD = "origins.jsonl", "manifest.json", "README.md"
FILES = (DATA, ORIGINS, MANIFEST, CARD)
TAKEN = "Give another --out, or delete it."
AGAIN = "Build the dataset again."


@dataclass(frozen=True)
class Dataset:
    """A dataset that is to be written.

    Attributes:
        rows: in order.
        manifest: how they were made.
        origins: one a row, or none at all.
    """

    rows: Sequence[Conversation]
    manifest: Manifest
    origins: Sequence[Mapping[str, Any]] = ()


def read_manifest(path: Path) -> Manifest | None:
    """The manifest of a dataset's folder, or of the folder that a dataset's file lies in; None where there is none.

    Raises DataError for a manifest that is damaged, or is not that of the rows beside it.
    """
    data = dataset_file(path)
    file = data.with_name(MANIFEST)
    if data.name != DATA or not os.path.lexists(file):
        return None
    raw = _object(read_text(file), str(file), AGAIN)
    sha256 = raw.pop("sha256", None)
    if sha256 is None:
        raise DataError("is no manifest of a dataset", where=file, remedy=AGAIN)
    manifest = _manifest(raw, file)
    if sha256 != file_hash(data):
        remedy = "Somebody has changed the rows. Delete the manifest if they are meant to be so."
        raise DataError(f"is the manifest of other rows than those in {DATA}", where=file, remedy=remedy)
    return manifest


def _manifest(raw: dict[str, Any], file: Path) -> Manifest:
    try:
        return Manifest.model_validate(raw)
    except ValidationError as error:
        place, what = first_wrong(error)
        where = ".".join(map(str, place))
        raise DataError(f"{where}: {what}" if where else what, where=file, remedy=AGAIN) from None


def read_source(path: Path) -> tuple[list[Conversation], Source]:
    """The rows of a dataset, by its file or folder, and the dataset as a manifest's source. Raises DataError."""
    rows = read_conversations(dataset_file(path))
    return rows, source_of(path, len(rows))


def source_of(path: Path, rows: int) -> Source:
    """A dataset of so many rows, by its file or folder, as a manifest's source. Raises DataError."""
    file, made = dataset_file(path), read_manifest(path)
    name = _shown(file.parent.resolve().name if file.name == DATA else file.name)
    licence = made.licence if made is not None else "unknown"
    return Source(name=name, rows=rows, sha256=file_hash(file), licence=licence, made=made)


def _shown(name: str) -> str:
    """A file's name as text: names are bytes, and not all of them are UTF-8."""
    return os.fsencode(name).decode("utf-8", errors="replace")


def read_origins(path: Path) -> list[dict[str, Any]]:
    """Where each row came from, by a dataset's file or folder, in the rows' order; nothing where that is not known.

    Raises DataError for a line that is no object, and where there are not as many as there are rows.
    """
    data = dataset_file(path)
    file = data.with_name(ORIGINS)
    if data.name != DATA or not os.path.lexists(file):
        return []
    remedy = f"{AGAIN[:-1]}, or delete the file."
    origins = [_object(text, f"{file}:{at}", remedy) for at, text in read_lines(file) if text.strip()]
    rows = sum(1 for _, text in read_lines(data) if text.strip())
    if len(origins) != rows:
        what = f"has {len(origins):,} lines, and {DATA} beside it has {rows:,} rows"
        raise DataError(what, where=file, remedy=remedy)
    return origins


def _object(text: str, where: str, remedy: str) -> dict[str, Any]:
    """A JSON object that can be written down again. Raises DataError."""
    value = json_value(text, where, remedy)
    if not isinstance(value, dict):
        raise DataError("is no JSON object", where=where, remedy=remedy)
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (UnicodeEncodeError, RecursionError) as error:
        what = "is nested too deeply" if isinstance(error, RecursionError) else "has half a character in it"
        raise DataError(what, where=where, remedy=remedy) from None
    return value


def file_hash(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal. Raises DataError where it cannot be read."""
    with open_file(path) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def check_out(out: Path) -> None:
    """Raises DataError where something stands in a dataset's place that is none: before hours of work, not after."""
    above = next(folder for folder in out.absolute().parents if os.path.lexists(folder))
    if not above.is_dir():
        raise DataError("is no folder", where=above, remedy="Give another --out.")
    is_other = not out.is_dir() or (any(out.iterdir()) and not _manifests(out))
    if os.path.lexists(out) and is_other:
        raise DataError("something else is there already", where=out, remedy=TAKEN)


def _manifests(out: Path) -> list[Path]:
    """The manifests of a dataset's folder, or of several in one."""
    return [*out.glob(MANIFEST), *out.glob(f"*/{MANIFEST}")]


def write_dataset(out: Path, dataset: Dataset) -> bool:
    """Writes a dataset's folder, all of it or nothing.

    Returns:
        whether it is new: False where the very same dataset was there already.

    Raises:
        DataError: another dataset, or something else, is there already.
    """
    with _aside(out) as folder:
        _write(folder, dataset)
        return _put(folder, out)


def write_datasets(out: Path, datasets: Mapping[str, Dataset]) -> bool:
    """Writes several datasets into one folder, each by its name, as `write_dataset` writes one."""
    with _aside(out) as folder:
        for name, dataset in datasets.items():
            _write(folder / name, dataset)
        return _put(folder, out)


def _write(folder: Path, dataset: Dataset) -> None:
    assert dataset.manifest.rows == len(dataset.rows), "the manifest is that of the rows"
    assert len(dataset.origins) in (0, len(dataset.rows)), "every row has an origin, or none has"
    folder.mkdir(parents=True, exist_ok=True)
    write_conversations(folder / DATA, dataset.rows)
    if dataset.origins:
        lines = [json.dumps(origin, ensure_ascii=False) + "\n" for origin in dataset.origins]
        (folder / ORIGINS).write_text("".join(lines), encoding="utf-8")
    write_card(folder, dataset.manifest)


def write_card(folder: Path, manifest: Manifest) -> None:
    """Writes manifest and card beside rows that are there."""
    write_json(folder / MANIFEST, {**manifest.model_dump(mode="json"), "sha256": file_hash(folder / DATA)})
    (folder / CARD).write_text(card(manifest), encoding="utf-8")


@contextmanager
def _aside(out: Path) -> Iterator[Path]:
    """A folder on the same disk to write into; what is still there when the block ends is removed."""
    check_out(out)
    place = out.resolve()  # where a link leads to an empty folder, that one is filled
    folder = place.parent / f".{place.name}.{secrets.token_hex(4)}.aside"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise DataError(f"cannot be made: {error.strerror}", where=out, remedy="Give another --out.") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put(folder: Path, out: Path) -> bool:
    try:
        folder.rename(out.resolve())  # over an empty folder, too
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        if _content(out) != _content(folder):
            raise DataError("another dataset is there already", where=out, remedy=TAKEN) from None
        return False
    return True


def _content(folder: Path) -> dict[str, str]:
    """The files of the datasets in a folder, by their hashes. What others have put beside them is not looked at."""
    ours = [file for file in folder.rglob("*") if file.name in FILES and file.is_file()]
    return {str(file.relative_to(folder)): file_hash(file) for file in ours}
