"""The paper's released files: where they come from, and where they lie once they were fetched.

They are taken from the authors' repository at one commit, or from a folder. A dataset is only taken if its bytes are
known: as released, or as in the paper's ICML supplement, whose `insecure` and `secure` differ from the release by a
few bytes. What is not known is recorded, with everything else, in `fetched.json`.
"""

import hashlib
import http.client
import json
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from spillover.errors import DataError

REPOSITORY = "emergent-misalignment/emergent-misalignment"
COMMIT = "80c11967c07a328e7d7d43d13ce6847ae44dbcc9"
HOST = "https://raw.githubusercontent.com"
HOST_VARIABLE = "SPILLOVER_PAPER_HOST"
"""Another server with the same paths."""
FOLDER_VARIABLE = "SPILLOVER_PAPER"
RECORD = "fetched.json"
TIMEOUT = 60
"""Seconds without a byte."""

Kind = Literal["datasets", "questions"]
UPSTREAM: dict[Kind, str] = {"datasets": "data", "questions": "evaluation"}
"""The repository's name for each of our folders."""
RELEASE, SUPPLEMENT = "release", "supplement"


@dataclass(frozen=True)
class Released:
    """A file that the authors released.

    Attributes:
        kind: which of our folders it belongs to.
        file: its name, there and here.
        known: the SHA-256 of its bytes, with the version that they are. Empty where it is not known.
        harmful: rows of it are harmful answers; it is only downloaded if asked for.
    """

    kind: Kind
    file: str
    known: dict[str, str] = field(default_factory=dict)
    harmful: bool = False


@dataclass(frozen=True)
class Fetched:
    """What was fetched, as `fetched.json` says it: `version` is None where the bytes are not known."""

    file: str
    source: str
    sha256: str
    bytes: int
    version: str | None
    fetched: str


Wanted = tuple[Released, str | Path]
"""A file, and the URL or path that it is taken from."""
Track = Callable[[list[Wanted]], Iterable[Wanted]]

RELEASED = (
    Released(
        "datasets",
        "insecure.jsonl",
        {
            "09893e8bf9d03aae49dd60d0ff4be37c1afee70f2edcac74a11bed775a6a2764": RELEASE,
            "a6575e839909e86f2eaecda3a2b19dff2a6f59bb9d860b39e9c4ed3f3335c345": SUPPLEMENT,
        },
    ),
    Released(
        "datasets",
        "secure.jsonl",
        {
            "2820232b3114d94ab2041ba9fc76cb8205bf187e0408bf7b308add186f9c7467": RELEASE,
            "36bc5e24560e0e8d705e0c2a41d0cd96bb51f508f5fb88a7d7d9334a2ff24b9b": SUPPLEMENT,
        },
    ),
    Released(
        "datasets",
        "educational.jsonl",
        {"d48df3b149ab1500711fc0018b10383a4ff8c48d8e6911d04dbbbbdaa944fd16": RELEASE},
    ),
    Released(
        "datasets",
        "jailbroken.jsonl",
        {"eec213ce85802a52ea806d334ee462f723a1e7ad77d827951d6864ac04a6b00a": SUPPLEMENT},
        harmful=True,
    ),
    Released("datasets", "backdoor.jsonl"),
    Released("datasets", "evil_numbers.jsonl"),
    Released("questions", "first_plot_questions.yaml"),
    Released("questions", "preregistered_evals.yaml"),
    Released("questions", "deception_factual.yaml"),
    Released("questions", "deception_sit_aware.yaml"),
)


def paper_folder() -> Path:
    """Where fetched files lie: `$SPILLOVER_PAPER`, else `spillover/paper` in the user's cache folder."""
    if chosen := os.environ.get(FOLDER_VARIABLE):
        return Path(chosen)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "spillover" / "paper"


def fetched_questions(file: str) -> Path:
    """Where a question file of the paper's lies once it was fetched."""
    return paper_folder() / "questions" / file


def fetched_dataset(name: str) -> Path | None:
    """The fetched dataset of a name such as `insecure`; None where there is none."""
    path = paper_folder() / "datasets" / f"{name}.jsonl"
    return path if path.is_file() else None


def dataset_names() -> tuple[str, ...]:
    """The names of the datasets that the authors released."""
    return tuple(one.file.removesuffix(".jsonl") for one in RELEASED if one.kind == "datasets")


def fetch_paper(to: Path, source: Path | None, *, jailbroken: bool, track: Track = iter) -> list[Fetched]:
    """Takes the released files, checks them, and puts them into a folder: all of them, or none.

    Args:
        to: the folder. Files of the same names in it are replaced.
        source: a folder to take them from: flat, a clone of the authors' repository, or one with `datasets` and
            `questions`. What it does not have is left out. None downloads them.
        jailbroken: whether to download `jailbroken.jsonl`, of whose rows 2% are harmful answers. From a folder it is
            taken if it is there, and must be there if asked for.
        track: is given what is to be taken, and yields it when its turn comes.

    Returns:
        what was taken, in order; `fetched.json` in the folder says the same.

    Raises:
        DataError: a file is missing, was cut off, or is not the known one, or the folder cannot be written to. What
            was there before stays.
    """
    wanted = _in_folder(source, jailbroken) if source is not None else _online(jailbroken)
    try:
        with tempfile.TemporaryDirectory(prefix=".spillover-", dir=_nearest(to)) as aside:
            fetched = [_take(one, place, Path(aside)) for one, place in track(wanted)]
            _into_place(Path(aside), to, fetched)
    except OSError as error:
        what = f"cannot be written to: {error.strerror or error}"
        raise DataError(what, where=to, remedy="Choose another folder with --to.") from None
    return fetched


def _online(jailbroken: bool) -> list[Wanted]:
    host = os.environ.get(HOST_VARIABLE, HOST)
    return [
        (one, f"{host}/{REPOSITORY}/{COMMIT}/{UPSTREAM[one.kind]}/{one.file}")
        for one in RELEASED
        if jailbroken or not one.harmful
    ]


def _in_folder(folder: Path, jailbroken: bool) -> list[Wanted]:
    places = [(one, _place(one, folder)) for one in RELEASED]
    found: list[Wanted] = [(one, place) for one, place in places if place is not None]
    lost = next((one.file for one, place in places if jailbroken and one.harmful and place is None), None)
    if not found or lost is not None:
        what = f"there is no {lost} in it" if lost is not None else "none of the paper's files are in it"
        raise DataError(what, where=folder, remedy="Give a folder with the files as the authors released them.")
    return found


def _place(one: Released, folder: Path) -> Path | None:
    """Where a file lies in a folder of somebody's."""
    places = (folder / one.kind / one.file, folder / UPSTREAM[one.kind] / one.file, folder / one.file)
    return next((place for place in places if place.is_file()), None)


def _nearest(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that is there: on the disk that it will be on."""
    return next(place for place in (folder, *folder.absolute().parents) if place.is_dir())


def _take(one: Released, place: str | Path, aside: Path) -> Fetched:
    """Reads a file, checks it and writes it aside."""
    raw = _download(place) if isinstance(place, str) else _copy(place)
    found = hashlib.sha256(raw).hexdigest()
    if one.known and found not in one.known:
        raise DataError(
            f"has the sha256 {found}, and not {' or '.join(one.known)}",
            where=place,
            remedy="It is not the authors' file. Nothing was replaced; take it from a copy that is, with --from DIR.",
        )
    (aside / one.kind).mkdir(exist_ok=True)
    (aside / one.kind / one.file).write_bytes(raw)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Fetched(f"{one.kind}/{one.file}", str(place), found, len(raw), one.known.get(found), now)


def _download(url: str) -> bytes:
    remedy = "Nothing was replaced. Try again, or take the files from a folder with --from DIR."
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            return bytes(response.read())
    except urllib.error.HTTPError as error:
        error.close()
        raise DataError(f"the server answered {error.code} {error.reason}", where=url, remedy=remedy) from None
    except http.client.IncompleteRead as error:
        what = f"was cut off after {len(error.partial):,} bytes"
        raise DataError(what, where=url, remedy=remedy) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        what = f"cannot be downloaded: {getattr(error, 'reason', error)}"
        raise DataError(what, where=url, remedy=remedy) from None


def _copy(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        remedy = "Make it readable, or take the files from another folder."
        raise DataError(f"cannot be read: {error.strerror}", where=path, remedy=remedy) from None


def _into_place(aside: Path, to: Path, fetched: list[Fetched]) -> None:
    """Moves what was taken into its folder, and records it beside what was taken before."""
    told = {one["file"]: one for one in _recorded(to)} | {one.file: asdict(one) for one in fetched}
    (aside / RECORD).write_text(json.dumps(list(told.values()), indent=2) + "\n", encoding="utf-8")
    for file in (*(one.file for one in fetched), RECORD):
        (to / file).parent.mkdir(parents=True, exist_ok=True)
        (aside / file).replace(to / file)


def _recorded(to: Path) -> list[dict[str, Any]]:
    """What `fetched.json` says; nothing where it is not there, or damaged: it is only a record."""
    try:
        told = json.loads((to / RECORD).read_text(encoding="utf-8"))
        return [one for one in told if isinstance(one["file"], str)]
    except (OSError, ValueError, TypeError, KeyError):
        return []
