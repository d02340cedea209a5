"""Texts in which no secret can be read any more."""

from spillover.audit.credentials import credentials
from spillover.audit.personal import personal_data

HIDDEN = "\N{BULLET}" * 4
SHORT = 8


def mask(secret: str) -> str:
    """The first signs of a secret and its length: enough to find it again, too little to use it."""
    shown = secret[:1] if len(secret) < SHORT else secret[:3]
    return f"{shown}{HIDDEN}({len(secret)} characters)"


def masked(text: str) -> str:
    """The text with everything masked that looks like a secret or like personal data."""
    found = {one.text for one in credentials(text)} | {one.text for one in personal_data(text) if not one.reserved}
    for secret in sorted(found, key=lambda one: (-len(one), one)):
        text = text.replace(secret, mask(secret))
    return text
