"""Folders that travel to another machine, with all of their files, and lie there for a while."""

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KEPT = 8
"""Unpacked folders that a process keeps."""
_PLACE = "spillover-packed"
_HERE: dict[str, Path] = {}
"""By name, those of this process; the last one was used last."""


@dataclass(frozen=True)
class Packed:
    """A folder's files by their paths in it. Folders of one name hold the same."""

    name: str
    files: dict[str, bytes]

    def write(self, folder: Path) -> None:
        """Writes the files into a folder that is there."""
        for path, content in self.files.items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)


def pack(folder: Path) -> Packed:
    """All files of a folder and of those in it."""
    paths = sorted(file for file in folder.rglob("*") if file.is_file())
    files = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
    digest = hashlib.sha256()
    for path, content in files.items():
        digest.update(f"{path}:{len(content)}\n".encode() + content)
    return Packed(f"{folder.name}-{digest.hexdigest()[:16]}", files)


def here(folder: Any) -> Any:
    """The path of a folder that came packed, on this machine; anything else as it is."""
    if not isinstance(folder, Packed):
        return folder
    path = _HERE.pop(folder.name, None)
    if path is None:
        if len(_HERE) == KEPT:
            shutil.rmtree(_HERE.pop(next(iter(_HERE))), ignore_errors=True)
        path = _own() / folder.name
        shutil.rmtree(path, ignore_errors=True)  # what another process of this number may have left
        path.mkdir(parents=True)
        folder.write(path)
    _HERE[folder.name] = path
    return path


def _own() -> Path:
    """This process's place. What processes that are gone have left is swept: those of a cluster end unwarned."""
    place = Path(tempfile.gettempdir()) / f"{_PLACE}-{os.getuid()}"
    for other in place.glob("*"):
        if not Path("/proc", other.name).exists():
            shutil.rmtree(other, ignore_errors=True)
    return place / str(os.getpid())
