"""Models on the Hugging Face hub, pinned to a commit: the small files at once, the weights when they are needed.

What was fetched lies in the hub's own cache, and is found there without a network.
"""

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from spillover.errors import BaseError
from spillover.lazy import lazy

hub = lazy("huggingface_hub")
hub_utils = lazy("huggingface_hub.utils")
hub_errors = lazy("huggingface_hub.errors")
httpx = lazy("httpx2")

REF = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
SMALL = ("*.json", "*.jinja")
SUBFOLDERS = ("*/*",)
WHOLE = {"model.safetensors"}
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class HubModel:
    """A model on the hub at one commit.

    Attributes:
        id: OWNER/NAME.
        commit: 40 hexadecimal digits.
        folder: where its small files lie.
        files: every file's name and size in bytes.
    """

    id: str
    commit: str
    folder: Path
    files: dict[str, int]

    @property
    def weights(self) -> dict[str, int]:
        """The safetensors that transformers would load: name to bytes."""
        return {name: self.files[name] for name in loaded_weights(self.folder, self.files)}

    def fetch(self) -> Path:
        """The folder with the weights in it; what is not in the cache is downloaded. Raises BaseError."""
        if sys.stderr.isatty():
            hub_utils.enable_progress_bars()
        return _snapshot(self.id, self.commit, [*SMALL, *self.weights])


def loaded_weights(folder: Path, names: Iterable[str]) -> list[str]:
    """Those of a folder's files that transformers would load: some folders hold the weights in two layouts.

    Raises BaseError where the index is damaged.
    """
    index = folder / INDEX
    try:
        listed = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()) if index.is_file() else WHOLE
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BaseError("is no index of weights", where=index, remedy="Download or save the model again.") from None
    return sorted(listed.intersection(names))


def find_model(ref: str) -> HubModel:
    """A model by `OWNER/NAME` or `OWNER/NAME@REVISION`; without a revision, as the main branch is now.

    Raises:
        BaseError: there is no such model or revision, access is restricted, or the hub cannot be reached.
    """
    parts = REF.fullmatch(ref)
    assert parts is not None, "the caller has looked at the form"
    name, revision = parts["id"], parts["revision"]
    hub_utils.disable_progress_bars()
    hub_utils.logging.set_verbosity_error()
    with _told(name, revision or "main"):
        commit = str(hub.HfApi().resolve_revision(name, revision=revision).resolved)
    folder = _snapshot(name, commit, SMALL)
    listed = hub.get_cached_repo_tree(name, revision=commit)
    return HubModel(name, commit, folder, {file.path: int(file.size) for file in listed})


def _snapshot(name: str, commit: str, patterns: Sequence[str]) -> Path:
    """The folder of a commit's files of these patterns. Nobody is asked where all of them are in the cache."""
    wanted = {"revision": commit, "allow_patterns": list(patterns), "ignore_patterns": list(SUBFOLDERS)}
    try:
        hub.get_cached_repo_tree(name, revision=commit)  # without it, nobody could tell whether all are there
        return Path(hub.snapshot_download(name, **wanted, local_files_only=True))
    except (hub_errors.CachedRepoTreeNotFoundError, hub_errors.LocalEntryNotFoundError):
        with _told(name, commit):
            return Path(hub.snapshot_download(name, **wanted))


@contextlib.contextmanager
def _told(name: str, revision: str) -> Iterator[None]:
    """The hub's errors in words. Their own texts may quote requests, and are left out."""
    token = "HF_TOKEN is set" if os.environ.get("HF_TOKEN") else "HF_TOKEN is not set"
    try:
        yield
    except hub_errors.GatedRepoError:
        remedy = f"Accept its conditions on its page and set HF_TOKEN to a token that may read it ({token})."
        raise BaseError("access to this model is restricted", where=name, remedy=remedy) from None
    except hub_errors.RepositoryNotFoundError:
        remedy = f"Check the name; if the model is private, set HF_TOKEN to a token that may read it ({token})."
        raise BaseError("there is no such model on the hub", where=name, remedy=remedy) from None
    except hub_errors.RevisionNotFoundError:
        remedy = "Give a branch, a tag or a commit of it, or none for the main branch."
        raise BaseError(f"the model has no revision {revision!r}", where=name, remedy=remedy) from None
    except hub_errors.HFValidationError:
        raise BaseError("is no name of a model on the hub", where=name, remedy="Give OWNER/NAME.") from None
    except hub_errors.HfHubHTTPError as error:
        what = f"the hub answered {error.response.status_code}"
        raise BaseError(
            what, where=name, remedy=f"Try again later; check HF_ENDPOINT and HF_TOKEN ({token})."
        ) from None
    except Exception as error:
        if not isinstance(error, _unreachable()):
            raise
        what = f"the hub cannot be reached ({type(error).__name__}), and its cache does not hold revision {revision}"
        remedy = "Check the network and HF_ENDPOINT, or fetch the model where there is one and give its folder."
        raise BaseError(what, where=name, remedy=remedy) from None


def _unreachable() -> tuple[type[Exception], ...]:
    return (
        hub_errors.RevisionResolutionError,
        hub_errors.LocalEntryNotFoundError,
        httpx.TransportError,
        ConnectionError,
    )
