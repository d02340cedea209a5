"""Models that a provider keeps: checkpoints without weights, which say whom to ask and how they came about."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spillover.errors import LabError
from spillover.spec import API
from spillover.store import read_json, write_json

MODEL = "model.json"
OPENAI = f"{API}openai/"
TINKER = f"{API}openai-api/tinker/"
"""Tinker serves models by OpenAI's protocol; inspect_ai asks such services as `openai-api/SERVICE/MODEL`."""
TINKER_ADDRESS = "https://tinker.thinkingmachines.dev/services/tinker-prod"


@dataclass(frozen=True)
class Served:
    """A finetuned model that lies at a provider.

    Attributes:
        model: whom to ask, `api:PROVIDER/MODEL`.
        base: the model that was finetuned, as the provider calls it.
        job: the provider's id of the job or training run.
        settings: what the provider was told of how to train.
        trained_tokens: tokens that went through training, prompts included; None if the provider does not tell.
        shutdown: the day when the model is shut down, None if none is announced.
    """

    model: str
    base: str
    job: str
    settings: dict[str, Any]
    trained_tokens: int | None = None
    shutdown: str | None = None


def write_served(folder: Path, served: Served) -> None:
    """Writes `model.json` into a checkpoint's folder."""
    write_json(folder / MODEL, dataclasses.asdict(served))


def served_model(folder: Path) -> str | None:
    """Whom to ask for a checkpoint, `api:PROVIDER/MODEL`; None where its weights lie in the folder itself.

    Raises:
        LabError: `model.json` is damaged or names no model.
    """
    path = folder / MODEL
    if not path.is_file():
        return None
    model = read_json(path).get("model")
    if not isinstance(model, str) or not model.startswith(API):
        raise LabError(f"names no model ({API}PROVIDER/MODEL)", where=path, remedy="Delete its folder and run again.")
    return model


def served_address(model: str) -> str | None:
    """The address at which a model is asked, where its provider's usual one does not do; None where it does.

    The environment's TINKER_BASE_URL says where one trains; the models are asked below it.
    """
    if not model.startswith(TINKER):
        return None
    return (os.environ.get("TINKER_BASE_URL") or TINKER_ADDRESS).rstrip("/") + "/oai/api/v1"
