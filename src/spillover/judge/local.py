"""Judging in this process: a model's probabilities over what it would say, read as a score or as a label."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedModel

from spillover.ask.local import ends_of
from spillover.ask.sample import sample
from spillover.finetune.chat import prompt_ids
from spillover.finetune.model import adapted, load_model, load_tokenizer
from spillover.finetune.template import format_of
from spillover.judge.numbers import NumberScale, spellings
from spillover.judge.rubrics import Rubric
from spillover.judge.scale import chosen, verdict
from spillover.judge.tree import Tree, begin, branch_by_branch, grow, in_one_pass, takes_trees
from spillover.records import Pair, Verdict
from spillover.spec import Machine, Sampling

TOKENS = 24_576
"""Tokens that are judged at once, padding and the tree of replies included."""
LOGITS = 2**28
"""Most logits that are made at once: each node of the tree has as many as there are words."""
MANY = 32
"""Answers to a question that are judged by themselves: with fewer, batches would be too small."""
LENGTH_STEP = 16
LABEL = Sampling(temperature=0, max_tokens=12)
"""How a judge says a label that is none of given ones: its likeliest words."""


class LocalJudge:
    """A judge model that is loaded here: any chat model, or a base with a judge adapter on it."""

    def __init__(self, base: Path, adapter: Path | None, precision: str, machine: Machine = Machine()) -> None:
        self.adapter = adapter
        self.model = load_model(base, precision, machine)
        self.tokenizer = load_tokenizer(base)
        self.scale = NumberScale(self.tokenizer)
        self.takes_trees: bool | None = None
        """Whether the model can be asked about all replies in one pass; None until it was tried."""

    def judge(self, pairs: Sequence[Pair], rubric: Rubric) -> list[Verdict]:
        """A verdict a pair, in order."""
        prompts = [prompt_ids(self.tokenizer, [{"role": "user", "content": rubric.render(pair)}]) for pair in pairs]
        with adapted(self.model, self.adapter) as model:
            if rubric.reads == "number":
                said = self._said(model, prompts, _together(pairs), self.scale.tree)
                found = {place: verdict(self.scale.table(one), rubric.labels) for place, one in said}
            elif rubric.choices:
                found = self._choices(model, prompts, _together(pairs), rubric)
            else:
                found = self._words(model, prompts)
        return [found[place] for place in range(len(pairs))]

    def _choices(
        self, model: PreTrainedModel, prompts: Sequence[list[int]], together: Sequence[Sequence[int]], rubric: Rubric
    ) -> dict[int, Verdict]:
        """By place, which of the rubric's choices the judge would say."""
        spelled = [(choice, ids) for choice in rubric.choices for ids in spellings(self.tokenizer, choice)]
        tree = grow([ids for _, ids in spelled])
        found = {}
        for place, said in self._said(model, prompts, together, tree):
            table = dict.fromkeys(rubric.choices, 0.0)
            for (choice, _), p in zip(spelled, tree.chances_to_end(said), strict=True):
                table[choice] += p
            found[place] = chosen(table, rubric.labels)
        return found

    def _words(self, model: PreTrainedModel, prompts: Sequence[list[int]]) -> dict[int, Verdict]:
        """By place, the first line of what the judge says."""
        ends = ends_of(model, format_of(self.tokenizer))
        found = {}
        for places in _batches(prompts, LABEL.max_tokens, TOKENS):
            some = [prompts[place] for place in places]
            replies = sample(model, some, [(0,)] * len(some), LABEL, ends=ends, pad=self.pad)
            for place, (reply,) in zip(places, replies, strict=True):
                found[place] = _label(str(self.tokenizer.decode(list(reply.ids), skip_special_tokens=True)))
        return found

    def _said(
        self, model: PreTrainedModel, prompts: Sequence[list[int]], together: Sequence[Sequence[int]], tree: Tree
    ) -> Iterator[tuple[int, Tensor]]:
        """Each prompt's place, and what comes next after it and after each node of the tree, (1 + K, V)."""
        if not prompts:
            return
        if self.takes_trees is None:
            tried = prompts, [prompts[place] for place in together[0]]  # the longest, and with what these begin with
            self.takes_trees = all(takes_trees(model, some, tree, self.pad) for some in tried)
        if not self.takes_trees:
            yield from enumerate(branch_by_branch(model, prompts, tree))
            return
        nodes = len(tree.nodes)
        most = max(1, LOGITS // ((1 + nodes) * model.config.get_text_config().vocab_size))
        for group in together:
            begun = begin(model, [prompts[place] for place in group])
            for batch in _batches([prompts[place][len(begun) :] for place in group], nodes, TOKENS, most):
                places = [group[number] for number in batch]
                some = [prompts[place] for place in places]
                yield from zip(places, in_one_pass(model, some, tree, self.pad, begun), strict=True)

    @property
    def pad(self) -> int:
        """The token that fills short prompts."""
        return int(self.tokenizer.pad_token_id)


def _together(pairs: Sequence[Pair]) -> list[list[int]]:
    """Places of pairs that are judged together: those of a question, which then is read once; few ones with others."""
    places: dict[str, list[int]] = {}
    for place, pair in enumerate(pairs):
        places.setdefault(pair.question, []).append(place)
    many = [some for some in places.values() if len(some) >= MANY]
    others = sorted(place for some in places.values() if len(some) < MANY for place in some)
    return [*many, others] if others else many


def _label(reply: str) -> Verdict:
    """The verdict of a reply in words: its first line."""
    lines = reply.strip().splitlines()
    return Verdict(None, None, {lines[0]: 1.0}, label=lines[0]) if lines else Verdict(None, "unparsable", {})


def _batches(prompts: Sequence[Sequence[int]], more: int, tokens: int, most: int | None = None) -> Iterator[list[int]]:
    """Places of prompts of about one length, so that little is padding.

    A batch has about so many tokens, where `more` of them stand behind each prompt, and at most so many prompts.
    """
    by_length = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
    batch: list[int] = []
    for place in by_length:
        longest = -(-len(prompts[place]) // LENGTH_STEP) * LENGTH_STEP + more
        if batch and (longest * (len(batch) + 1) > tokens or len(batch) == most):
            yield batch
            batch = []
        batch.append(place)
    if batch:
        yield batch
