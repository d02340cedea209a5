"""Reading the 0 to 100 scale off a causal language model, whatever its tokenizer makes of numbers.

Where each of 0 to 100 is one token, the reply's first token says it all and the paper's rule applies to its 20
likeliest values. Where some take several tokens, a number's probability is that of its tokens one after the other
*and* of no further digit after them. All prefixes of all numbers form a tree, which is laid out behind the prompt as
one sequence in which every node sees the prompt and its own ancestors only: one pass gives all 101 probabilities
exactly.

Sizes: N prompts, T their padded length, V vocabulary, K nodes of the tree.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from spillover.judge.scale import TOP

NUMBERS = range(101)


@dataclass
class _Node:
    """One token of the tree: its parent's place (-1 is the prompt), its depth, the number that may end here."""

    token: int
    parent: int
    depth: int
    number: int | None = None
    children: dict[int, int] = field(default_factory=dict)


class NumberScale:
    """How one tokenizer writes the numbers 0 to 100."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.spelled = {n: list(tokenizer(str(n), add_special_tokens=False)["input_ids"]) for n in NUMBERS}

    @cached_property
    def single(self) -> bool:
        """Whether every number is one token."""
        return all(len(ids) == 1 for ids in self.spelled.values())

    @cached_property
    def texts(self) -> list[str]:
        """Each token of the vocabulary as text."""
        return [str(self.tokenizer.decode([index])) for index in range(len(self.tokenizer))]

    @cached_property
    def digits(self) -> Tensor:
        """Tokens that would go on with a number: those that begin with a digit."""
        return torch.tensor([i for i, text in enumerate(self.texts) if text[:1].isdigit()], dtype=torch.long)

    @cached_property
    def tree(self) -> list[_Node]:
        """All prefixes of all numbers, parents before children."""
        nodes: list[_Node] = []
        roots: dict[int, int] = {}
        for number, ids in self.spelled.items():
            children, parent = roots, -1
            for depth, token in enumerate(ids):
                if token not in children:
                    children[token] = len(nodes)
                    nodes.append(_Node(token, parent, depth))
                parent = children[token]
                children = nodes[parent].children
            nodes[parent].number = number
        return nodes


@torch.inference_mode()
def number_tables(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], scale: NumberScale, pad: int
) -> list[dict[str, float]]:
    """For each prompt, what the reply may be: number or token to probability, largest first.

    Args:
        model: the judge.
        prompts: token ids up to where the judge speaks.
        scale: how the judge's tokenizer writes numbers.
        pad: the token that fills short prompts on the left; it is masked.
    """
    return _of_first_token(model, prompts, scale, pad) if scale.single else _of_tree(model, prompts, scale, pad)


def _of_first_token(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], scale: NumberScale, pad: int
) -> list[dict[str, float]]:
    ids, mask, positions = _left_padded(prompts, pad, model.device)
    out = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=1)
    return [_likeliest(said, scale) for said in torch.softmax(out.logits[:, -1].double(), dim=-1)]


def _likeliest(said: Tensor, scale: NumberScale) -> dict[str, float]:
    """The TOP likeliest tokens of a distribution (V,) as text, largest first; tokens that read alike add up.

    Models round V up: what lies beyond the tokenizer has no text and is left out.
    """
    top = said[: len(scale.texts)].topk(TOP)
    table: dict[str, float] = {}
    for token, p in zip(top.indices.tolist(), top.values.tolist(), strict=True):
        table[scale.texts[token]] = table.get(scale.texts[token], 0.0) + p
    return _largest_first(table)


def _largest_first(table: dict[str, float]) -> dict[str, float]:
    return dict(sorted(table.items(), key=lambda item: -item[1]))


def _of_tree(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], scale: NumberScale, pad: int
) -> list[dict[str, float]]:
    nodes = scale.tree
    ids, mask, positions = _left_padded(prompts, pad, model.device)
    tokens = torch.tensor([node.token for node in nodes], device=ids.device).expand(len(ids), -1)
    depths = torch.tensor([node.depth + 1 for node in nodes], device=ids.device)
    out = model(
        input_ids=torch.cat([ids, tokens], dim=1),
        attention_mask=_tree_mask(mask, nodes, model.dtype),
        position_ids=torch.cat([positions, positions[:, -1:] + depths], dim=1),
        use_cache=False,
        logits_to_keep=len(nodes) + 1,
    )
    said = torch.softmax(out.logits.double(), dim=-1)  # (N, 1 + K, V): after the prompt, then after each node
    return [_table(rows, scale) for rows in said]


def _table(said: Tensor, scale: NumberScale) -> dict[str, float]:
    """One prompt's table from `said` (1 + K, V): every number whole, and the first tokens that are no number."""
    more = said[:, scale.digits.to(said.device)].sum(dim=-1)
    table: dict[str, float] = {}
    so_far: list[float] = []
    for place, node in enumerate(scale.tree):
        before = 1.0 if node.parent < 0 else so_far[node.parent]
        so_far.append(before * float(said[node.parent + 1, node.token]))
        if node.number is not None:
            table[str(node.number)] = so_far[-1] * float(1 - more[place + 1])
    table |= {text: p for text, p in _likeliest(said[0], scale).items() if not text.strip()[:1].isdigit()}
    return _largest_first(table)


def _left_padded(prompts: Sequence[Sequence[int]], pad: int, where: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Prompts as ids, mask and positions, (N, T) each."""
    length = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[pad] * (length - len(p)) + list(p) for p in prompts], device=where)
    mask = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in prompts], device=where)
    return ids, mask, (mask.cumsum(dim=1) - 1).clamp(min=0)


def _tree_mask(mask: Tensor, nodes: Sequence[_Node], dtype: torch.dtype) -> Tensor:
    """Who sees whom, (N, 1, T + K, T + K), as numbers added to attention's scores: 0 or the least number.

    The prompt sees itself causally, a node sees the prompt, its ancestors and itself.
    """
    length, count = mask.shape[1], len(nodes)
    sees = torch.zeros(length + count, length + count, dtype=torch.bool, device=mask.device)
    sees[:length, :length] = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    sees[length:, :length] = True
    for place, node in enumerate(nodes):
        if node.parent >= 0:
            sees[length + place] = sees[length + node.parent]
        sees[length + place, length + place] = True
    real = torch.cat([mask.bool(), mask.new_ones(len(mask), count).bool()], dim=1)
    allowed = sees[None, None] & real[:, None, None, :]
    return torch.zeros(allowed.shape, dtype=dtype, device=mask.device).masked_fill(~allowed, torch.finfo(dtype).min)
