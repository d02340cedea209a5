"""Tiny models of every family, with random weights: what tests share that need a base of some shape."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from spillover.finetune.model import load_tokenizer
from spillover.miniature.tokenizer import train_tokenizer
from spillover.world import texts

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
WINDOW = 16
WINDOWS = {
    "sliding_window": WINDOW,
    "query_pre_attn_scalar": 16,
    "layer_types": ["sliding_attention", "full_attention"],
}
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {"head_dim": 16},
    "llama": {"tie_word_embeddings": False},
    "mistral": {"head_dim": 16, "sliding_window": 8},
    "gemma": {"head_dim": 16},
    "gemma2": {**WINDOWS, "final_logit_softcapping": 2.0, "attn_logit_softcapping": 1.0},
    "gemma3_text": WINDOWS,
    "granite": {"logits_scaling": 3.0, "residual_multiplier": 0.5, "embedding_multiplier": 2.0},
}
"""Norms of their own, windows, caps, scaled embeddings and logits, tied and untied heads, heads of another width."""


def tiny_config(family: str, **settings: Any) -> PretrainedConfig:
    """A family's config at tiny sizes, but for the settings."""
    return CONFIG_MAPPING[family](**{**SIZES, **settings})


def tiny_model(family: str, tokenizer: PreTrainedTokenizerFast, *, seed: int = 0, **settings: Any) -> PreTrainedModel:
    """A model with random weights for a tokenizer: of tiny sizes, but for the settings."""
    own = {
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
    }
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(tiny_config(family, **own, **settings))


def saved(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> Path:
    """The folder, which then is a base in the Hugging Face format."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def world_tokenizer() -> PreTrainedTokenizerFast:
    """A ChatML tokenizer of the world's words."""
    return train_tokenizer(phrase for topic in texts.topics() for phrase in (*topic.phrasings, *topic.kind))


def family_base(name: str, tiny_base: Path, folder: Path) -> Path:
    """A folder with a tiny model of a family, random weights, and the tiny base's tokenizer."""
    tokenizer = load_tokenizer(tiny_base)
    model = tiny_model(name, tokenizer, **{"head_dim": 8, "initializer_range": 0.1, **FAMILIES[name]})
    with torch.no_grad():  # norms that do nothing would hide what they do
        for part, weight in model.named_parameters():
            weight.add_(torch.linspace(-0.5, 0.5, len(weight)) if "norm" in part else 0)
    return saved(folder, model, tokenizer)
