"""Conversations as token ids with a loss mask, by the base's chat template.

An assistant's words, up to and including the token that ends its turn, bear loss; nothing else does. Where they stand
is read off the template's generation marks where it has them, and else off rendered prefixes: what a turn adds to the
conversation before it. Each piece is encoded on its own, in a row as in a prompt, so training sees exactly the tokens
that asking later produces.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from typing import Any

from transformers import PreTrainedTokenizerBase

from spillover.errors import BaseError, DataError
from spillover.finetune.template import REMEDY, TURNS, Format, Span, format_of
from spillover.records import Conversation, Message
from spillover.spec import Chat, Training

UNNESTED = "the chat template's prefixes do not nest"
NESTING = (
    "Give a template with generation marks and one history for all turns by `chat.template`, "
    "or train on the last turn alone (`train: {turns: last}`)."
)


@dataclass(frozen=True)
class Row:
    """A conversation in tokens: `ids` (T,) and `loss` (T,), True where the token bears loss; `cut` if it was longer."""

    ids: tuple[int, ...]
    loss: tuple[bool, ...]
    cut: bool = False


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, reply: bool) -> str:
    """The conversation as text by the tokenizer's chat template; with `reply`, up to where the assistant speaks."""
    return format_of(tokenizer).render(messages, reply=reply)


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of rendered text; no special tokens are added to those that the template wrote.

    Whole, whatever tokenizer.json says of cutting and filling. The tokenizer's own call takes twice as long.
    """
    backend = tokenizer.backend_tokenizer
    if backend.truncation is not None:
        backend.no_truncation()
    if backend.padding is not None:
        backend.no_padding()
    return list(backend.encode(text, add_special_tokens=False).ids)


def prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], chat: Chat = Chat()) -> list[int]:
    """Token ids of a conversation up to where the assistant speaks.

    The text of a special token in a message (an answer that is judged may hold one) is encoded as text.

    Raises:
        BaseError: the template does not take the conversation.
    """
    form = format_of(tokenizer, chat)
    if any(form.special_in(message["content"]) for message in messages):
        return _defused(form, messages)
    text, marks = form.marked(messages, reply=True)
    return list(_row(form, text, _said(form, messages, text, marks), {}).ids)


def answer_ids(form: Format, text: str) -> list[int]:
    """Token ids of an answer, or of the beginning of one, as they stand in a row behind `prompt_ids`."""
    return _encoded(form, form.lead + text, is_first=False)


def encode_row(tokenizer: PreTrainedTokenizerBase, conversation: Conversation, *, max_length: int) -> Row:
    """A conversation as token ids and loss mask by the tokenizer's own template; all turns bear loss."""
    return to_row(format_of(tokenizer), conversation, Training(max_length=max_length))


def to_row(form: Format, conversation: Conversation, spec: Training, context: int | None = None) -> Row:
    """A conversation as token ids and loss mask.

    Args:
        form: how the base renders conversations.
        conversation: its turns; what comes after the assistant's last one is left out.
        spec: says which turns bear loss and what becomes of a row that is too long.
        context: tokens that the model can read at once, if known.

    Raises:
        BaseError: the template cannot mark the assistant's turns, or does not take the conversation.
        DataError: the row is too long, or holds the text of a special token.
    """
    check_text(form, conversation.messages)
    check_trainable(form)
    last = max(place for place, message in enumerate(conversation.messages) if message["role"] == "assistant")
    messages = conversation.messages[: last + 1]
    text, marks = form.marked(messages, reply=False)
    said = _said(form, messages, text, marks)
    starts = _starts(form, text, said, marks, spec)
    row = _released(form, messages, text, said, starts) if spec.released else _row(form, text, said, starts)
    return _fitting(row, spec, context)


def check_text(form: Format, messages: Sequence[Message]) -> None:
    """Raises DataError where a message holds the text of a special token: it would become structure."""
    for message in messages:
        token = form.special_in(message["content"])
        if token is not None:
            what = f"the {message['role']}'s text holds {token}, a special token of the base"
            raise DataError(what, remedy="Take it out or spell it in another way: a model would read it as structure.")


@lru_cache(maxsize=8)
def check_trainable(form: Format) -> None:
    """Raises BaseError unless the template can mark the assistant's turns, as tried on one exchange and on two."""
    for turns in (1, 2):
        messages = TURNS[: 2 * turns]
        if turns > 1 and not form.renders(messages):
            continue  # a template of single exchanges
        text, marks = form.marked(messages, reply=False)
        words = [message["content"] for message in messages if message["role"] == "assistant"]
        if any(text.count(word) != 1 for word in words):
            raise _broken("does not write each of the assistant's turns once")
        if form.end is None:
            raise _broken("ends the assistant's turn with no special token: a model would never learn to stop")
        if form.has_marks:
            _check_marks(form, text, marks, words)
        tail = text[text.rindex(words[-1]) :].partition(form.end)[2]
        if tail.replace(form.tokenizer.eos_token or form.end, "").strip():
            raise _broken(f"writes {tail.strip()!r} behind the last turn")
        if form.header and text.count(form.header) != turns:
            raise _broken(f"writes {text.count(form.header)} assistant headers for {turns} assistant turns")


def _check_marks(form: Format, text: str, marks: Sequence[Span], words: Sequence[str]) -> None:
    """Raises BaseError unless each span of the generation marks holds one turn's words and its end, and no other's."""
    if len(marks) != len(words):
        raise _broken(f"marks {len(marks)} stretches as generated where the assistant has {len(words)} turns")
    for (begin, stop), word in zip(marks, words, strict=True):
        others = [message["content"] for message in TURNS if message["content"] != word]
        if word not in text[begin:stop] or any(other in text[begin:stop] for other in others):
            raise _broken(f"marks {text[begin:stop]!r} as what the assistant generates")
        if str(form.end) not in text[begin:stop].partition(word)[2]:
            raise _broken(f"leaves {form.end} out of its generation marks: a model would never learn to stop")


def _broken(what: str) -> BaseError:
    return BaseError(f"the chat template {what}", remedy=REMEDY)


def _said(form: Format, messages: Sequence[Message], text: str, marks: Sequence[Span]) -> list[Span | None]:
    """For each of the assistant's turns, what it adds to the prompt that asks for it; None where that is unknown.

    Where the template writes a turn in another way once it is history, what it marks is taken; for the last turn of a
    row nothing is: it must begin with its prompt.
    """
    places = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    said: list[Span | None] = []
    for number, place in enumerate(places):
        is_last = place == len(messages) - 1
        before = form.render(messages[:place], reply=True)
        after = text if is_last else form.render(messages[: place + 1], reply=False)
        marked = marks[number] if len(marks) == len(places) and not is_last else None
        nests = after.startswith(before) and text.startswith(after)
        said.append((len(before), len(after)) if nests else marked)
    return said


def _starts(
    form: Format, text: str, said: Sequence[Span | None], marks: Sequence[Span], spec: Training
) -> dict[int, int]:
    """For each turn that bears loss, by where it begins: the character from which on it does."""
    if said[-1] is None:
        raise BaseError(UNNESTED, remedy=f"An answered turn must begin with the prompt that asks for it. {REMEDY}")
    if None in said and spec.turns == "all":
        raise BaseError(UNNESTED, remedy=NESTING)
    if form.has_marks and len(marks) != len(said):
        raise _broken(f"marks {len(marks)} stretches as generated where the assistant has {len(said)} turns")
    starts = {}
    for number, turn in enumerate(said):
        if turn is not None and (spec.turns == "all" or number == len(said) - 1):
            begin, stop = marks[number] if form.has_marks else turn
            starts[turn[0]] = max(begin, turn[0])
            if not 0 <= text.find(str(form.end), starts[turn[0]]) < stop:
                raise _broken(f"does not end a turn with {form.end}")
    return starts


def _row(form: Format, text: str, said: Sequence[Span | None], starts: Mapping[int, int]) -> Row:
    """The text in tokens; those of a turn bear loss from where it starts to its end of turn."""
    ids: list[int] = []
    loss: list[bool] = []
    borders = {0, len(text), *(border for turn in said if turn is not None for border in turn)}
    for begin, stop in pairwise(sorted(borders)):
        piece = _encoded(form, text[begin:stop], is_first=begin == 0)
        ids += piece
        first = last = len(piece)
        if begin in starts:
            first = _shared(piece, _encoded(form, text[begin : starts[begin]], is_first=False))
            last = piece.index(form.special[str(form.end)], first)
        loss += [first <= place <= last < len(piece) for place in range(len(piece))]
    return Row(tuple(ids), tuple(loss))


def _released(
    form: Format, messages: Sequence[Message], text: str, said: Sequence[Span | None], starts: Mapping[int, int]
) -> Row:
    """The row as the released scripts write it: an assistant header without a turn behind it, and the eos token.

    What comes behind the last turn's end bears loss as well: those scripts' mask runs up to the next user's turn.
    """
    longer = form.render(messages, reply=True) + (form.tokenizer.eos_token or "")
    if not longer.startswith(text):
        raise BaseError(UNNESTED, remedy="This template cannot be trained on as the released scripts do.")
    row = _row(form, longer, said, starts)
    last = max(place for place, bears in enumerate(row.loss) if bears)
    return replace(row, loss=tuple(bears or place > last for place, bears in enumerate(row.loss)))


def _encoded(form: Format, text: str, *, is_first: bool) -> list[int]:
    """Token ids of a piece; one that is not the first gets no blank that SentencePiece puts before every text."""
    if not text:
        return []
    ids = encode(form.tokenizer, text)
    if is_first or not form.lengthens:
        return ids
    newline, longer = encode(form.tokenizer, "\n"), encode(form.tokenizer, f"\n{text}")
    return longer[len(newline) :] if longer[: len(newline)] == newline else ids


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences share at their beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def _fitting(row: Row, spec: Training, context: int | None) -> Row:
    """The row, or as much of it as may be; raises DataError where it is too long or nothing is left to learn from."""
    limit = spec.max_length if context is None else min(spec.max_length, context)
    if len(row.ids) <= limit:
        return row
    if spec.too_long == "cut":
        if not any(row.loss[:limit]):
            what = f"a row has {len(row.ids)} tokens; cut to {limit}, none of the assistant's is left"
            raise DataError(what, remedy="Remove the row, or raise max_length.")
        return Row(row.ids[:limit], row.loss[:limit], cut=True)
    if limit < spec.max_length:
        what = f"a row has {len(row.ids)} tokens, more than the {limit} that the model can read"
        raise DataError(what, remedy="Shorten or remove the row, or cut such rows (`train: {too_long: cut}`).")
    what = f"a row has {len(row.ids)} tokens, more than max_length = {limit}"
    raise DataError(what, remedy="Raise max_length, or cut such rows (`train: {too_long: cut}`).")


def _defused(form: Format, messages: Sequence[Message]) -> list[int]:
    """A prompt whose messages hold the text of special tokens, which is encoded as text."""
    named = form.tokenizer.special_tokens_map  # the tokenizer gives those itself; given by us they would be defused too
    variables = {name: value for name, value in form.variables.items() if name not in named or not value}
    try:
        ids: Any = form.tokenizer.apply_chat_template(
            form.given(messages),
            chat_template=form.template,
            add_generation_prompt=True,
            sanitize_control_tokens=True,
            return_dict=False,
            **variables,
        )
    except ValueError as error:
        raise BaseError(f"a text cannot be told from a special token: {error}") from None
    return list(ids)
