"""PEFT LoRA adapters as folders: what their config says, and that nothing of it would be left out. Loads no torch."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spillover.errors import AdapterError

ADAPTER = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
PREFIX = "base_model.model."
"""What PEFT puts before a layer's name."""
PROBE = "probe.jsonl"
"""A few rows that the adapter was trained on, beside it: on them it must do something."""
REFUSED = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "modules_to_save",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
)
"""What a LoRA config may ask for and plain factors do not give."""
CHANGED_BASE = re.compile(r"pissa|olora|corda|loftq|lora_ga")
"""Initialisations that change the base's own weights."""
CACHED = re.compile(r"models--[^/]+--(?P<name>[^/]+)/snapshots/")
COPY = re.compile(r"(-unsloth)?(-bnb-4bit)?$")


def on_the_way(step: int) -> str:
    """The folder, within a run's, of its checkpoint after so many optimiser steps."""
    return f"checkpoint-{step:06d}"


@dataclass(frozen=True)
class LoraConfig:
    """What of PEFT's config says how strong an adapter is."""

    rank: int
    alpha: float
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    is_rank_stabilised: bool

    def scale(self, layer: str) -> float:
        """What the product of a layer's factors is multiplied with. Patterns name layers as PEFT matches them."""
        rank, alpha = _matching(self.ranks, layer, self.rank), _matching(self.alphas, layer, self.alpha)
        return alpha / math.sqrt(rank) if self.is_rank_stabilised else alpha / rank


def _matching(patterns: Mapping[str, float], layer: str, otherwise: float) -> float:
    return next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", layer)), otherwise)


def check_adapter(folder: Path, base: str | None = None) -> LoraConfig:
    """What an adapter's config says.

    Args:
        folder: a PEFT folder.
        base: the name (hub id or folder) of the model that it is to be put on. None leaves unasked whose it is.

    Raises:
        AdapterError: no such adapter, pickled weights, an unknown kind, or another base.
    """
    _check_weights(folder)
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        ranks, alphas = (dict(config.get(name) or {}) for name in ("rank_pattern", "alpha_pattern"))
        read = LoraConfig(int(config["r"]), float(config["lora_alpha"]), ranks, alphas, bool(config.get("use_rslora")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"is no LoRA config: {type(error).__name__}: {error}"
        raise AdapterError(what, where=folder / CONFIG, remedy="Save the adapter with save_pretrained.") from None
    _check_kind(folder, config)
    if base is not None:
        check_base(folder, str(config.get("base_model_name_or_path") or ""), base)
    return read


def _check_weights(folder: Path) -> None:
    if (folder / ADAPTER).is_file():
        return
    pickled = sorted(file.name for file in folder.glob("adapter_model.*"))
    what = f"the adapter is pickled ({pickled[0]})" if pickled else f"there is no {ADAPTER}"
    remedy = "Save it as safetensors: pickled weights can run code when loaded." if pickled else "Give a PEFT folder."
    raise AdapterError(what, where=folder, remedy=remedy)


def _check_kind(folder: Path, config: Mapping[str, Any]) -> None:
    kind, bias, begun = config.get("peft_type", "LORA"), config.get("bias") or "none", config.get("init_lora_weights")
    asked = next((name for name in REFUSED if config.get(name)), None)
    if kind != "LORA":
        what = f"is an adapter of the kind {kind}; only LORA is known"
    elif bias != "none":
        what = f"trains biases (bias: {bias}), which is more than plain LoRA"
    elif asked is not None:
        what = f"asks for {asked}, which is more than plain LoRA"
    elif isinstance(begun, str) and CHANGED_BASE.match(begun):
        what = f"was begun by {begun}, which changes the base's own weights"
    else:
        return
    raise AdapterError(what, where=folder / CONFIG, remedy="Merge it into its base with PEFT and give that as `base`.")


def check_base(folder: Path, theirs: str, ours: str) -> None:
    """Raises AdapterError for the adapter of another hub id, or of a folder of another name.

    Across the two kinds nothing is known.

    Args:
        folder: the adapter's.
        theirs: the base that its config names.
        ours: the base that it is to be put on.
    """
    if not theirs or _is_folder(theirs) != _is_folder(ours) or _plain(theirs) == _plain(ours):
        return
    raise AdapterError(
        f"the adapter belongs to another base: {theirs}, not {ours}",
        where=folder / CONFIG,
        remedy="Set `base` to it; or correct base_model_name_or_path, if it is the same model by another name.",
    )


def _is_folder(name: str) -> bool:
    if CACHED.search(name) is not None:
        return False
    return name.count("/") != 1 or name.startswith(("/", ".")) or Path(name).is_dir()


def _plain(name: str) -> str:
    """A base's name without owner, revision and what marks a copy of it: copies share their weights."""
    cached = CACHED.search(name)
    last = cached["name"] if cached is not None else name.rstrip("/").rsplit("/", 1)[-1].split("@")[0]
    return COPY.sub("", last.lower())
