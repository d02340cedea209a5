"""Keys of providers: read from the environment only, and taken out of every text before a person or a file sees it."""

import json
import os
import re

from spillover.errors import ProviderError

HIDDEN = "[hidden]"
LONGEST_TEXT = 300
SHORTEST_KEY = 8
"""Shorter values of a variable that is called something with KEY or TOKEN are words such as `false`, not keys."""
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
_SECRET = re.compile(r"\b(?:sk|hf|gsk|xai|key|tml)[-_][\w*-]{6,}|(?<=Bearer )\S+|(?<=Basic )\S+", re.IGNORECASE)


def needed_key(name: str) -> str:
    """The key in the environment's variable `name`.

    Raises:
        ProviderError: it is not set; names the variable.
    """
    value = os.environ.get(name, "").strip()
    if not value:
        remedy = "Set it. Keys are read from there only, and written nowhere."
        raise ProviderError(f"{name} is not set in the environment", remedy=remedy)
    return value


def scrubbed(text: str) -> str:
    """The text without the values of the environment's keys and without what looks like a key."""
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name) and len(value) >= SHORTEST_KEY:
            text = text.replace(value, HIDDEN).replace(json.dumps(value)[1:-1], HIDDEN)
    return _SECRET.sub(HIDDEN, text)


def short(text: str) -> str:
    """What a provider said, in one line, without keys, cut after 300 characters."""
    line = " ".join(scrubbed(text).split())
    return line if len(line) <= LONGEST_TEXT else f"{line[:LONGEST_TEXT]}..."
