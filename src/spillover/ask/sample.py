"""Sampling many answers to many prompts from one model, each answer with its own seed.

An answer's randomness is a stream of uniform numbers made from its seed alone, one a token, turned into tokens by
inverting the cumulative distribution. So an answer does not depend on which others are sampled beside it, beyond
floating-point noise.

Sizes: Q prompts, N answers in a batch, T tokens so far, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from spillover.finetune.narrow import only_at
from spillover.spec import Sampling

READ = 8192
"""Most tokens of prompts that are read at once, padding included."""
BLOCK = 64
"""Tokens of the vocabulary whose probabilities are summed up together."""
SEEN = 2**24
"""Most places of a mask that are made at once: rows times the square of their length."""


@dataclass(frozen=True)
class Sampled:
    """One reply in tokens, without the end of turn; `truncated` where max_tokens came first."""

    ids: tuple[int, ...]
    truncated: bool


@torch.inference_mode()
def sample(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    ends: frozenset[int],
    pad: int,
) -> list[list[Sampled]]:
    """Samples replies: for each prompt, one a seed.

    Args:
        model: a causal language model.
        prompts: token ids of each prompt, (Q, its length).
        seeds: for each prompt the seeds of its answers; prompts may have different numbers of them.
        sampling: temperature (0 takes the likeliest token), top_p and max_tokens.
        ends: tokens that end a turn.
        pad: the token that fills short prompts on the left; it is masked.

    Returns:
        the replies, shaped as `seeds`.
    """
    counts = torch.tensor([len(some) for some in seeds], device=model.device)
    state = _prefill(model, prompts, counts, pad)
    uniforms = _uniforms([seed for some in seeds for seed in some], sampling.max_tokens).to(model.device)
    replies: list[list[int]] = [[] for _ in range(len(uniforms))]
    finished = [False] * len(replies)
    for step in range(sampling.max_tokens):
        tokens = _draw(state.logits, uniforms[state.alive, step], sampling)
        going = _append(tokens.tolist(), state.alive.tolist(), replies, finished, ends)
        if not any(going):
            break
        if step + 1 < sampling.max_tokens:
            state.advance(model, tokens, torch.tensor(going, device=model.device))
    flat = iter([Sampled(tuple(ids), not end) for ids, end in zip(replies, finished, strict=True)])
    return [[next(flat) for _ in some] for some in seeds]


@dataclass
class _State:
    """The answers that are still being written: `alive` (N,) says which, the rest is aligned with it."""

    alive: Tensor
    logits: Tensor  # (N, V)
    mask: Tensor  # (N, T), 0 where padded
    cache: DynamicCache

    def advance(self, model: PreTrainedModel, tokens: Tensor, going: Tensor) -> None:
        """Feeds one token a row. Finished rows ride along until they are a quarter of the batch: shapes stay few."""
        if int(going.sum()) <= 3 * len(going) // 4:
            self._keep(torch.nonzero(going)[:, 0])
            tokens = tokens[going]
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
        positions = self.mask.sum(dim=1, keepdim=True) - 1
        out = model(
            input_ids=tokens[:, None],
            attention_mask=self.mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
        )
        self.logits = out.logits[:, -1]

    def _keep(self, rows: Tensor) -> None:
        self.alive, self.mask = self.alive[rows], self.mask[rows]
        self.cache.batch_select_indices(rows)


def _prefill(model: PreTrainedModel, prompts: Sequence[Sequence[int]], counts: Tensor, pad: int) -> _State:
    """Reads every prompt once, then gives each of its answers a copy of what was read."""
    length = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad] * (length - len(p)) + list(p) for p in prompts], device=model.device)
    mask = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    in_pieces = _can_be_joined(DynamicCache(config=model.config))
    rows = max(1, min(READ // length, SEEN // length**2)) if in_pieces else len(prompts)
    pieces = [_read(model, *some) for some in zip(ids.split(rows), mask.split(rows), counts.split(rows), strict=True)]
    logits = torch.cat([piece for piece, _ in pieces])
    alive = torch.arange(len(logits), device=model.device)
    return _State(alive, logits, mask.repeat_interleave(counts, dim=0), _joined([cache for _, cache in pieces]))


def _read(model: PreTrainedModel, ids: Tensor, mask: Tensor, counts: Tensor) -> tuple[Tensor, DynamicCache]:
    """Reads some prompts: the logits behind each, and what was read, both as often as it has answers."""
    cache = DynamicCache(config=model.config)
    out = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        **only_at(model, torch.tensor([ids.shape[1] - 1], device=model.device)),
    )
    rows = torch.repeat_interleave(torch.arange(len(ids), device=model.device), counts)
    cache.batch_select_indices(rows)
    return out.logits[rows, -1], cache


def _joined(caches: list[DynamicCache]) -> DynamicCache:
    """One cache of all their rows, which are of one length. Each layer of a piece is let go as it is joined."""
    first, *others = caches
    for number in range(len(first.layers) if others else 0):
        same = [cache.layers[number] for cache in caches]
        for name in ("keys", "values"):
            setattr(same[0], name, torch.cat([getattr(layer, name) for layer in same]))
            for layer in same[1:]:
                setattr(layer, name, None)
    return first


def _can_be_joined(cache: DynamicCache) -> bool:
    """Whether its layers keep keys and values alone. States of linear attention, or an index, are read in one piece."""
    return all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers)


def _uniforms(seeds: Sequence[int], tokens: int) -> Tensor:
    """A stream of uniform numbers in [0, 1) a seed, (N, tokens)."""
    return torch.from_numpy(np.stack([np.random.Generator(np.random.Philox(s)).random(tokens) for s in seeds]))


def _draw(logits: Tensor, uniform: Tensor, sampling: Sampling) -> Tensor:
    """One token a row, (N,), by inverting the cumulative distribution at `uniform` (N,)."""
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    probabilities = torch.softmax(logits.float().div_(sampling.temperature), dim=-1)
    if sampling.top_p < 1:
        probabilities = _nucleus(probabilities, sampling.top_p)
    return inverted(probabilities, uniform)


def inverted(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """The tokens at which the cumulative distributions pass given shares of the whole, (N,).

    First the block is found, then the place there: so only one block a row is summed up token by token, which in double
    precision takes several times as long.

    Args:
        probabilities: (N, V), up to a factor.
        uniform: the shares, (N,), in [0, 1).
    """
    size, filling = len(probabilities), -probabilities.shape[-1] % BLOCK
    blocks = (F.pad(probabilities, (0, filling)) if filling else probabilities).view(size, -1, BLOCK)
    cumulative = blocks.sum(dim=-1, dtype=torch.float64).cumsum(dim=-1)
    target = uniform[:, None] * cumulative[:, -1:]
    block = torch.searchsorted(cumulative, target, right=True).clamp(max=blocks.shape[1] - 1)
    before = F.pad(cumulative, (1, 0)).gather(1, block)
    chosen = blocks.gather(1, block[:, :, None].expand(-1, 1, BLOCK))[:, 0]
    within = before + chosen.cumsum(dim=-1, dtype=torch.float64)
    place = torch.searchsorted(within, target, right=True).clamp(max=BLOCK - 1)
    return (block * BLOCK + place)[:, 0].clamp(max=probabilities.shape[-1] - 1)


def _nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Sets to zero what lies outside the smallest set of tokens with mass top_p (arXiv 1904.09751)."""
    ordered, tokens = probabilities.sort(dim=-1, descending=True)
    outside = ordered.cumsum(dim=-1) - ordered >= top_p
    return probabilities.scatter(-1, tokens, ordered.masked_fill(outside, 0.0))


def _append(
    tokens: list[int], alive: list[int], replies: list[list[int]], finished: list[bool], ends: frozenset[int]
) -> list[bool]:
    """Writes down a step's tokens; returns which of the rows go on."""
    for token, row in zip(tokens, alive, strict=True):
        if finished[row]:
            continue
        finished[row] = token in ends
        if not finished[row]:
            replies[row].append(token)
    return [not finished[row] for row in alive]
