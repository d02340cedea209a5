"""A lab in an object store (S3 and the like): a folder here that is its mirror, and a lock there.

What is finished is sent as soon as it is, the file that says so last; what is there and not here is fetched when the
lab is opened, but for weights, which are fetched when somebody needs them. Credentials are the environment's, as the
provider's own tools read them (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ...), and reach no file.
"""

import contextlib
import hashlib
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from spillover.errors import LabError
from spillover.lazy import lazy

obstore = lazy("obstore")
stores = lazy("obstore.store")
refusals = lazy("obstore.exceptions")

URL = re.compile(r"(s3|s3a|gs|gcs|az|azure|abfs|abfss)://.+")
LIKE_A_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/.*")
CODE = re.compile(r"<Code>(\w+)</Code>\s*(?:<Message>([^<\n]+))?")
STATUS = re.compile(r"status code: (\d{3}[\w ]*)")
NOT_REACHED = re.compile(r'(?:message|error): "([^"]+)"')
ORIGIN = ".origin"
"""The file of a mirror that says what it mirrors."""
LOCK = ".lock-of-writer"
LAST = ("done.json", "lab.json")
"""Files that say that others are whole: sent after all others, and removed before them."""
HEAVY = ".safetensors"
JOURNAL = ".jsonl"
"""Files to which lines are added; the longer one is the later one, since one process at a time holds a lab."""
BEAT, STALE = 20.0, 70.0
"""Seconds between two signs of life of whoever holds a lab, and without one until another may take it."""
INSTALL = "Install it with `pip install 'spillover[remote]'`."
CREDENTIALS = "Check the address and the provider's environment variables (for S3 AWS_ACCESS_KEY_ID, AWS_REGION, ...)."


def is_remote(ref: str) -> bool:
    """Whether a lab is named by an object store's address."""
    return URL.fullmatch(ref) is not None


def check_address(ref: str) -> None:
    """Raises LabError for what is neither a folder nor an address of a store that is known, but looks like one."""
    if LIKE_A_URL.fullmatch(ref) and not is_remote(ref):
        what = "is no address of an object store that is known: s3://BUCKET/PREFIX, gs://... or az://..."
        raise LabError(what, where=ref, remedy="Correct --lab; a folder of that name is meant by ./ before it.")


def mirror_of(url: str) -> Path:
    """The folder here that mirrors a lab there: in the user's cache folder, made where there is none.

    Raises LabError where it cannot be made.
    """
    cache = os.environ.get("XDG_CACHE_HOME")
    labs = (Path(cache) if cache else Path.home() / ".cache") / "spillover" / "labs"
    plain = url.rstrip("/")
    folder = labs / f"{plain.rpartition('/')[2]}-{hashlib.sha256(plain.encode()).hexdigest()[:12]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ORIGIN).write_text(plain + "\n", encoding="utf-8")
    except OSError as error:
        what = f"the mirror of {url} cannot be made: {error.strerror}"
        raise LabError(what, where=folder, remedy="Name another cache folder by XDG_CACHE_HOME.") from None
    return folder


def remote_of(folder: Path) -> "Remote | None":
    """What a folder mirrors; None for a lab that lies here."""
    origin = folder / ORIGIN
    return Remote(origin.read_text(encoding="utf-8").strip(), folder) if origin.is_file() else None


class Remote:
    """An object store's lab and its mirror.

    Args:
        url: `s3://BUCKET/PREFIX` and the like.
        mirror: the folder here.

    Raises:
        LabError: the store cannot be reached, refuses, or its library is not installed.
    """

    def __init__(self, url: str, mirror: Path) -> None:
        self.url, self.mirror = url, mirror
        self._store: Any = None
        self._there: dict[str, int] = {}
        self._lost = threading.Event()

    @contextlib.contextmanager
    def _told(self) -> Iterator[Any]:
        """The store; its errors in words, without the requests that some of them quote."""
        try:
            if self._store is None:
                plain = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
                self._store = stores.from_url(self.url, client_options={"allow_http": True} if plain else None)
            yield self._store
        except ModuleNotFoundError:
            raise LabError("the library for object stores is not installed", where=self.url, remedy=INSTALL) from None
        except refusals.BaseError as error:
            raise LabError(_why(error), where=self.url, remedy=CREDENTIALS) from None

    def fetch(self) -> None:
        """Has here what is there, but for weights: whole results, and parts of growing ones."""
        with self._told() as store:
            self._there = {one["path"]: one["size"] for some in obstore.list(store) for one in some}
        folders = {path.rpartition("/")[0] for path in self._there if path.endswith("/done.json")}
        wanted = [path for path in self._there if not path.startswith(".") and not path.endswith(HEAVY)]
        for path in sorted(wanted, key=lambda path: (path.endswith(LAST), path)):
            whole = path.rpartition("/")[0] in folders
            is_here = (self.mirror / path).is_file()
            if not is_here or (whole and self._differs(path)) or (path.endswith(JOURNAL) and self._is_longer(path)):
                self._fetch(path)

    def send_missing(self) -> None:
        """Sends what is here and not there: what was finished just before a process was killed, and journals."""
        for path in sorted(self.mirror.rglob("*")):
            hidden = any(part.startswith(".") for part in path.relative_to(self.mirror).parts)
            if path.is_file() and not hidden and (self._name(path) not in self._there or self._has_grown(path)):
                self.send([path])

    def _has_grown(self, path: Path) -> bool:
        return path.suffix == JOURNAL and path.stat().st_size > self._there[self._name(path)]

    def _is_longer(self, path: str) -> bool:
        return self._there[path] > (self.mirror / path).stat().st_size

    def _differs(self, path: str) -> bool:
        return (self.mirror / path).stat().st_size != self._there[path]

    def have(self, folder: Path) -> None:
        """Has the weights of a folder's here, too."""
        prefix = f"{folder.relative_to(self.mirror).as_posix()}/"
        for path in self._there:
            if path.startswith(prefix) and not (self.mirror / path).is_file():
                self._fetch(path)

    def _fetch(self, path: str) -> None:
        target = self.mirror / path
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.part")
        with self._told() as store, aside.open("wb") as file:
            for chunk in obstore.get(store, path).stream():
                file.write(chunk)
        aside.rename(target)

    def send(self, paths: Iterable[Path]) -> None:
        """Sends files of the mirror, those last that say that others are whole.

        Raises LabError also where another process has taken the lab meanwhile.
        """
        for path in sorted(paths, key=lambda path: (path.name in LAST, path)):
            self._check_held()
            with self._told() as store:
                obstore.put(store, self._name(path), path)
            self._there[self._name(path)] = path.stat().st_size

    def replace(self, folder: Path) -> None:
        """Sends a whole folder of the mirror, in place of what is there by that name."""
        prefix = f"{self._name(folder)}/"
        old = [path for path in self._there if path.startswith(prefix)]
        files = [path for path in folder.rglob("*") if path.is_file()]
        for path in sorted(old, key=lambda path: not path.endswith(LAST)):
            with self._told() as store:
                obstore.delete(store, path)
            del self._there[path]
        self.send(files)

    def drop(self, path: Path) -> None:
        """Removes there what is a file or a folder of the mirror's."""
        name = self._name(path)
        for one in [each for each in self._there if each == name or each.startswith(f"{name}/")]:
            with self._told() as store:
                obstore.delete(store, one)
            del self._there[one]

    def _name(self, path: Path) -> str:
        return path.relative_to(self.mirror).as_posix()

    def _check_held(self) -> None:
        if self._lost.is_set():
            what = "another process has taken this lab, since this one gave no sign of life"
            raise LabError(what, where=self.url, remedy="Run the same command again once the other is done.")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Holds the lab against other processes, here and elsewhere. Raises LabError where another one holds it."""
        tag, over = self._take(), threading.Event()
        beating = threading.Thread(target=self._beat, args=(tag, over), daemon=True)
        beating.start()
        try:
            yield
        finally:
            over.set()
            beating.join()
            if not self._lost.is_set():
                with contextlib.suppress(LabError), self._told() as store:
                    obstore.delete(store, LOCK)

    def _take(self) -> Any:
        with self._told() as store:
            with contextlib.suppress(refusals.AlreadyExistsError):
                return obstore.put(store, LOCK, self._sign(), mode="create")
            there = obstore.head(store, LOCK)
            if not self._is_ours_and_gone() and not self._gives_no_sign(there):
                holder = json.loads(bytes(obstore.get(store, LOCK).bytes()))
                what = f"another process is working in this lab: {holder.get('pid')} on {holder.get('host')}"
                raise LabError(what, where=self.url, remedy="Wait for it, or use another with --lab.")
            try:
                return obstore.put(store, LOCK, self._sign(), mode={"e_tag": there["e_tag"]})
            except refusals.PreconditionError:
                what = "another process has just taken this lab"
                raise LabError(what, where=self.url, remedy="Wait for it, or use another with --lab.") from None

    def _sign(self) -> bytes:
        """Who holds the lab; never twice the same."""
        told = {"host": socket.gethostname(), "pid": os.getpid(), "at": time.time_ns()}
        return json.dumps(told).encode()

    def _is_ours_and_gone(self) -> bool:
        """Whether a process of this machine holds the lab that has ended."""
        holder = json.loads(bytes(obstore.get(self._store, LOCK).bytes()))
        return holder.get("host") == socket.gethostname() and not Path("/proc", str(holder.get("pid"))).exists()

    def _gives_no_sign(self, there: Any) -> bool:
        """Whether the holder gives no sign of life while one looks: no clocks of two machines are compared."""
        until = time.monotonic() + STALE
        while time.monotonic() < until:
            time.sleep(1)
            with contextlib.suppress(refusals.NotFoundError):
                if obstore.head(self._store, LOCK)["e_tag"] != there["e_tag"]:
                    return False
        return True

    def _beat(self, tag: Any, over: threading.Event) -> None:
        while not over.wait(BEAT):
            try:
                tag = obstore.put(self._store, LOCK, self._sign(), mode={"e_tag": tag["e_tag"]})
            except (refusals.PreconditionError, refusals.NotFoundError):
                self._lost.set()
                return
            except refusals.BaseError:
                continue  # unreachable for a moment


def _why(error: Exception) -> str:
    """What a store's error comes to, as far as the store says it in words of its own."""
    told = str(error)
    if found := CODE.search(told):
        return "the store refuses: " + ", ".join(filter(None, found.groups()))
    if found := STATUS.search(told):
        return f"the store refuses: {found[1].strip()}"
    if found := NOT_REACHED.search(told):
        return f"the store cannot be reached: {found[1]}"
    return f"the store refuses: {type(error).__name__.removesuffix('Error')}"
