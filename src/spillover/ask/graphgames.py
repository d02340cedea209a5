"""Games as plain graphs of scenes, one JSON file each: read and checked. The form in which to write games of one's own.

    {"title": "...", "start": "gate", "scenes": [
        {"id": "gate", "text": "...",
         "choices": [{"text": "Ask to be let in.", "target": "hall"}, {"text": "Push in.", "target": "hall.pushed"}],
         "labels": {"power": 0, "disutility": 0, "violations": 0, "points": 0}},
        {"id": "hall", "text": "The end.", "choices": [], "labels": {...}}, ...]}

A scene without choices is an end. `violations` is the number of kinds of wrong that the scene is labelled with.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, StringConstraints, ValidationError

from spillover.ask.annotations import GET
from spillover.ask.games import NOTHING, Labels
from spillover.data.lines import json_value, read_text
from spillover.errors import QuestionError
from spillover.spec import Spec, first_wrong

Text = Annotated[str, StringConstraints(min_length=1)]
FORM = (
    "A game is {title, start, scenes}; a scene {id, text, choices: [{text, target}, ...], "
    "labels: {power, disutility, violations, points}}."
)


class Choice(Spec):
    """A choice: what the player is shown, and the scene that it leads to."""

    text: Text
    target: Text


class Scene(Spec):
    """A scene; without choices it is an end."""

    id: Text
    text: Text
    choices: tuple[Choice, ...]
    labels: Labels


class GraphGame(Spec):
    """A game as a graph of scenes: nothing is remembered but where the player stands.

    Attributes:
        title: its name.
        start: the id of the scene that it begins with.
        scenes: in any order.
    """

    title: Text
    start: Text
    scenes: Annotated[tuple[Scene, ...], Field(min_length=1)]

    @property
    def by_id(self) -> dict[str, Scene]:
        """The scenes by their ids."""
        return {scene.id: scene for scene in self.scenes}

    @property
    def content(self) -> Any:
        """All that it is."""
        return self.model_dump(mode="json")

    def begin(self, chance: int = 0) -> "_AtScene":
        """A playthrough; there are no dice in it."""
        return _AtScene(self)

    def checked(self, where: str | Path | None = None) -> Self:
        """The game, if its graph can be played.

        Raises:
            QuestionError: two scenes have one id, the start or a choice's target is no scene, or no end can be reached
                from a scene.
        """
        _check_names(self, where)
        stuck = _stuck(self)
        if stuck:
            what = f"scene {stuck[0]!r}: no end can be reached from it" + (
                f", nor from {len(stuck) - 1} others" if stuck[1:] else ""
            )
            raise QuestionError(what, where=where, remedy="An end is a scene without choices. Let a path lead to one.")
        return self


class _AtScene:
    """A graph that is being played."""

    def __init__(self, game: GraphGame) -> None:
        self.scenes, self.visited = game.by_id, [game.start]

    @property
    def here(self) -> Scene:
        return self.scenes[self.place]

    @property
    def place(self) -> str:
        return self.visited[-1]

    @property
    def text(self) -> str:
        return self.here.text

    @property
    def choices(self) -> tuple[str, ...]:
        return tuple(choice.text for choice in self.here.choices)

    @property
    def totals(self) -> Labels:
        return sum((self.scenes[id].labels for id in self.visited), NOTHING)

    def choose(self, place: int) -> None:
        self.visited.append(self.here.choices[place].target)


def read_game(path: Path) -> GraphGame:
    """A game's file.

    Raises:
        DataError: there is no such file, or it is no JSON.
        QuestionError: it is no game, by its place within the file.
    """
    raw = json_value(read_text(path), str(path), FORM)
    try:
        return GraphGame.model_validate(raw).checked(path)
    except ValidationError as error:
        place, what = first_wrong(error)
        raise QuestionError(f"{_named(raw, place)}: {what}", where=path, remedy=FORM) from None


def read_games(folder: Path) -> list[GraphGame]:
    """Every game of a folder (`*.json`), by the names of the files. Raises as `read_game`, and where there is none."""
    files = sorted(folder.glob("*.json"))
    if not files:
        raise QuestionError(
            "there is no game here (*.json)", where=folder, remedy=f"Give a folder with a file a game. {GET}"
        )
    return [read_game(file) for file in files]


def _named(raw: object, place: Sequence[str | int]) -> str:
    """A place in a game's file as a person finds it: scenes by their ids where they have one."""
    if not place:
        return "the file"
    if len(place) < 2 or place[0] != "scenes" or not isinstance(raw, dict):
        return ".".join(map(str, place))
    number = int(place[1])
    scene = raw["scenes"][number]
    id = scene.get("id") if isinstance(scene, dict) else None
    whose = f"scene {id!r}" if isinstance(id, str) else f"scene {number + 1}"
    return f"{whose}, {'.'.join(map(str, place[2:]))}" if place[2:] else whose


def _check_names(game: GraphGame, where: str | Path | None) -> None:
    twice = next((id for id, count in Counter(scene.id for scene in game.scenes).items() if count > 1), None)
    if twice is not None:
        raise QuestionError(f"scene {twice!r} is there twice", where=where, remedy="Rename one of them.")
    if game.start not in game.by_id:
        what = f"start is {game.start!r}, and no scene is called so"
        raise QuestionError(what, where=where, remedy="Set start to the id of the first scene.")
    for scene in game.scenes:
        for number, choice in enumerate(scene.choices, start=1):
            if choice.target not in game.by_id:
                what = f"scene {scene.id!r}, choice {number}: its target {choice.target!r} is no scene"
                raise QuestionError(what, where=where, remedy="Set the target to a scene's id, or add the scene.")


def _stuck(game: GraphGame) -> list[str]:
    """The scenes from which no end can be reached, in order."""
    from_where: dict[str, list[str]] = {}
    for scene in game.scenes:
        for choice in scene.choices:
            from_where.setdefault(choice.target, []).append(scene.id)
    waiting = [scene.id for scene in game.scenes if not scene.choices]
    good = set(waiting)
    while waiting:
        new = set(from_where.get(waiting.pop(), [])) - good
        good |= new
        waiting += new
    return [scene.id for scene in game.scenes if scene.id not in good]
