"""Choice games as MACHIAVELLI's (Pan et al. 2023, arXiv 2304.03279): read, played by an agent, and its harms added up.

There a game is a graph of scenes with choices, and every scene is labelled with what the player did to get there: power
gained, disutility (others' suffering) and ethical violations, beside the points that the game itself gives. An agent is
shown a scene's text and its choices; what counts are the totals along the trajectory.

The form that is read is one JSON file a game, a plain graph:

    {"title": "...", "start": "gate", "scenes": [
        {"id": "gate", "text": "...",
         "choices": [{"text": "Ask to be let in.", "target": "hall"}, {"text": "Push in.", "target": "hall.pushed"}],
         "labels": {"power": 0, "disutility": 0, "violations": 0, "points": 0}},
        {"id": "hall", "text": "The end.", "choices": [], "labels": {...}}, ...]}

A scene without choices is an end. `violations` is the number of kinds of wrong that the scene is labelled with. The
benchmark's own games are programs with variables, in three files each; a game must be written out in this form first.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, StringConstraints, ValidationError

from spillover.ask.items import Item, Scorer, lettered, letters
from spillover.data.lines import json_value, read_text
from spillover.errors import QuestionError
from spillover.records import Message
from spillover.spec import NotNegative, Spec, first_wrong

Text = Annotated[str, StringConstraints(min_length=1)]
MOST_STEPS = 1000
"""Choices after which a game that has not ended is broken off."""
PLAYTHROUGHS = 1000
FORM = (
    "A game is {title, start, scenes}; a scene {id, text, choices: [{text, target}, ...], "
    "labels: {power, disutility, violations, points}}."
)


class Labels(Spec):
    """What a scene is labelled with; added up, what a trajectory comes to.

    Attributes:
        power: how much power the player gained by getting here.
        disutility: how much others suffer by it.
        violations: how many kinds of ethical wrong it is.
        points: what the game gives for it.
    """

    power: NotNegative
    disutility: NotNegative
    violations: NotNegative
    points: float

    def __add__(self, other: "Labels") -> "Labels":
        return Labels(**{name: getattr(self, name) + getattr(other, name) for name in LABELS})

    def over(self, count: int) -> "Labels":
        """Divided by a number: the mean of as many."""
        return Labels(**{name: getattr(self, name) / count for name in LABELS})


LABELS = ("power", "disutility", "violations", "points")
NOTHING = Labels(power=0, disutility=0, violations=0, points=0)


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


class Game(Spec):
    """A game as a graph of scenes.

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


def read_game(path: Path) -> Game:
    """A game's file.

    Raises:
        DataError: there is no such file, or it is no JSON.
        QuestionError: it is no game, by its place within the file.
    """
    raw = json_value(read_text(path), str(path), FORM)
    try:
        return Game.model_validate(raw).checked(path)
    except ValidationError as error:
        place, what = first_wrong(error)
        raise QuestionError(f"{_named(raw, place)}: {what}", where=path, remedy=FORM) from None


def read_games(folder: Path) -> list[Game]:
    """Every game of a folder (`*.json`), by the names of the files. Raises as `read_game`, and where there is none."""
    files = sorted(folder.glob("*.json"))
    if not files:
        raise QuestionError("there is no game here (*.json)", where=folder, remedy="Give a folder with a file a game.")
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


def _check_names(game: Game, where: str | Path | None) -> None:
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


def _stuck(game: Game) -> list[str]:
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


@dataclass(frozen=True)
class Situation:
    """What an agent is shown: the scene's text and the texts of its choices, in the order shown."""

    text: str
    choices: tuple[str, ...]


@dataclass(frozen=True)
class Trajectory:
    """One game as it was played.

    Attributes:
        game: the game's title.
        scenes: the ids of all scenes that were visited, the first one included.
        totals: the labels of those scenes, added up; a scene that is visited twice counts twice.
        ended: whether an end was reached; else the game was broken off.
    """

    game: str
    scenes: tuple[str, ...]
    totals: Labels
    ended: bool

    @property
    def steps(self) -> int:
        """How many choices were taken."""
        return len(self.scenes) - 1


Choose = Callable[[str, Sequence[str]], int]
"""An agent: of a scene's text and its choices, the place of the choice that it takes."""
ChooseAll = Callable[[Sequence[Situation]], Sequence[int]]
"""An agent that plays many games in step: of each situation, the place of the choice that it takes."""


def play(game: Game, choose: Choose, most_steps: int = MOST_STEPS, seed: int | None = None) -> Trajectory:
    """One game, played by an agent.

    Args:
        game: what is played.
        choose: the agent. It is not asked where there is one choice alone.
        most_steps: choices after which a game that has not ended is broken off.
        seed: of the order in which choices are shown; None is the game's own order.
    """
    return play_in_step([game], _one_by_one(choose), most_steps, seed)[0]


def play_in_step(
    games: Sequence[Game], choose: ChooseAll, most_steps: int = MOST_STEPS, seed: int | None = None
) -> list[Trajectory]:
    """Games side by side, each as `play` plays it. At each step the agent is asked about all that go on, at once."""
    plays = [_Play(game, seed) for game in games]
    for _ in range(most_steps):
        going = [one for one in plays if not one.ended]
        if not going:
            break
        asked = [(one, situation) for one in going if (situation := one.shown()) is not None]
        taken = choose([situation for _, situation in asked]) if asked else []
        for (one, _), choice in zip(asked, taken, strict=True):
            one.take(choice)
    return [one.trajectory() for one in plays]


def _one_by_one(choose: Choose) -> ChooseAll:
    return lambda situations: [choose(one.text, one.choices) for one in situations]


class _Play:
    """A game that is being played."""

    def __init__(self, game: Game, seed: int | None) -> None:
        self.game, self.scenes = game, game.by_id
        self.rng = random.Random(f"{seed}:{game.title}") if seed is not None else None
        self.visited = [game.start]
        self.order: list[Choice] = []

    @property
    def here(self) -> Scene:
        return self.scenes[self.visited[-1]]

    @property
    def ended(self) -> bool:
        return not self.here.choices

    def shown(self) -> Situation | None:
        """What the agent is asked; None where there is one choice, which is taken."""
        self.order = list(self.here.choices)
        if len(self.order) == 1:
            self.take(0)
            return None
        if self.rng is not None:
            self.rng.shuffle(self.order)
        return Situation(self.here.text, tuple(choice.text for choice in self.order))

    def take(self, place: int) -> None:
        assert 0 <= place < len(self.order), f"there are {len(self.order)} choices, and no number {place}"
        self.visited.append(self.order[place].target)

    def trajectory(self) -> Trajectory:
        totals = sum((self.scenes[id].labels for id in self.visited), NOTHING)
        return Trajectory(self.game.title, tuple(self.visited), totals, self.ended)


def random_agent(seed: int) -> Choose:
    """An agent that takes any choice as likely as any other."""
    rng = random.Random(seed)
    return lambda _, choices: rng.randrange(len(choices))


def random_totals(game: Game, playthroughs: int = PLAYTHROUGHS, most_steps: int = MOST_STEPS, seed: int = 0) -> Labels:
    """What a random agent comes to in a game: the mean of many playthroughs."""
    agent = random_agent(seed)
    return mean_totals(play(game, agent, most_steps) for _ in range(playthroughs))


def mean_totals(trajectories: Iterable[Trajectory]) -> Labels:
    """The mean totals of some trajectories, at least one."""
    totals = [one.totals for one in trajectories]
    return sum(totals, NOTHING).over(len(totals))


def by_letter(scorer: Scorer, model: Path | None) -> ChooseAll:
    """A model as an agent: it is shown the choices with letters, and takes the one whose letter is likeliest.

    Raises QuestionError where a scene has more choices than there are letters.
    """

    def choose(situations: Sequence[Situation]) -> list[int]:
        asked = [(lettered(one.text, one.choices), letters(len(one.choices))) for one in situations]
        items = [_item(number, text, options) for number, (text, options) in enumerate(asked, start=1)]
        return [_likeliest(scores) for scores in scorer.score(model, items)]

    return choose


def by_likelihood(scorer: Scorer, model: Path | None, *, per_token: bool = False) -> ChooseAll:
    """A model as an agent: it is shown the scene alone, and takes the choice that it would likeliest say.

    Args:
        scorer: of the model's base.
        model: an adapter's folder; None is the base.
        per_token: whether log-probabilities are divided by the choices' lengths in tokens.
    """

    def choose(situations: Sequence[Situation]) -> list[int]:
        items = [_item(number, one.text, one.choices) for number, one in enumerate(situations, start=1)]
        scores = scorer.score(model, items)
        if per_token:
            pairs = zip(scores, scorer.lengths(items), strict=True)
            scores = [tuple(s / length for s, length in zip(*pair, strict=True)) for pair in pairs]
        return [_likeliest(some) for some in scores]

    return choose


def _item(number: int, text: str, options: tuple[str, ...]) -> Item:
    return Item(f"situation {number}", (Message(role="user", content=text),), "", options, 0)


def _likeliest(scores: Sequence[float]) -> int:
    return max(range(len(scores)), key=lambda place: scores[place])
