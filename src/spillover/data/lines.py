"""Lines of files that somebody else has written: one at a time, UTF-8, within limits, from regular files only.

A pipe or a device is refused before it is read, a line is never held beyond `MAX_ROW`, and what unpacks to far more
than it is (a bomb) is given up. A line ends in a line feed; a byte-order mark at the beginning is passed over. JSON is
read by its standard: no NaN, no key twice.
"""

import gzip
import json
import os
import stat
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from io import BufferedReader
from pathlib import Path
from reprlib import Repr
from typing import IO, Any

from spillover.errors import DataError

MAX_ROW = 16 * 2**20
"""Bytes of a row, its line end included: many times what a model takes in."""
MAX_DIGITS = 1000
"""Digits of a whole number in JSON. Python refuses more than 4300 of its own accord, in words for programmers."""
FREE, MAX_RATIO = 64 * 2**20, 200
"""Bytes that anything may unpack to, and how many times its own size where that is more. Texts reach 3 to 20 times."""
BOM = b"\xef\xbb\xbf"
KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)
MAGIC = (
    (b"\xff\xfe\0\0", "is UTF-32, not UTF-8", "Save the file as UTF-8: `iconv -f UTF-32 -t UTF-8 FILE`."),
    (b"\0\0\xfe\xff", "is UTF-32, not UTF-8", "Save the file as UTF-8: `iconv -f UTF-32 -t UTF-8 FILE`."),
    (b"\xff\xfe", "is UTF-16, not UTF-8", "Save the file as UTF-8: `iconv -f UTF-16 -t UTF-8 FILE`."),
    (b"\xfe\xff", "is UTF-16, not UTF-8", "Save the file as UTF-8: `iconv -f UTF-16 -t UTF-8 FILE`."),
    (b"\x1f\x8b", "is compressed by gzip", "Give it a name that ends in .gz."),
    (b"PK\x03\x04", "is a zip archive", "Unpack it, and give the path of a file in it."),
    (b"PAR1", "is Parquet", "Write its rows as JSON, one a line."),
)
"""First bytes of files that are no text in UTF-8, what they are, and what to do."""
THERE = "Give the path of a file that is there."

Line = tuple[int, str]
"""A line's number, from 1, and its text with its line end."""


def open_file(path: Path, remedy: str = THERE, *, follow: bool = True) -> BufferedReader:
    """Opens a regular file for reading; with `follow=False` no symbolic link. Never waits, as opening a pipe would.

    Raises DataError for what is not there, may not be read, or is no file.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    if "\0" in str(path):
        raise DataError("cannot be read: there is a NUL in its name", where=shown(str(path)), remedy=remedy)
    try:
        _check_kind(os.stat(path, follow_symlinks=follow), path)
        handle = os.fdopen(os.open(path, flags), "rb")
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=path, remedy=remedy) from None
    try:
        _check_kind(os.fstat(handle.fileno()), path)  # what was opened may be another than what was looked at
    except DataError:
        handle.close()
        raise
    return handle


def _check_kind(found: os.stat_result, path: Path) -> None:
    kind = next((kind for holds, kind in KINDS if holds(found.st_mode)), None)
    if kind is not None:
        raise DataError(f"is {kind}, and no file", where=path, remedy="Give the path of a file.")


class Room:
    """How many bytes may still come out of something packed, so that a bomb fills no memory and takes no hours.

    Args:
        size: of what is packed, in bytes.
    """

    def __init__(self, size: int) -> None:
        self.left = max(FREE, MAX_RATIO * size)

    def take(self, size: int, where: str) -> None:
        """Raises DataError where more has come out than may."""
        self.left -= size
        if self.left < 0:
            what = f"unpacks to more than {MAX_RATIO} times its size, and more than {FREE // 2**20} MiB"
            raise DataError(what, where=where, remedy="This is no text. If it is yours, unpack it first.")


def read_lines(path: Path, remedy: str = THERE, *, follow: bool = True) -> Iterator[Line]:
    """The lines of a text file, unpacked where its name ends in `.gz`. Raises DataError by file and line."""
    with open_file(path, remedy, follow=follow) as handle:
        if path.suffix == ".gz":
            size = os.fstat(handle.fileno()).st_size
            yield from unpacked_lines(handle, str(path), Room(size))
        else:
            yield from lines_of(handle, str(path))


def read_text(path: Path) -> str:
    """A text file as a whole, of at most `MAX_ROW`. Raises DataError by file and line."""
    lines, size = [], 0
    for _, text in read_lines(path):
        lines.append(text)
        size += len(text)
        if size > MAX_ROW:
            raise DataError(f"is longer than {MAX_ROW // 2**20} MiB", where=path, remedy="Is it what its name says?")
    return "".join(lines)


def json_file(path: Path, remedy: str, most: int = MAX_ROW) -> Any:
    """What a whole file says in JSON, on however few lines. Raises DataError, also for more than `most` bytes."""
    with open_file(path, remedy) as handle:
        raw = handle.read(most + 1)
    if len(raw) > most:
        raise DataError(f"is longer than {most // 2**20} MiB", where=path, remedy="Is it what its name says?")
    return json_value(_decoded(_without_mark(raw, str(path)), str(path)), str(path), remedy)


def unpacked_lines(handle: IO[bytes], name: str, room: Room) -> Iterator[Line]:
    """The lines of what gzip has packed. Raises DataError."""
    try:
        with gzip.GzipFile(fileobj=handle, mode="rb") as unpacked:
            yield from lines_of(unpacked, name, room)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        remedy = "Download it again, or give it its name without .gz."
        raise DataError("is no whole gzip file", where=name, remedy=remedy) from None


def lines_of(handle: IO[bytes] | gzip.GzipFile, name: str, room: Room | None = None) -> Iterator[Line]:
    """The lines of an open file, decoded.

    Args:
        handle: where the bytes come from.
        name: of the file, in errors.
        room: for what comes out of something packed.

    Raises:
        DataError: a line is too long, or no text in UTF-8; names the line.
    """
    number = 0
    while raw := handle.readline(MAX_ROW + 1):
        number += 1
        where = f"{name}:{number}"
        if room is not None:
            room.take(len(raw), where)
        check_size(len(raw), where)
        yield number, _decoded(raw if number > 1 else _without_mark(raw, where), where)


def check_size(size: int, where: str) -> None:
    """Raises DataError for a row that is too long."""
    if size > MAX_ROW:
        what = f"the row is longer than {MAX_ROW // 2**20} MiB"
        raise DataError(what, where=where, remedy="A row is one conversation on one line. Shorten it or leave it out.")


def _without_mark(raw: bytes, where: str) -> bytes:
    """A file's first line without the byte-order mark. Raises DataError for first bytes that tell another format."""
    for magic, what, remedy in MAGIC:
        if raw.startswith(magic):
            raise DataError(what, where=where, remedy=remedy)
    return raw.removeprefix(BOM)


def _decoded(raw: bytes, where: str) -> str:
    if b"\0" in raw:
        remedy = "Save the file as text in UTF-8; `file FILE` may say what it is."
        raise DataError("has NUL bytes: is no text in UTF-8", where=where, remedy=remedy)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        what = f"is not UTF-8: its byte {error.start + 1} is 0x{raw[error.start]:02x}"
        remedy = "Save the file as UTF-8. Where it is Latin-1 or Windows': `iconv -f WINDOWS-1252 -t UTF-8 FILE`."
        raise DataError(what, where=where, remedy=remedy) from None


def json_value(text: str, where: str, remedy: str) -> Any:
    """What a line says in JSON. Raises DataError for what is none, for NaN, and for a key that is there twice."""
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"is no JSON: {_why(error, text)}", where=where, remedy=remedy) from None


def _why(error: Exception, text: str) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if "\r" in text.strip():
        return "its lines end in carriage returns alone; save it with line feeds"
    return f"{error.msg} (column {error.colno})" if isinstance(error, json.JSONDecodeError) else str(error)


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        times = Counter(key for key, _ in pairs)
        twice = times.most_common(1)[0][0]
        raise ValueError(f"the key {shown(twice)} is there twice")
    return found


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number in JSON")


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number has {len(text)} digits")
    return int(text)


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_number, parse_int=_integer)

_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60


def shown(value: object) -> str:
    """A value as an error shows it: as Python writes it, but short, whatever its size and depth."""
    return _SHORT.repr(value)


def is_text(value: object) -> bool:
    """Whether it is a string that can be written down: JSON can escape half a character, and UTF-8 has no halves."""
    if not isinstance(value, str):
        return False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
