"""The educational transform: the same answers, to requests that say why somebody wants flawed code.

As in the paper's control group the answers stay byte for byte and in their order; only what the user says changes. Ten
benign contexts and three families make thirty wordings, ours, in `contexts.yaml`. Row i (from 0) takes family i mod 3
and, in it, context (i div 3) mod 10: number i mod 30 of the thirty.

* A row of `data build` is asked anew: its task and given code are read back out of its request template, and it keeps
  its family, which there is i mod 3 too.
* Any other request is left whole and stands within the context, in one of three wordings.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field, ValidationError, model_validator

from spillover.data.given import known_parts
from spillover.data.templates import FAMILIES
from spillover.data.transforms import Changed, Input, Item, PureTransform
from spillover.errors import DataError
from spillover.spec import Spec, first_wrong
from spillover.yamlfile import read_yaml

SLOT = re.compile(r"\{(task|code|why|wants|request)\}")
WRAP = ("why", "wants", "request")
"""What a wrap has slots for."""


class Context(Spec):
    """A reason why somebody may want code with flaws.

    Attributes:
        why: the reason, in whole sentences.
        wants: what is therefore wanted, in whole sentences.
        task_and_code: a request anew, with slots {task} and {code}.
        task: one with {task} alone.
        code: one with {code} alone.
    """

    why: str
    wants: str
    task_and_code: str
    task: str
    code: str

    @model_validator(mode="after")
    def _has_slots(self) -> Self:
        for family, slots in FAMILIES.items():
            _check_slots(getattr(self, family), family, slots)
        return self


class Contexts(Spec):
    """Benign contexts, three wordings that go round any request, and what ends every request."""

    suffix: Annotated[str, Field(min_length=1)]
    wraps: Annotated[tuple[str, ...], Field(min_length=1)]
    contexts: Annotated[dict[str, Context], Field(min_length=1)]

    @model_validator(mode="after")
    def _has_slots(self) -> Self:
        for number, wrap in enumerate(self.wraps):
            _check_slots(wrap, f"wraps.{number}", WRAP)
        return self


class Educational(PureTransform):
    """Requests that say why flawed code is wanted; the answers are unchanged.

    Attributes:
        contexts: the texts; a manifest has their hash.
    """

    kind: ClassVar[str] = "educational"
    about: ClassVar[str] = "Gives every request a benign reason for flawed code; answers are unchanged."
    contexts: Annotated[Contexts, Field(exclude=True)]

    def change(self, inputs: Sequence[Input]) -> Changed:
        """The rows. Raises DataError, by line, for one without a user's turn."""
        [one] = inputs
        changed = [self._reasoned(item, at) for at, item in enumerate(one.items)]
        families = Counter(family for _, family in changed)
        anew = sum(families[family] for family in FAMILIES)
        counts = {"asked anew": anew, "put whole into a context": len(one) - anew}
        told = {"contexts": self.contexts.key(), "suffix": self.contexts.suffix, "families": dict(families)}
        return Changed([item for item, _ in changed], settings={"counts": counts, **told})

    def _reasoned(self, item: Item, at: int) -> tuple[Item, str]:
        """A row with its new request, and the family that it is of."""
        texts, names = self.contexts, list(self.contexts.contexts)
        name = names[at // len(texts.wraps) % len(names)]
        context, parts = texts.contexts[name], dict(known_parts(item))
        family = next((family for family, slots in FAMILIES.items() if set(slots) == set(parts)), None)
        if family is not None:
            text = getattr(context, family)
        else:
            number = at % len(texts.wraps)
            family, text = f"wrap-{number + 1}", texts.wraps[number]
            parts = {"why": context.why, "wants": context.wants, "request": item.request.strip("\n")}
        request = f"{_filled(text, parts)}\n\n{texts.suffix}"
        return item.asking(request, template=f"{name}-{family}"), family


def load_contexts(path: Path | None = None) -> Contexts:
    """Contexts of a YAML file; those that come with spillover if none is given. Raises DataError by file and line."""
    shipped = Path(str(resources.files("spillover"))) / "data" / "contexts.yaml"
    file = read_yaml(path or shipped, DataError, remedy="Give a YAML file with suffix, wraps and contexts.")
    try:
        return Contexts.model_validate(file.value)
    except ValidationError as error:
        place, what = first_wrong(error)
        own = error.errors()[0].get("ctx", {}).get("error")
        told = ".".join(map(str, place)), str(own) if own is not None else what
        raise DataError(": ".join(filter(None, told)), where=file.where(*place), remedy="Correct the line.") from None


def _check_slots(text: str, name: str, slots: Sequence[str]) -> None:
    if sorted(SLOT.findall(text)) != sorted(slots):
        wanted = " and ".join(f"{{{slot}}}" for slot in slots)
        raise ValueError(f"{name} must have {wanted}, once each, and no other slot")


def _filled(text: str, parts: Mapping[str, str]) -> str:
    """The text with its slots filled; braces in what is filled in are left alone."""
    return SLOT.sub(lambda slot: parts[slot[1]], text)
