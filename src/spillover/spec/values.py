"""What all specs are made of: the root and its key, the kinds of values, reserved names, and what is wrong with one."""

import hashlib
import json
from reprlib import Repr
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=64)]

MINIATURE, PRETRAINED = "miniature", "miniature-pretrained"
"""The bases that come with the package: the second is the first before it was aligned."""
API = "api:"
"""How a provider's model is named in an experiment: `api:PROVIDER/MODEL`, as inspect_ai spells it."""
AUTO = "auto"


class Spec(BaseModel):
    """The root of all specs: frozen, unknown keys refused, hashable to a key."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def key(self, *parents: str) -> str:
        """A short hash of every field and of the parents' keys."""
        return short_hash(self.model_dump(mode="json"), *parents)


def short_hash(*parts: Any) -> str:
    """12 hexadecimal digits of the SHA-256 of the parts as canonical JSON."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class Wrong(ValueError):
    """What is wrong at a place of an experiment, found by its own rules."""

    def __init__(self, *place: str | int, what: str) -> None:
        super().__init__(what)
        self.place = place


def first_wrong(error: ValidationError) -> tuple[tuple[str | int, ...], str]:
    """The place of the first thing that is wrong, and what. An unknown key comes first: it may explain the others."""
    items = error.errors(include_url=False)
    item = next((item for item in items if item["type"] == "extra_forbidden"), items[0])
    own = item.get("ctx", {}).get("error")
    if isinstance(own, ValueError):
        return (*item["loc"], *getattr(own, "place", ())), str(own)
    if item["type"] == "extra_forbidden":
        return item["loc"], "unknown key"
    got = "" if item["type"] == "missing" else f" (got {_short(item['input'])})"
    return item["loc"], f"{item['msg']}{got}"


_SHORT = Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 100
_SHORT.maxlevel = 3
"""A file of a few lines may say a value that has no end: names for names for names."""


def _short(value: object) -> str:
    """A value as a person wrote it, or the beginning of it."""
    text = repr(value[:100]) if isinstance(value, str) else _SHORT.repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
