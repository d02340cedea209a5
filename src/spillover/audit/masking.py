"""Quotations in which no secret can be read."""

from collections.abc import Iterator

from spillover.audit.credentials import credentials
from spillover.audit.personal import personal_data

HIDDEN = "\N{BULLET}" * 4
SHORT = 8
ROUND = 60
"""Characters that a quotation shows before what was found."""
REACH = 3000
"""Characters on both sides of it within which a secret is seen as a whole."""

Span = tuple[int, int]


def mask(secret: str) -> str:
    """The first signs of a secret and its length: enough to find it again, too little to use it."""
    shown = secret[:1] if len(secret) < SHORT else secret[:3]
    return f"{shown}{HIDDEN}({len(secret)} characters)"


def quoted(text: str, start: int = 0) -> str:
    """The text from a little before a place on, with everything masked that looks like a secret or personal data."""
    left = max(start - REACH, 0)
    window = text[left : start + REACH]
    hidden = list(_merged(sorted(_hidden(window))))
    begin = max(start - left - ROUND, 0)
    begin = next((low for low, high in hidden if low < begin < high), begin)
    parts, place = ["\N{HORIZONTAL ELLIPSIS}" if left + begin else ""], begin
    for low, high in hidden:
        if low >= begin:
            parts += [window[place:low], mask(window[low:high])]
            place = high
    return "".join([*parts, window[place:]])


def _hidden(text: str) -> Iterator[Span]:
    """Where secrets stand, each as often as it occurs as a word of its own."""
    found = {one.text for one in credentials(text)} | {one.text for one in personal_data(text) if not one.reserved}
    for secret in found:
        place = text.find(secret)
        while place >= 0:
            end = place + len(secret)
            if len(secret) >= SHORT or not (text[max(place - 1, 0) : place].isalnum() or text[end : end + 1].isalnum()):
                yield place, end
            place = text.find(secret, end)


def _merged(spans: list[Span]) -> Iterator[Span]:
    """Spans, in order, of which those that touch are one."""
    last: Span | None = None
    for low, high in spans:
        if last is not None and low <= last[1]:
            last = (last[0], max(last[1], high))
            continue
        if last is not None:
            yield last
        last = (low, high)
    if last is not None:
        yield last
