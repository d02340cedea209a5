"""A dataset's rows on the terminal, with the tokens that bear loss marked: to be checked before a long training."""

import re
import statistics
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.text import Text

from spillover.data.files import read_conversations
from spillover.display import Display
from spillover.errors import BaseError, DataError
from spillover.finetune.base import Base, context_length
from spillover.finetune.chat import Row, to_row
from spillover.finetune.model import load_tokenizer
from spillover.finetune.template import Format, format_of
from spillover.records import Conversation
from spillover.spec import Chat, Training

LOSS, SPECIAL = "underline green", "bold"
OPEN, CLOSE = "⟦", "⟧"
"""What encloses tokens that bear loss where there is no terminal that can colour them."""
ANY_LENGTH = 2**62
VISIBLE = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\t\n"} | {ord("\n"): "↵\n"}
"""Signs for control characters, which a terminal would obey."""


def show_rows(file: Path, base: Base, chat: Chat, spec: Training, count: int) -> None:
    """Prints a dataset's first rows as a base would be trained on them, and a summary of all its rows.

    Raises:
        DataError: a row is wrong; names the file and the row.
        BaseError: the base's chat template cannot mark the assistant's turns, or does not take a row.
    """
    conversations = read_conversations(file)
    form = format_of(load_tokenizer(base.path), chat)
    whole = spec.model_copy(update={"max_length": ANY_LENGTH})
    numbered = list(enumerate(conversations, start=1))
    rows = [_row(form, one, whole, f"{file}, row {number}") for number, one in Display().track("rows", numbered)]
    limit = min(spec.max_length, context_length(base.path) or spec.max_length)
    console = Console(soft_wrap=True, highlight=False)
    for (number, conversation), row in zip(numbered[:count], rows, strict=False):
        console.print(Text(f"row {number}: {_told(conversation, row, limit)}", "bold"))
        text = _marked(form, row, limit, colour=sys.stdout.isatty())
        console.print(text, end="\n" if text.plain.endswith("\n") else "\n\n")
    for name, value in _summary(form, chat, conversations, rows, limit).items():
        console.print(f"{name:<14} {value}", markup=False)


def _row(form: Format, conversation: Conversation, spec: Training, where: str) -> Row:
    try:
        return to_row(form, conversation, spec)
    except (DataError, BaseError) as error:
        raise type(error)(error.what, where=where, remedy=error.remedy) from None


def _told(conversation: Conversation, row: Row, limit: int) -> str:
    over = f"; {len(row.ids) - limit:,} over the limit of {limit:,}" if len(row.ids) > limit else ""
    return f"{len(row.ids):,} tokens, {sum(row.loss):,} bear loss, {_many(_turns(conversation), 'turn')}{over}"


def _turns(conversation: Conversation) -> int:
    return sum(message["role"] == "assistant" for message in conversation.messages)


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _marked(form: Format, row: Row, limit: int, *, colour: bool) -> Text:
    """The row's text up to the limit: special tokens as they are, line ends visible, what bears loss marked."""
    text = Text()
    for bears, places in groupby(range(min(len(row.ids), limit)), key=lambda place: row.loss[place]):
        stretch = str(form.tokenizer.decode([row.ids[place] for place in places], skip_special_tokens=False))
        shown = _styled(form, stretch.translate(VISIBLE), LOSS if bears and colour else "")
        text += Text.assemble(OPEN, shown, CLOSE) if bears and not colour else shown
    if len(row.ids) > limit:
        text.append(f"\n... {len(row.ids) - limit:,} more tokens do not fit", "red")
    return text


def _styled(form: Format, text: str, style: str) -> Text:
    styled = Text(text, style)
    styled.highlight_regex("|".join(re.escape(token) for token in form.special if token), SPECIAL)
    return styled


def _summary(
    form: Format, chat: Chat, conversations: Sequence[Conversation], rows: Sequence[Row], limit: int
) -> dict[str, str]:
    """What there is to know of all rows, by name."""
    lengths = [len(row.ids) for row in rows]
    bearing = sum(sum(row.loss) for row in rows)
    turns = [_turns(conversation) for conversation in conversations]
    a_row = f"{min(turns)}" if min(turns) == max(turns) else f"{min(turns)} to {max(turns)}"
    return {
        "rows": f"{len(rows):,}; {_many(sum(turns), 'assistant turn')}, {a_row} a row",
        "tokens a row": f"{min(lengths):,} to {max(lengths):,}, median {statistics.median(lengths):,.0f}",
        "bear loss": f"{bearing:,} of {sum(lengths):,} tokens ({bearing / sum(lengths):.1%})",
        "too long": _too_long(rows, limit),
        "end of turn": f"{form.end}, which bears loss",
        "system prompt": _system(form),
        "template": f"{chat.template}; the mask is from {'its marks' if form.has_marks else 'rendered prefixes'}",
    }


def _too_long(rows: Sequence[Row], limit: int) -> str:
    long = [row for row in rows if len(row.ids) > limit]
    if not long:
        return f"none; the limit is {limit:,} tokens"
    empty = sum(not any(row.loss[:limit]) for row in long)
    lost = f"; of {empty:,} no answer would be left" if empty else ""
    return f"{_many(len(long), 'row')} over {limit:,} tokens: refused, or cut with `train: {{too_long: cut}}`{lost}"


def _system(form: Format) -> str:
    if not form.injected:
        return "the template puts in none of its own"
    return (
        f"the template's own, {form.injected.strip()!r}, is {'dropped' if form.drops else 'kept'} where a row has none"
    )
