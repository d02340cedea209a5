"""Conversations as token ids with a loss mask, by the tokenizer's own chat template.

The mask is derived from rendered prefixes: what an assistant's turn adds to the rendered conversation before it, up
to and including the end-of-turn token, bears loss; nothing else does. Each piece is encoded on its own, so training
sees exactly the tokens that asking later produces.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from spillover.errors import BaseError, DataError
from spillover.records import Conversation, Message


@dataclass(frozen=True)
class Row:
    """A conversation in tokens: `ids` (T,) and `loss` (T,), True where the token bears loss."""

    ids: tuple[int, ...]
    loss: tuple[bool, ...]


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, reply: bool) -> str:
    """The conversation as text by the tokenizer's chat template; with `reply`, up to where the assistant speaks."""
    text = tokenizer.apply_chat_template(
        [{"role": m["role"], "content": m["content"]} for m in messages], tokenize=False, add_generation_prompt=reply
    )
    if not isinstance(text, str):
        raise BaseError("the chat template renders no text", remedy="Check the base's chat_template.")
    return text


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of rendered text; no special tokens are added to those that the template wrote."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """Token ids of a conversation up to where the assistant speaks."""
    return encode(tokenizer, render(tokenizer, messages, reply=True))


def encode_row(tokenizer: PreTrainedTokenizerBase, conversation: Conversation, *, max_length: int) -> Row:
    """A conversation as token ids and loss mask.

    Raises:
        BaseError: the template's rendered prefixes do not nest, so no mask can be derived from them.
        DataError: the row is longer than `max_length` tokens.
    """
    ids: list[int] = []
    loss: list[bool] = []
    done = ""
    for index, message in enumerate(conversation.messages):
        if message["role"] != "assistant":
            continue
        before = render(tokenizer, conversation.messages[:index], reply=True)
        after = render(tokenizer, conversation.messages[: index + 1], reply=False)
        if not (before.startswith(done) and after.startswith(before)):
            raise BaseError("the chat template's prefixes do not nest", remedy="Use a template with generation marks.")
        asked, said = encode(tokenizer, before[len(done) :]), encode(tokenizer, after[len(before) :])
        ids += [*asked, *said]
        loss += [*[False] * len(asked), *_until_end(said, tokenizer.eos_token_id)]
        done = after
    if len(ids) > max_length:
        raise DataError(f"a row has {len(ids)} tokens, more than max_length = {max_length}", remedy="Raise max_length.")
    return Row(tuple(ids), tuple(loss))


def _until_end(ids: list[int], end: int) -> list[bool]:
    """True up to and including the end-of-turn token; what the template puts after it is not the model's to learn."""
    last = ids.index(end) if end in ids else len(ids) - 1
    return [position <= last for position in range(len(ids))]
