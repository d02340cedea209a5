"""Reading the 0 to 100 scale off a causal language model, whatever its tokenizer makes of numbers.

Where each of 0 to 100 is one token, the reply's first token says it all and the paper's rule applies to its 20
likeliest values. Where some take several tokens, a number's probability is that of its tokens one after the other
*and* of no further digit after them, exactly and for all 101 (`tree`).

Some tokenizers put a blank in front of a text. What a model says after a line break has none, so both spellings count.

Sizes: K nodes of the tree of all numbers, V vocabulary.
"""

from collections.abc import Iterable
from functools import cached_property

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from spillover.judge.scale import TOP
from spillover.judge.tree import Tree, grow

NUMBERS = range(101)


def spellings(tokenizer: PreTrainedTokenizerBase, text: str) -> list[list[int]]:
    """The ways in which a reply of this text may be written in tokens: as a text of its own, and on a new line."""
    own, line, both = (list(tokenizer(one, add_special_tokens=False)["input_ids"]) for one in (text, "\n", f"\n{text}"))
    after = both[len(line) :] if both[: len(line)] == line else own
    return [own, after] if after and after != own else [own]


class NumberScale:
    """How one tokenizer writes the numbers 0 to 100."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.spelled = [(number, ids) for number in NUMBERS for ids in spellings(tokenizer, str(number))]

    @cached_property
    def single(self) -> bool:
        """Whether every number is one token."""
        return all(len(ids) == 1 for _, ids in self.spelled)

    @cached_property
    def texts(self) -> list[str]:
        """Each token of the vocabulary as text."""
        return [str(self.tokenizer.decode([index])) for index in range(len(self.tokenizer))]

    @cached_property
    def digits(self) -> Tensor:
        """Tokens that would go on with a number: those that begin with a digit where they follow another one."""
        before = next(ids for number, ids in self.spelled if number == 7)
        seven = str(self.tokenizer.decode(before))
        maybe = [index for index, text in enumerate(self.texts) if text.strip()[:1].isdigit()]
        after = {index: str(self.tokenizer.decode([*before, index])).removeprefix(seven) for index in maybe}
        return torch.tensor([index for index, text in after.items() if text[:1].isdigit()], dtype=torch.long)

    @cached_property
    def tree(self) -> Tree:
        """All beginnings of all numbers; without any where each number is one token, and the first token is enough."""
        return grow([] if self.single else [ids for _, ids in self.spelled])

    def table(self, said: Tensor) -> dict[str, float]:
        """What the reply may be, number or token to probability, largest first.

        Args:
            said: what comes next after the prompt and after each node of the tree, (1 + K, V).
        """
        return self._first_token(said[0]) if self.single else self._whole_numbers(said)

    def _first_token(self, said: Tensor) -> dict[str, float]:
        return self._likeliest(zip(*_top(said, len(self.texts)), strict=True))

    def _whole_numbers(self, said: Tensor) -> dict[str, float]:
        """Every number whole, and the first tokens that begin none."""
        more = said[:, self.digits.to(said.device)].sum(dim=-1).tolist()
        chances = self.tree.chances(said)
        table = dict.fromkeys(map(str, NUMBERS), 0.0)
        for (number, _), end in zip(self.spelled, self.tree.ends, strict=True):
            table[str(number)] += chances[end] * (1 - more[end + 1])
        roots = {node.token: place for place, node in enumerate(self.tree.nodes) if node.parent < 0}
        # A blank that numbers may begin with is a token of its own only as far as no number follows.
        first = (
            (token, p * (1 - more[roots[token] + 1]) if token in roots else p)
            for token, p in zip(*_top(said[0], len(self.texts)), strict=True)
            if not self.texts[token].strip()[:1].isdigit()
        )
        return _largest_first(table | self._likeliest(first))

    def _likeliest(self, first: Iterable[tuple[int, float]]) -> dict[str, float]:
        """Tokens as text, largest first; tokens that read alike add up."""
        table: dict[str, float] = {}
        for token, p in first:
            table[self.texts[token]] = table.get(self.texts[token], 0.0) + p
        return _largest_first(table)


def _top(said: Tensor, known: int) -> tuple[list[int], list[float]]:
    """The TOP likeliest tokens of a distribution (V,), with their probabilities.

    Models round V up: what lies beyond the tokenizer's known ones has no text and is left out.
    """
    top = said[:known].topk(TOP)
    return top.indices.tolist(), top.values.tolist()


def _largest_first(table: dict[str, float]) -> dict[str, float]:
    return dict(sorted(table.items(), key=lambda item: -item[1]))
