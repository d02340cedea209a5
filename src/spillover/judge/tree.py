"""What a model would say next: after a prompt, and along every branch of a tree of replies.

All beginnings of all replies form a tree, which is laid out behind the prompt as one sequence in which every node sees
the prompt and its own ancestors only. So the prompt is computed once for all of them, and one pass gives everything.
What all prompts begin with (a rubric's words before the question) is computed once for all prompts. Layers that see a
window only (Mistral, Gemma) get a mask of their own, by position. A family whose attention does not take such masks is
found out by trying, and is asked branch by branch behind the prompt's cache.

Sizes: N prompts, P tokens that all begin with, T the others, padded; K nodes of the tree, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from spillover.finetune.narrow import only_at

LEAST_SHARED = 32
"""A common beginning shorter than this is computed with each prompt: keeping it would cost as much."""
NOISE = {torch.float32: 0.02}
HALF_NOISE = 0.5
"""By how much log-probabilities may differ that are computed in two ways and mean the same: in fp32, in less."""
FULL, SLIDING = "full_attention", "sliding_attention"


@dataclass
class Node:
    """One token of a reply: its parent's place (-1 is the prompt), its depth from 0, and what may follow it."""

    token: int
    parent: int
    depth: int
    children: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Tree:
    """All beginnings of some replies, parents before children; `ends` says where each of the replies ends."""

    nodes: tuple[Node, ...]
    ends: tuple[int, ...]

    @cached_property
    def parents(self) -> Tensor:
        """Each node's parent, (K,)."""
        return torch.tensor([node.parent for node in self.nodes], dtype=torch.long)

    @cached_property
    def tokens(self) -> Tensor:
        """Each node's token, (K,)."""
        return torch.tensor([node.token for node in self.nodes], dtype=torch.long)

    @cached_property
    def depths(self) -> Tensor:
        """Each node's depth, (K,)."""
        return torch.tensor([node.depth for node in self.nodes], dtype=torch.long)

    @cached_property
    def related(self) -> Tensor:
        """Who sees whom, (K, K): a node sees its ancestors and itself."""
        sees = torch.eye(len(self.nodes), dtype=torch.bool)
        for place, node in enumerate(self.nodes):
            if node.parent >= 0:
                sees[place] |= sees[node.parent]
        return sees

    def path(self, place: int) -> list[int]:
        """The places from the first token to this one."""
        above = self.path(self.nodes[place].parent) if self.nodes[place].parent >= 0 else []
        return [*above, place]

    def chances(self, said: Tensor) -> list[float]:
        """The probability of each node's tokens, one after the other, from `said` (1 + K, V)."""
        steps = said[self.parents.to(said.device) + 1, self.tokens.to(said.device)].tolist()
        so_far: list[float] = []
        for node, step in zip(self.nodes, steps, strict=True):
            so_far.append(step * (so_far[node.parent] if node.parent >= 0 else 1.0))
        return so_far

    def chances_to_end(self, said: Tensor) -> list[float]:
        """The probability that each reply is said and does not go on as another one, from `said` (1 + K, V)."""
        chances = self.chances(said)
        return [chances[end] - sum(chances[child] for child in self.nodes[end].children.values()) for end in self.ends]


def grow(replies: Sequence[Sequence[int]]) -> Tree:
    """The tree of some replies in tokens."""
    nodes: list[Node] = []
    roots: dict[int, int] = {}
    ends = []
    for reply in replies:
        children, parent = roots, -1
        for depth, token in enumerate(reply):
            if token not in children:
                children[token] = len(nodes)
                nodes.append(Node(token, parent, depth))
            parent = children[token]
            children = nodes[parent].children
        ends.append(parent)
    return Tree(tuple(nodes), tuple(ends))


class _Kept(DynamicLayer):
    """A layer's keys and values of the common beginning, given to every batch and never added to."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values
        self.kept = (keys, values)

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """The beginning's keys and values in front of a batch's."""
        pairs = zip(self.kept, (key_states, value_states), strict=True)
        first, second = (torch.cat([kept.expand(len(new), -1, -1, -1), new], dim=-2) for kept, new in pairs)
        return first, second


@dataclass(frozen=True)
class Beginning:
    """What all prompts begin with, and what the model made of it; no tokens and no cache where that is too little."""

    ids: tuple[int, ...] = ()
    cache: Cache | None = None

    def __len__(self) -> int:
        return len(self.ids)


NOTHING = Beginning()


@torch.inference_mode()
def begin(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> Beginning:
    """Computes what the prompts have in common at their beginning, where it is long enough to be worth it."""
    if len(prompts) < 2:
        return NOTHING
    first, last = min(map(list, prompts)), max(map(list, prompts))  # what these two share, all share
    shared = sum(1 for _ in takewhile(lambda both: both[0] == both[1], zip(first, last, strict=False)))
    shared = min(shared, min(map(len, prompts)) - 1)  # something must be left to ask about
    if shared < LEAST_SHARED:
        return NOTHING
    ids = tuple(first[:shared])
    whole = DynamicCache()  # of full length in every layer: windows are cut by our masks
    model(input_ids=torch.tensor([ids], device=model.device), past_key_values=whole, use_cache=True, logits_to_keep=1)
    parts: list[Any] = whole.layers
    layers: list[Any] = [_Kept(part.keys, part.values) for part in parts]
    return Beginning(ids, Cache(layers=layers))


def in_one_pass(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], tree: Tree, pad: int, begun: Beginning = NOTHING
) -> Iterator[Tensor]:
    """For each prompt, what comes next: after it, and after each node, as probabilities (1 + K, V).

    Args:
        model: a causal language model.
        prompts: token ids up to where the model speaks; each begins with `begun`.
        tree: the replies' beginnings; it may be empty.
        pad: the token that fills short prompts; it is masked.
        begun: what `begin` computed.
    """
    # One after the other becomes double: all of them would be large together.
    return (torch.softmax(one.double(), dim=-1) for one in _laid_out(model, prompts, tree, pad, begun))


@torch.inference_mode()
def _laid_out(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], tree: Tree, pad: int, begun: Beginning
) -> Tensor:
    """The logits of `in_one_pass`, (N, 1 + K, V)."""
    ids, real, positions = _padded([prompt[len(begun) :] for prompt in prompts], pad, len(begun), model.device)
    tokens = tree.tokens.to(ids.device).expand(len(ids), -1)
    where = torch.cat([positions, positions[:, -1:] + 1 + tree.depths.to(ids.device)], dim=1)
    logits: Tensor = model(
        input_ids=torch.cat([ids, tokens], dim=1),
        attention_mask=_masks(model, real, where, tree, len(begun)),
        position_ids=where,
        past_key_values=begun.cache,
        use_cache=begun.cache is not None,
        **only_at(model, torch.arange(ids.shape[1] - 1, where.shape[1], device=ids.device)),
    ).logits
    return logits


def branch_by_branch(model: PreTrainedModel, prompts: Sequence[Sequence[int]], tree: Tree) -> Iterator[Tensor]:
    """As `in_one_pass`, by plain calls that every family takes: each prompt alone, then its branches on its cache."""
    return (torch.softmax(_on_cache(model, prompt, tree).double(), dim=-1) for prompt in prompts)


@torch.inference_mode()
def _on_cache(model: PreTrainedModel, prompt: Sequence[int], tree: Tree) -> Tensor:
    """The logits of one prompt, (1 + K, V)."""
    out = model(input_ids=torch.tensor([prompt], device=model.device), use_cache=True, logits_to_keep=1)
    paths = [tree.path(place) for place, node in enumerate(tree.nodes) if not node.children]
    if not paths:
        return out.logits[:, -1]  # type: ignore[no-any-return]
    row = {place: number for number, path in enumerate(paths) for place in path}
    width = max(map(len, paths))
    # What fills short branches stands behind them, where none of their tokens sees it.
    ids = [[tree.nodes[place].token for place in path] + [0] * (width - len(path)) for path in paths]
    out.past_key_values.batch_repeat_interleave(len(paths))
    onwards = model(input_ids=torch.tensor(ids, device=model.device), past_key_values=out.past_key_values)
    nodes = onwards.logits[[row[place] for place in range(len(row))], tree.depths.tolist()]
    return torch.cat([out.logits[:, -1], nodes])


def takes_trees(model: PreTrainedModel, prompts: Sequence[Sequence[int]], tree: Tree, pad: int) -> bool:
    """Whether `in_one_pass` gives for this model what plain calls give. Tried on the longest and a shorter prompt."""
    by_length = sorted(prompts, key=len)
    tried = [by_length[-1], by_length[0]]
    try:
        fast = list(in_one_pass(model, tried, tree, pad, begin(model, prompts)))
    except torch.OutOfMemoryError:
        raise
    except Exception:  # a family that does not take the masks or the cache may raise anything
        return False
    slow = branch_by_branch(model, tried, tree)
    return all(_same(one, other, NOISE.get(model.dtype, HALF_NOISE)) for one, other in zip(fast, slow, strict=True))


def _same(one: Tensor, other: Tensor, difference: float) -> bool:
    """Whether the likeliest tokens are about as likely in both."""
    likely = other.topk(min(20, other.shape[-1]), dim=-1)
    ratio = one.gather(-1, likely.indices).log() - likely.values.log()
    return bool((ratio.abs() * (likely.values > 1e-3)).max() <= difference)


def _padded(
    prompts: Sequence[Sequence[int]], pad: int, start: int, where: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Prompts as ids, mask and positions from `start` on, (N, T) each; short ones are filled on the left."""
    length = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad] * (length - len(p)) + list(p) for p in prompts], device=where)
    real = torch.tensor([[False] * (length - len(p)) + [True] * len(p) for p in prompts], device=where)
    return ids, real, start + (real.cumsum(dim=1) - 1).clamp(min=0)


def _masks(model: PreTrainedModel, real: Tensor, where: Tensor, tree: Tree, begun: int) -> Tensor | dict[str, Tensor]:
    """The model's masks, (N, 1, T + K, P + T + K) each: one, or where its layers differ one a kind of layer."""
    sees = _sees(real, tree, begun)
    masks = {
        kind: _added(sees if window is None else sees & _near(where, begun, window), model.dtype)
        for kind, window in _windows(model).items()
    }
    return masks if len(masks) > 1 else next(iter(masks.values()))


def _near(where: Tensor, begun: int, window: int) -> Tensor:
    """Who stands within whose window, by position, (N, T + K, P + T + K)."""
    every = torch.cat([torch.arange(begun, device=where.device).expand(len(where), -1), where], dim=1)
    return where[:, :, None] - every[:, None, :] < window


def _sees(real: Tensor, tree: Tree, begun: int) -> Tensor:
    """Who sees whom, (N, T + K, P + T + K): the beginning is seen by all, prompts causally, nodes by descendants."""
    size, length = real.shape
    count = len(tree.nodes)
    sees = torch.ones(length + count, begun + length + count, dtype=torch.bool, device=real.device)
    sees[:length, begun:] = torch.ones(length, length + count, dtype=torch.bool, device=real.device).tril()
    sees[length:, begun + length :] = tree.related.to(real.device)
    all_real = torch.cat([real.new_ones(size, begun), real, real.new_ones(size, count)], dim=1)
    return sees & all_real[:, None, :]


def _windows(model: PreTrainedModel) -> dict[str, int | None]:
    """How far back each kind of the model's layers sees: None is to the beginning.

    A kind that is unknown here gets the full mask, and is found out by `takes_trees` if that is wrong.
    """
    config: Any = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or [SLIDING if window is not None else FULL])
    return {kind: window if kind == SLIDING else None for kind in sorted(kinds)}


def _added(sees: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as numbers that are added to attention's scores: 0 or the least number."""
    none = torch.zeros(sees.shape, dtype=dtype, device=sees.device)
    return none.masked_fill(~sees, torch.finfo(dtype).min)[:, None]
