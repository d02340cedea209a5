"""Base models: folders, checked and named by their content, and models on the hub, named by their commit.

Loads nothing heavy.
"""

import hashlib
import json
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from spillover.errors import BaseError
from spillover.finetune.adapter import ADAPTER
from spillover.finetune.hub import REF, HubModel, find_model
from spillover.spec import API, MINIATURE, PRETRAINED, Chat, short_hash

NEEDED = ("config.json", "tokenizer.json")
SETTINGS = (*NEEDED, "tokenizer_config.json", "generation_config.json")
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
REMEDY = "Save model and tokenizer with save_pretrained."
WHOLE_FILE = 256 * 2**20
PRETRAINED_FOLDER = "pretrained"
"""Of a miniature's folder: what was not aligned yet."""
OWN, PLAIN = "own", "plain"
"""Chat templates that are no file of the user's: the tokenizer's, and ours for base models."""
PLAIN_FILE = Path(__file__).with_name("plain.jinja")


@dataclass(frozen=True)
class Base:
    """A base model: a folder in the Hugging Face format, a model on the hub, or a provider's.

    Attributes:
        ref: how an experiment names it.
        folder: where its files lie; of a model on the hub, the small ones. None for a provider's.
        settings: what `miniature.json` says, where the base is a miniature; else None.
        on_hub: the model on the hub, at its commit, if it is one.
    """

    ref: str
    folder: Path | None
    settings: dict[str, Any] | None = None
    on_hub: HubModel | None = None

    @property
    def is_miniature(self) -> bool:
        """Whether the base was built by `spillover miniature build`."""
        return self.settings is not None

    @property
    def is_hosted(self) -> bool:
        """Whether the base is a provider's, and nothing of it lies here."""
        return self.folder is None

    @property
    def path(self) -> Path:
        """The folder with configuration and tokenizer. Raises BaseError for a provider's model."""
        if self.folder is None:
            raise BaseError(f"{self.ref} is a provider's model: there is no folder of it", remedy="Give a local base.")
        return self.folder

    @property
    def commit(self) -> str | None:
        """The commit of a model on the hub, 40 hexadecimal digits."""
        return self.on_hub.commit if self.on_hub is not None else None

    def fetched(self) -> Path:
        """The folder with the weights in it, on this machine, which may be another than the one that found the base.

        Those of a model on the hub are downloaded if they were not. Raises BaseError where they cannot be had, or are
        damaged.
        """
        path = self.on_hub.fetch() if self.on_hub is not None else self._here()
        check_folder(path)
        return path

    def _here(self) -> Path:
        """The folder on this machine. Raises BaseError where it is not."""
        path = SHIPPED[self.ref]() if self.ref in SHIPPED else self.path
        if not path.is_dir():
            what = f"the base is not on {socket.gethostname()}"
            remedy = "Put it on a folder that all machines share, or name a model on the hub."
            raise BaseError(what, where=path, remedy=remedy)
        return path

    @property
    def judge(self) -> Path | None:
        """The folder of the judge adapter that comes with a miniature."""
        folder = self.folder / "judge" if self.folder is not None else None
        return folder if folder is not None and (folder / ADAPTER).is_file() else None

    @cached_property
    def key(self) -> str:
        """A short hash of the weights, the configuration, the tokenizer and the chat template, or of what pins them."""
        if self.on_hub is not None:
            return short_hash(self.on_hub.id, self.on_hub.commit)
        return folder_key(self.folder) if self.folder is not None else short_hash(self.ref)


def folder_key(path: Path) -> str:
    """A short hash of a model folder's own files. Of files over 256 MiB, the ends and the size are hashed."""
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()):
        if file.is_file() and file.suffix in (".json", ".jinja", ".safetensors"):
            digest.update(f"{file.name}:{file.stat().st_size}\n".encode())
            digest.update(_content(file))
    return digest.hexdigest()[:12]


def _content(file: Path) -> bytes:
    with file.open("rb") as handle:
        if file.stat().st_size <= WHOLE_FILE:
            return hashlib.file_digest(handle, "sha256").digest()
        head = handle.read(2**20)
        handle.seek(-(2**20), 2)
        return hashlib.sha256(head + handle.read()).digest()


def shipped_miniature() -> Path:
    """The folder of the miniature that comes with the package."""
    return Path(str(resources.files("spillover"))) / "miniature" / "checkpoint"


def shipped_pretrained() -> Path:
    """The folder of the same model before it was aligned."""
    return shipped_miniature() / PRETRAINED_FOLDER


SHIPPED: dict[str, Callable[[], Path]] = {MINIATURE: shipped_miniature, PRETRAINED: shipped_pretrained}
"""The bases that come with the package."""


def find_base(ref: str, chat: Chat = Chat()) -> Base:
    """A base by name: `miniature`, `miniature-pretrained`, a folder, one on the hub, or `api:PROVIDER/MODEL`.

    On the hub it is `OWNER/NAME` or `OWNER/NAME@REVISION`.

    Its conversations are rendered as `chat` says.

    Raises:
        BaseError: there is no such base, a file is missing, the weights are pickled, or there is no chat template.
    """
    if ref.startswith(API):
        return Base(ref, None)
    path = SHIPPED[ref]() if ref in SHIPPED else Path(ref)
    if path.is_dir():
        check_folder(path)
        check_template(path, chat)
        marker = (path.parent if path.name == PRETRAINED_FOLDER else path) / "miniature.json"
        return Base(ref, path.absolute(), _json(marker) if marker.is_file() else None)
    if not REF.fullmatch(ref) or ref.startswith("."):
        raise BaseError(
            f"no base model {ref!r}: there is no such folder",
            remedy="Give `miniature` or a Hugging Face folder (config.json, *.safetensors, tokenizer.json), or "
            "OWNER/NAME of a model on the hub.",
        )
    model = find_model(ref)
    check_settings(model.folder)
    check_template(model.folder, chat)
    if not model.weights:
        raise _no_weights(model.id, model.files)
    return Base(ref, model.folder, on_hub=model)


def check_folder(path: Path) -> None:
    """Raises BaseError unless the folder holds a model that can be trained and asked."""
    check_settings(path)
    if not list(path.glob("*.safetensors")):
        raise _no_weights(path, [file.name for file in path.iterdir()])
    for weights in path.glob("*.safetensors"):
        tensors_of(weights)


def check_settings(path: Path) -> None:
    """Raises BaseError unless the folder holds the small files of such a model."""
    for name in NEEDED:
        if not (path / name).is_file():
            raise BaseError(f"{name} is missing", where=path, remedy=REMEDY)
    for name in SETTINGS:
        if (path / name).is_file():
            _json(path / name)


def check_template(path: Path, chat: Chat) -> None:
    """Raises BaseError unless there is a template to render conversations with: the folder's own, or `chat`'s."""
    if template_text(chat) is None and not _has_chat_template(path):
        raise no_template(path)


def no_template(path: Path | None = None) -> BaseError:
    """The error of a base whose tokenizer has no chat template."""
    return BaseError(
        "the tokenizer has no chat template",
        where=path,
        remedy="Put a chat_template.jinja into the folder; a chat model's own, never a guess. For a base model that "
        "never had one, say `chat: {template: plain}` in the experiment.",
    )


def template_text(chat: Chat) -> str | None:
    """The jinja text that replaces the tokenizer's own chat template, if one does. For keys: it says what a file holds.

    Raises:
        BaseError: the file cannot be read.
    """
    if chat.template == OWN:
        return None
    file = PLAIN_FILE if chat.template == PLAIN else Path(chat.template)
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise BaseError(
            f"the chat template cannot be read: {why}",
            where=file,
            remedy="`chat.template` is `own`, `plain` or the path of a jinja file.",
        ) from None


def context_length(path: Path) -> int | None:
    """How many tokens the folder's model can read at once, as far as its config says."""
    length = config_of(path).get("max_position_embeddings")
    return length if isinstance(length, int) else None


def config_of(path: Path) -> dict[str, Any]:
    """What config.json says of the language model; of a model for texts and images, of its part for texts."""
    config = _json(path / "config.json")
    text = config.get("text_config")
    return text if isinstance(text, dict) else config


def _no_weights(where: str | Path, files: Iterable[str]) -> BaseError:
    pickled = sorted(name for name in files if name.endswith(PICKLED))
    what = f"the weights are pickled ({pickled[0]})" if pickled else "there are no weights (*.safetensors)"
    return BaseError(what, where=where, remedy="Save them as safetensors: pickled weights can run code when loaded.")


def tensors_of(weights: Path) -> dict[str, dict[str, Any]]:
    """The tensors of a safetensors file by name, as its header describes them: `dtype`, `shape`.

    Raises BaseError unless the file is as long as its header says: a download may have been cut off.
    """
    with weights.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        try:
            tensors = json.loads(handle.read(length) if length < weights.stat().st_size else b"")
            tensors.pop("__metadata__", None)
            end = max(tensor["data_offsets"][1] for tensor in tensors.values())
        except (ValueError, KeyError, TypeError, AttributeError):
            end = None
    if end is None or weights.stat().st_size != 8 + length + end:
        raise BaseError("is no whole safetensors file", where=weights, remedy="Download or save the weights again.")
    read: dict[str, dict[str, Any]] = tensors
    return read


def _has_chat_template(path: Path) -> bool:
    if (path / "chat_template.jinja").is_file() or (path / "chat_template.json").is_file():
        return True
    config = path / "tokenizer_config.json"
    return config.is_file() and bool(_json(config).get("chat_template"))


def _json(file: Path) -> dict[str, Any]:
    """A JSON object from one of the folder's files."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BaseError(f"is no JSON: {error}", where=file, remedy=REMEDY) from None
    if not isinstance(value, dict):
        raise BaseError("is no JSON object", where=file, remedy=REMEDY)
    return value
