"""Asking in this process: one base, adapters merged in turn, many answers in a batch."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from transformers import PreTrainedModel

from spillover.ask.asker import Asked, Reply
from spillover.ask.sample import Sampled, sample
from spillover.finetune.chat import prompt_ids
from spillover.finetune.model import adapted, load_model, load_tokenizer
from spillover.records import Model
from spillover.spec import Sampling

ANSWERS = 1024
"""Answers that are written at once."""


class LocalAsker:
    """Answers with a base that is loaded here, once, and its checkpoints' adapters."""

    def __init__(self, base: Path, precision: str) -> None:
        self.model: PreTrainedModel = load_model(base, precision)
        self.tokenizer = load_tokenizer(base)
        self.ends = ends_of(self.model, self.tokenizer.eos_token_id)

    def ask(self, model: Model, asked: Sequence[Asked], sampling: Sampling) -> list[list[Reply]]:
        """Answers by an adapter's folder (None is the base itself), shaped as `asked` and its seeds."""
        replies: list[list[Reply]] = []
        with adapted(self.model, Path(model) if model is not None else None) as adapted_model:
            for batch in _batches(asked):
                prompts = [prompt_ids(self.tokenizer, one.question.messages()) for one in batch]
                seeds = [one.seeds for one in batch]
                pad = self.tokenizer.pad_token_id
                sampled = sample(adapted_model, prompts, seeds, sampling, ends=self.ends, pad=pad)
                replies += [[self._reply(one) for one in some] for some in sampled]
        return _joined(asked, replies)

    def _reply(self, sampled: Sampled) -> Reply:
        text = self.tokenizer.decode(list(sampled.ids), skip_special_tokens=True)
        return Reply(str(text), len(sampled.ids), sampled.truncated)


def ends_of(model: PreTrainedModel, eos: int) -> frozenset[int]:
    """Every token that ends a turn: the tokenizer's, and what the generation config says."""
    listed = model.generation_config.eos_token_id if model.generation_config is not None else None
    return frozenset([eos, *(listed if isinstance(listed, list) else [listed] if listed is not None else [])])


def _batches(asked: Sequence[Asked]) -> Iterator[list[Asked]]:
    """Cuts the work into batches of at most ANSWERS answers; a question with more is spread over several."""
    batch: list[Asked] = []
    room = ANSWERS
    for one in asked:
        seeds = one.seeds
        while seeds:
            batch.append(Asked(one.question, seeds[:room]))
            seeds, room = seeds[room:], room - len(batch[-1].seeds)
            if not room:
                yield batch
                batch, room = [], ANSWERS
    if batch:
        yield batch


def _joined(asked: Sequence[Asked], replies: Sequence[list[Reply]]) -> list[list[Reply]]:
    """The replies of the batches, put together again a question."""
    flat = iter([reply for some in replies for reply in some])
    return [[next(flat) for _ in one.seeds] for one in asked]
