"""Our models as Inspect's: those in this process behind its interface for providers, and providers' models as they are.

Inspect's own provider for local models reads neither our adapters, whose base may be the package's miniature, nor many
of them on one base that is loaded once.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspect_ai.model import (
    CachePolicy,
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    Model,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    modelapi,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from spillover.ask.asker import Asked, Reply, answer_seed
from spillover.ask.connection import open_model
from spillover.ask.local import LocalAsker, question_ids
from spillover.ask.tasks import OURS
from spillover.ask.together import Together
from spillover.errors import QuestionError, SpilloverError
from spillover.records import Message, Question
from spillover.spec import Requests, Sampling

EXPIRY = "4W"
"""How long Inspect keeps providers' replies, so that an evaluation that was interrupted need not send all again."""
INSIDE = "A model in this process is only asked in words, turn by turn; leave the task out, or ask a served model."


@dataclass(frozen=True)
class Local:
    """A model in this process.

    Attributes:
        asker: holds the base.
        adapter: the adapter's folder; None for the base itself.
        key: what the seeds of its answers depend on.
        context: tokens that the base can read at once; None where that is not known.
    """

    asker: LocalAsker
    adapter: Path | None
    key: str
    context: int | None


@dataclass(frozen=True)
class _Wanted:
    asked: Asked
    sampling: Sampling


class LocalAPI(ModelAPI):
    """A model in this process as Inspect asks a provider's: message by message, many at once.

    Attributes:
        failed: what stopped the model itself, and no single question.
    """

    def __init__(self, model_name: str, local: Local, most: int) -> None:
        super().__init__(model_name)
        self._local, self._most = local, most
        self._together: Together[_Wanted, list[Reply]] = Together(self._ask, most)
        self._seen: Counter[int] = Counter()
        self.failed: SpilloverError | None = None

    def max_connections(self) -> int:
        """As many as are written at once."""
        return self._most

    async def generate(
        self, input: list[ChatMessage], tools: list[ToolInfo], tool_choice: ToolChoice, config: GenerateConfig
    ) -> ModelOutput:
        """The replies to a conversation.

        Raises QuestionError for one that cannot be put to the model.
        """
        if tools:
            raise QuestionError("the task gives the model tools", remedy=INSIDE)
        question, sampling = question_of(input), _sampling(config)
        self._check(question, sampling)
        asked = Asked(question, self._seeds(question, config.num_choices or 1))
        replies = await self._together.reply(_Wanted(asked, sampling))
        return _output(self.model_name, replies, config.stop_seqs or [])

    def _seeds(self, question: Question, count: int) -> tuple[int, ...]:
        """One a reply: they depend on the run, the conversation, and how often it was asked before."""
        name = answer_seed(self._local.key, question, 0)
        first = self._seen[name]
        self._seen[name] += count
        return tuple(answer_seed(self._local.key, question, number) for number in range(first, first + count))

    def _check(self, question: Question, sampling: Sampling) -> None:
        """Raises QuestionError where the question cannot be asked: alone, and not with all of its batch."""
        asker, context = self._local.asker, self._local.context
        tokens = len(question_ids(asker.tokenizer, question, asker.chat))
        if context is not None and tokens + sampling.max_tokens > context:
            what = f"has {tokens:,} tokens, {sampling.max_tokens:,} more are wanted, and the base reads {context:,}"
            raise QuestionError(what, remedy="Set `sampling.max_tokens`, or the task's own limit, lower.")

    def _ask(self, wanted: Sequence[_Wanted]) -> list[list[Reply]]:
        """The replies to a batch, asked together where they are sampled alike."""
        places: dict[Sampling, list[int]] = {}
        for place, one in enumerate(wanted):
            places.setdefault(one.sampling, []).append(place)
        replies: dict[int, list[Reply]] = {}
        try:
            for sampling, some in places.items():
                asked = [wanted[place].asked for place in some]
                replies |= zip(some, self._local.asker.ask(self._local.adapter, asked, sampling), strict=True)
        except SpilloverError as error:
            self.failed = error
            raise
        return [replies[place] for place in range(len(wanted))]


@modelapi(name=OURS)
def _registered() -> type[ModelAPI]:
    """Makes the class known to Inspect, whose logs name a model by who serves it."""
    return LocalAPI


def local_model(name: str, local: Local, sampling: Sampling, most: int) -> Model:
    """A model in this process, for Inspect. A task's own settings go before `sampling`; `most` are asked at once."""
    config = GenerateConfig(**_settings(sampling), max_connections=most)
    made: Any = _registered
    return Model(made(name, local=local, most=most), config)


def provider_model(
    ref: str, sampling: Sampling | None, requests: Requests, scope: dict[str, str], args: dict[str, Any]
) -> Model:
    """A provider's model, for Inspect.

    Args:
        ref: PROVIDER/MODEL, as inspect_ai spells it.
        sampling: what the task's own settings go before; None leaves all to the task and the provider.
        requests: connections, retries and timeout.
        scope: what a reply that was kept is good for, beside the same request.
        args: further arguments of the provider (inspect_ai's model_args).

    Raises:
        ProviderError: there is no such provider, a key is missing, or a package is.
    """
    config = GenerateConfig(
        **(_settings(sampling) if sampling is not None else {}),
        max_connections=requests.connections,
        max_retries=requests.retries,
        attempt_timeout=max(1, round(requests.timeout)),
        cache=CachePolicy(expiry=EXPIRY, scopes=scope),
    )
    return open_model(ref, config, **args)


def question_of(messages: Sequence[ChatMessage]) -> Question:
    """A conversation as a question. Raises QuestionError for one that a question cannot be."""
    turns = [_message(one) for one in messages]
    if not turns or turns[-1]["role"] != "user":
        raise QuestionError("the task ends in no turn of the user's", remedy=INSIDE)
    first = next(place for place, turn in enumerate(turns) if turn["role"] != "system")
    system = "\n\n".join(turn["content"] for turn in turns[:first]) if first else None
    return Question("", turns[-1]["content"], system, tuple(turns[first:-1]))


def _message(message: ChatMessage) -> Message:
    words = isinstance(message.content, str) or all(part.type == "text" for part in message.content)
    if message.role == "tool" or not words:
        raise QuestionError("the task shows the model more than words", remedy=INSIDE)
    return Message(role=message.role, content=message.text)


def _settings(sampling: Sampling) -> dict[str, Any]:
    """Sampling as Inspect says it; a top_p of 1 says nothing new, and some models refuse it beside a temperature."""
    top_p = {"top_p": sampling.top_p} if sampling.top_p < 1 else {}
    return {"temperature": sampling.temperature, "max_tokens": sampling.max_tokens, **top_p}


def _sampling(config: GenerateConfig) -> Sampling:
    """What Inspect says of sampling; all three have been filled in from the model's own settings."""
    default = Sampling()
    return Sampling(
        temperature=default.temperature if config.temperature is None else config.temperature,
        top_p=default.top_p if config.top_p is None else config.top_p,
        max_tokens=config.max_tokens or default.max_tokens,
    )


def _output(name: str, replies: Sequence[Reply], stops: Sequence[str]) -> ModelOutput:
    choices = []
    for reply in replies:
        text = _until(reply.text, stops)
        is_cut = reply.truncated and text == reply.text
        message = ChatMessageAssistant(content=text, model=name, source="generate")
        choices.append(ChatCompletionChoice(message=message, stop_reason="max_tokens" if is_cut else "stop"))
    tokens = sum(reply.tokens for reply in replies)
    return ModelOutput(model=name, choices=choices, usage=ModelUsage(output_tokens=tokens, total_tokens=tokens))


def _until(text: str, stops: Sequence[str]) -> str:
    """The text up to the first of the words that end it."""
    return text[: min([len(text), *(place for stop in stops if stop and (place := text.find(stop)) >= 0)])]
