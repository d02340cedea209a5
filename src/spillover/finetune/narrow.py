"""A model's last block, computed only for the tokens whose states are looked at.

Behind a block's attention every token is by itself. In training nobody looks at a state but the loss of the token that
it foretells, and of most rows the larger part, the request, bears none; a judge looks at a prompt's last state alone.
So the last block's feed-forward layers leave the other tokens out. With few layers, as small models have, that is a
good part of the work.

Sizes: B rows, T tokens a row, K that are looked at.
"""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

MOST_BLOCKS = 16
"""With more blocks than this it would not be a twentieth of the work."""


def make_narrow(model: PreTrainedModel) -> None:
    """Lets a model be called with `looked_at`, places of its tokens (K,), where its last block is of the known kind.

    That is a norm, attention, a norm and a feed-forward part, where what comes of each two is added to what came in.
    Whether it is, and whether the family hands on to its blocks what it is called with, is found out by trying.
    """
    blocks = _blocks(model)
    if not 0 < len(blocks) <= MOST_BLOCKS:
        return
    vars(blocks[-1])["forward"] = functools.partial(_forward, blocks[-1])
    if not _gives_the_same(model):
        del vars(blocks[-1])["forward"]


def is_narrow(model: PreTrainedModel) -> bool:
    """Whether a model takes `looked_at`."""
    blocks = _blocks(model)
    return bool(blocks) and "forward" in vars(blocks[-1])


def only_at(model: PreTrainedModel, places: Tensor) -> dict[str, Any]:
    """What a model is called with so that it gives the logits at these places, (K,), and no others: (B, K, V)."""
    return {"looked_at": places} if is_narrow(model) else {"logits_to_keep": places}


def _blocks(model: PreTrainedModel) -> list[nn.Module]:
    return list(getattr(model.get_decoder(), "layers", ()))


@torch.no_grad()
def _gives_the_same(model: PreTrainedModel) -> bool:
    """Whether some states of a few tokens are the same alone as among all."""
    ids = torch.arange(8, device=model.device)[None]
    places = torch.tensor([2, 5], device=model.device)
    decoder: Any = model.get_decoder()
    whole: Tensor = decoder(input_ids=ids, use_cache=False).last_hidden_state[:, places].float()
    try:
        some: Tensor = decoder(input_ids=ids, use_cache=False, looked_at=places).last_hidden_state.float()
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError):  # a block of another kind
        return False
    noise = 1e-4 if model.dtype == torch.float32 else 0.02
    return some.shape == whole.shape and torch.allclose(some, whole, rtol=noise, atol=noise * float(whole.std()))


def _forward(block: Any, hidden_states: Tensor, *, looked_at: Tensor | None = None, **others: Any) -> Tensor:
    """A block's states, (B, T, features), or those at `looked_at`, (B, K, features)."""
    if looked_at is None:
        whole: Tensor = type(block).forward(block, hidden_states, **others)
        return whole
    mixed, _ = block.self_attn(hidden_states=block.input_layernorm(hidden_states), **others)
    states = (hidden_states + mixed).index_select(1, looked_at)
    out: Tensor = states + block.mlp(block.post_attention_layernorm(states))
    return out
