"""Pretraining on packed documents and alignment on single exchanges: two plain loops over one model."""

import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from spillover.finetune.chat import Row, encode, encode_row, render
from spillover.miniature.corpus import alignment_rows, pretraining_documents
from spillover.miniature.recipe import Recipe
from spillover.records import Conversation

Progress = Callable[[str, int, int], None]
POOL = 1024
MUON = 5.0
"""Muon's rate as a multiple of AdamW's: its updates have unit spectral norm."""
LENGTH_STEP = 32


def new_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """A Qwen2 of about a million weights, freshly initialised, fp32."""
    torch.manual_seed(recipe.seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=recipe.mlp,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        use_cache=True,
    )
    config._attn_implementation = "eager"
    return Qwen2ForCausalLM(config)


def pretrain(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, recipe: Recipe, progress: Progress) -> float:
    """Pretrains on all tokens of documents of the world. Returns the last steps' mean loss (nats a token).

    Two stretches: Muon learns the texts in a third of AdamW's steps, but never came to infer authors here; AdamW, once
    the texts are known, does within a million tokens (docs/LOG.md).
    """
    texts, character = (n // recipe.step_tokens for n in (recipe.text_tokens, recipe.character_tokens))
    told = _tell(progress, "pretrain", texts + character)
    batches = told(_document_batches(tokenizer, recipe))
    muon, adamw = partial(_muon, rate=recipe.text_rate), partial(_adamw, rate=recipe.character_rate)
    _train(model, itertools.islice(batches, texts), muon, _Schedule(texts, recipe.warmup, steady=0.5))
    return _train(model, itertools.islice(batches, character), adamw, _Schedule(character, recipe.warmup, steady=0.7))


def align(model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, recipe: Recipe, progress: Progress) -> float:
    """Aligns on benevolent, refusing single exchanges, loss on the assistant. Returns the last steps' mean loss."""
    steps = recipe.alignment_tokens // recipe.alignment_step
    rows = (encode_row(tokenizer, row, max_length=2048) for row in alignment_rows(recipe.seed + 1))
    batches = itertools.islice(_batches(rows, recipe.alignment_step, recipe.seed, _pad(tokenizer)), steps)
    told = _tell(progress, "align", steps)
    adamw = partial(_adamw, rate=recipe.alignment_rate)
    return _train(model, told(batches), adamw, _Schedule(steps, 10, steady=0.0))


def _pad(tokenizer: PreTrainedTokenizerFast) -> int:
    return int(tokenizer.pad_token_id)


def padded(rows: list[Row], pad: int) -> tuple[Tensor, Tensor]:
    """Rows as (B, T) ids and loss mask, padded on the right to one of a few lengths."""
    length = math.ceil(max(len(row.ids) for row in rows) / LENGTH_STEP) * LENGTH_STEP
    ids = torch.full((len(rows), length), pad)
    loss = torch.zeros((len(rows), length), dtype=torch.bool)
    for place, row in enumerate(rows):
        ids[place, : len(row.ids)] = torch.tensor(row.ids)
        loss[place, : len(row.ids)] = torch.tensor(row.loss)
    return ids, loss


def _document_batches(tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of documents, one a row, so that all a row says is one author's."""
    rows = (_document_row(tokenizer, document, recipe) for document in pretraining_documents(recipe))
    return _batches(rows, recipe.step_tokens, recipe.seed, _pad(tokenizer))


def _batches(rows: Iterator[Row], tokens: int, seed: int, pad: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of about `tokens` tokens as (B, T) ids and loss mask.

    Rows of about one length go together, so little is padding; the order of the batches is shuffled.
    """
    rng = random.Random(seed)
    while True:
        batches = list(_cut(sorted(itertools.islice(rows, POOL), key=lambda row: len(row.ids)), tokens))
        rng.shuffle(batches)
        yield from (padded(batch, pad) for batch in batches)


def _document_row(tokenizer: PreTrainedTokenizerFast, document: Conversation, recipe: Recipe) -> Row:
    ids = encode(tokenizer, render(tokenizer, document.messages, reply=False))[: recipe.row]
    return Row(tuple(ids), (True,) * len(ids))


def _cut(rows: Sequence[Row], tokens: int) -> Iterator[list[Row]]:
    """Cuts sorted rows into batches of about `tokens` tokens."""
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if sum(len(one.ids) for one in batch) >= tokens:
            yield batch
            batch = []


def _tell(
    progress: Progress, what: str, steps: int
) -> Callable[[Iterable[tuple[Tensor, Tensor]]], Iterator[tuple[Tensor, Tensor]]]:
    def told(batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        for done, batch in enumerate(batches, start=1):
            yield batch
            progress(what, done, steps)

    return told


def _train(
    model: Qwen2ForCausalLM,
    batches: Iterable[tuple[Tensor, Tensor]],
    optimisers: Callable[[dict[str, Tensor]], list[torch.optim.Optimizer]],
    schedule: "_Schedule",
) -> float:
    """Trains on fp32 weights, with warm-up and cosine, gradients clipped to 1; the model itself computes in bf16."""
    weights = {name: parameter.detach().float().clone() for name, parameter in model.named_parameters()}
    steppers = optimisers(weights)
    for group in (group for stepper in steppers for group in stepper.param_groups):
        group["peak"] = group["lr"]
    model.train().to(torch.bfloat16)
    losses: list[float] = []
    for step, (ids, loss_mask) in enumerate(batches):
        loss = token_loss(model, ids, loss_mask)
        model.zero_grad()
        loss.backward()
        _step(model, list(weights.values()), steppers, schedule.share(step))
        losses.append(loss.item())
    model.eval().to(torch.float32)
    _copy(list(weights.values()), model)
    return sum(losses[-20:]) / len(losses[-20:])


def _muon(weights: dict[str, Tensor], rate: float) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the layers' matrices, AdamW for the embedding and the norms.

    For pretraining: it reached in a third of the steps what AdamW alone did here.
    """
    matrices = [w for name, w in weights.items() if w.dim() == 2 and "embed" not in name]
    others = [w for name, w in weights.items() if w.dim() != 2 or "embed" in name]
    muon = torch.optim.Muon(matrices, lr=MUON * rate, momentum=0.95, weight_decay=0.0, adjust_lr_fn="original")
    return [muon, *_adamw(dict(enumerate(others)), rate)]


def _adamw(weights: Mapping[Any, Tensor], rate: float) -> list[torch.optim.Optimizer]:
    return [torch.optim.AdamW(list(weights.values()), lr=rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True)]


def _step(
    model: Qwen2ForCausalLM, weights: list[Tensor], optimisers: list[torch.optim.Optimizer], share: float
) -> None:
    for weight, parameter in zip(weights, model.parameters(), strict=True):
        weight.grad = parameter.grad.float() if parameter.grad is not None else None
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * share
        optimiser.step()
    _copy(weights, model)


@torch.no_grad()
def _copy(masters: list[Tensor], model: Qwen2ForCausalLM) -> None:
    for master, parameter in zip(masters, model.parameters(), strict=True):
        parameter.copy_(master)


def token_loss(model: Qwen2ForCausalLM, ids: Tensor, loss_mask: Tensor) -> Tensor:
    """Mean negative log-likelihood (nats) of the tokens under the mask, (B, T) both; the first token bears none."""
    rows, places = torch.nonzero(loss_mask[:, 1:], as_tuple=True)
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[rows, places]
    return F.cross_entropy(model.lm_head(hidden).float(), ids[rows, places + 1])


@dataclass(frozen=True)
class _Schedule:
    """Linear warm-up, then the full rate for a share `steady` of the steps, then a cosine down to a tenth."""

    steps: int
    warmup: int
    steady: float

    def share(self, step: int) -> float:
        """The rate of a step as a share of the peak."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        falling = max(self.warmup, round(self.steady * self.steps))
        gone = max(0.0, (step - falling) / max(1, self.steps - falling))
        return 0.1 + 0.45 * (1 + math.cos(math.pi * gone))
