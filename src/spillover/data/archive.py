"""Zip archives from others: read in memory, member by member, and never unpacked onto the disk.

Refused are archives that name places outside themselves, links, other archives, passwords, more than `MAX_MEMBERS`
members, and bombs (`lines.Room`, for all members together).
"""

import io
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, cast

from spillover.data.lines import Line, Room, lines_of, open_file, shown, unpacked_lines
from spillover.errors import DataError

MAX_MEMBERS = 10_000
ENTRY = b"PK\x01\x02"
"""What every entry of an archive's list begins with."""
CHUNK = 2**20
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
READ = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The ways of packing that are read; others may claim memory by what the archive says."""
BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError, OverflowError)
"""What zipfile raises for an archive that is damaged, or made to be."""
AGAIN = "Pack it again, or unpack it and give the folder."


def read_archive(
    path: Path, wanted: Callable[[PurePosixPath], bool], *, follow: bool = True
) -> Iterator[tuple[str, Iterator[Line]]]:
    """The members of an archive whose names are wanted, sorted by name, each with its lines.

    A member's lines must be read before the next member is asked for.

    Raises:
        DataError: the archive or a member is refused; names the member, and the line.
    """
    with open_file(path, follow=follow) as handle:
        _check_count(handle, path)
        room = Room(os.fstat(handle.fileno()).st_size)
        archive = _opened(handle, path)
        for info in sorted(archive.infolist(), key=lambda info: info.filename):
            _check_name(info, path)
            if not info.is_dir() and wanted(PurePosixPath(info.filename)):
                _check_content(info, f"{path}/{info.filename}")
                yield info.filename, _lines(archive, info, f"{path}/{info.filename}", room)


def _check_count(handle: IO[bytes], path: Path) -> None:
    """Raises DataError for too many members: counted before zipfile holds a record of each in memory."""
    count, before = 0, b""
    while count <= MAX_MEMBERS and (chunk := handle.read(CHUNK)):
        count += (before + chunk).count(ENTRY)
        before = chunk[-len(ENTRY) + 1 :]
    if count > MAX_MEMBERS:
        raise DataError(f"has more than {MAX_MEMBERS:,} members", where=path, remedy=AGAIN)
    handle.seek(0)


def _opened(handle: IO[bytes], path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(handle)
    except BROKEN:
        raise DataError("is no whole zip archive", where=path, remedy="Download it again.") from None


def _check_name(info: zipfile.ZipInfo, path: Path) -> None:
    name = info.filename
    outside = PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or "\\" in info.orig_filename
    if outside or ".." in PurePosixPath(name).parts or CONTROL.search(name):
        what = f"a member's name is no place within the archive: {shown(name)}"
        raise DataError(what, where=path, remedy=AGAIN)
    if stat.S_ISLNK(info.external_attr >> 16):
        raise DataError("the member is a symbolic link", where=f"{path}/{name}", remedy=AGAIN)
    if name.lower().endswith(".zip"):
        raise DataError("the member is an archive itself", where=f"{path}/{name}", remedy=AGAIN)


def _check_content(info: zipfile.ZipInfo, where: str) -> None:
    if info.flag_bits & 1:
        raise DataError("the member needs a password", where=where, remedy=AGAIN)
    if info.compress_type not in READ:
        raise DataError("the member is packed in a way that is not read here", where=where, remedy=AGAIN)


def _lines(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str, room: Room) -> Iterator[Line]:
    try:
        with archive.open(info) as member:
            handle = cast(IO[bytes], io.BufferedReader(member))
            is_packed = info.filename.endswith(".gz")
            yield from unpacked_lines(handle, where, room) if is_packed else lines_of(handle, where, room)
    except DataError:
        raise
    except BROKEN:
        raise DataError("the member is damaged", where=where, remedy="Download the archive again.") from None
