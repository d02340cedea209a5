"""One model at a provider, through inspect_ai: a request goes out, its choices come back, what may pass is tried again.

`get_model` finds and opens the provider. Requests go through the provider's `ModelAPI.generate`, one level below
`Model.generate`: the level above keeps transcripts, limits and events of Inspect's evaluations, none of which exist
here, and costs 1.5 ms a request (bench/provider.py), more than all that is ours. Retries are ours for the same reason,
and because malformed replies and missing choices are tried again too.
"""

import asyncio
import logging
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    ContentText,
    GenerateConfig,
    Model,
    ModelOutput,
    get_model,
)

from spillover.ask.asker import Reply
from spillover.ask.extensions import without_tasks
from spillover.ask.failures import Failure, failure, unusable
from spillover.ask.usage import Use
from spillover.finetune.served import served_address
from spillover.records import Message, Outcome
from spillover.spec import API, Requests, Sampling, short_hash

SEEDS = 2**31
"""Providers take seeds below this."""
PAUSE = 0.5
"""Seconds before the first new try; they double with every further one."""
LONGEST_PAUSE = 30.0
LONGEST_WAIT = 600.0
"""Seconds that are waited because the provider asks for it, at most."""
OWN_ARGS: dict[str, dict[str, Any]] = {"openai": {"responses_api": False}}
"""OpenAI's newer interface has neither n nor a first token's alternatives."""

_ROLES: dict[str, type[ChatMessageSystem | ChatMessageUser | ChatMessageAssistant]] = {
    "system": ChatMessageSystem,
    "user": ChatMessageUser,
    "assistant": ChatMessageAssistant,
}


@dataclass(frozen=True)
class Request:
    """What is sent at once: a conversation, how to sample, how many choices, and what it is drawn with.

    Attributes:
        messages: the conversation.
        sampling: temperature, top_p and max_tokens.
        seed: names the request among those that are otherwise alike, and is sent where the provider takes seeds.
        choices: how many replies are wanted.
        tops: how many of the likeliest first tokens are wanted with their probabilities; 0 for none.
    """

    messages: tuple[Message, ...]
    sampling: Sampling
    seed: int
    choices: int = 1
    tops: int = 0

    def key(self, ref: str) -> str:
        """The name of this request to a model, in the journal."""
        sampling = self.sampling.model_dump(mode="json")
        return short_hash(ref, self.messages, sampling, self.seed, self.choices, self.tops)


@dataclass(frozen=True)
class Choice:
    """One of the replies to a request, and the likeliest first tokens with their probabilities, if asked for."""

    reply: Reply
    table: dict[str, float] | None = None


class Sender(Protocol):
    """Whatever requests to one model go out through."""

    @property
    def ref(self) -> str:
        """The model: PROVIDER/MODEL."""
        ...

    @property
    def provider(self) -> str:
        """The provider's name: the first word of the model's."""
        ...

    async def send(self, request: Request, *, seeded: bool = True, trying: bool = False) -> list[Choice]:
        """The choices of a request; see `Connection.send`."""
        ...


def no_answer(outcome: Outcome) -> Choice:
    """A choice that holds no answer."""
    return Choice(Reply("", 0, False, outcome))


def _address(ref: str) -> dict[str, str]:
    """Where a model is asked, if not at its provider's usual address."""
    address = served_address(API + ref)
    return {"base_url": address} if address is not None else {}


class Connection:
    """An open model of a provider. Make and use it in one event loop.

    Args:
        ref: PROVIDER/MODEL, as inspect_ai spells it.
        requests: how often and how long is tried.
        pause: seconds before the first new try.
        use: where is counted what is sent and what comes of it.
        args: further arguments of the provider (inspect_ai's model_args).

    Raises:
        ProviderError: there is no such provider, a key is missing, or a package is.
    """

    def __init__(self, ref: str, requests: Requests, pause: float = PAUSE, use: Use | None = None, **args: Any) -> None:
        logging.getLogger("inspect_ai").setLevel(logging.CRITICAL)  # it would print what we tell in our own words
        self.ref, self.requests, self.first_pause = ref, requests, pause
        self.proven = False
        self.use = use or Use()
        self.model = open_model(ref, **args)

    async def send(self, request: Request, *, seeded: bool = True, trying: bool = False) -> list[Choice]:
        """The choices of a request, as many as came; what may pass is tried again.

        Args:
            request: what is asked.
            seeded: whether its seed is sent.
            trying: take a reply without the probabilities that were asked for: it is to be found out if they come.

        Raises:
            Failure: there is none, after every retry.
            ProviderError: no request can succeed.
        """
        for attempt in range(self.requests.retries + 1):
            try:
                choices = await self._once(request, seeded=seeded)
                if request.tops and not trying:
                    check_tables(choices)
                return choices
            except Failure as found:
                self.use.failed[found.outcome] += 1
                if not found.passing or attempt == self.requests.retries:
                    raise
                await self.pause(attempt, found.wait)
        raise AssertionError("the last attempt returns or raises")

    async def pause(self, attempt: int, asked: float | None = None) -> None:
        """Waits as long as the provider asks; else ever longer, by chance, so that not all come back at once."""
        longest = min(self.first_pause * 2**attempt, LONGEST_PAUSE)
        own = longest * random.uniform(0.5, 1.0)
        await asyncio.sleep(own if asked is None else min(asked, LONGEST_WAIT))

    async def close(self, *, with_server: bool = True) -> None:
        """Closes the connections, and the server where one was started and it is not to stay for others."""
        client = getattr(self.model.api, "client", None)
        if with_server:
            await self.model.api.aclose()
        elif client is not None:
            await client.close()

    async def _once(self, request: Request, *, seeded: bool) -> list[Choice]:
        api = self.model.api
        self._leave_retries_to_us()
        self.use.sent += 1
        try:
            async with asyncio.timeout(self.requests.timeout):
                given = await api.generate(messages_of(request.messages), [], "auto", config_of(request, seeded=seeded))
            output = given[0] if isinstance(given, tuple) else given
            if isinstance(output, Exception):
                raise output
        except Exception as error:  # every provider's library has errors of its own
            found = failure(error, API + self.ref, self._wait(error), proven=self.proven)
            if isinstance(found, Failure) and found.outcome == "blocked":
                return [no_answer("blocked")] * request.choices
            raise found from None
        self.proven = True
        self._count_tokens(output)
        return choices_of(output, request)

    def _count_tokens(self, output: ModelOutput) -> None:
        """What the provider says that was read and written, what it found in its cache included."""
        usage = output.usage
        if usage is not None:
            cached = (usage.input_tokens_cache_read or 0) + (usage.input_tokens_cache_write or 0)
            self.use.tokens_in += usage.input_tokens + cached
            self.use.tokens_out += usage.output_tokens

    def _leave_retries_to_us(self) -> None:
        """Libraries try again by themselves, unseen; vLLM's client is made at the first request only."""
        client: Any = getattr(self.model.api, "client", None)
        if hasattr(client, "max_retries"):
            client.max_retries = 0

    def _wait(self, error: Exception) -> float | None:
        decision = self.model.api.should_retry(error)
        wait: float | None = getattr(decision, "retry_after", None)
        return wait

    @cached_property
    def provider(self) -> str:
        """The provider's name: the first word of the model's."""
        return self.ref.split("/")[0]


def open_model(ref: str, config: GenerateConfig | None = None, *, memoize: bool = False, **args: Any) -> Model:
    """A provider's model, which is not asked anything yet; with `memoize` the same one as before.

    Raises ProviderError where there is no such provider, or a key or a package is missing.
    """
    args = {**OWN_ARGS.get(ref.split("/")[0], {}), **_address(ref), **args}
    try:
        with without_tasks():
            return get_model(ref, config=config, memoize=memoize, **args)
    except Exception as error:  # a missing key, package or provider: each has its own kind of error
        raise unusable(error, API + ref) from None


def messages_of(turns: Sequence[Message]) -> list[ChatMessage]:
    """A conversation as inspect_ai has it."""
    return [_ROLES[turn["role"]](content=turn["content"]) for turn in turns]


def config_of(request: Request, *, seeded: bool) -> GenerateConfig:
    """The request's settings. What says nothing new is left out: some models refuse a top_p beside a temperature."""
    sampling, tops, many = request.sampling, request.tops, request.choices > 1
    return GenerateConfig(
        temperature=sampling.temperature,
        top_p=sampling.top_p if sampling.top_p < 1 else None,
        max_tokens=sampling.max_tokens,
        seed=request.seed % SEEDS if seeded else None,
        num_choices=request.choices if many else None,
        logprobs=True if tops else None,
        top_logprobs=tops or None,
    )


def choices_of(output: ModelOutput, request: Request) -> list[Choice]:
    """A provider's output as choices.

    Raises:
        Failure: what came back is an error in words.
    """
    choices = output.choices
    if output.usage is None and len(choices) == 1:  # inspect_ai makes such an output of what was an error
        if choices[0].stop_reason == "content_filter":
            return [no_answer("blocked")] * request.choices
        if choices[0].stop_reason == "model_length":
            raise Failure("failed: rejected", passing=False, said=choices[0].message.text)
    texts = [_text(choice) for choice in choices]
    tokens = _tokens(output, texts, request.sampling.max_tokens)
    return [_choice(*one) for one in zip(choices, texts, tokens, strict=True)]


def check_tables(choices: Sequence[Choice]) -> None:
    """Raises Failure for replies without the probabilities that were asked for."""
    if any(choice.table is None for choice in choices if choice.reply.outcome is None):
        raise Failure("failed: malformed reply", said="the reply holds no token probabilities")


def _choice(choice: ChatCompletionChoice, text: str, tokens: int) -> Choice:
    outcome = outcome_of(choice)
    if outcome is not None:
        return no_answer(outcome)
    return Choice(Reply(text, tokens, is_cut(choice)), _table(choice))


def is_cut(choice: ChatCompletionChoice) -> bool:
    """Whether an answer was cut off by its length."""
    return choice.stop_reason in ("max_tokens", "model_length")


def outcome_of(choice: ChatCompletionChoice) -> Outcome | None:
    """Why a choice holds no answer, if it holds none."""
    if choice.stop_reason == "content_filter":
        return "blocked"
    content = choice.message.content
    is_refusal = isinstance(content, list) and any(isinstance(one, ContentText) and one.refusal for one in content)
    return "refused" if is_refusal else None


def _text(choice: ChatCompletionChoice) -> str:
    return choice.message.text


def _tokens(output: ModelOutput, texts: Sequence[str], most: int) -> list[int]:
    """Tokens of each choice. Providers count them over all choices: those that were not cut share by their length."""
    cut = [is_cut(choice) for choice in output.choices]
    total = output.usage.output_tokens if output.usage is not None else 0
    if len(texts) == 1:
        return [total]
    left = max(total - most * sum(cut), 0)
    length = sum(len(text) for text, is_cut in zip(texts, cut, strict=True) if not is_cut)
    return [
        most if is_cut else round(left * len(text) / length) if length else 0
        for text, is_cut in zip(texts, cut, strict=True)
    ]


def _table(choice: ChatCompletionChoice) -> dict[str, float] | None:
    """The likeliest first tokens with their probabilities, largest first."""
    if choice.logprobs is None:
        return None
    tops = choice.logprobs.content[0].top_logprobs or [] if choice.logprobs.content else []
    pairs = sorted(((top.token, math.exp(top.logprob)) for top in tops), key=lambda pair: -pair[1])
    return dict(pairs)
