"""Loading a base and putting an adapter on it: safetensors only, nothing remote, no code from the folder."""

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils import logging

from spillover.errors import BaseError
from spillover.finetune.base import REMEDY, check_folder
from spillover.finetune.fast import make_fast
from spillover.finetune.memory import keep_freed_memory

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
ADAPTER = "adapter_model.safetensors"
PREFIX = "base_model.model."


def device() -> torch.device:
    """Where models run: the first CUDA card if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """The folder's tokenizer, with a padding token (the end-of-turn token where it names none).

    It is what tokenizer.json says. AutoTokenizer would take the class that it knows for the model's type, which for
    Qwen2 splits words and numbers by its own rules, whatever the file says.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(path, local_files_only=True)
    except Exception as error:  # the tokenizers library raises nothing more particular
        what = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BaseError(f"the tokenizer cannot be loaded: {what}", where=path, remedy=REMEDY) from None
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(path: Path, precision: str) -> PreTrainedModel:
    """The folder's causal language model, frozen, in `precision` ("bf16" or "fp32"), on `device()`.

    On a CPU with the attention and norms of `fast.py`; elsewhere with eager attention, which is fast on short rows.

    Raises BaseError where the folder holds no causal language model that transformers knows.
    """
    check_folder(path)
    keep_freed_memory()
    logging.disable_progress_bar()
    settings = {"dtype": DTYPES[precision], "attn_implementation": "eager", "local_files_only": True}
    remedy = "Check that config.json and the weights belong together."
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path, **settings, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # a wrong folder makes transformers raise almost anything
        what = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BaseError(f"cannot be loaded: {what}", where=path, remedy=remedy) from None
    model: PreTrainedModel = loaded[0]
    missing: set[str] = loaded[1]["missing_keys"]
    if missing:
        raise BaseError(f"{len(missing)} weights are missing, such as {min(missing)}", where=path, remedy=remedy)
    nn.Module.to(model, device())
    make_fast(model)
    model.eval().requires_grad_(False)
    return model


def linears(model: nn.Module, targets: tuple[str, ...]) -> dict[str, nn.Linear]:
    """The model's linear layers whose last name is among `targets`, by full name, in the model's order.

    Raises BaseError where there is none.
    """
    found = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear) and n.rsplit(".", 1)[-1] in targets}
    if not found:
        raise BaseError(f"no linear layer is called {' or '.join(targets)}", remedy="Set train.targets to its names.")
    return found


@contextlib.contextmanager
def adapted(model: PreTrainedModel, adapter: Path | None) -> Iterator[PreTrainedModel]:
    """The model with a PEFT LoRA adapter merged into its weights; the old weights come back afterwards, untouched.

    Args:
        model: the base that the adapter was trained on.
        adapter: a PEFT folder; None leaves the base as it is.
    """
    layers = dict(model.named_modules())
    saved: dict[str, Tensor] = {}
    try:
        for name, delta in adapter_deltas(adapter).items() if adapter else ():
            layer = layers[name]
            saved[name] = layer.weight
            layer.weight = nn.Parameter(
                (layer.weight.float() + delta.to(layer.weight.device)).to(layer.weight.dtype), False
            )
        yield model
    finally:
        for name, weight in saved.items():
            layers[name].weight = weight


def adapter_deltas(adapter: Path) -> dict[str, Tensor]:
    """A PEFT LoRA adapter as changes of the weights: layer name to (out, in), fp32."""
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    rank, alpha = int(config["r"]), float(config["lora_alpha"])
    scale = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
    tensors = load_file(adapter / ADAPTER)
    names = {key.removeprefix(PREFIX).removesuffix(".lora_A.weight") for key in tensors if ".lora_A." in key}
    return {name: scale * _factor(tensors, name, "B") @ _factor(tensors, name, "A") for name in sorted(names)}


def _factor(tensors: dict[str, Tensor], name: str, side: str) -> Tensor:
    return tensors[f"{PREFIX}{name}.lora_{side}.weight"].float()
