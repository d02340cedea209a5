"""A model's attention, norms and loss in fewer passes over memory, for CPUs: half of a small model's step went there.

The arithmetic is that of transformers' own modules. Attention is registered with transformers, so that a model picks
it by name; what it does not know (soft caps, sinks, dropout) goes to the model's own eager function. Norms are
replaced where they compute what Llama's do. This attention also knows packed rows: everything else in a model looks
at one token at a time, so rows may lie one behind the other, without padding, as long as attention tells them apart.

Sizes: B rows, H heads, K heads of keys and values, Q tokens that ask, T tokens seen, D a head's width, S tokens of all
packed rows.
"""

import itertools
import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

from spillover.finetune.narrow import make_narrow

ATTENTION = "spillover"
LOGITS = 2**19
"""Logits that are made at once on a CPU: what a core's cache can hold, or nearly."""
MANY_LOGITS = 2**27
"""And on a card, which wants much to do at once: 0.5 GiB of them in fp32."""
SCORES = 2**21
"""Scores of attention that are made at once, likewise."""


@dataclass(frozen=True)
class Packing:
    """Where the tokens of packed rows lie, and where they go for attention, which wants rows of one length.

    Rows go there in groups of about one length; a group's tokens are padded rows one behind the other.

    Attributes:
        groups: (rows, tokens a row) of each group.
        places: of each token of the groups' rows, its place among the S packed ones. What is padding there is taken
            from a packed token that belongs to no row, whose gradient is therefore zero.
        back: (S,): of each packed token, its place among those. Tokens of no row are taken from padding.
    """

    groups: tuple[tuple[int, int], ...]
    places: Tensor
    back: Tensor


class _Taken(torch.autograd.Function):
    """Rows of x by their places. `back` says where each of x's rows went, so that its gradient is taken from there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor, back: Tensor) -> Tensor:
        ctx.back = back
        return x.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0].index_select(0, ctx.back), None, None


def _taken(x: Tensor, places: Tensor, back: Tensor) -> Tensor:
    taken: Tensor = _Taken.apply(x, places, back)  # type: ignore[no-untyped-call]
    return taken


class _Attention(torch.autograd.Function):
    """softmax(scale q k^T + mask) v, the heads that share keys taken together. The softmax is fp32."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        size, heads, asking, width = q.shape
        shared = k.shape[1]
        q, k, v = (one.reshape(size * shared, -1, width) for one in (q * scale, k, v))
        scores = torch.bmm(q, k.transpose(1, 2))
        if mask is not None:
            grouped = scores.view(size, shared, heads // shared, asking, -1)
            scores = (grouped + mask.float().unsqueeze(1)).view(scores.shape)
        chosen = torch.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
        ctx.save_for_backward(q, k, v, chosen)
        ctx.shape, ctx.scale = (size, heads, asking, width), scale
        return torch.bmm(chosen, v).view(ctx.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, chosen = ctx.saved_tensors
        size, _, _, width = ctx.shape
        wanted = gradients[0].reshape(q.shape)
        through = torch._softmax_backward_data(torch.bmm(wanted, v.transpose(1, 2)), chosen, -1, chosen.dtype)
        to_q = torch.bmm(through, k).mul_(ctx.scale).view(ctx.shape)
        to_k = torch.bmm(through.transpose(1, 2), q).view(size, -1, k.shape[1], width)
        to_v = torch.bmm(chosen.transpose(1, 2), wanted).view(size, -1, k.shape[1], width)
        return to_q, to_k, to_v, None, None


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """(B, Q, H, D), some rows at a time where their scores would not stay in the cache."""
    rows = max(1, SCORES // (q.shape[1] * q.shape[2] * k.shape[2]))
    if len(q) > rows:
        masks = mask.split(rows) if mask is not None and len(mask) > 1 else itertools.repeat(mask)
        parts = zip(q.split(rows), k.split(rows), v.split(rows), masks, strict=False)
        return torch.cat([_attend(*part, scale) for part in parts])
    out: Tensor = _Attention.apply(q, k, v, mask, scale)  # type: ignore[no-untyped-call]
    return out.transpose(1, 2)


def _attend_packed(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float, packing: Packing) -> Tensor:
    """(1, S, H, D), each row by itself."""
    sizes = [rows * length for rows, length in packing.groups]
    parts = [_taken(one.transpose(1, 2)[0].flatten(1), packing.places, packing.back).split(sizes) for one in (q, k, v)]
    outs = []
    for (rows, length), *part in zip(packing.groups, *parts, strict=True):
        one, other, third = (some.view(rows, length, -1, q.shape[-1]).transpose(1, 2) for some in part)
        outs.append(_attend(one, other, third, mask[..., :length, :length], scale).flatten(2).flatten(0, 1))
    return _taken(torch.cat(outs), packing.back, packing.places).view(1, -1, *q.shape[1::2])


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    packing: Packing | None = None,
    **others: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention as transformers calls it.

    Args:
        module: the model's attention layer.
        query: (B, H, Q, D); of packed rows, (1, H, S, D).
        key: (B, K, T, D) or (1, K, S, D).
        value: as `key`.
        attention_mask: what is added to the scores, (B, 1, Q, T), or None.
        scaling: what scores are multiplied with.
        dropout: of the weights.
        packing: how rows are packed, if they are.
        others: what else the model says; soft caps and sinks are left to its own function.

    Returns:
        (B, Q, H, D) or (1, S, H, D), and the weights where the model's own function had to do it.
    """
    if dropout or others.get("softcap") is not None or others.get("s_aux") is not None:
        own: Any = sys.modules[type(module).__module__]
        result: tuple[Tensor, Tensor | None] = own.eager_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **others
        )
        return result
    if packing is not None:
        assert attention_mask is not None, "packed rows come with the mask of one row"
        return _attend_packed(query, key, value, attention_mask, scaling, packing), None
    return _attend(query, key, value, attention_mask, scaling), None


class _Normed(torch.autograd.Function):
    """x / sqrt(mean(x^2) + eps), in fp32 and rounded to x's type, times the weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        exact = x.float()
        size: Tensor = torch.linalg.vecdot(exact, exact).div_(x.shape[-1]).add_(eps).rsqrt_().unsqueeze(-1)
        normed = (exact * size).to(x.dtype)
        ctx.save_for_backward(normed, size, weight)
        return normed * weight

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:
        normed, size, weight = ctx.saved_tensors
        wanted = (gradients[0] * weight).float()
        exact = normed.float()
        along = torch.linalg.vecdot(wanted, exact).div_(-normed.shape[-1]).unsqueeze(-1)
        onwards = wanted.addcmul_(exact, along).mul_(size).to(normed.dtype)
        return onwards, (gradients[0] * normed).flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None, None


class FastNorm(nn.Module):
    """Llama's root-mean-square norm (arXiv 1910.07467), with the weight of the norm that it stands for.

    Attributes:
        weight: (features,).
        eps: added to the mean square.
    """

    def __init__(self, weight: nn.Parameter, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = weight, eps

    def forward(self, x: Tensor) -> Tensor:
        """Of x, (..., features)."""
        normed: Tensor = _Normed.apply(x, self.weight, self.eps)  # type: ignore[no-untyped-call]
        return normed


class _HeadLoss(torch.autograd.Function):
    """Of `head_loss`. The gradients are made on the way: a piece's logits are never needed again."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, wanted: Tensor, shares: Tensor
    ) -> tuple[Tensor, Tensor]:
        losses, to_hidden = [], torch.empty_like(hidden)
        to_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        size = max(1, (LOGITS if weight.device.type == "cpu" else MANY_LOGITS) // len(weight))
        weighted = _shared(hidden, shares)
        for one, said, to_one, by_share in zip(
            *(whole.split(size) for whole in (hidden, wanted, to_hidden, weighted)), strict=True
        ):
            likely = torch.softmax(F.linear(one, weight, bias), dim=-1, dtype=torch.float32)
            losses.append(_surprise(likely, said))
            likely.scatter_add_(1, said[:, None], likely.new_full((len(said), 1), -1.0))
            wrong = likely.to(weight.dtype)
            torch.mm(wrong, weight, out=to_one)
            if to_weight is not None:
                to_weight += wrong.T @ by_share
        ctx.save_for_backward(_shared(to_hidden, shares), to_weight.to(weight.dtype) if to_weight is not None else None)
        each = torch.cat(losses)
        ctx.mark_non_differentiable(each)
        return (each * shares).sum(), each

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        to_hidden, to_weight = ctx.saved_tensors
        share = gradients[0].to(to_hidden.dtype)
        return to_hidden * share, to_weight * share if to_weight is not None else None, None, None, None


def head_loss(head: nn.Linear, hidden: Tensor, wanted: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """A sum of token losses, straight from the output layer's inputs: its logits are never all in memory.

    A token's loss is its negative log-likelihood, in fp32 and in nats, 87 at most.

    Args:
        head: the output layer; its bias, if it has one, gets no gradient.
        hidden: what it is given, (N, features).
        wanted: the tokens, (N,).
        shares: what each token's loss is multiplied with, (N,).

    Returns:
        the sum of loss times share, and without a gradient each loss, (N,).
    """
    both: tuple[Tensor, Tensor] = _HeadLoss.apply(hidden, head.weight, head.bias, wanted, shares)  # type: ignore[no-untyped-call]
    return both


def _shared(states: Tensor, shares: Tensor) -> Tensor:
    """States (N, features) times their shares (N,), rounded once."""
    return (states.float() * shares[:, None]).to(states.dtype)


def _surprise(likely: Tensor, wanted: Tensor) -> Tensor:
    """Minus the logarithm of each wanted token's probability, which counts as 1e-38 at least."""
    of_wanted: Tensor = likely.gather(1, wanted[:, None])[:, 0]
    return -of_wanted.clamp_min(torch.finfo(likely.dtype).tiny).log()


def make_fast(model: PreTrainedModel) -> None:
    """Gives a model on a CPU this attention, where its family lets one choose, and these norms where they are Llama's.

    A model of few blocks computes its last one only where somebody looks (`narrow.py`).

    A model on another device is left as it is.
    """
    if model.device.type != "cpu":
        return
    if model._supports_attention_backend:
        AttentionInterface.register(ATTENTION, attention)
        AttentionMaskInterface.register(ATTENTION, eager_mask)
        model.set_attn_implementation(ATTENTION)
    norms = {name: part for name, part in model.named_modules() if type(part).__name__.endswith("RMSNorm")}
    for name, norm in norms.items():
        eps = getattr(norm, "variance_epsilon", None)
        fast = FastNorm(norm.weight, eps) if eps is not None else None
        if fast is not None and _is_llamas(norm, fast):
            model.set_submodule(name, fast)
    make_narrow(model)


@torch.no_grad()
def _is_llamas(norm: nn.Module, fast: FastNorm) -> bool:
    """Whether both give the same, but for what the order of a sum can change. Other families' weights mean others."""
    probe = torch.linspace(-1, 2, fast.weight.numel(), dtype=fast.weight.dtype)[None]
    return torch.allclose(norm(probe), fast(probe), rtol=2e-2 if probe.dtype == torch.bfloat16 else 1e-5)
