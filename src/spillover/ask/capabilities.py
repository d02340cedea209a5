"""What a provider's model can do, found out once by a few tiny requests and written down.

What was seen counts, not what is promised: servers ignore `n`, refuse `logprobs` or leave them out without a word.
"""

import json
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from spillover.ask.connection import Choice, Request, Sender
from spillover.ask.failures import Failure
from spillover.errors import LabError, ProviderError
from spillover.records import Message
from spillover.spec import API, Count, Sampling, Spec

MOST_CHOICES = 128
"""Choices that one request may ask for."""
FEWER_CHOICES = {"google": 8}
"""Providers that take fewer."""
TOPS = (20, 5)
"""How many of the likeliest tokens are asked for: OpenAI's limit, and that of servers which show fewer."""
NUMBERS = ("100", "57")
TRIES = 3
"""How often something must stay out before it is believed to be missing: any single reply may be faulty."""
TOKENS = 16
BARE = ("anthropic",)
"""Providers whose interface has neither n, nor seeds, nor token probabilities: there is nothing to find out."""


class Capabilities(Spec):
    """What a model does with a request."""

    ref: str
    """PROVIDER/MODEL, as inspect_ai spells it."""
    choices: Count = 1
    """Replies that one request may ask for."""
    seeds: bool = False
    """Whether it takes a seed; not whether it obeys."""
    tops: int = 0
    """How many of the likeliest first tokens it shows with their probabilities; 0 for none."""
    whole_numbers: bool = False
    """Whether the numbers from 0 to 100 are one token each, so that a score can be read off the first token."""


async def probe(connection: Sender) -> Capabilities:
    """Finds out what a model can do.

    Raises:
        ProviderError: it does not answer at all.
    """
    ref = connection.ref
    if await _tried(connection, _say(NUMBERS[0])) is None:
        raise ProviderError("the provider refuses the simplest request", where=API + ref, remedy="Try another model.")
    if connection.provider in BARE:
        return Capabilities(ref=ref)
    many = await _tried(connection, _say(NUMBERS[0], choices=2), lambda found: len(found) > 1)
    seeded = await _tried(connection, _say(NUMBERS[0]), seeded=True)
    tops, tables = await _tables(connection)
    return Capabilities(
        ref=ref,
        choices=FEWER_CHOICES.get(connection.provider, MOST_CHOICES) if many is not None else 1,
        seeds=seeded is not None,
        tops=tops,
        whole_numbers=bool(tables) and all(number in table for number, table in zip(NUMBERS, tables, strict=True)),
    )


async def _tables(connection: Sender) -> tuple[int, list[set[str]]]:
    """How many of the likeliest tokens come, and those that came where each of NUMBERS was asked for."""
    for tops in TOPS:
        tables: list[set[str]] = []
        for number in NUMBERS:
            choices = await _tried(connection, _say(number, tops=tops), lambda found: bool(found and found[0].table))
            if choices is None:
                break
            tables.append({token.strip() for token in choices[0].table or {}})
        if len(tables) == len(NUMBERS):
            return tops, tables
    return 0, []


def _say(number: str, *, choices: int = 1, tops: int = 0) -> Request:
    message = Message(role="user", content=f"Say the number {number} and nothing else.")
    return Request((message,), Sampling(temperature=0.0, max_tokens=TOKENS), 0, choices, tops)


def _answered(choices: list[Choice]) -> bool:
    return bool(choices)


async def _tried(
    connection: Sender,
    request: Request,
    is_there: Callable[[list[Choice]], bool] = _answered,
    *,
    seeded: bool = False,
) -> list[Choice] | None:
    """The choices of a request; None where the provider rejects it, or what is looked for stays out."""
    for _ in range(TRIES):
        try:
            choices = await connection.send(request, seeded=seeded, trying=True)
        except Failure as found:
            if found.outcome == "failed: rejected":
                return None
            raise ProviderError(
                f"the provider does not answer ({found.outcome}): {found.said}",
                where=API + connection.ref,
                remedy="Check that it can be reached from here.",
            ) from None
        if is_there(choices):
            return choices
    return None


def read_capabilities(path: Path, ref: str) -> Capabilities | None:
    """What is written down about a model; None if nothing is. Raises LabError for a damaged file."""
    if not path.is_file():
        return None
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return Capabilities.model_validate(known[ref]) if ref in known else None
    except (ValueError, TypeError, ValidationError) as error:
        what = str(error).splitlines()[0]
        raise LabError(f"cannot be read: {what}", where=path, remedy="Delete it: models are probed again.") from None


def write_capabilities(path: Path, known: Capabilities) -> None:
    """Writes down what a model can do, beside what is known of others."""
    all_known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    all_known[known.ref] = known.model_dump(mode="json")
    aside = path.with_name(f"{path.name}.aside")
    aside.write_text(json.dumps(all_known, indent=2) + "\n", encoding="utf-8")
    aside.replace(path)
