"""Asking a model in this process to choose: the log-probability that it gives to each option of an item.

What is scored is what comes behind the rendered conversation and the item's prefix. A tokenizer may join the end of
the prefix to the beginning of an option. So the answer is encoded whole, prefix and option together, and scored from
where the token sequences of the prefix alone and of all its options part: every option is then the same event after
the same tokens. The end of the turn is not scored: an option is how an answer begins, not all that it says.

Sizes: N rows, T tokens of a row, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from spillover.ask.asker import Effect
from spillover.ask.items import Item, check_item
from spillover.ask.local import PROMPTS, adapter_effect
from spillover.errors import BaseError, DataError, QuestionError
from spillover.finetune.base import context_length
from spillover.finetune.chat import answer_ids, check_text, prompt_ids
from spillover.finetune.model import adapted, load_model, load_tokenizer, told_when_memory_ends
from spillover.finetune.narrow import only_at
from spillover.finetune.template import Format, format_of
from spillover.records import Message
from spillover.spec import Chat, Machine

__all__ = ["Item", "LocalScorer"]

TOKENS = 4096
"""Tokens that are read at once, padding included."""
LOGITS = 2**27
"""Most logits that are made at once: 0.5 GiB of them in fp32."""
LENGTH_STEP = 16
"""Rows are padded to multiples of this, and batches to powers of two: a CPU is slow with shapes it has not seen."""


@dataclass(frozen=True)
class _Encoded:
    """An item in tokens: what all options come behind, and each option's own."""

    context: tuple[int, ...]
    options: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class _Row:
    """What the model reads once, and what is read off it: the tokens behind the context, for each place of an option.

    The last token of an option is not read: so options of one token share a row.
    """

    ids: tuple[int, ...]
    start: int
    said: tuple[tuple[tuple[int, int], tuple[int, ...]], ...]

    @property
    def length(self) -> int:
        """Its tokens once it is padded."""
        return -(-len(self.ids) // LENGTH_STEP) * LENGTH_STEP


class LocalScorer:
    """Log-probabilities by a base that is loaded here, once, and its checkpoints' adapters.

    Args:
        folder: the base's.
        precision: "bf16" or "fp32". Probabilities are made from logits in fp32 in either.
        chat: how conversations are rendered.
        machine: where the model runs.
        loaded: the base's model, where it is in memory already.

    Attributes:
        effects: of each adapter that was asked, how much it changes the base.
    """

    def __init__(
        self,
        folder: Path,
        precision: str,
        chat: Chat = Chat(),
        machine: Machine = Machine(),
        loaded: PreTrainedModel | None = None,
    ) -> None:
        self.model: PreTrainedModel = loaded if loaded is not None else load_model(folder, precision, machine)
        self.tokenizer = load_tokenizer(folder)
        self.chat, self.context = chat, context_length(folder)
        self.format: Format = format_of(self.tokenizer, chat)
        self.effects: dict[Path, Effect] = {}

    def score(self, model: Path | None, items: Sequence[Item]) -> list[tuple[float, ...]]:
        """For each item the summed log-probability of each option's tokens, in nats.

        Args:
            model: an adapter's folder; None is the base itself.
            items: what is chosen among. Neither their order nor their company changes a score, beyond rounding.

        Raises:
            AdapterError: the adapter is none of this base, or does nothing.
            QuestionError: an item leaves no choice, does not fit the model's context, or cannot be rendered.
        """
        encoded = [self._encode(item) for item in items]
        if model is not None and model not in self.effects:
            prompts = (list(one.context) for one in encoded[:PROMPTS])
            self.effects[model] = adapter_effect(self.model, self.format, model, prompts)
        found: dict[tuple[int, int], float] = {}
        with told_when_memory_ends(), adapted(self.model, model) as changed:
            for rows in _batches(_rows(encoded), self.model.config.get_text_config().vocab_size):
                found |= _scored(changed, rows, int(self.tokenizer.pad_token_id))
        return [tuple(found[place, n] for n in range(len(one.options))) for place, one in enumerate(encoded)]

    def lengths(self, items: Sequence[Item]) -> list[tuple[int, ...]]:
        """For each item how many tokens of each option are scored. Raises QuestionError as `score` does."""
        return [tuple(map(len, self._encode(item).options)) for item in items]

    def _encode(self, item: Item) -> _Encoded:
        check_item(item)
        try:
            spoken = [Message(role="assistant", content=item.prefix + option) for option in item.options]
            check_text(self.format, [*item.messages, *spoken])
            prompt = prompt_ids(self.tokenizer, item.messages, self.chat)
        except (BaseError, DataError) as error:
            raise QuestionError(error.what, where=f"item {item.id}", remedy=error.remedy) from None
        begun, *whole = (answer_ids(self.format, item.prefix + option) for option in ("", *item.options))
        shared = sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, zip(begun, *whole, strict=False)))
        return self._fitting(item, _Encoded((*prompt, *begun[:shared]), tuple(tuple(ids[shared:]) for ids in whole)))

    def _fitting(self, item: Item, encoded: _Encoded) -> _Encoded:
        tokens = len(encoded.context) + max(map(len, encoded.options))
        if self.context is not None and tokens > self.context:
            what = f"has {tokens} tokens with its longest option, more than the {self.context} that the model can read"
            raise QuestionError(what, where=f"item {item.id}", remedy="Shorten its texts.")
        if not all(encoded.options):
            what = "an option adds no token to what all options share"
            raise QuestionError(what, where=f"item {item.id}", remedy="Give it a text that the tokenizer keeps.")
        return encoded


def _rows(encoded: Sequence[_Encoded]) -> list[_Row]:
    """What must be read for the items, each text once, by length: rows that are about as long lie together."""
    said: dict[tuple[tuple[int, ...], int], list[tuple[tuple[int, int], tuple[int, ...]]]] = {}
    for place, one in enumerate(encoded):
        for number, option in enumerate(one.options):
            said.setdefault((one.context + option[:-1], len(one.context)), []).append(((place, number), option))
    rows = [_Row(ids, start, tuple(some)) for (ids, start), some in said.items()]
    return sorted(rows, key=lambda row: (row.length, row.start, row.ids))


def _batches(rows: Sequence[_Row], words: int) -> Iterator[list[_Row]]:
    """Rows of one padded length, at most so many that their tokens and logits fit what is made at once."""
    batch: list[_Row] = []
    for row in rows:
        if batch and (row.length != batch[0].length or len(batch) == _most(batch[0], words)):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _most(first: _Row, words: int) -> int:
    """How many rows are read with this one, whose context is the shortest of them: a power of two."""
    kept = first.length - first.start + 1
    return 1 << (max(1, min(TOKENS // first.length, LOGITS // (kept * words))).bit_length() - 1)


@torch.inference_mode()
def _scored(model: PreTrainedModel, rows: Sequence[_Row], pad: int) -> dict[tuple[int, int], float]:
    """By item and option, the log-probabilities that the model gives.

    What fills a row stands behind it, where none of its tokens sees it: there is nothing to mask.
    """
    size, first = 1 << (len(rows) - 1).bit_length(), rows[0].start - 1
    filled = [[*row.ids, *[pad] * (row.length - len(row.ids))] for row in rows]
    ids = torch.tensor(filled + filled[-1:] * (size - len(rows)), device=model.device)
    places = torch.arange(first, ids.shape[1], device=model.device)
    logits: Tensor = model(input_ids=ids, use_cache=False, **only_at(model, places)).logits
    found = {}
    for number, row in enumerate(rows):
        own = torch.log_softmax(logits[number, row.start - 1 - first : len(row.ids) - first].float(), dim=-1)
        for place, option in row.said:
            tokens = torch.tensor(option, device=own.device)
            found[place] = float(own.gather(1, tokens[:, None]).sum())
    return found
