"""What can go wrong with a provider: by which outcome a request is counted, whether it may pass, what a person is told.

Errors are known by their HTTP status and by the names of their classes: every provider has a library of its own, and
none of them is imported here. Texts lose whatever looks like a key before they are shown.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from spillover.errors import ProviderError
from spillover.keys import short
from spillover.records import Outcome

PROVIDERS = ("openai", "anthropic", "openrouter", "openai-api", "vllm", "hf", "google", "mistral", "together")
"""Those that a message names; inspect_ai has more."""
IN_EXTRA = ("openai", "anthropic")
"""Packages that the extra `providers` installs."""
_MARKUP = re.compile(r"\[/?(?:bold|blue|red|italic)\]")
_MALFORMED = {"JSONDecodeError", "UnicodeDecodeError", "APIResponseValidationError", "OpenAIResponseError"}
_OTHER_MALFORMED = (ValidationError, TypeError, AttributeError, KeyError, IndexError)


class Failure(Exception):
    """A request that got no answer.

    Attributes:
        outcome: what it is counted as.
        passing: whether it may well succeed if it is sent again.
        wait: seconds that the provider asks us to wait, if it says so.
        said: what the provider said, without keys.
    """

    def __init__(self, outcome: Outcome, *, passing: bool = True, wait: float | None = None, said: str = "") -> None:
        super().__init__(outcome)
        self.outcome, self.passing, self.wait, self.said = outcome, passing, wait, said


def failure(error: BaseException, ref: str, wait: float | None, *, proven: bool) -> Failure | ProviderError:
    """What an error of a provider's library comes to for the request that met it.

    Args:
        error: what was raised.
        ref: the model, as a person wrote it.
        wait: seconds that the provider asks to wait, if it says so.
        proven: whether the model has answered before: then one request that is forbidden says nothing of the rest.

    Returns:
        a ProviderError where no request can succeed: a wrong key, an unknown model, no money left, or a server of our
        own that does not start.
    """
    status, said = _status(error), shortened(error)
    if status is None:
        return _without_status(error, ref, wait, said)
    no_quota = status == 429 and "insufficient_quota" in str(error)
    if status in (401, 402, 404) or (status == 403 and not proven) or no_quota:
        return _hopeless(status, ref, said)
    if status == 403 and re.search(r"moderation|flagged", str(error)):
        return Failure("blocked", passing=False, said=said)
    if status == 429:
        return Failure("failed: rate limited", wait=wait, said=said)
    if status == 408:
        return Failure("failed: timeout", wait=wait, said=said)
    if status == 409 or status >= 500:
        return Failure("failed: server error", wait=wait, said=said)
    return Failure("failed: rejected", passing=False, said=said)


def _without_status(error: BaseException, ref: str, wait: float | None, said: str) -> Failure | ProviderError:
    names = {kind.__name__ for one in _causes(error) for kind in type(one).__mro__}
    if names & {"TimeoutError", "APITimeoutError", "TimeoutException"}:
        return Failure("failed: timeout", wait=wait, said=said)
    if names & {"APIConnectionError", "TransportError", "ConnectionError"}:
        return Failure("failed: connection", wait=wait, said=said)
    if names & _MALFORMED or isinstance(error, _OTHER_MALFORMED):
        return Failure("failed: malformed reply", wait=wait, said=said)
    return unusable(error, ref)


def _hopeless(status: int, ref: str, said: str) -> ProviderError:
    """What a person is told where every further request would be refused too."""
    what, remedy = {
        401: ("refuses the key", "Check the key in the environment."),
        402: ("says that there is no credit left", "Add credit, then run again."),
        403: ("does not allow this key to use the model", "Check what the key in the environment may do."),
        404: ("does not know the model", "Check the model's name, and whether your account may use it."),
        429: ("says that the quota is used up", "Raise it, then run again."),
    }[status]
    kept = "What was answered is kept."
    return ProviderError(f"the provider {what} (HTTP {status}): {said}", where=ref, remedy=f"{remedy} {kept}")


def unusable(error: BaseException, ref: str) -> ProviderError:
    """What a person is told where a model cannot be opened: unknown, no key, or something is not installed."""
    said = shortened(error)
    missing = re.search(r"No (.+?) defined in the environment", said)
    package = re.search(r"pip install (?:--upgrade )?([\w.-]+)", said)
    if missing:
        what, remedy = f"{missing[1]} is not set in the environment", "Set it. Keys are read from there only."
    elif package:
        name = "'spillover[providers]'" if package[1] in IN_EXTRA else package[1]
        what, remedy = f"the package {package[1]} is needed", f"Install it: pip install {name}"
    elif "not recognized" in said or "should be in the format" in said:
        what, remedy = "there is no such provider", f"Give PROVIDER/MODEL; providers are {', '.join(PROVIDERS)}."
    else:
        what, remedy = f"cannot be used: {said}", "Check the model's name and the provider's settings."
    return ProviderError(what, where=ref, remedy=remedy)


def shortened(error: BaseException) -> str:
    """The text of an error in one line, without markup and keys, cut after 300 characters."""
    text = getattr(error, "message", None)
    plain = _MARKUP.sub("", text if isinstance(text, str) else str(error)) or type(error).__name__
    return short(plain)


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error tells of; providers' libraries keep it in several places."""
    for one in _causes(error):
        response: Any = getattr(one, "response", None)
        inner = response.get("code") if isinstance(response, Mapping) else getattr(response, "status_code", None)
        for found in (getattr(one, "status_code", None), inner, getattr(one, "code", None)):
            if isinstance(found, int) and 400 <= found < 600:
                return found
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and those that it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__
