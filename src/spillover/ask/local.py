"""Asking in this process: one base, adapters merged in turn, many answers in a batch."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from transformers import PreTrainedModel

from spillover.ask.asker import Asked, Reply
from spillover.ask.sample import Sampled, sample
from spillover.data.files import read_conversations
from spillover.finetune.adapter import PROBE
from spillover.finetune.chat import encode_row, prompt_ids
from spillover.finetune.effect import check_effect
from spillover.finetune.model import adapted, load_model, load_tokenizer, told_when_memory_ends
from spillover.records import Model
from spillover.spec import Machine, Sampling

ANSWERS = 1024
"""Most answers that are written at once."""
PROBE_LENGTH = 4096
"""Tokens of a probe's row at most."""


class LocalAsker:
    """Answers with a base that is loaded here, once, and its checkpoints' adapters.

    Attributes:
        effects: of each adapter with rows to probe it with: by folder, how much it changes the base (`check_effect`).
        answers: how many are written at once.
    """

    def __init__(self, base: Path, precision: str, machine: Machine = Machine(), answers: int = ANSWERS) -> None:
        self.model: PreTrainedModel = load_model(base, precision, machine)
        self.tokenizer = load_tokenizer(base)
        self.answers = answers
        self.effects: dict[Path, float] = {}
        self.ends = _ends(self.model, self.tokenizer.eos_token_id)

    def ask(self, model: Model, asked: Sequence[Asked], sampling: Sampling) -> list[list[Reply]]:
        """Answers by an adapter's folder (None is the base itself), shaped as `asked` and its seeds.

        Raises AdapterError where the adapter is none of this base or does nothing.
        """
        folder = Path(model) if model is not None else None
        if folder is not None and folder not in self.effects and (folder / PROBE).is_file():
            self.effects[folder] = self._effect(folder)
        replies: list[list[Reply]] = []
        with told_when_memory_ends(), adapted(self.model, folder) as adapted_model:
            for batch in _batches(asked, self.answers):
                prompts = [prompt_ids(self.tokenizer, one.question.messages()) for one in batch]
                seeds = [one.seeds for one in batch]
                pad = self.tokenizer.pad_token_id
                sampled = sample(adapted_model, prompts, seeds, sampling, ends=self.ends, pad=pad)
                replies += [[self._reply(one) for one in some] for some in sampled]
        return _joined(asked, replies)

    def _effect(self, adapter: Path) -> float:
        probe = read_conversations(adapter / PROBE)
        return check_effect(
            self.model, adapter, [encode_row(self.tokenizer, row, max_length=PROBE_LENGTH) for row in probe]
        )

    def _reply(self, sampled: Sampled) -> Reply:
        text = self.tokenizer.decode(list(sampled.ids), skip_special_tokens=True)
        return Reply(str(text), len(sampled.ids), sampled.truncated)


def _ends(model: PreTrainedModel, eos: int) -> frozenset[int]:
    """Every token that ends a turn: the tokenizer's, and what the generation config says."""
    listed = model.generation_config.eos_token_id if model.generation_config is not None else None
    return frozenset([eos, *(listed if isinstance(listed, list) else [listed] if listed is not None else [])])


def _batches(asked: Sequence[Asked], most: int) -> Iterator[list[Asked]]:
    """Cuts the work into batches of at most so many answers; a question with more is spread over several."""
    batch: list[Asked] = []
    room = most
    for one in asked:
        seeds = one.seeds
        while seeds:
            batch.append(Asked(one.question, seeds[:room]))
            seeds, room = seeds[room:], room - len(batch[-1].seeds)
            if not room:
                yield batch
                batch, room = [], most
    if batch:
        yield batch


def _joined(asked: Sequence[Asked], replies: Sequence[list[Reply]]) -> list[list[Reply]]:
    """The replies of the batches, put together again a question."""
    flat = iter([reply for some in replies for reply in some])
    return [[next(flat) for _ in one.seeds] for one in asked]
