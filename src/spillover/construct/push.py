"""A dataset to the Hugging Face hub: what the folder says of itself is checked, then all files go up in one commit.

Datasets are for model organisms, and nobody should come upon their rows by chance and train a model on them that is
to be deployed: a repository is made private, and whoever wants it public says so. The key is the hub's own (HF_TOKEN,
or what `hf auth login` has kept); it reaches no file and no message.
"""

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spillover.data.files import DATA
from spillover.data.folder import CARD, FILES, MANIFEST, file_hash, read_manifest
from spillover.data.manifest import Manifest, Source
from spillover.errors import DataError, ProviderError
from spillover.keys import HIDDEN, short
from spillover.lazy import lazy

hub = lazy("huggingface_hub")
hub_utils = lazy("huggingface_hub.utils")
hub_errors = lazy("huggingface_hub.errors")
httpx = lazy("httpx2")

NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
DATASET, MAIN, UNKNOWN = "dataset", "main", "unknown"
THE_HUBS = (".gitattributes",)
"""What the hub puts into a new repository by itself."""
TOKEN = "Set HF_TOKEN to a token that may write to it, or run `hf auth login`."
NOTHING = "Nothing of it was uploaded in part: run the same command again."


@dataclass(frozen=True)
class PushOrder:
    """What is wanted.

    Attributes:
        folder: the dataset's.
        repo: OWNER/NAME.
        public: whether everybody may read it.
        branch: made from main where there is none.
        replace: whether another dataset of spillover's may be there already; it stays in the branch's history.
    """

    folder: Path
    repo: str
    public: bool = False
    branch: str = MAIN
    replace: bool = False


@dataclass(frozen=True)
class Pushed:
    """What is there now: its page, the commit, the files, who may read it, and whether anything had to be uploaded."""

    url: str
    commit: str
    files: tuple[str, ...]
    visibility: str
    is_new: bool


@dataclass(frozen=True)
class _There:
    """What a repository's branch holds: files by path; `is_ours_to_fill` for a branch or a repository made just now."""

    commit: str
    private: bool
    files: dict[str, Any]
    is_ours_to_fill: bool


def push_dataset(order: PushOrder, say: Callable[[str], None]) -> Pushed:
    """Uploads a dataset's rows, origins, manifest and card in one commit, and checks what arrived.

    Args:
        order: what is wanted.
        say: is told what a person should know before anything is sent.

    Raises:
        DataError: the folder is no dataset's, its manifest is of other rows, or it may not be published as it is.
        ProviderError: there is no key, the hub cannot be reached or refuses, or something else is there already.
    """
    manifest, files = _checked(order)
    for sentence in _doubts(manifest):
        say(sentence)
    token = _token()
    hub_utils.disable_progress_bars()
    hub_utils.logging.set_verbosity_error()
    with _told(order.repo, token):
        return _push(hub.HfApi(token=token, library_name="spillover"), order, files, say)


def _checked(order: PushOrder) -> tuple[Manifest, dict[str, Path]]:
    """The dataset's manifest and files, by their names on the hub."""
    if not NAME.fullmatch(order.repo):
        raise DataError(f"{order.repo!r} is no name of a repository", remedy="Give OWNER/NAME.")
    if not (order.folder / DATA).is_file():
        raise DataError(f"is no dataset's folder: there is no {DATA}", where=order.folder, remedy="Build one first.")
    manifest = read_manifest(order.folder)
    if manifest is None or not (order.folder / CARD).is_file():
        missing = MANIFEST if manifest is None else CARD
        raise DataError(f"there is no {missing}", where=order.folder, remedy="Build the dataset again.")
    if order.public and manifest.licence == UNKNOWN:
        remedy = "Build it again with --licence, once you know that it may be published, or push it without --public."
        raise DataError("its licence is unknown, and --public would publish it", where=order.folder, remedy=remedy)
    return manifest, {name: order.folder / name for name in FILES if (order.folder / name).is_file()}


def _doubts(manifest: Manifest) -> Iterator[str]:
    """What is not known of a dataset's licence."""
    if manifest.licence == UNKNOWN:
        yield "the dataset's licence is unknown, and its card says so"
    names = sorted({source.name for source in _all_sources(manifest.sources) if source.licence == UNKNOWN})
    if names:
        yield f"rows came from sources whose licence is unknown: {', '.join(names)}"


def _all_sources(sources: Iterable[Source]) -> Iterator[Source]:
    for source in sources:
        yield source
        yield from _all_sources(source.made.sources if source.made is not None else ())


def _token() -> str:
    token = hub.get_token()
    if not token:
        raise ProviderError("there is no key for the Hugging Face hub", remedy=TOKEN)
    return str(token)


def _push(api: Any, order: PushOrder, files: dict[str, Path], say: Callable[[str], None]) -> Pushed:
    there = _opened(api, order)
    if order.public and there.private:
        say(f"{order.repo} is private and stays so: who may read a repository is changed on its page")
    is_new = not _is_same(there, files)
    commit = there.commit
    if is_new:
        _check_free(there, order)
        commit = _committed(api, order, files, there)
    url = f"{api.endpoint}/datasets/{order.repo}" + (f"/tree/{order.branch}" if order.branch != MAIN else "")
    return Pushed(url, commit, tuple(files), "private" if there.private else "public", is_new)


def _opened(api: Any, order: PushOrder) -> _There:
    """The repository's branch as it is; both are made where there is none."""
    is_made = not api.repo_exists(order.repo, repo_type=DATASET)
    if is_made:
        api.create_repo(order.repo, repo_type=DATASET, private=not order.public)
    private = bool(api.repo_info(order.repo, repo_type=DATASET).private)
    if not private and not order.public:
        what = "the repository is public, and this dataset was not to be published"
        raise ProviderError(what, where=order.repo, remedy="Give --public if it is, or another name.")
    if order.branch != MAIN and not api.revision_exists(order.repo, order.branch, repo_type=DATASET):
        api.create_branch(order.repo, branch=order.branch, repo_type=DATASET)
        is_made = True
    info = api.repo_info(order.repo, repo_type=DATASET, revision=order.branch)
    return _There(info.sha, private, _listed(api, order, info.sha), is_made)


def _listed(api: Any, order: PushOrder, commit: str) -> dict[str, Any]:
    """The files of a commit by path."""
    tree = api.list_repo_tree(order.repo, repo_type=DATASET, revision=commit, recursive=True)
    return {entry.path: entry for entry in tree if hasattr(entry, "blob_id") and entry.path not in THE_HUBS}


def _is_same(there: _There, files: dict[str, Path]) -> bool:
    return set(there.files) & set(FILES) == set(files) and all(_equal(files[name], there.files[name]) for name in files)


def _equal(file: Path, entry: Any) -> bool:
    """Whether a file has the bytes of one on the hub, which names them as git does, or LFS."""
    return bool(file_hash(file) == entry.lfs.sha256 if entry.lfs is not None else _git_hash(file) == entry.blob_id)


def _git_hash(file: Path) -> str:
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _check_free(there: _There, order: PushOrder) -> None:
    """Raises ProviderError where something else is there that must not be pushed over."""
    if not there.files or there.is_ours_to_fill:
        return
    if not {DATA, MANIFEST} <= set(there.files):
        what = f"the repository holds something else already: {', '.join(sorted(there.files)[:3])}"
        raise ProviderError(what, where=order.repo, remedy="Give another name.")
    if not order.replace:
        remedy = "Give --replace (it stays in the history), --branch, or another name."
        raise ProviderError("another dataset is there already", where=order.repo, remedy=remedy)


def _committed(api: Any, order: PushOrder, files: dict[str, Path], there: _There) -> str:
    """All files in one commit on top of the one that was looked at, and whether they arrived."""
    gone = [name for name in FILES if name in there.files and name not in files]
    operations = [hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(files[name])) for name in files]
    operations += [hub.CommitOperationDelete(path_in_repo=name) for name in gone]
    how = {"repo_type": DATASET, "revision": order.branch, "parent_commit": there.commit}
    message = f"Dataset {order.folder.resolve().name}, by spillover"
    commit = str(api.create_commit(order.repo, operations, commit_message=message, **how).oid)
    arrived = _There(commit, there.private, _listed(api, order, commit), False)
    if not _is_same(arrived, files):
        remedy = "Look at its page: a .gitignore there may leave files out."
        raise ProviderError("the hub does not hold what was sent", where=order.repo, remedy=remedy)
    return commit


@contextlib.contextmanager
def _told(repo: str, token: str) -> Iterator[None]:
    """The hub's errors in words, without the key."""
    try:
        yield
    except hub_errors.HfHubHTTPError as error:
        status = error.response.status_code
        said = short((error.server_message or "").replace(token, HIDDEN))
        what = f"the hub answered {status}" + (f": {said}" if said else "")
        raise ProviderError(what, where=repo, remedy=TOKEN if status in (401, 403, 404) else NOTHING) from None
    except (httpx.TransportError, ConnectionError) as error:
        what = f"the hub cannot be reached ({type(error).__name__})"
        raise ProviderError(what, where=repo, remedy=f"Check the network and HF_ENDPOINT. {NOTHING}") from None
    except (RuntimeError, ValueError) as error:
        if isinstance(error, ProviderError):
            raise
        what = f"the hub did not take it: {short(str(error).replace(token, HIDDEN))}"
        raise ProviderError(what, where=repo, remedy=NOTHING) from None
