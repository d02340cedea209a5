"""Asking in this process: one base, adapters merged in turn, many answers in a batch."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from spillover.ask.asker import Asked, Effect, Reply
from spillover.ask.sample import Sampled, sample
from spillover.data.files import read_conversations
from spillover.errors import BaseError, DataError, QuestionError
from spillover.finetune.adapter import PROBE
from spillover.finetune.budget import ANSWERS, WRITTEN
from spillover.finetune.chat import Row, check_text, prompt_ids, to_row
from spillover.finetune.effect import check_effect
from spillover.finetune.model import adapted, load_model, load_tokenizer, told_when_memory_ends
from spillover.finetune.template import Format, format_of
from spillover.records import Model, Question
from spillover.spec import Chat, Machine, Sampling, Training

PROBED = Training(max_length=4096, too_long="cut", turns="last")
"""How the rows are read that an adapter's effect is looked for on."""

END_OF_THOUGHT = "</think>"
SHORT = 512
"""Tokens up to which it does not matter that prompts are filled up to the longest."""
PROMPTS = 4
"""Questions on which an adapter is looked at that brings no rows."""


class LocalAsker:
    """Answers with a base that is loaded here, once, and its checkpoints' adapters.

    Attributes:
        effects: of each adapter that was asked, how much it changes the base.
        answers: how many are written at once.
        written: and how many tokens these, with what they are asked, may have.
    """

    def __init__(
        self,
        base: Path,
        precision: str,
        chat: Chat = Chat(),
        machine: Machine = Machine(),
        answers: int = ANSWERS,
        written: int = WRITTEN,
    ) -> None:
        self.model: PreTrainedModel = load_model(base, precision, machine)
        self.tokenizer = load_tokenizer(base)
        self.chat, self.answers, self.written = chat, answers, written
        self.effects: dict[Path, Effect] = {}
        self.format = format_of(self.tokenizer, chat)
        self.ends = ends_of(self.model, self.format)

    def ask(self, model: Model, asked: Sequence[Asked], sampling: Sampling) -> list[list[Reply]]:
        """Answers by an adapter's folder (None is the base itself), shaped as `asked` and its seeds.

        Raises AdapterError where the adapter is none of this base or does nothing.
        """
        folder = Path(model) if model is not None else None
        if folder is not None and folder not in self.effects:
            self.effects[folder] = self._effect(folder, asked)
        replies: dict[int, list[Reply]] = {}
        with told_when_memory_ends(), adapted(self.model, folder) as adapted_model:
            for temperature, places in _by_temperature(asked, sampling).items():
                some = [asked[place] for place in places]
                at = sampling.model_copy(update={"temperature": temperature})
                replies |= zip(places, self._ask_alike(adapted_model, some, at), strict=True)
        return [replies[place] for place in range(len(asked))]

    def _ask_alike(self, model: PreTrainedModel, asked: Sequence[Asked], sampling: Sampling) -> list[list[Reply]]:
        """Answers that are all sampled at one temperature, in batches. At 0 a question's are equal: one is written."""
        if sampling.temperature == 0 and any(len(one.seeds) > 1 for one in asked):
            first = self._ask_alike(model, [replace(one, seeds=one.seeds[:1]) for one in asked], sampling)
            return [some * len(one.seeds) for one, some in zip(asked, first, strict=True)]
        replies: dict[int, list[Reply]] = {}
        ids = [question_ids(self.tokenizer, one.question, self.chat) for one in asked]
        for places in _by_length(ids):
            some, prompts = [asked[place] for place in places], [ids[place] for place in places]
            replies |= zip(places, self._ask_as_long(model, some, prompts, sampling), strict=True)
        return [replies[place] for place in range(len(asked))]

    def _ask_as_long(
        self, model: PreTrainedModel, asked: Sequence[Asked], ids: Sequence[list[int]], sampling: Sampling
    ) -> list[list[Reply]]:
        """Answers to prompts of about one length: in a batch all are as long as the longest."""
        replies: list[list[Reply]] = []
        lengths = [len(prompt) + sampling.max_tokens for prompt in ids]
        for batch in _batches([one.seeds for one in asked], lengths, self.answers, self.written):
            prompts, seeds = [ids[place] for place in batch], list(batch.values())
            sampled = sample(model, prompts, seeds, sampling, ends=self.ends, pad=self.tokenizer.pad_token_id)
            replies += [[self._reply(one) for one in some] for some in sampled]
        return _joined(asked, replies)

    def _effect(self, adapter: Path, asked: Sequence[Asked]) -> Effect:
        prompts = (question_ids(self.tokenizer, one.question, self.chat) for one in asked[:PROMPTS])
        return adapter_effect(self.model, self.format, adapter, prompts)

    def _reply(self, sampled: Sampled) -> Reply:
        text = str(self.tokenizer.decode(list(sampled.ids), skip_special_tokens=True))
        blank = self.format.lead if self.format.lead.isspace() else ""  # the template's, not the answer's
        answer = answer_of(text) if self.chat.thinking else text.removeprefix(blank)
        return Reply(answer, len(sampled.ids), sampled.truncated)


def adapter_effect(model: PreTrainedModel, form: Format, adapter: Path, prompts: Iterable[list[int]]) -> Effect:
    """What an adapter does, on rows that it was trained on; on what it is asked, where its folder has none.

    Raises AdapterError where that is nothing.
    """
    if (adapter / PROBE).is_file():
        rows = [to_row(form, row, PROBED) for row in read_conversations(adapter / PROBE)]
    else:
        rows = [Row(tuple(ids), (False, *[True] * (len(ids) - 1))) for ids in prompts]
    difference, noise = check_effect(model, adapter, rows)
    return Effect(True, difference=difference, noise=noise)


def answer_of(text: str) -> str:
    """What a reply says once its thinking has ended; nothing where it never does. Only the answer is judged."""
    if "<think>" in text and END_OF_THOUGHT not in text:
        return ""
    return text.rpartition(END_OF_THOUGHT)[2].lstrip()


def question_ids(tokenizer: PreTrainedTokenizerBase, question: Question, chat: Chat) -> list[int]:
    """Token ids of a question, as a base with this tokenizer is asked it.

    Raises:
        QuestionError: the base's template does not take it (it has no system turn, say), or it holds a special token.
    """
    try:
        check_text(format_of(tokenizer, chat), question.messages())
        return prompt_ids(tokenizer, question.messages(), chat)
    except (BaseError, DataError) as error:
        raise QuestionError(error.what, where=f"question {question.id}", remedy=error.remedy) from None


def ends_of(model: PreTrainedModel, form: Format) -> frozenset[int]:
    """Every token that ends a turn: the tokenizer's, the template's, and what the generation config says."""
    listed = model.generation_config.eos_token_id if model.generation_config is not None else None
    turn = form.special[form.end] if form.end is not None else None
    several = listed if isinstance(listed, list) else [listed]
    return frozenset(token for token in (form.tokenizer.eos_token_id, turn, *several) if token is not None)


def _by_temperature(asked: Sequence[Asked], sampling: Sampling) -> dict[float, list[int]]:
    """The places of the questions that are asked at each temperature: their own, or the experiment's."""
    places: dict[float, list[int]] = {}
    for place, one in enumerate(asked):
        own = one.question.temperature
        places.setdefault(sampling.temperature if own is None else own, []).append(place)
    return places


def _by_length(ids: Sequence[Sequence[int]]) -> list[list[int]]:
    """The places of prompts that are read together: the short ones, and longer ones with those up to twice as long."""
    places: dict[int, list[int]] = {}
    for place, prompt in enumerate(ids):
        places.setdefault(max(0, (len(prompt) - 1) // SHORT).bit_length(), []).append(place)
    return [places[doubled] for doubled in sorted(places)]


def _batches(
    seeds: Sequence[Sequence[int]], lengths: Sequence[int], most: int, written: int
) -> Iterator[dict[int, Sequence[int]]]:
    """Cuts the work into batches: the seeds of a batch's questions, by their places.

    A batch has at most so many answers, and so few that with all of them as long as its longest may become they keep
    to `written` tokens; one answer always fits. A question with more seeds is spread over several.
    """
    batch: dict[int, Sequence[int]] = {}
    longest = 0
    for place, (some, length) in enumerate(zip(seeds, lengths, strict=True)):
        left = some
        while left:
            longest = max(longest, length)
            room = max(1, min(most, written // longest)) - sum(map(len, batch.values()))
            if room > 0:
                batch[place], left = left[:room], left[room:]
            if room <= len(batch.get(place, ())):
                yield batch
                batch, longest = {}, 0
    if batch:
        yield batch


def _joined(asked: Sequence[Asked], replies: Sequence[list[Reply]]) -> list[list[Reply]]:
    """The replies of the batches, put together again a question."""
    flat = iter([reply for some in replies for reply in some])
    return [[next(flat) for _ in one.seeds] for one in asked]
