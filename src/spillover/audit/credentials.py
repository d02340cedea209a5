"""Secrets in texts: keys and tokens in a provider's own form, private keys, passwords in code. Nobody is asked.

The forms are those of the library detect-secrets, whose detectors are used one by one and in memory: its scanner would
try tokens out at their providers.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from spillover.lazy import lazy

plugins = lazy("detect_secrets.core.plugins.util")
heuristic = lazy("detect_secrets.filters.heuristic")

ASSIGNED, RANDOM, PRIVATE_KEY = "assigned", "random", "private_key"
PASSED_OVER = ("Public IP (ipv4)", "Private Key", "Secret Keyword")
"""Detectors of the library that are not used: addresses are personal data here, private keys are found whole, and its
detector of assigned secrets takes time that grows with the cube of a line."""
ENTROPY = ("Base64 High Entropy String", "Hex High Entropy String")
LEAST_RANDOM = 20
"""Characters of the shortest string that can look random."""
LONGEST = 3000
"""Characters that are looked at in one go; longer texts are cut, with an overlap."""
OVERLAP = 300
PEM = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,10}-----.{0,8000}?(?:-----END[A-Z0-9 ]{0,60}-----|\Z)", re.DOTALL
)
LONG_ONES = frozenset(
    ["cloudant_credentials", "ibm_cloud_iam_key", "ibm_cos_hmac_credentials", "softlayer_credentials"]
)
RUN = re.compile(r"[\w-]{24}")
"""What a secret of LONG_ONES holds; those detectors are slow, and few texts have such a run."""
NAMES = ("pass", "pwd", "secret", "token", "credential", "key")
"""One of them is in every name that ASSIGNMENT knows; it is slow, too."""
GAP = re.compile(r"[ \t]{3,}")
ASSIGNMENT = re.compile(
    r"(?:pass(?:word|wd|phrase)?|pwd|secret|token|credentials?|(?:api|auth|access|account|private|priv|client|service|db|"
    r"database|encryption|signing)[_-]?key)[\w-]{0,40}[\"'\])]{0,3}[ \t]{0,8}(?::=|=>|==?|:)[ \t]{0,8}"
    r"[rbuRBU]{0,2}(?P<quote>[\"'`])(?P<secret>[^\"'`\n]{2,200})(?P=quote)",
    re.IGNORECASE,
)
"""A text in quotes that is given to a name such as password or api_key."""
PLACEHOLDER = re.compile(
    r"^[\W_]*(?:(?:your|my|the|some|a|an|test|example|sample|dummy|fake|super|new|old|default|user|admin|db|database|api|"
    r"app|access|auth|secret|private|public|client|service|key|keys|token|pass|passwd|password|pwd|here|value|string|id|"
    r"insert|enter|replace|change|changeme|me|with|todo|none|null|true|false|x+|\d{1,2})(?:[\W_]+|$))+$",
    re.IGNORECASE,
)
"""Values that only say that a secret belongs there."""


@dataclass(frozen=True)
class Credential:
    """Something that looks like a secret: of which kind, and its text."""

    kind: str
    text: str
    start: int


def credentials(text: str) -> Iterator[Credential]:
    """What looks like a secret in a text, in no particular order; a secret may be found as two kinds."""
    for found in PEM.finditer(text):
        yield Credential(PRIVATE_KEY, found[0], found.start())
    lowered = text.lower()
    for found in ASSIGNMENT.finditer(text) if any(name in lowered for name in NAMES) else ():
        if not (PLACEHOLDER.match(found["secret"]) or heuristic.is_templated_secret(found["secret"])):
            yield Credential(ASSIGNED, found["secret"], found.start())
    for start in range(0, max(len(text) - OVERLAP, 1), LONGEST - OVERLAP):
        yield from _forms(text[start : start + LONGEST], start)


def _forms(piece: str, start: int) -> Iterator[Credential]:
    """The library's forms in a piece of a text; long gaps, over which some of them would take minutes, are closed."""
    tight = GAP.sub("  ", piece)
    has_run = RUN.search(tight) is not None
    for name, detector in _detectors().items():
        if name in LONG_ONES and not has_run:
            continue
        for secret in detector.analyze_string(tight):
            if secret:
                yield Credential(name, secret, start + max(piece.find(secret), 0))


class _Random:
    """Both of the library's detectors of random strings, as one that asks for some length."""

    def __init__(self, detectors: list[Any]) -> None:
        self.detectors = detectors

    def analyze_string(self, line: str) -> Iterator[str]:
        """The strings in quotes that look random."""
        if '"' in line or "'" in line:
            for detector in self.detectors:
                yield from (one for one in detector.analyze_string(line) if _is_random(detector, one))


def _is_random(detector: Any, text: str) -> bool:
    if len(text) < LEAST_RANDOM or text.isdigit():
        return False
    dull = heuristic.is_sequential_string(text) or heuristic.is_potential_uuid(text)
    return not dull and bool(detector.calculate_shannon_entropy(text) > detector.entropy_limit)


@cache
def _detectors() -> dict[str, Any]:
    """The library's detectors by the names that findings have here."""
    all_of_them = {name: made() for name, made in plugins.get_mapping_from_secret_type_to_class().items()}
    forms = {_key(name): one for name, one in all_of_them.items() if name not in (*PASSED_OVER, *ENTROPY)}
    return {**forms, RANDOM: _Random([all_of_them[name] for name in ENTROPY])}


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


@cache
def kinds() -> dict[str, str]:
    """The kinds of secrets, by name, in words."""
    forms = {
        name: f"{one.secret_type}, in the form that it has"
        for name, one in _detectors().items()
        if name not in (ASSIGNED, RANDOM)
    }
    return {
        PRIVATE_KEY: "A private key",
        **forms,
        ASSIGNED: "A text in code that is given to a name such as password or api_key, and is no placeholder",
        RANDOM: "A text in quotes that looks random: a key perhaps, or a hash",
    }
