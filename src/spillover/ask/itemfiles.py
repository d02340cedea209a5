"""Items from YAML files: questions with options, beginnings of answers with next words."""

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, ValidationError, model_validator

from spillover.ask.items import Item, check_item, lettered, letters
from spillover.errors import QuestionError
from spillover.records import Message
from spillover.spec import Spec, first_wrong
from spillover.yamlfile import YamlFile, read_yaml

Text = Annotated[str, StringConstraints(min_length=1)]
SHIPPED = Path(__file__).parents[1] / "questions"
ITEM_FILES = {"letters": SHIPPED / "letters.yaml", "words": SHIPPED / "words.yaml"}
"""Item sets that come with spillover, in words that any chat model understands."""
REMEDY = "An item has `id`, `question`, `options` and `marked`, and maybe `prefix`, `system`, `lettered` and `aspect`."


class ItemRow(Spec):
    """One entry of an item file.

    Attributes:
        id: its name.
        question: the user's turn.
        system: the system prompt.
        prefix: the beginning of the answer, which is given.
        options: how it goes on; or what is shown with letters.
        marked: the place of the option that is measured, from 0.
        lettered: whether options are shown with letters and chosen by letter, once in each rotation of their order;
            where it is not said, those of items without a prefix are.
        aspect: what the item is about, for files with several kinds.
    """

    id: Text
    question: Text
    system: Text | None = None
    prefix: str = ""
    options: Annotated[tuple[Text, ...], Field(min_length=2)]
    marked: Annotated[int, Field(ge=0)]
    lettered: bool | None = None
    aspect: str = ""

    @model_validator(mode="after")
    def _is_there(self) -> Self:
        if self.marked >= len(self.options):
            raise ValueError(f"marked is {self.marked}, and there are {len(self.options)} options, counted from 0")
        return self

    def items(self) -> list[Item]:
        """The item; with letters, once for each rotation of the options, so that no letter has an advantage."""
        if not (self.lettered if self.lettered is not None else not self.prefix):
            return [Item(self.id, self._said(self.question), self.prefix, self.options, self.marked, self.aspect)]
        size = len(self.options)
        turned = [[self.options[(at + turn) % size] for at in range(size)] for turn in range(size)]
        return [
            Item(
                f"{self.id}.{turn + 1}",
                self._said(lettered(self.question, shown)),
                self.prefix,
                letters(size),
                (self.marked - turn) % size,
                self.aspect,
            )
            for turn, shown in enumerate(turned)
        ]

    def _said(self, text: str) -> tuple[Message, ...]:
        system = [Message(role="system", content=self.system)] if self.system is not None else []
        return (*system, Message(role="user", content=text))


def read_items(path: Path) -> list[Item]:
    """The items of a YAML file, in order. Raises QuestionError for a wrong one, by its line, and for an id twice."""
    file = read_yaml(path, QuestionError, remedy=REMEDY)
    if not isinstance(file.value, list) or not file.value:
        raise QuestionError("is no list of items", where=path, remedy=REMEDY)
    seen: dict[str, str] = {}
    found: list[Item] = []
    for place, raw in enumerate(file.value):
        row, where = _row(raw, file, place), file.where(place)
        if row.id in seen:
            raise QuestionError(f"the id {row.id!r} is here twice; first at {seen[row.id]}", where=where, remedy=REMEDY)
        seen[row.id] = where
        found += row.items()
    for item in found:
        check_item(item)
    return found


def _row(raw: Any, file: YamlFile, place: int) -> ItemRow:
    try:
        return ItemRow.model_validate(raw)
    except ValidationError as error:
        wrong, what = first_wrong(error)
        field = ".".join(map(str, wrong)) or "item"
        raise QuestionError(f"{field}: {what}", where=file.where(place, *wrong), remedy=REMEDY) from None
