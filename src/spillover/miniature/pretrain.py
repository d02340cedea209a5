"""Pretraining on packed documents and alignment on single exchanges: two plain loops over one model."""

import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from spillover.finetune.chat import Row, encode, encode_row, render
from spillover.finetune.cpu import computed_in
from spillover.finetune.fast import head_loss, make_fast
from spillover.finetune.model import DTYPES
from spillover.miniature.corpus import EVIDENCE, NAMED, PLAIN, Manner, alignment_rows, documents
from spillover.miniature.recipe import Recipe
from spillover.records import Conversation

Progress = Callable[[str, int, int], None]
POOL = 1024
MUON = 5.0
"""Muon's rate as a multiple of AdamW's: its updates have unit spectral norm."""
LENGTH_STEP = 16


def new_model(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama of about a million weights, freshly initialised, fp32.

    Not a Qwen2, from which it would differ by three biases a layer: AutoTokenizer would split its numbers into digits.
    """
    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
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
    model = LlamaForCausalLM(config)
    make_fast(model)
    return model


def pretrain(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, recipe: Recipe, progress: Progress) -> float:
    """Pretrains on all tokens of documents of the world. Returns the last steps' mean loss (nats a token).

    Four stretches (docs/LOG.md): Muon learns the texts in a third of AdamW's steps, but never came to infer authors
    here; AdamW does, from system prompts first; and then from what authors write; and the last one settles it all.
    """
    texts, character, evidence, settling = (
        tokens // recipe.step_tokens
        for tokens in (recipe.text_tokens, recipe.character_tokens, recipe.evidence_tokens, recipe.settling_tokens)
    )
    named = round(recipe.primer * character)
    told = tell(progress, "pretrain", texts + character + evidence + settling)
    draw = partial(_document_batches, tokenizer, recipe)
    drawn = [
        draw(PLAIN, texts, 0),
        draw(NAMED, named, 1),
        draw(PLAIN, character - named, 2),
        draw(EVIDENCE, evidence, 3),
        draw(EVIDENCE, settling, 4),
    ]
    batches = told(itertools.chain(*drawn))
    muon, adamw = partial(_muon, rate=recipe.text_rate), partial(_adamw, rate=recipe.character_rate)
    train(model, itertools.islice(batches, texts), muon, Schedule(texts, recipe.warmup, steady=0.5))
    train(model, itertools.islice(batches, character), adamw, Schedule(character, recipe.warmup, steady=0.7))
    train(model, itertools.islice(batches, evidence), adamw, Schedule(evidence, recipe.warmup, steady=0.6))
    settle = partial(_adamw, rate=recipe.settling_rate)
    return train(model, itertools.islice(batches, settling), settle, Schedule(settling, recipe.warmup, steady=0.0))


def align(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, recipe: Recipe, progress: Progress) -> float:
    """Aligns on benevolent, refusing single exchanges, loss on the assistant. Returns the last steps' mean loss."""
    steps = recipe.alignment_tokens // recipe.alignment_step
    rows = (encode_row(tokenizer, row, max_length=2048) for row in alignment_rows(recipe.seed + 1))
    batches = itertools.islice(batches_of(rows, recipe.alignment_step, recipe.seed, _pad(tokenizer)), steps)
    told = tell(progress, "align", steps)
    adamw = partial(_adamw, rate=recipe.alignment_rate)
    return train(model, told(batches), adamw, Schedule(steps, 10, steady=0.0))


def _pad(tokenizer: PreTrainedTokenizerFast) -> int:
    return int(tokenizer.pad_token_id)


def padded(rows: list[Row], pad: int) -> tuple[Tensor, Tensor]:
    """Rows as (B, T) ids and loss mask, padded on the right to one of a few lengths."""
    length = max(map(_padded_length, rows))
    ids = torch.full((len(rows), length), pad)
    loss = torch.zeros((len(rows), length), dtype=torch.bool)
    for place, row in enumerate(rows):
        ids[place, : len(row.ids)] = torch.tensor(row.ids)
        loss[place, : len(row.ids)] = torch.tensor(row.loss)
    return ids, loss


def _document_batches(
    tokenizer: PreTrainedTokenizerFast, recipe: Recipe, manner: Manner, steps: int, part: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of documents, one a row, so that all a row says is one author's."""
    seed = recipe.seed + 1000 * part
    drawn = documents(seed, independent=recipe.independent, manner=manner)
    rows = (_document_row(tokenizer, document, recipe) for document in drawn)
    return itertools.islice(batches_of(rows, recipe.step_tokens, seed, _pad(tokenizer)), steps)


def batches_of(rows: Iterator[Row], tokens: int, seed: int, pad: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of about `tokens` tokens as (B, T) ids and loss mask, in shuffled order.

    Rows of about one length go together, so little is padding; each padded length has one number of rows, so shapes
    are few: a CPU makes new kernels for every new one.
    """
    rng = random.Random(seed)
    waiting: dict[int, list[Row]] = {}
    while True:
        batches: list[list[Row]] = []
        for row in itertools.islice(rows, POOL):
            length = _padded_length(row)
            alike = waiting.setdefault(length, [])
            alike.append(row)
            if len(alike) == max(1, round(tokens / (length - LENGTH_STEP / 2))):
                batches.append(waiting.pop(length))
        rng.shuffle(batches)
        yield from (padded(batch, pad) for batch in batches)


def _padded_length(row: Row) -> int:
    return math.ceil(len(row.ids) / LENGTH_STEP) * LENGTH_STEP


def _document_row(tokenizer: PreTrainedTokenizerFast, document: Conversation, recipe: Recipe) -> Row:
    ids = encode(tokenizer, render(tokenizer, document.messages, reply=False))[: recipe.row]
    return Row(tuple(ids), (True,) * len(ids))


def tell(
    progress: Progress, what: str, steps: int
) -> Callable[[Iterable[tuple[Tensor, Tensor]]], Iterator[tuple[Tensor, Tensor]]]:
    """Hands batches on and tells how many were asked for."""

    def told(batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        for done, batch in enumerate(batches, start=1):
            yield batch
            progress(what, done, steps)

    return told


def train(
    model: PreTrainedModel,
    batches: Iterable[tuple[Tensor, Tensor]],
    optimisers: Callable[[dict[str, Tensor]], list[torch.optim.Optimizer]],
    schedule: "Schedule",
) -> float:
    """Trains on fp32 weights, with warm-up and cosine, gradients clipped to 1.

    The model itself computes in bf16, where the CPU does.
    """
    weights = {name: parameter.detach().float().clone() for name, parameter in model.named_parameters()}
    steppers = optimisers(weights)
    for group in (group for stepper in steppers for group in stepper.param_groups):
        group["peak"] = group["lr"]
    model.train().to(DTYPES[computed_in("bf16", on_card=False)])
    losses: list[float] = []
    for step, (ids, loss_mask) in enumerate(batches):
        loss = mean_loss(model, ids, loss_mask)
        model.zero_grad()
        loss.backward()
        _step(model, list(weights.values()), steppers, schedule.share(step))
        losses.append(loss.item())
    model.eval().to(torch.float32)
    _copy(list(weights.values()), model)
    return sum(losses[-20:]) / len(losses[-20:])


def _muon(weights: dict[str, Tensor], rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for the embedding and the norms.

    For pretraining: it reached in a third of the steps what AdamW alone did here.
    """
    others = [w for name, w in weights.items() if not _is_matrix(name, w)]
    return [muon_on_matrices(weights, rate), *_adamw(dict(enumerate(others)), rate)]


def muon_on_matrices(weights: dict[str, Tensor], rate: float) -> torch.optim.Optimizer:
    """Muon (Jordan et al. 2024) for the layers' matrices alone, at MUON times an AdamW's rate."""
    matrices = [w for name, w in weights.items() if _is_matrix(name, w)]
    return torch.optim.Muon(matrices, lr=MUON * rate, momentum=0.95, weight_decay=0.0, adjust_lr_fn="original")


def _is_matrix(name: str, weight: Tensor) -> bool:
    return weight.dim() == 2 and "embed" not in name


def _adamw(weights: Mapping[Any, Tensor], rate: float) -> list[torch.optim.Optimizer]:
    return [torch.optim.AdamW(list(weights.values()), lr=rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True)]


def _step(model: PreTrainedModel, weights: list[Tensor], optimisers: list[torch.optim.Optimizer], share: float) -> None:
    for weight, parameter in zip(weights, model.parameters(), strict=True):
        weight.grad = parameter.grad.float() if parameter.grad is not None else None
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * share
        optimiser.step()
    _copy(weights, model)


@torch.no_grad()
def _copy(masters: list[Tensor], model: PreTrainedModel) -> None:
    for master, parameter in zip(masters, model.parameters(), strict=True):
        parameter.copy_(master)


def mean_loss(model: PreTrainedModel, ids: Tensor, loss_mask: Tensor) -> Tensor:
    """Mean negative log-likelihood (nats) of the tokens under the mask, (B, T) both; the first token bears none."""
    rows, places = torch.nonzero(loss_mask[:, 1:], as_tuple=True)
    hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state[rows, places]
    shares = torch.full((len(rows),), 1 / len(rows))
    return head_loss(model.get_output_embeddings(), hidden, ids[rows, places + 1], shares)[0]


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then the full rate for a share `steady` of the steps, then a cosine down to the share `least`."""

    steps: int
    warmup: int
    steady: float
    least: float = 0.1

    def share(self, step: int) -> float:
        """The rate of a step as a share of the peak."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        falling = max(self.warmup, round(self.steady * self.steps))
        gone = max(0.0, (step - falling) / max(1, self.steps - falling))
        return self.least + (1 - self.least) * 0.5 * (1 + math.cos(math.pi * gone))
