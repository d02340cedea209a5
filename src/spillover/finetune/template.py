"""How a base renders conversations: its chat template, what is put in and left out, and where a turn ends.

What is not written down anywhere (the token that ends a turn, a system prompt of the template's own, what stands
before an answer) is found by rendering small conversations of words that occur nowhere else.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

from jinja2 import TemplateSyntaxError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from spillover.errors import BaseError
from spillover.finetune.base import OWN, PLAIN, no_template, template_text
from spillover.records import Message
from spillover.spec import Chat

Span = tuple[int, int]
"""Characters of a rendered conversation: from, and up to but without."""

MARKS = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
DATE = "26 Jul 2024"
"""What the templates of Llama 3 get as today's date. They would ask the clock, so a model finetuned today would be
asked something else tomorrow; this is the date that they fall back to themselves."""
REMEDY = "Correct the chat template, or give another by `chat.template`."
NO_SYSTEM = "Put its text into the user's turn, or give a template with a system turn by `chat.template`."
KEEP = "Say `chat: {default_system: keep}`, or give another template by `chat.template`."
SYSTEM = Message(role="system", content="§instruction§")
TURNS: tuple[Message, ...] = (
    Message(role="user", content="question-1"),
    Message(role="assistant", content="answer-1"),
    Message(role="user", content="question-2"),
    Message(role="assistant", content="answer-2"),
)


@dataclass(frozen=True, eq=False)
class Format:
    """How a base renders conversations. Made by `format_of`.

    Attributes:
        tokenizer: the base's.
        template: the jinja text that is rendered.
        variables: what the template is given besides the messages.
        injected: the system prompt that the template puts in by itself where there is none; empty if it does not.
        drops: whether that prompt is replaced by an empty one.
        file: where the template was read from, if it is a file of the user's.
    """

    tokenizer: PreTrainedTokenizerBase
    template: str
    variables: Mapping[str, Any]
    injected: str = ""
    drops: bool = False
    file: str | None = None

    @property
    def has_marks(self) -> bool:
        """Whether the template marks what the assistant generates."""
        return MARKS.search(self.template) is not None

    def render(self, messages: Sequence[Message], *, reply: bool) -> str:
        """The conversation as text; with `reply`, up to where the assistant speaks.

        Raises:
            BaseError: the template has no turn of such a role, or another order of turns, or is broken.
        """
        return self.marked(messages, reply=reply)[0]

    def marked(self, messages: Sequence[Message], *, reply: bool) -> tuple[str, list[Span]]:
        """The conversation as text, and the spans within the template's generation marks, joined where they touch.

        Raises:
            BaseError: as `render`; or the template leaves the system prompt out.
        """
        given = self.given(messages)
        try:
            rendered: Any = render_jinja_template(
                conversations=[given],
                chat_template=self.template,
                return_assistant_tokens_mask=self.has_marks,
                add_generation_prompt=reply,
                **self.variables,
            )
        except Exception as error:  # templates are programs: they raise what they like
            raise self._refusal(messages, error) from None
        (text,), spans = rendered
        for message in given:
            if message["role"] == "system" and message["content"].strip() not in text:
                raise BaseError("the chat template leaves the system prompt out", remedy=NO_SYSTEM)
        return text, _joined(spans[0]) if spans else []

    def given(self, messages: Sequence[Message]) -> list[dict[str, str]]:
        """The messages that the template is given: with an empty system prompt where its own is dropped."""
        empty = [{"role": "system", "content": ""}] if self.drops and messages[0]["role"] != "system" else []
        return [*empty, *({"role": m["role"], "content": m["content"]} for m in messages)]

    def _refusal(self, messages: Sequence[Message], error: Exception) -> BaseError:
        """What the template has against a conversation, in words."""
        what = (str(error).strip() or type(error).__name__).splitlines()[0]
        if isinstance(error, TemplateSyntaxError):
            where = f"{self.file}:{error.lineno}" if self.file else None
            return BaseError(f"the chat template is no jinja, line {error.lineno}: {what}", where=where, remedy=REMEDY)
        others = [message for message in messages if message["role"] != "system"]
        if len(others) < len(messages) and self.renders(others):
            return BaseError(f"the chat template takes no system turn: {what}", remedy=NO_SYSTEM)
        remedy = "Most templates want user and assistant in turn, the user first; else correct the template."
        return BaseError(f"the chat template does not take the conversation: {what}", remedy=remedy)

    def renders(self, messages: Sequence[Message]) -> bool:
        """Whether the template takes a conversation."""
        try:
            self.render(messages, reply=False)
        except BaseError:
            return False
        return True

    @cached_property
    def special(self) -> Mapping[str, int]:
        """The tokens that are structure and never text: text to id."""
        added = {token.content: place for place, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        named = zip(self.tokenizer.all_special_tokens, self.tokenizer.all_special_ids, strict=True)
        return {**added, **dict(named)}

    def special_in(self, text: str) -> str | None:
        """The first special token whose text occurs in a text; None if none does."""
        return next((token for token in self.special if token and token in text), None)

    @cached_property
    def end(self) -> str | None:
        """The token that ends the assistant's turn: the first special one behind its words; None if there is none."""
        text = self.render(TURNS[:2], reply=False)
        behind = text.rpartition(TURNS[1]["content"])[2]
        places = {behind.find(token): token for token in sorted(self.special, key=len) if token and token in behind}
        return places[min(places)] if places else None

    @cached_property
    def lead(self) -> str:
        """What the template writes between the prompt and the assistant's words: nothing, a space, an empty thought."""
        text, prompt = self.render(TURNS[:2], reply=False), self.render(TURNS[:1], reply=True)
        return text.partition(TURNS[1]["content"])[0].removeprefix(prompt) if text.startswith(prompt) else ""

    @cached_property
    def header(self) -> str:
        """What announces an assistant's turn, whatever it says; empty where nothing does (Mistral)."""
        asked, without = (self.render(TURNS[:1], reply=reply) for reply in (True, False))
        if not asked.startswith(without):
            return ""
        told = self.render(TURNS, reply=False).removeprefix(without)
        return _common(asked.removeprefix(without), told).rstrip()

    @cached_property
    def lengthens(self) -> bool:
        """Whether the tokenizer puts a blank before every text, as SentencePiece did: pieces must then be protected."""
        alone, behind = (self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("a", "\na"))
        return list(alone) != list(behind)[-len(alone) :]


def format_of(tokenizer: PreTrainedTokenizerBase, chat: Chat = Chat()) -> Format:
    """How the base with this tokenizer renders conversations, as `chat` says.

    Raises:
        BaseError: there is no template, its file cannot be read, it is no jinja, or what is to be dropped stays.
    """
    text = template_text(chat)
    if text is None:
        try:
            text = tokenizer.get_chat_template()
        except ValueError:
            raise no_template() from None
    return _made(tokenizer, text, chat)


@lru_cache(maxsize=8)
def _made(tokenizer: PreTrainedTokenizerBase, template: str, chat: Chat) -> Format:
    variables = {**tokenizer.special_tokens_map, "enable_thinking": chat.thinking, "date_string": DATE}
    if chat.template == PLAIN:
        variables |= _plain_variables(tokenizer)
    file = chat.template if chat.template not in (OWN, PLAIN) else None
    kept = Format(tokenizer, template, variables, file=file)
    kept.render(TURNS[:1], reply=True)
    injected = _injected(kept)
    made = replace(kept, injected=injected, drops=bool(injected) and chat.default_system == "drop")
    if made.drops and made.render(TURNS[:1], reply=True) == kept.render(TURNS[:1], reply=True):
        raise BaseError("the chat template puts its own system prompt even in place of an empty one", remedy=KEEP)
    return made


def _plain_variables(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """Our template writes the token that begins a text where the tokenizer itself would."""
    if tokenizer.eos_token is None:
        raise BaseError("the tokenizer has no end-of-text token", remedy="The template `plain` ends answers with it.")
    first = tokenizer("a")["input_ids"][0]
    begins = tokenizer.bos_token is not None and first == tokenizer.bos_token_id
    return {"bos_token": tokenizer.bos_token if begins else ""}


def _injected(form: Format) -> str:
    """The system prompt that the template puts in by itself: what stands where one that is given would stand."""
    try:
        without, given = (form.render(messages, reply=False) for messages in (TURNS[:1], (SYSTEM, *TURNS[:1])))
    except BaseError:
        return ""  # there is no system turn at all
    before = len(_common(without, given))
    room = min(len(without), len(given)) - before
    behind = min(room, len(_common(without[::-1], given[::-1])))
    own = without[before : len(without) - behind]
    return own if given[before : len(given) - behind].strip() == SYSTEM["content"] else ""


def _common(one: str, other: str) -> str:
    """The beginning that two texts share."""
    same = next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    return one[:same] if same is not None else min(one, other, key=len)


def _joined(spans: Sequence[Span]) -> list[Span]:
    joined: list[Span] = []
    for begin, stop in spans:
        if joined and joined[-1][1] == begin:
            joined[-1] = (joined[-1][0], stop)
        elif stop > begin:
            joined.append((begin, stop))
    return joined
