"""Where results live: the lab folder, its stage folders, and the promise that nothing is lost.

    lab/
      lab.json                      the layout's version
      data/insecure-4f0c.../        a whole result: written aside, renamed, with done.json written last
      finetune/insecure-s0-.../
      ask/insecure-s0-main-.../     a growing result: numbered parts, each written aside and renamed
      choose/insecure-s0-truth-.../ a whole result
      inspect/insecure-s0-mmlu-.../ a whole result
      judge/alignment-.../
      providers/                    requests to providers that succeeded, and what their models can do
      written/                      what local models wrote for datasets, and what judges said of their rows
      figure4/                      the report
      paper/                        the paper's claims, beside what was found
      .aside/                       what is being written; emptied when the lab is opened

A folder's name ends in the key of everything it depends on, so a result is never mistaken for another's. A folder
without `done.json`, or a part that was not renamed, was never finished and is made again.
"""

import contextlib
import fcntl
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from spillover.errors import LabError
from spillover.hashes import HASHES, SHA, beside, check_whole, hash_of, hashes_of, settle
from spillover.remote import Remote, check_address, is_remote, mirror_of, remote_of

LAYOUT = 1
LAB, DONE, ASIDE = "lab.json", "done.json", ".aside"
PROVIDERS = "providers"
WRITTEN = "written"
PAPER = "paper"
BENCHMARKS = "inspect"
FOLDERS = ("data", "finetune", "ask", "choose", BENCHMARKS, "judge", PROVIDERS, WRITTEN, PAPER)
"""The folders of the stages, of what is known of providers, of what models wrote for datasets, and of the paper's
claims. Every other folder is an experiment's report."""
PACKAGES = (
    *("spillover", "torch", "transformers", "peft", "tokenizers", "polars", "numpy", "scipy", "bandit"),
    *("inspect_ai", "openai", "anthropic", "tinker", "bitsandbytes", "huggingface_hub"),
)


@dataclass(frozen=True)
class Lab:
    """A lab folder that is open for one process.

    Attributes:
        root: the folder; of a lab in an object store, its mirror.
        remote: the object store, if it lies in one.
    """

    root: Path
    remote: Remote | None = None

    def folder(self, stage: str, name: str, key: str) -> Path:
        """Where the result of a stage lies, finished or not: `STAGE/NAME-KEY`."""
        return self.root / stage / f"{name}-{key}"

    def exists(self, folder: Path) -> bool:
        """Whether a whole result is finished."""
        return (folder / DONE).is_file()

    def done(self, folder: Path) -> dict[str, Any]:
        """What a finished result's `done.json` says: `seconds`, `finished`, and what its stage noted.

        Raises LabError where the file is damaged.
        """
        return read_json(folder / DONE)

    @contextlib.contextmanager
    def whole(self, folder: Path, spec: dict[str, Any]) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Writes a whole result aside and renames it into place when the block ends well.

        Yields:
            the folder to write into, and a dict to put notes in, which become part of `done.json`.
        """
        notes: dict[str, Any] = {}
        with self._aside(folder.name) as aside:
            aside.mkdir()
            yield aside, notes
            _describe(aside, spec)
            write_json(aside / DONE, {**notes, "finished": _now(), HASHES: hashes_of(aside)})
            settle(aside)
            folder.parent.mkdir(parents=True, exist_ok=True)
            with self._aside(f"{folder.name}.old") as old:
                if folder.is_dir():
                    folder.rename(old)
                aside.rename(folder)
        if self.remote is not None:
            self.remote.replace(folder)

    def sound(self, folder: Path) -> Path:
        """A finished result's folder, with its weights in it where those still lay in an object store.

        Raises LabError where a file of it is not as it was written.
        """
        if self.remote is not None:
            self.remote.have(folder)
        check_whole(folder, self.done(folder))
        return folder

    def remove(self, path: Path) -> None:
        """Takes out a result, or a part of one with its hash."""
        for one in (path, beside(path)):
            _remove(one)
            if self.remote is not None:
                self.remote.drop(one)

    @contextlib.contextmanager
    def part(self, folder: Path, name: str, spec: dict[str, Any]) -> Iterator[Path]:
        """Writes one part of a growing result aside and renames it into place when the block ends well."""
        with self._aside(f"{folder.name}.{name}") as aside:
            yield aside
            begun, part = self._begin(folder, spec), folder / name
            with self._aside(f"{folder.name}.{SHA}{name}") as told:
                told.write_text(hash_of(aside) + "\n", encoding="utf-8")
                settle(told)
                told.rename(beside(part))  # first: no part is without its hash, and a hash without its part is nothing
            settle(aside)
            aside.rename(part)
        if self.remote is not None:
            self.remote.send([*begun, beside(part), part])

    def _begin(self, folder: Path, spec: dict[str, Any]) -> list[Path]:
        """Makes the folder of a growing result, if it is not there, with what its parts are made from: new files."""
        if folder.is_dir():
            return []
        with self._aside(folder.name) as aside:
            aside.mkdir()
            _describe(aside, spec)
            settle(aside)
            folder.parent.mkdir(parents=True, exist_ok=True)
            aside.rename(folder)
        return sorted(folder.iterdir())

    @contextlib.contextmanager
    def _aside(self, name: str) -> Iterator[Path]:
        """A path on the lab's own disk to write to; what is still there when the block ends is removed."""
        aside = self.root / ASIDE / name
        aside.parent.mkdir(exist_ok=True)
        try:
            yield aside
        finally:
            _remove(aside)


@contextlib.contextmanager
def open_lab(root: Path) -> Iterator[Lab]:
    """Opens a lab for writing, makes it where there is none, and holds it against other processes.

    Raises:
        LabError: it was made by a newer version, another process works in it, or it cannot be written to.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        handle = open(root / ".lock", "w")  # noqa: SIM115 - closed below; the lock lives as long as the file is open
    except OSError as error:
        raise LabError(
            f"cannot write to the lab folder: {error.strerror}", where=root, remedy="Choose another with --lab."
        ) from None
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise LabError(
                "another process is working in this lab", where=root, remedy="Wait for it, or use another with --lab."
            ) from None
        with _opened(root) as lab:
            check_layout(root)
            _remove(root / ASIDE)  # what a killed process left; the lock says that it is no living one's
            if not (root / LAB).is_file():
                with lab._aside(LAB) as aside:
                    write_json(aside, {"layout": LAYOUT, "made_by": made_by()})
                    aside.rename(root / LAB)
                if lab.remote is not None:
                    lab.remote.send([root / LAB])
            yield lab


@contextlib.contextmanager
def _opened(root: Path) -> Iterator[Lab]:
    """The lab; one in an object store is held there, too, and has here what is there."""
    remote = remote_of(root)
    with remote.held() if remote is not None else contextlib.nullcontext():
        if remote is not None:
            remote.fetch()
            remote.send_missing()
        try:
            yield Lab(root, remote)
        finally:
            if remote is not None:
                remote.send_missing()


def read_lab(root: Path) -> Lab:
    """A lab to read in, which nobody holds: one in an object store as it is there now. Raises LabError."""
    remote = remote_of(root)
    if remote is not None:
        remote.fetch()
    return Lab(root, remote)


def lab_folder(ref: str | Path) -> Path:
    """The folder of a lab by name: the folder itself, or the mirror of one in an object store (`s3://...`).

    Raises LabError for an address that is none.
    """
    check_address(str(ref))
    return mirror_of(str(ref)) if is_remote(str(ref)) else Path(ref)


def reports_of(root: Path) -> list[Path]:
    """The folders of a lab's finished reports, in the order of their names."""
    return sorted(done.parent for done in root.glob(f"*/{DONE}") if done.parent.name not in FOLDERS)


def check_layout(root: Path) -> None:
    """Raises LabError if the lab was made by a newer version than this one."""
    if (root / LAB).is_file():
        found = read_json(root / LAB, remedy=f'It should say {{"layout": {LAYOUT}}}.').get("layout")
        if not isinstance(found, int) or found > LAYOUT:
            raise LabError(
                f"the lab has layout {found!r}; this version knows layouts up to {LAYOUT}",
                where=root / LAB,
                remedy="Install the newer spillover that made it, or use another folder with --lab.",
            )


def check_ours(folder: Path) -> None:
    """Raises LabError if the folder holds something else than a result, which must not be replaced by one."""
    ours = any((folder / name).is_file() for name in ("spec.json", DONE))
    if not ours and folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise LabError(
            "is no result of spillover's, and a result of this name belongs here",
            where=folder,
            remedy="Use another folder with --lab, or give the experiment another name.",
        )


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _describe(folder: Path, spec: dict[str, Any]) -> None:
    """Writes down what a result was made from, and by what."""
    write_json(folder / "spec.json", spec)
    write_json(folder / "provenance.json", provenance())


def read_json(path: Path, remedy: str = "Delete its folder and run again.") -> dict[str, Any]:
    """A JSON object from a file. Raises LabError where it is missing or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LabError(f"cannot be read: {error}", where=path, remedy=remedy) from None
    if not isinstance(value, dict):
        raise LabError("is no JSON object", where=path, remedy=remedy)
    return value


def write_json(path: Path, value: Any) -> None:
    """Writes JSON. Where a reader may come by, write it aside and rename it."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def made_by() -> str:
    """This program and its version, as whatever it writes names it."""
    return f"spillover {_version('spillover')}"


def provenance() -> dict[str, Any]:
    """What made a result: the code's commit and whether it was changed, the versions, the command, the time."""
    return {
        "made": _now(),
        "command": ["spillover", *sys.argv[1:]],
        "code": _commit(),
        "python": sys.version.split()[0],
        "versions": _versions(),
    }


@cache
def _versions() -> dict[str, str]:
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


@cache
def _commit() -> dict[str, Any]:
    """The git commit of an editable install; nothing for an installed package."""
    here = Path(__file__).resolve().parent
    if here.parent.name != "src" or not (here.parents[1] / ".git").exists():
        return {"commit": None, "changed": None}
    git = ["git", "-C", str(here)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "changed": None}
    return {"commit": commit, "changed": bool(changed.strip())}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
