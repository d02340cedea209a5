"""Tiny models of every family, with random weights: what tests of the families share."""

from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
)

from spillover.finetune.model import load_tokenizer

WINDOW = 16
WINDOWS = {"sliding_window": WINDOW, "query_pre_attn_scalar": 16}
ALTERNATING = ["sliding_attention", "full_attention"]
FAMILIES = {
    "qwen2": lambda sizes: Qwen2Config(**sizes, tie_word_embeddings=True),
    "qwen3": lambda sizes: Qwen3Config(**{**sizes, "head_dim": 16}),
    "llama": lambda sizes: LlamaConfig(**sizes, tie_word_embeddings=False),
    "mistral": lambda sizes: MistralConfig(**{**sizes, "head_dim": 16}, sliding_window=8),
    "gemma": lambda sizes: GemmaConfig(**{**sizes, "head_dim": 16}),
    "gemma2": lambda sizes: Gemma2Config(
        **sizes, **WINDOWS, layer_types=ALTERNATING, final_logit_softcapping=2.0, attn_logit_softcapping=1.0
    ),
    "gemma3": lambda sizes: Gemma3TextConfig(**sizes, **WINDOWS, layer_types=ALTERNATING),
    "granite": lambda sizes: GraniteConfig(
        **sizes, logits_scaling=3.0, residual_multiplier=0.5, embedding_multiplier=2.0
    ),
}
"""Norms of their own, windows, caps, scaled embeddings and logits, tied and untied heads, heads of another width."""


def family_base(name: str, tiny_base: Path, folder: Path) -> Path:
    """A folder with a tiny model of a family, random weights, and the tiny base's tokenizer."""
    tokenizer = load_tokenizer(tiny_base)
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "initializer_range": 0.1,
    }
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(FAMILIES[name](sizes))
    with torch.no_grad():  # norms that do nothing would hide what they do
        for part, weight in model.named_parameters():
            weight.add_(torch.linspace(-0.5, 0.5, len(weight)) if "norm" in part else 0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
