"""Base models as folders: found, checked and named by their content. Loads nothing heavy."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from spillover.errors import BaseError
from spillover.spec import MINIATURE, Chat

NEEDED = ("config.json", "tokenizer.json")
SETTINGS = (*NEEDED, "tokenizer_config.json", "generation_config.json")
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
REMEDY = "Save model and tokenizer with save_pretrained."
WHOLE_FILE = 256 * 2**20
OWN, PLAIN = "own", "plain"
"""Chat templates that are no file of the user's: the tokenizer's, and ours for base models."""
PLAIN_FILE = Path(__file__).with_name("plain.jinja")


@dataclass(frozen=True)
class Base:
    """A base model: a folder in the Hugging Face format.

    Attributes:
        path: the folder.
        settings: what `miniature.json` says, where the base is a miniature; else None.
    """

    path: Path
    settings: dict[str, Any] | None

    @property
    def is_miniature(self) -> bool:
        """Whether the base was built by `spillover miniature build`."""
        return self.settings is not None

    @property
    def judge(self) -> Path | None:
        """The folder of the judge adapter that comes with a miniature."""
        folder = self.path / "judge"
        return folder if (folder / "adapter_model.safetensors").is_file() else None

    @cached_property
    def key(self) -> str:
        """A short hash of the weights, the configuration, the tokenizer and the chat template."""
        return folder_key(self.path)


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


def find_base(ref: str, chat: Chat = Chat()) -> Base:
    """A base by name (`miniature`) or by folder, whose conversations are rendered as `chat` says.

    Raises:
        BaseError: no such folder, a file is missing, the weights are pickled, or there is no chat template.
    """
    path = shipped_miniature() if ref == MINIATURE else Path(ref)
    if not path.is_dir():
        raise BaseError(
            f"no base model {ref!r}: there is no such folder",
            remedy="Give `miniature` or a Hugging Face folder (config.json, *.safetensors, tokenizer.json).",
        )
    check_folder(path)
    check_template(path, chat)
    marker = path / "miniature.json"
    return Base(path, _json(marker) if marker.is_file() else None)


def check_folder(path: Path) -> None:
    """Raises BaseError unless the folder holds a model that can be trained and asked."""
    for name in NEEDED:
        if not (path / name).is_file():
            raise BaseError(f"{name} is missing", where=path, remedy=REMEDY)
    for name in SETTINGS:
        if (path / name).is_file():
            _json(path / name)
    if not list(path.glob("*.safetensors")):
        pickled = sorted(file.name for file in path.iterdir() if file.suffix in PICKLED)
        what = f"the weights are pickled ({pickled[0]})" if pickled else "there are no weights (*.safetensors)"
        raise BaseError(what, where=path, remedy="Save them as safetensors: pickled weights can run code when loaded.")
    for weights in path.glob("*.safetensors"):
        _check_whole(weights)


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
    config = _json(path / "config.json")
    text = config.get("text_config")
    length = (text if isinstance(text, dict) else config).get("max_position_embeddings")
    return length if isinstance(length, int) else None


def _check_whole(weights: Path) -> None:
    """Raises BaseError unless a safetensors file is as long as its header says: a download may have been cut off."""
    with weights.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        try:
            tensors = json.loads(handle.read(length) if length < weights.stat().st_size else b"")
            end = max(tensor["data_offsets"][1] for name, tensor in tensors.items() if name != "__metadata__")
        except (ValueError, KeyError, TypeError, AttributeError):
            end = None
    if end is None or weights.stat().st_size != 8 + length + end:
        raise BaseError("is no whole safetensors file", where=weights, remedy="Download or save the weights again.")


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
